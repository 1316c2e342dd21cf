//! A small HTTP/1.1 client: one connection, kept open, nothing repeated.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

pub use portal_sim::portal::{FORM, JSON};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// How long an answer is awaited.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A client of one server.
pub struct Client {
    address: SocketAddr,
    /// Where it comes from, unless the system chooses.
    source: Option<IpAddr>,
    headers: Vec<(String, String)>,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    /// A client that connects when it is first used.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, source: None, headers: Vec::new(), connection: None }
    }

    /// The same from this address of the machine, such as 127.0.0.2.
    #[must_use]
    pub fn from(self, source: impl Into<IpAddr>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// The same with one more header in each request.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Asks; once more on a new connection if the old one was closed meanwhile.
    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.request("GET", path, None).or_else(|_| self.request("GET", path, None))
    }

    /// Sends a body, once.
    pub fn post(&mut self, path: &str, content_type: &str, body: &[u8]) -> io::Result<Answer> {
        self.request("POST", path, Some((content_type, body)))
    }

    /// Sends a request without a body, once.
    pub fn send(&mut self, method: &str, path: &str) -> io::Result<Answer> {
        self.request(method, path, None)
    }

    /// Whether the server has closed the connection that was kept; then the next request makes a new one.
    pub fn was_closed(&mut self) -> io::Result<bool> {
        let Some(connection) = self.connection.take() else { return Ok(false) };
        let stream = connection.get_ref();
        stream.set_nonblocking(true)?;
        match stream.peek(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stream.set_nonblocking(false)?;
                self.connection = Some(connection);
                Ok(false)
            }
            Ok(0) => Ok(true),
            Ok(_) => Err(malformed("bytes without a request")),
            Err(error) => Err(error),
        }
    }

    fn request(&mut self, method: &str, path: &str, body: Option<(&str, &[u8])>) -> io::Result<Answer> {
        let mut message = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address).into_bytes();
        for (name, value) in &self.headers {
            write!(message, "{name}: {value}\r\n")?;
        }
        if let Some((content_type, body)) = body {
            write!(message, "content-type: {content_type}\r\ncontent-length: {}\r\n\r\n", body.len())?;
            message.extend_from_slice(body);
        } else {
            message.extend_from_slice(b"\r\n");
        }
        // Whatever goes wrong, the connection is not used again.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        connection.get_mut().write_all(&message)?;
        let answer = read(&mut connection, method == "HEAD")?;
        if answer.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        Ok(answer)
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None)?;
        if let Some(source) = self.source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect_timeout(&self.address.into(), ANSWER_WITHIN)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(stream))
    }
}

fn read(connection: &mut BufReader<TcpStream>, bodiless: bool) -> io::Result<Answer> {
    let status_line = line(connection)?;
    let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| malformed(&status_line))?;
    let mut headers = Vec::new();
    loop {
        let header = line(connection)?;
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').ok_or_else(|| malformed(&header))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    if bodiless || status == 204 {
        return Ok(answer);
    }
    if answer.header("transfer-encoding") == Some("chunked") {
        while let size @ 1.. = chunk_size(&line(connection)?)? {
            let start = answer.body.len();
            answer.body.resize(start + size, 0);
            connection.read_exact(&mut answer.body[start..])?;
            line(connection)?;
        }
        line(connection)?;
    } else {
        let length = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        answer.body.resize(length, 0);
        connection.read_exact(&mut answer.body)?;
    }
    Ok(answer)
}

fn line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn chunk_size(line: &str) -> io::Result<usize> {
    usize::from_str_radix(line, 16).map_err(|_| malformed(line))
}

fn malformed(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {line}"))
}
