//! Many senders at once, cheap enough to share two cores with what they send to.
//!
//! One thread, one connection for each sender, which is kept open. A sender's next webhook goes when the one
//! before was answered; nothing is ever sent twice.

use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::body;
use super::book::{Book, Told};
use crate::http::FORM;
use crate::random::Rng;
use crate::wait::eventually;

/// How long an answer is awaited before it counts as none.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Where the port is closed, it is not asked as fast as possible.
const CONNECT_AGAIN_AFTER: Duration = Duration::from_millis(3);

/// Answers are short.
const ANSWER_BYTES_MAX: usize = 4 * 1024;

/// How it is sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// One in so many webhooks is sent by a client that hangs up without waiting; 0 means none.
    pub hang_up_one_in: u64,
    /// Between two webhooks of one connection; nothing means as fast as they are answered.
    pub pause: Duration,
}

/// Senders that send until they are stopped.
pub struct Senders {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    address: SocketAddr,
    book: Arc<Book>,
    plan: Plan,
    stop: AtomicBool,
    hung_up: AtomicU64,
    not_connected: AtomicU64,
}

impl Senders {
    /// Starts as many as the book has.
    pub fn start(address: SocketAddr, book: &Arc<Book>, plan: Plan, random: &mut Rng) -> Self {
        let shared = Arc::new(Shared {
            address,
            book: Arc::clone(book),
            plan,
            stop: AtomicBool::new(false),
            hung_up: AtomicU64::new(0),
            not_connected: AtomicU64::new(0),
        });
        let senders: Vec<_> = (0..book.senders())
            .map(|number| Sender {
                shared: Arc::clone(&shared),
                portals: book.portals(number),
                random: random.fork(),
                request: Vec::new(),
                body: Vec::new(),
            })
            .collect();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let senders: Vec<_> = senders.into_iter().map(|sender| tokio::spawn(sender.run())).collect();
                for sender in senders {
                    sender.await.expect("a sender does not panic");
                }
            });
        };
        Self { shared, thread: std::thread::Builder::new().name("senders".into()).spawn(run).expect("a thread") }
    }

    /// Waits until so many more were answered 200.
    pub fn goes_on(&self, more: u64, deadline: Duration) {
        let kept = || {
            let (kafka, disk) = self.shared.book.kept();
            kafka + disk
        };
        let until = kept() + more;
        eventually(deadline, "webhooks are answered 200", || (kept() >= until).then_some(()));
    }

    /// Stops; returns how many hung up by plan, and how often a connection was not made.
    pub fn stop(self) -> (u64, u64) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the senders do not panic");
        (self.shared.hung_up.load(Ordering::Relaxed), self.shared.not_connected.load(Ordering::Relaxed))
    }
}

struct Sender {
    shared: Arc<Shared>,
    portals: Vec<u32>,
    random: Rng,
    request: Vec<u8>,
    body: Vec<u8>,
}

impl Sender {
    async fn run(mut self) {
        let mut connection = None;
        let mut portal = self.portals[0];
        while !self.shared.stop.load(Ordering::Relaxed) {
            let Some(open) = self.connected(connection.take()).await else { continue };
            // The same portal again every other time: what is out of order shows with what follows at once.
            if self.random.bool() {
                portal = self.portals[self.random.usize(..self.portals.len())];
            }
            connection = self.send(open, portal).await;
            if !self.shared.plan.pause.is_zero() {
                sleep(self.shared.plan.pause).await;
            }
        }
    }

    async fn connected(&mut self, open: Option<Connection>) -> Option<Connection> {
        if open.is_some() {
            return open;
        }
        let connected = TcpStream::connect(self.shared.address).await;
        if let Ok(stream) = connected
            && stream.set_nodelay(true).is_ok()
        {
            return Some(Connection { stream, answer: vec![0; ANSWER_BYTES_MAX] });
        }
        self.shared.not_connected.fetch_add(1, Ordering::Relaxed);
        sleep(CONNECT_AGAIN_AFTER).await;
        None
    }

