//! Clients that do not behave, many at a time, and what they were answered.
//!
//! What one of them does is data: what it says at first, what it goes on saying bit by bit, whether it reads.
//! When it is closed, it comes again.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

/// How often each client says a bit more, or comes again.
const STEP: Duration = Duration::from_millis(25);
/// How many of a thread's clients come in one step: those who come all at once hurt by the system's work, not by ours.
const ARRIVALS_MAX: usize = 8;
/// Threads that all clients of a swarm share.
const THREADS: usize = 4;
/// What the system keeps of the answers for a client that does not read: little, or it would read for it.
const UNREAD_BYTES: usize = 4096;
/// Before every status in an answer.
const VERSION: &[u8] = b"HTTP/1.";
/// The version's last digit, a space, and the status.
const STATUS_BYTES: usize = 5;

/// What each client of a swarm does.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Said at once.
    pub opening: Vec<u8>,
    /// Said after that, again and again, at each step.
    pub drip: Vec<u8>,
    /// Whether it reads what it is answered.
    pub reads: bool,
    /// After so many steps it hangs up by itself.
    pub steps_max: usize,
}

/// A swarm at work.
pub struct Swarm {
    stop: Arc<AtomicBool>,
    came: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<BTreeMap<u16, usize>>>,
}

impl Swarm {
    /// Lets so many clients loose, which behave in these ways in turn.
    pub fn start(address: SocketAddr, clients: usize, behaviours: &[Behaviour]) -> Self {
        Self::start_from(None, address, clients, behaviours)
    }

    /// The same from this address of the machine, such as 127.0.0.2.
    pub fn start_from(source: Option<IpAddr>, address: SocketAddr, clients: usize, behaviours: &[Behaviour]) -> Self {
        let (stop, came) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let share = |thread: usize| clients / THREADS + usize::from(thread < clients % THREADS);
        let start = |thread: usize| {
            let (stop, came) = (Arc::clone(&stop), Arc::clone(&came));
            let (behaviours, share) = (behaviours.to_vec(), share(thread));
            thread::spawn(move || {
                let mut clients: Vec<_> = (0..share).map(|_| Client::default()).collect();
                while !stop.load(Ordering::Relaxed) {
                    let mut arrivals = ARRIVALS_MAX;
                    let connect = || connect(source, address);
                    for (client, behaviour) in clients.iter_mut().zip(behaviours.iter().cycle()) {
                        client.step(&connect, behaviour, &mut arrivals);
                    }
                    came.fetch_add(ARRIVALS_MAX - arrivals, Ordering::Relaxed);
                    thread::sleep(STEP);
                }
                clients.into_iter().flat_map(|client| client.statuses).fold(
                    BTreeMap::new(),
                    |mut all, (status, count)| {
                        *all.entry(status).or_default() += count;
                        all
                    },
                )
            })
        };
        Self { threads: (0..THREADS).map(start).collect(), stop, came }
    }

    /// How many connections were made.
    pub fn came(&self) -> usize {
        self.came.load(Ordering::Relaxed)
    }

    /// Ends all of them; what they were answered, by status.
    pub fn stop(self) -> BTreeMap<u16, usize> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = BTreeMap::new();
        for thread in self.threads {
            for (status, count) in thread.join().expect("a swarm does not panic") {
                *all.entry(status).or_default() += count;
            }
        }
        all
    }
}

fn connect(source: Option<IpAddr>, address: SocketAddr) -> io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect(address) };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect(&address.into())?;
    Ok(socket.into())
}

#[derive(Default)]
struct Client {
    socket: Option<TcpStream>,
    /// Of the opening, then of the drip.
    said: usize,
    steps: usize,
    /// The end of what was read, in which a status may have begun.
    tail: Vec<u8>,
    statuses: BTreeMap<u16, usize>,
}

impl Client {
    fn step(&mut self, connect: &dyn Fn() -> io::Result<TcpStream>, behaviour: &Behaviour, arrivals: &mut usize) {
        self.steps += 1;
        if self.steps > behaviour.steps_max {
            self.socket = None;
        }
        if self.socket.is_none() {
            if *arrivals == 0 {
                return;
            }
            *arrivals -= 1;
            let Ok(socket) = connect() else { return };
            socket.set_nonblocking(true).expect("a socket that does not block");
            if !behaviour.reads {
                SockRef::from(&socket).set_recv_buffer_size(UNREAD_BYTES).expect("a small buffer");
            }
            (self.socket, self.said, self.steps) = (Some(socket), 0, 0);
            self.tail.clear();
        }
        let open = self.say(behaviour) && (!behaviour.reads || self.read());
        if !open {
            self.socket = None;
        }
    }

    /// Whether the connection is still open.
    fn say(&mut self, behaviour: &Behaviour) -> bool {
        let Some(socket) = &mut self.socket else { return false };
        let opening = self.said < behaviour.opening.len();
        let words = if opening { &behaviour.opening[self.said..] } else { &behaviour.drip };
        if words.is_empty() {
            return true;
        }
        match socket.write(words) {
            Ok(written) => {
                self.said += if opening { written } else { 0 };
                true
            }
            // One that is closed may have been told why.
            Err(error) => error.kind() == ErrorKind::WouldBlock || behaviour.reads && self.read(),
        }
    }

    /// Whether the connection is still open.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        loop {
            let Some(socket) = &mut self.socket else { return false };
            match socket.read(&mut buffer) {
                Ok(0) => return false,
                Ok(read) => self.count(&buffer[..read]),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    fn count(&mut self, read: &[u8]) {
        self.tail.extend_from_slice(read);
        let whole = VERSION.len() + STATUS_BYTES;
        let mut at = 0;
        while let Some(window) = self.tail.get(at..at + whole) {
            if window.starts_with(VERSION) {
                let status = std::str::from_utf8(&window[VERSION.len() + 2..]).ok().and_then(|text| text.parse().ok());
                *self.statuses.entry(status.unwrap_or(0)).or_default() += 1;
            }
            at += 1;
        }
        self.tail.drain(..at);
    }
}
