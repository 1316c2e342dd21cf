//! The layer between a socket and HTTP/1: passes input on in portions, and reports it to the connection.
//!
//! The HTTP/1 server reads on while it works, up to 128 KiB, and makes a request of every head in there: a few
//! kilobytes of the shortest heads become half a megabyte. With the stream, a client with pipelined requests waits.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use memchr::memchr_iter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::connection::Connection;
use crate::connections::Guard;
use crate::request_line::RequestLine;

/// The most bytes that the server gets in one turn.
const PORTION_BYTES: usize = 16 * 1024;
/// The most lines in one turn, slightly more than the longest accepted head has.
const PORTION_LINES: usize = 100;
/// The most empty lines in one turn: a request, and its body up to the end of the next head. A client with many
/// pipelined requests yields after two heads at most.
const PORTION_HEADS: usize = 2;
/// The most input that is discarded after the last response, so that the client can read it.
const IGNORED_BYTES_MAX: usize = 64 * 1024;
const SCRATCH_BYTES: usize = 2 * 1024;

pub(super) enum Line {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A socket with the state of its connection.
pub(super) struct ThrottledStream {
    line: Line,
    connection: Rc<Connection>,
    guard: Rc<Guard>,
    turn: Turn,
    /// Input for later turns.
    rest: BytesMut,
    request_line: RequestLine,
    /// The final response has been sent.
    is_final: bool,
}

/// The input of one turn of the server.
#[derive(Default)]
struct Turn {
    bytes: usize,
    lines: usize,
    heads: usize,
}

impl Turn {
    /// How many of the new bytes belong to this turn.
    fn take(&mut self, coming: &[u8]) -> usize {
        let mut line = 0;
        for end in memchr_iter(b'\n', coming) {
            self.lines += 1;
            self.heads += usize::from(matches!(&coming[line..end], b"" | b"\r"));
            line = end + 1;
            if self.lines >= PORTION_LINES || self.heads >= PORTION_HEADS {
                break;
            }
        }
        let taken = if self.is_full() { line } else { coming.len() };
        self.bytes += taken;
        taken
    }

    fn is_full(&self) -> bool {
        self.bytes >= PORTION_BYTES || self.lines >= PORTION_LINES || self.heads >= PORTION_HEADS
    }
}

impl ThrottledStream {
    pub(super) fn new(line: Line, guard: Rc<Guard>) -> Self {
        let (connection, request_line) = (Rc::clone(&guard.connection), RequestLine::new());
        Self { line, connection, guard, turn: Turn::default(), rest: BytesMut::new(), request_line, is_final: false }
    }

    pub(super) fn guard(&self) -> &Rc<Guard> {
        &self.guard
    }

