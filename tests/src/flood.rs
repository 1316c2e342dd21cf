//! Well-formed requests in masses: clients that each wait for an answer before they send again, within a rate.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::http::Client;

/// The most that all clients of a flood send: what a stranger is assumed to have.
pub const BYTES_PER_SECOND_MAX: u64 = 100_000_000;

/// Where floods come from: not from where honest events do, since a stranger has none of Bitrix24's addresses.
pub const STRANGER: [u8; 4] = [127, 0, 0, 66];

/// One request of a flood: a question if it has no body.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where it goes.
    pub path: String,
    /// `Content-Type` and bytes.
    pub body: Option<(&'static str, Vec<u8>)>,
}

/// Makes the request of that number.
pub type Make = Arc<dyn Fn(u64) -> Request + Send + Sync>;

/// What a flood consists of.
#[derive(Clone)]
pub struct Flood {
    /// How many clients send at a time.
    pub clients: usize,
    /// After so many requests the flood is over, however long it may go on.
    pub requests_max: u64,
    /// More headers of each request.
    pub headers: Vec<(&'static str, String)>,
    /// The requests.
    pub make: Make,
    /// What is sent when the flood is over.
    pub finale: Vec<Request>,
}

/// What a flood came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flooded {
    /// Answers by their status; 0 stands for none.
    pub answers: BTreeMap<u16, u64>,
    /// Bytes of bodies and paths that were sent.
    pub bytes: u64,
}

impl Flood {
    /// Eight clients that send these, without an end.
    pub fn of(make: impl Fn(u64) -> Request + Send + Sync + 'static) -> Self {
        Self { clients: 8, requests_max: u64::MAX, headers: Vec::new(), make: Arc::new(make), finale: Vec::new() }
    }

    /// Begins to send.
    pub fn start(&self, address: SocketAddr) -> Flooding {
        let shared = Arc::new(Shared { began: Instant::now(), ..Shared::default() });
        let start = |_| {
            let (shared, flood) = (Arc::clone(&shared), self.clone());
            thread::spawn(move || flood.send(address, &shared))
        };
        Flooding { clients: (0..self.clients).map(start).collect(), shared, address, flood: self.clone() }
    }

    fn client(&self, address: SocketAddr) -> Client {
        let client = Client::new(address).from(STRANGER);
        self.headers.iter().fold(client, |client, (name, value)| client.with(name, value))
    }

    fn send(&self, address: SocketAddr, shared: &Shared) {
        let mut client = self.client(address);
        while !shared.stop.load(Ordering::Relaxed) {
            let number = shared.number.fetch_add(1, Ordering::Relaxed);
            if number >= self.requests_max {
                break;
            }
            shared.ask(&mut client, &(self.make)(number));
        }
    }
}

/// A flood that goes on.
pub struct Flooding {
    clients: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
    address: SocketAddr,
    flood: Flood,
}

impl Flooding {
    /// Whether all requests were sent.
    pub fn is_over(&self) -> bool {
        self.clients.iter().all(JoinHandle::is_finished)
    }

    /// Whether there is a last request.
    pub fn has_an_end(&self) -> bool {
        self.flood.requests_max < u64::MAX
    }

    /// Ends it with its finale.
    pub fn stop(self) -> Flooded {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client of a flood does not panic");
        }
        let mut client = self.flood.client(self.address);
        for request in &self.flood.finale {
            self.shared.ask(&mut client, request);
        }
        let answers = self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Flooded { answers, bytes: self.shared.bytes.load(Ordering::Relaxed) }
    }
}

struct Shared {
    began: Instant,
    stop: AtomicBool,
    number: AtomicU64,
    bytes: AtomicU64,
    answers: Mutex<BTreeMap<u16, u64>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            stop: AtomicBool::default(),
            number: AtomicU64::default(),
            bytes: AtomicU64::default(),
            answers: Mutex::default(),
        }
    }
}

impl Shared {
    fn ask(&self, client: &mut Client, request: &Request) {
        let bytes = request.path.len() + request.body.as_ref().map_or(0, |(_, body)| body.len());
        let sent = self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        // What was sent so far takes this long at the highest rate.
        let due = Duration::from_millis(sent.saturating_mul(1_000) / BYTES_PER_SECOND_MAX);
        thread::sleep(due.saturating_sub(self.began.elapsed()));
        let answer = match &request.body {
            Some((content_type, body)) => client.post(&request.path, content_type, body),
            None => client.send("GET", &request.path),
        };
        let status = answer.map_or(0, |answer| answer.status);
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1;
    }
}
