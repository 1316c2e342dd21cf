//! A TCP proxy in front of a server, which is slow, deaf, hangs up or, in front of Kafka, lies when it is told to.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::ports;

mod produce;
mod traps;

use produce::{Asked, next_message};
use traps::{Client, Fate, Traps};

pub use traps::Point;

/// How soon a change of conditions is noticed.
const CHECK_EVERY: Duration = Duration::from_millis(20);

/// What is read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// What is spoken through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Anything: it is not listened to.
    Any,
    /// Kafka's protocol.
    Kafka,
    /// Kafka's protocol, by clients for whom traps may be set.
    Transactions,
}

/// A proxy. Dropping it ends it, with all connections.
pub struct Proxy {
    port: u16,
    /// Held until there is a server to pass on to.
    listener: Option<TcpListener>,
    conditions: Arc<Conditions>,
    acceptor: Option<JoinHandle<()>>,
}

/// What it does to what comes through.
#[derive(Debug, Default)]
struct Conditions {
    /// Each chunk waits so long.
    delay_ms: AtomicU64,
    /// So many bytes pass in a second in each direction of a connection; 0 is no limit.
    bytes_per_second: AtomicU64,
    /// Nothing is read from any client.
    deaf: AtomicBool,
    /// Connections are closed at once.
    refusing: AtomicBool,
    /// Answers to Kafka's produce requests say that they failed.
    lying: AtomicBool,
    /// How many said so.
    lies: AtomicU64,
    /// What is held back in the middle of a transaction.
    traps: Arc<Traps>,
    /// Goes up with each cut; connections of an earlier one end.
    cuts: AtomicU64,
    over: AtomicBool,
}

impl Proxy {
    /// A proxy on a port of its own, in front of nothing yet.
    pub fn bind() -> Self {
        let port = ports::free();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port was free a moment ago");
        Self { port, listener: Some(listener), conditions: Arc::default(), acceptor: None }
    }