    /// Sends one webhook; returns the connection if it can be used again.
    async fn send(&mut self, mut connection: Connection, portal: u32) -> Option<Connection> {
        let book = Arc::clone(&self.shared.book);
        let number = book.begin(portal);
        self.write_request(portal, number);
        let one_in = self.shared.plan.hang_up_one_in;
        if one_in > 0 && self.random.u64(..one_in) == 0 {
            // Whether it was sent at all is all the same: it is not answered.
            let _ = connection.write(&self.request).await;
            self.shared.hung_up.fetch_add(1, Ordering::Relaxed);
            book.answered(portal, number, Told::Nothing, b"");
            return None;
        }
        let answered = match connection.write(&self.request).await {
            Ok(()) => connection.answer().await,
            Err(error) => Err(error),
        };
        let Ok(answer) = answered else {
            book.answered(portal, number, Told::Nothing, b"");
            return None;
        };
        book.answered(portal, number, answer.told, &answer.id);
        (!answer.close).then_some(connection)
    }

    fn write_request(&mut self, portal: u32, number: u32) {
        body::write(portal, number, &mut self.body);
        self.request.clear();
        let (app, length) = (body::APP, self.body.len());
        let head = write!(
            self.request,
            "POST /v1/events/{app} HTTP/1.1\r\nhost: test\r\ncontent-type: {FORM}\r\ncontent-length: {length}\r\n\r\n"
        );
        head.expect("a Vec takes all");
        self.request.extend_from_slice(&self.body);
    }
}

struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    timeout(ANSWER_WITHIN, self.stream.writable()).await.map_err(io::Error::other)??;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn answer(&mut self) -> io::Result<Answer> {
        let mut read = 0;
        loop {
            timeout(ANSWER_WITHIN, self.stream.readable()).await.map_err(io::Error::other)??;
            match self.stream.try_read(&mut self.answer[read..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(more) => read += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            if let Some(answer) = parse(&self.answer[..read]) {
                return Ok(answer);
            }
        }
    }
}

/// The little of an answer that matters.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    told: Told,
    id: Vec<u8>,
    close: bool,
}

/// Reads an answer; none while it is not whole. What cannot be read is told as wrong.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let header = |name: &str| {
        let lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
        lines.filter(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    };
    let length: usize = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let body = body.get(..length)?;
    let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    let field = |name: &str| body.split_once(name).and_then(|(_, rest)| rest.split_once('"')).map(|(value, _)| value);
    let told = match (status, field(r#""kept":""#)) {
        (200, Some("kafka")) => Told::Kafka,
        (200, Some("disk")) => Told::Disk,
        (503, _) if header("retry-after").is_some_and(|after| after.parse::<u32>().is_ok()) => Told::StorageUnavailable,
        (status, _) => Told::Wrong(status),
    };
    let id = field(r#""id":""#).unwrap_or_default().as_bytes().to_vec();
    let close = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Some(Answer { told, id, close })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, told: Told, id: &str, close: bool) {
        let answer = Answer { told, id: id.as_bytes().to_vec(), close };
        assert_eq!(parse(text.as_bytes()), Some(answer));
        for part in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..part]), None, "{part} bytes of {text:?} are no answer");
        }
    }

    #[test]
    fn an_answer_is_read_when_it_is_whole() {
        let body = r#"{"id":"0190","kept":"kafka"}"#;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", body.len());
        check(&format!("{head}\r\n{body}"), Told::Kafka, "0190", false);
        check(&format!("{head}connection: close\r\n\r\n{body}"), Told::Kafka, "0190", true);
        check(&format!("{head}\r\n{}", r#"{"id":"0191","kept":"disk" }"#), Told::Disk, "0191", false);
        check("HTTP/1.1 503 Oh\r\ncontent-length: 2\r\nretry-after: 30\r\n\r\n{}", Told::StorageUnavailable, "", false);
        check("HTTP/1.1 503 Oh\r\ncontent-length: 2\r\n\r\n{}", Told::Wrong(503), "", false);
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", Told::Wrong(200), "", false);
    }
}
