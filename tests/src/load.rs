//! Many portals at once, and what each was answered.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::http::{Answer, Client};
use crate::wait::eventually;
use portal_sim::player::{Player, Webhook};

/// A webhook that was answered 200.
#[derive(Clone, Debug)]
pub struct Acked {
    /// The id in the answer.
    pub id: String,
    /// Where it was kept: `kafka` or `disk`.
    pub kept: String,
    /// What was sent.
    pub webhook: Webhook,
}

/// What became of a load.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was answered 200, each portal's in the order in which it was sent.
    pub acked: Vec<Acked>,
    /// What was not answered at all, because the server went away: it may be kept or not.
    pub unanswered: Vec<Webhook>,
    /// How many were not even sent, because the port was closed.
    pub unsent: u64,
    /// Answers that were not 200, by their text.
    pub refused: Vec<String>,
    /// The portals, with their secrets.
    pub portals: Vec<Player>,
    /// The slowest answer.
    pub slowest: Duration,
    /// When each of `acked` was answered, and how long that took.
    pub took: Vec<(Instant, Duration)>,
}

/// Sends one webhook, which must be answered 200.
pub fn send(client: &mut Client, webhook: Webhook) -> Acked {
    let answer = client.post(&webhook.path(), webhook.content_type, &webhook.body).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    acked(&answer, webhook)
}

fn acked(answer: &Answer, webhook: Webhook) -> Acked {
    let json = answer.json();
    let text = |name: &str| json[name].as_str().unwrap_or_else(|| panic!("{name} is missing in {json}")).to_owned();
    Acked { id: text("id"), kept: text("kept"), webhook }
}

/// A load that runs until it is stopped or has sent all.
pub struct Load {
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    connections: Vec<JoinHandle<Outcome>>,
}

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Webhooks of each portal; the load ends when they are sent.
    pub each: usize,
    /// Between two webhooks of one connection.
    pub pause: Duration,
}

impl Load {
    /// Begins to send. Each connection has portals of its own and sends their webhooks in turn: a portal's next one
    /// goes when the one before was answered. Nothing is ever sent twice.
    pub fn start(address: SocketAddr, portals: Vec<Player>, connections: usize, amount: Amount) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acked = Arc::new(AtomicU64::new(0));
        let mut shares: Vec<Vec<Player>> = vec![Vec::new(); connections];
        for (number, portal) in portals.into_iter().enumerate() {
            shares[number % connections].push(portal);
        }
        let spawn = |portals: Vec<Player>| {
            let connection = Connection {
                client: Client::new(address),
                stop: stop.clone(),
                acked: acked.clone(),
                amount,
                outcome: Outcome::default(),
            };
            std::thread::spawn(move || connection.run(portals))
        };
        let connections = shares.into_iter().map(spawn).collect();
        Self { stop, acked, connections }
    }

    /// How many were answered 200 so far.
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Waits until so many more were answered 200.
    pub fn goes_on(&self, more: u64, deadline: Duration) {
        let until = self.acked() + more;
        eventually(deadline, "webhooks are answered 200", || (self.acked() >= until).then_some(()));
    }

    /// Stops it, unless it has sent all, and tells what became of it.
    pub fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits until all is sent, and tells what became of it.
    pub fn finish(self) -> Outcome {
        let mut whole = Outcome::default();
        for connection in self.connections {
            let outcome = connection.join().expect("a connection does not panic");
            whole.acked.extend(outcome.acked);
            whole.refused.extend(outcome.refused);
            whole.portals.extend(outcome.portals);
            whole.unanswered.extend(outcome.unanswered);
            whole.unsent += outcome.unsent;
            whole.slowest = whole.slowest.max(outcome.slowest);
            whole.took.extend(outcome.took);
        }
        whole
    }
}

struct Connection {
    client: Client,
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    amount: Amount,
    outcome: Outcome,
}

impl Connection {
    fn run(mut self, mut portals: Vec<Player>) -> Outcome {
        'all: for _ in 0..self.amount.each {
            for portal in &mut portals {
                if self.stop.load(Ordering::Relaxed) {
                    break 'all;
                }
                self.send(portal.next_webhook());
                std::thread::sleep(self.amount.pause);
            }
        }
        self.outcome.portals = portals;
        self.outcome
    }

    fn send(&mut self, webhook: Webhook) {
        let start = Instant::now();
        match self.client.post(&webhook.path(), webhook.content_type, &webhook.body) {
            Ok(answer) if answer.status == 200 => {
                self.outcome.acked.push(acked(&answer, webhook));
                self.outcome.slowest = self.outcome.slowest.max(start.elapsed());
                self.outcome.took.push((Instant::now(), start.elapsed()));
                self.acked.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => self.outcome.refused.push(format!("{} {}", answer.status, answer.text())),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                self.outcome.unsent += 1;
                // The port is closed: no need to ask as fast as one can.
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(_) => self.outcome.unanswered.push(webhook),
        }
    }
}
