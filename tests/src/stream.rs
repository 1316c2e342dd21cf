//! A reader of `GET /v1/stream`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::wait::eventually;

const WITHIN: Duration = Duration::from_secs(90);

/// Server-sent events, as a browser reads them.
pub struct Stream {
    connection: BufReader<TcpStream>,
    text: String,
}

impl Stream {
    /// Opens `/v1/stream` with these parameters, behind the last event that was seen.
    pub fn open(address: SocketAddr, query: &str, last_id: Option<&str>, token: Option<&str>) -> io::Result<Self> {
        let mut connection = TcpStream::connect(address)?;
        connection.set_read_timeout(Some(Duration::from_secs(2)))?;
        let last_id = last_id.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
        let token = token.map_or(String::new(), |token| format!("authorization: Bearer {token}\r\n"));
        write!(connection, "GET /v1/stream?{query} HTTP/1.1\r\nhost: {address}\r\n{last_id}{token}\r\n")?;
        let mut connection = BufReader::new(connection);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if connection.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        if head.starts_with("HTTP/1.1 200 ") {
            Ok(Self { connection, text: String::new() })
        } else {
            Err(io::Error::other(head))
        }
    }

    /// The next id, and the event that came with it.
    pub fn receive(&mut self) -> io::Result<(String, Option<Value>)> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let (id, data) = (field("id: "), field("data: "));
                self.text = rest.to_owned();
                let Some(id) = id else { continue };
                return Ok((id, data.map(|data| serde_json::from_str(&data).expect("JSON"))));
            }
            let mut line = String::new();
            self.connection.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim_end(), 16).map_err(|_| io::ErrorKind::UnexpectedEof)?;
            let mut chunk = vec![0; size + 2];
            self.connection.read_exact(&mut chunk)?;
            if size == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.text.push_str(std::str::from_utf8(&chunk[..size]).expect("UTF-8"));
        }
    }

    /// The next event, however long it takes.
    pub fn next_event(&mut self) -> Value {
        eventually(WITHIN, "a stream has another event", || match self.receive() {
            Ok((_, event)) => event,
            Err(error) => {
                assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
                None
            }
        })
    }
}
