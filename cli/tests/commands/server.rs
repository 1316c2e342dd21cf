//! A server on a free port whose answers a closure decides, and which remembers what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

/// An answer in JSON.
#[derive(Clone, Debug)]
pub struct Answer(Vec<u8>);

impl Answer {
    pub fn new(status: u16, document: &Value) -> Self {
        let body = document.to_string();
        Self(format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
    }
}

/// Serves until the test ends; its threads end with the process.
pub struct Server {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + 'static) -> Self {
        Self::start_with((), move |(), request| answer(request))
    }

    /// With a memory that all requests share.
    pub fn start_with<M: Send + 'static>(
        memory: M,
        answer: impl Fn(&mut M, &Request) -> Answer + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::new(Mutex::new((memory, answer)));
        thread::spawn({
            let requests = requests.clone();
            move || {
                for stream in listener.incoming() {
                    let (stream, requests, shared) = (stream.expect("accept"), requests.clone(), shared.clone());
                    thread::spawn(move || {
                        let answer = |request: &Request| {
                            let mut shared = shared.lock().expect("no answer panicked");
                            let (memory, answer) = &mut *shared;
                            answer(memory, request)
                        };
                        serve(stream, &requests, answer);
                    });
                }
            }
        });
        Self { url, requests }
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no request panicked").clone()
    }
}

/// Answers on one connection until the client closes it.
fn serve(stream: TcpStream, requests: &Mutex<Vec<Request>>, answer: impl Fn(&Request) -> Answer) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let Answer(bytes) = answer(&request);
        requests.lock().expect("no request panicked").push(request);
        if reader.get_mut().write_all(&bytes).is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = || {
        let mut line = String::new();
        let bytes = reader.read_line(&mut line).ok()?;
        (bytes > 0).then(|| line.trim_end().to_owned())
    };
    let mut request = Request { line: line()?, headers: Vec::new(), body: Vec::new() };
    while let Some(header) = line().filter(|header| !header.is_empty()) {
        let (name, value) = header.split_once(':').expect("a header");
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = request.header("content-length").map_or(0, |length| length.parse().expect("a length"));
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}