    /// Sends the final response, and reads what still comes until the client has ended its side: if it were left
    /// unread, the response would be lost with it.
    fn send_final(&mut self, cx: &mut Context<'_>, response: &[u8]) -> Poll<io::Result<()>> {
        let mut line = Pin::new(&mut self.line);
        if response.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if !self.is_final {
            (self.is_final, self.turn) = (true, Turn::default());
            // A client that does not take so few bytes does not get them.
            if line.as_mut().poll_write(cx, response)?.is_ready() {
                let _ = line.as_mut().poll_flush(cx)?;
                let _ = line.as_mut().poll_shutdown(cx)?;
            }
        }
        let mut scratch = [0; SCRATCH_BYTES];
        for _ in 0..PORTION_BYTES / SCRATCH_BYTES {
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(line.as_mut().poll_read(cx, &mut buffer))?;
            self.turn.bytes += buffer.filled().len();
            if buffer.filled().is_empty() || self.turn.bytes > IGNORED_BYTES_MAX {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Keeps bytes beyond this turn for later; `before` is the buffer's former length.
    fn portion(&mut self, buffer: &mut ReadBuf<'_>, before: usize, most: usize) {
        let new = &buffer.filled()[before..];
        if let Some(escaped) = self.request_line.escape(new) {
            self.rest = escaped;
            buffer.set_filled(before);
            return self.hand_rest(buffer, most);
        }
        let taken = self.turn.take(new);
        self.rest.extend_from_slice(&new[taken..]);
        buffer.set_filled(before + taken);
    }

    /// Reads at most `most` bytes.
    fn read_little(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>, most: usize) -> Poll<io::Result<()>> {
        let mut scratch = [0; SCRATCH_BYTES];
        let mut little = ReadBuf::new(&mut scratch[..most.min(SCRATCH_BYTES)]);
        ready!(Pin::new(&mut self.line).poll_read(cx, &mut little))?;
        buffer.put_slice(little.filled());
        Poll::Ready(Ok(()))
    }

    fn hand_rest(&mut self, buffer: &mut ReadBuf<'_>, most: usize) {
        let fits = self.rest.len().min(buffer.remaining()).min(most);
        let taken = self.turn.take(&self.rest[..fits]);
        buffer.put_slice(&self.rest[..taken]);
        self.rest.advance(taken);
        if self.rest.is_empty() {
            self.rest = BytesMut::new();
        }
    }
}

impl AsyncRead for ThrottledStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.turn.bytes == 0 {
            this.connection.turn();
        }
        if let Some(response) = this.connection.final_response() {
            return this.send_final(cx, response);
        }
        if this.turn.is_full() {
            this.turn = Turn::default();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !this.connection.may_read() {
            this.turn = Turn::default();
            return Poll::Pending;
        }
        let Some(most) = this.connection.may_take() else {
            this.turn = Turn::default();
            return Poll::Pending;
        };
        if let Some(body) = this.connection.take_answered() {
            this.request_line.answered(body);
        }
        let before = buffer.filled().len();
        let has_room = buffer.remaining() > 0;
        if this.rest.is_empty() {
            let read = if most >= buffer.remaining() {
                Pin::new(&mut this.line).poll_read(cx, buffer)
            } else {
                this.read_little(cx, buffer, most)
            };
            if read.is_pending() {
                this.turn = Turn::default();
            }
            ready!(read)?;
            if has_room && buffer.filled().len() == before {
                this.connection.close_peer();
            }
            this.portion(buffer, before, most);
        } else {
            this.hand_rest(buffer, most);
        }
        // Zero bytes are the end.
        let came = buffer.filled().len() - before;
        if came > 0 {
            this.connection.came(came);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ThrottledStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.line).poll_write(cx, bytes);
        if written.is_pending() {
            self.connection.blocked();
        }
        written
    }

    /// The server flushes when it has written all of its output.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.line).poll_flush(cx);
        if flushed.is_pending() {
            self.connection.blocked();
        } else {
            self.connection.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_shutdown(cx)
    }
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(session) => Pin::new(session).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(session) => Pin::new(session).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(session) => Pin::new(session).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(session) => Pin::new(session).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::{Duration, Instant};

    use super::*;
    use crate::Limits;
    use crate::connections::Connections;
    use crate::networks::Networks;
    use crate::observer;
    use crate::pace::SMALL_REQUEST_BYTES;
    use crate::request_line::BodyLength;
    use crate::watch::watch;

    /// A stream, its connection and the client at the other end.
    async fn stream(limits: Limits) -> (ThrottledStream, Rc<Guard>, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (socket, peer) = listener.accept().await.expect("the connection");
        let connections = Connections::new(limits, Networks::default(), observer::ignored());
        let guard = Rc::new(connections.enter(peer.ip()));
        guard.connection.handshake_done();
        (ThrottledStream::new(Line::Plain(socket), Rc::clone(&guard)), guard, client)
    }

    /// What the server reads in one turn, which is until there is nothing for the moment.
    async fn turn(stream: &mut ThrottledStream) -> usize {
        let mut scratch = vec![0; 128 * 1024];
        let mut buffer = ReadBuf::new(&mut scratch);
        stream.line_is_readable().await;
        poll_fn(|cx| {
            while Pin::new(&mut *stream).poll_read(cx, &mut buffer).is_ready() {}
            Poll::Ready(buffer.filled().len())
        })
        .await
    }

    impl ThrottledStream {
        async fn line_is_readable(&self) {
            let Line::Plain(socket) = &self.line else { panic!("it is plain") };
            if self.rest.is_empty() {
                socket.readable().await.expect("bytes");
            }
        }
    }

    /// How many bytes the server reads in each turn until it has all of this.
    async fn turns(said: &str) -> Vec<usize> {
        let (mut stream, _member, mut client) = stream(Limits::default()).await;
        client.write_all(said.as_bytes()).await.expect("it is taken");
        let mut turns = Vec::new();
        while turns.iter().sum::<usize>() < said.len() {
            turns.push(turn(&mut stream).await);
        }
        turns
    }

    #[tokio::test]
    async fn no_turn_gets_more_lines_than_a_head_may_have() {
        let turns = turns(&"x: y\r\n".repeat(600)).await;
        assert!(turns.iter().all(|read| *read <= PORTION_LINES * 6), "{turns:?} bytes");
    }

    #[tokio::test]
    async fn no_turn_gets_more_than_a_request_and_what_came_with_it() {
        let shortest = "GET / HTTP/1.1\nhost:\n\n";
        let turns = turns(&shortest.repeat(200)).await;
        assert!(turns.iter().all(|read| *read <= PORTION_HEADS * shortest.len()), "{turns:?} bytes");
    }

    #[tokio::test]
    async fn a_request_comes_in_one_turn() {
        let request = "POST / HTTP/1.1\r\nhost:\r\ncontent-length: 17\r\n\r\nevent=ONAPPUPDATE";
        assert_eq!(turns(request).await, [request.len()]);
    }

    #[tokio::test]
    async fn who_sends_ahead_waits_until_the_last_request_is_answered() {
        let (mut stream, guard, mut client) = stream(Limits::default()).await;
        client.write_all(b"GET / HTTP/1.1\r\n").await.expect("a part");
        assert_eq!(turn(&mut stream).await, 16);
        guard.connection.begin(BodyLength::Bytes(0));
        client.write_all(&[b'x'; 1000]).await.expect("more");
        assert_eq!(turn(&mut stream).await, 1000, "who is there already may say a little more");
        client.write_all(&[b'x'; 1000]).await.expect("even more");
        assert_eq!(turn(&mut stream).await, 0);
        guard.connection.answered(false);
        assert_eq!(turn(&mut stream).await, 1000);
    }

    #[tokio::test]
    async fn nothing_is_read_while_answers_are_not() {
        let (mut stream, guard, mut client) = stream(Limits::default()).await;
        client.write_all(b"GET / HTTP/1.1\r\n").await.expect("a part");
        guard.connection.blocked();
        assert_eq!(turn(&mut stream).await, 0);
        guard.connection.flushed();
        assert_eq!(turn(&mut stream).await, 16);
    }
    #[tokio::test]
    async fn large_requests_are_read_at_a_rate_and_small_ones_do_not_wait() {
        const RATE: usize = 1024 * 1024;
        let limits = Limits {
            large_bytes_per_second: Some(RATE as u64),
            body_timeout: Duration::from_secs(1),
            ..Limits::default()
        };
        let (mut stream, guard, mut client) = stream(limits).await;
        let began = Instant::now();
        let large = vec![b'x'; SMALL_REQUEST_BYTES + 3 * RATE];
        let (reading, sending) = tokio::join!(
            watch(&guard.connection, async {
                guard.connection.await_body();
                let mut read = 0;
                while read < large.len() {
                    let mut scratch = [0; PORTION_BYTES];
                    let mut buffer = ReadBuf::new(&mut scratch);
                    poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut buffer)).await.expect("bytes");
                    read += buffer.filled().len();
                }
                stream
            }),
            client.write_all(&large)
        );
        sending.expect("it is taken");
        // The first second's worth comes at once, and the last portion without waiting for its price.
        assert!(began.elapsed() > Duration::from_millis(1_900), "{:?}", began.elapsed());
        assert!(!guard.connection.body_is_lost(), "a client was blamed for what it had to wait");

        let mut stream = reading.expect("it was read to its end");
        guard.connection.answered(false);
        client.write_all(&[b'y'; SMALL_REQUEST_BYTES]).await.expect("a small one");
        let mut read = 0;
        for _ in 0..100 {
            read += turn(&mut stream).await;
            if read == SMALL_REQUEST_BYTES {
                return;
            }
        }
        panic!("a small request waits: {read} bytes of it came");
    }
}