    /// Begins to pass on what comes to a server.
    pub fn serve(&mut self, server: SocketAddr, language: Language) {
        let (listener, conditions) = (self.listener.take().expect("it serves once"), Arc::clone(&self.conditions));
        listener.set_nonblocking(true).expect("a listener that does not block");
        self.acceptor = Some(thread::spawn(move || accept(&listener, &conditions, server, language)));
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets each chunk wait, from now on.
    pub fn delay(&self, by: Duration) {
        self.conditions.delay_ms.store(u64::try_from(by.as_millis()).expect("a short time"), Ordering::Relaxed);
    }

    /// Lets so many bytes pass in a second, from now on; 0 is no limit.
    pub fn narrow(&self, bytes_per_second: u64) {
        self.conditions.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Reads nothing any more, or reads on.
    pub fn deaf(&self, deaf: bool) {
        self.conditions.deaf.store(deaf, Ordering::Relaxed);
    }

    /// Closes new connections at once, or no longer.
    pub fn refuse(&self, refusing: bool) {
        self.conditions.refusing.store(refusing, Ordering::Relaxed);
    }

    /// Lets Kafka's answers to produce requests say that they failed, or no longer.
    pub fn lie(&self, lying: bool) {
        self.conditions.lying.store(lying, Ordering::Relaxed);
    }

    /// How many answers were made to say so.
    pub fn lies(&self) -> u64 {
        self.conditions.lies.load(Ordering::Relaxed)
    }

    /// Holds a client back at a point of its next transaction, by its `client.id`.
    pub fn set_trap(&self, client: &str, point: Point) {
        self.conditions.traps.set(client, point);
    }

    /// Whether a client has come to the point of its trap, and all before it has been answered.
    pub fn has_caught(&self, client: &str) -> bool {
        self.conditions.traps.has_caught(client)
    }

    /// Lets a client go on, with what was held back.
    pub fn open_trap(&self, client: &str) {
        self.conditions.traps.open(client);
    }

    /// Hangs up on a client that was caught and has died since: what was held back is lost.
    pub fn hang_up_on(&self, client: &str) {
        self.conditions.traps.hang_up(client);
    }

    /// Hangs up on everybody, in the middle of what they are saying.
    pub fn cut(&self) {
        self.conditions.cuts.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.conditions.over.store(true, Ordering::Relaxed);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, conditions: &Arc<Conditions>, server: SocketAddr, language: Language) {
    while !conditions.over.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((client, _)) if !conditions.refusing.load(Ordering::Relaxed) => {
                // A server that is away has hung up; so do we.
                if let Ok(server) = TcpStream::connect(server) {
                    let _ = join(client, server, conditions, language);
                }
            }
            Ok(_) => {}
            Err(_) => thread::sleep(CHECK_EVERY),
        }
    }
}

/// Passes on in both directions, each in a thread of its own.
fn join(client: TcpStream, server: TcpStream, conditions: &Arc<Conditions>, language: Language) -> std::io::Result<()> {
    client.set_nonblocking(false)?;
    let cuts = conditions.cuts.load(Ordering::Relaxed);
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CHECK_EVERY))?;
    }
    let asked = Arc::new(Asked::default());
    let (requests, answers) = match language {
        Language::Any => (Ear::Plain, Ear::Plain),
        Language::Kafka => (Ear::Requests(Arc::clone(&asked), Vec::new()), Ear::Answers(asked, Vec::new())),
        Language::Transactions => {
            let client = Arc::new(Client::new(Arc::clone(&conditions.traps)));
            (Ear::Asks(Arc::clone(&client), Vec::new()), Ear::Answered(client, Vec::new()))
        }
    };
    let back = (server.try_clone()?, client.try_clone()?, answers);
    for (from, to, mut ear) in [(client, server, requests), back] {
        let conditions = Arc::clone(conditions);
        thread::spawn(move || {
            pump(&from, &to, &conditions, cuts, &mut ear);
            // The other direction ends with this one.
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

fn pump(mut from: &TcpStream, mut to: &TcpStream, conditions: &Conditions, cuts: u64, ear: &mut Ear) {
    let mut chunk = vec![0; CHUNK_BYTES];
    let is_cut = || conditions.cuts.load(Ordering::Relaxed) != cuts || conditions.over.load(Ordering::Relaxed);
    while !is_cut() {
        if conditions.deaf.load(Ordering::Relaxed) {
            thread::sleep(CHECK_EVERY);
            continue;
        }
        let read = match from.read(&mut chunk) {
            Ok(0) => return,
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => return,
        };
        // What was on its way when the conditions changed is not passed on either.
        while conditions.deaf.load(Ordering::Relaxed) && !is_cut() {
            thread::sleep(CHECK_EVERY);
        }
        wait(conditions, read, is_cut);
        if let Some((part, fate)) = ear.traps() {
            part.extend_from_slice(&chunk[..read]);
            while let Some(message) = next_message(part) {
                let mut met = fate(&message);
                while met == Fate::Waits && !is_cut() {
                    thread::sleep(CHECK_EVERY);
                    met = fate(&message);
                }
                if met != Fate::Passes || to.write_all(&message).is_err() {
                    return;
                }
            }
            continue;
        }
        let heard = ear.hear(&chunk[..read], conditions);
        // A cut comes in the middle of a message.
        let passed = if is_cut() { heard.len() / 2 } else { heard.len() };
        if to.write_all(&heard[..passed]).is_err() {
            return;
        }
    }
}

/// What listens in on one direction of a connection.
enum Ear {
    Plain,
    /// With what was read of the message that is not whole yet.
    Requests(Arc<Asked>, Vec<u8>),
    Answers(Arc<Asked>, Vec<u8>),
    /// As the two before, for who may be trapped.
    Asks(Arc<Client>, Vec<u8>),
    Answered(Arc<Client>, Vec<u8>),
}

/// What was read of the message that is not whole yet, and what becomes of a whole one.
type Held<'a> = (&'a mut Vec<u8>, Box<dyn Fn(&[u8]) -> Fate>);

impl Ear {
    /// Where traps may be set, messages pass one by one.
    fn traps(&mut self) -> Option<Held<'_>> {
        match self {
            Self::Asks(client, part) => {
                let client = Arc::clone(client);
                Some((part, Box::new(move |request| client.asks(request))))
            }
            Self::Answered(client, part) => {
                let client = Arc::clone(client);
                Some((part, Box::new(move |answer| client.hears(answer))))
            }
            Self::Plain | Self::Requests(..) | Self::Answers(..) => None,
        }
    }

    /// What is passed on for what was read.
    fn hear(&mut self, read: &[u8], conditions: &Conditions) -> Vec<u8> {
        match self {
            Self::Plain | Self::Asks(..) | Self::Answered(..) => {}
            Self::Requests(asked, part) => {
                part.extend_from_slice(read);
                while let Some(request) = next_message(part) {
                    asked.note(&request);
                }
            }
            Self::Answers(asked, part) => {
                part.extend_from_slice(read);
                let mut passed = Vec::new();
                while let Some(mut answer) = next_message(part) {
                    let lying = conditions.lying.load(Ordering::Relaxed);
                    let lie = asked.answered(&mut answer, lying);
                    conditions.lies.fetch_add(u64::from(lie), Ordering::Relaxed);
                    passed.append(&mut answer);
                }
                return passed;
            }
        }
        read.to_vec()
    }
}

/// As long as the conditions want, or until a cut.
fn wait(conditions: &Conditions, bytes: usize, is_cut: impl Fn() -> bool) {
    let mut left = Duration::from_millis(conditions.delay_ms.load(Ordering::Relaxed));
    let narrow = conditions.bytes_per_second.load(Ordering::Relaxed);
    left += Duration::from_millis((bytes as u64 * 1_000).checked_div(narrow).unwrap_or(0));
    while !left.is_zero() && !is_cut() {
        let some = left.min(CHECK_EVERY);
        thread::sleep(some);
        left -= some;
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::wait::eventually_ok;

    /// A server that says what it hears.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || io::copy(&mut &client, &mut &client));
            }
        });
        address
    }

    fn said(client: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
        client.write_all(text)?;
        let mut heard = vec![0; text.len()];
        client.read_exact(&mut heard)?;
        Ok(heard)
    }

    #[test]
    fn what_comes_through_is_unchanged_whatever_the_mood_and_a_cut_is_an_end() {
        let mut proxy = Proxy::bind();
        proxy.serve(echo(), Language::Any);
        let connect = || {
            let client = TcpStream::connect(("127.0.0.1", proxy.port())).expect("connect");
            client.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
            client
        };
        let mut client = connect();
        let long: Vec<u8> = (0..=255).cycle().take(200_000).collect();
        assert_eq!(said(&mut client, &long).expect("an echo"), long);
        proxy.delay(Duration::from_millis(30));
        assert_eq!(said(&mut client, b"slow").expect("an echo"), b"slow");
        proxy.delay(Duration::ZERO);
        proxy.narrow(1_000);
        assert_eq!(said(&mut client, b"narrow").expect("an echo"), b"narrow");
        proxy.narrow(0);

        proxy.deaf(true);
        client.write_all(b"deaf").expect("the system takes it");
        client.set_read_timeout(Some(CHECK_EVERY * 5)).expect("a time limit");
        let mut heard = [0; 4];
        client.read_exact(&mut heard).expect_err("nothing is passed on");
        proxy.deaf(false);
        client.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
        client.read_exact(&mut heard).expect("what was held is passed on");
        assert_eq!(&heard, b"deaf");

        proxy.refuse(true);
        proxy.cut();
        said(&mut client, b"cut").expect_err("the connection was cut");
        said(&mut connect(), b"refused").expect_err("no client is let in");
        proxy.refuse(false);
        eventually_ok(Duration::from_secs(30), "a new connection", || Ok(said(&mut connect(), b"again")?));
    }
}
