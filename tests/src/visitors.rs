//! Clients that come and go while a server is restarted: those that connect again for each request, and those that
//! keep their connection and think in between. Nothing is ever sent twice, every failure is counted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::cluster::Names;
use crate::http::{Client, FORM};
use crate::topics::{self, Found, Isolation};
use crate::wait::{eventually, eventually_ok};

/// By when everything that was answered 200 is in `raw`.
const IN_RAW_WITHIN: Duration = Duration::from_secs(120);

/// How a client comes and goes.
#[derive(Clone, Debug)]
pub enum Manner {
    /// A new connection for each request.
    Reconnecting {
        /// Between two requests.
        pause: Duration,
    },
    /// One connection for as long as the server keeps it.
    Stay {
        /// Between two requests, evenly spread over these.
        think: Vec<Range<Duration>>,
        /// For so long the server has to keep a connection that it has not said to close.
        kept: Duration,
    },
}

/// What became of all visits.
#[derive(Debug, Default)]
pub struct Visits {
    /// What was answered 200: the event's id, and who sent which of his.
    pub acked: Vec<(u128, Visit)>,
    /// What went wrong, how often, and an example. `PermissionDenied` is an answer that is not 200,
    /// `NotConnected` an idle connection that was closed before its time.
    pub faults: BTreeMap<ErrorKind, (u64, String)>,
    /// Idle connections that the server had closed before the next request was written: normal in HTTP.
    pub retired: u64,
    /// The slowest answer.
    pub slowest: Duration,
}

/// Who sent which of his.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Visit {
    visitor: u32,
    number: u32,
}

impl Visit {
    fn body(self) -> String {
        format!("event=ONAPPTEST&ts=1700000000&data%5Bn%5D={}&auth%5Bmember_id%5D=visitor{}", self.number, self.visitor)
    }
}

impl Visits {
    /// Adds the visits of others.
    pub fn add(&mut self, more: Visits) {
        self.acked.extend(more.acked);
        for (fault, (count, example)) in more.faults {
            self.faults.entry(fault).or_insert((0, example)).0 += count;
        }
        self.retired += more.retired;
        self.slowest = self.slowest.max(more.slowest);
    }
}

/// Clients at work.
pub struct Visitors {
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Visits>>,
}

impl Visitors {
    /// So many of one manner; `first` is the number of the first of them.
    pub fn start(address: SocketAddr, first: u32, count: u32, manner: &Manner) -> Self {
        let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let spawn = |visitor| {
            let (manner, stop, acked) = (manner.clone(), stop.clone(), acked.clone());
            let visitor = Visitor {
                address,
                me: visitor,
                client: Client::new(address),
                random: u64::from(visitor) + 1,
                visits: Visits::default(),
            };
            std::thread::spawn(move || visitor.run(&manner, &stop, &acked))
        };
        Self { threads: (first..first + count).map(spawn).collect(), stop, acked }
    }

    /// How many were answered 200 so far.
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Waits until so many more were answered 200.
    pub fn go_on(&self, more: u64, within: Duration) {
        let until = self.acked() + more;
        eventually(within, "visitors are answered 200", || (self.acked() >= until).then_some(()));
    }

    /// Sends them home, and tells what became of their visits.
    pub fn finish(self) -> Visits {
        self.stop.store(true, Ordering::Relaxed);
        let mut visits = Visits::default();
        for thread in self.threads {
            visits.add(thread.join().expect("a visitor does not panic"));
        }
        visits
    }
}

/// Every visit that was answered 200 lies in `raw` once, unmarked, and each visitor's in their order; nothing else does.
pub fn each_is_in_raw_once(names: &Names, acked: &[(u128, Visit)]) {
    let (others, resent) = all_are_in_raw(names, acked);
    assert_eq!(resent, 0, "after an end in order nothing may be there twice");
    assert_eq!(others, 0, "nothing is in raw that was not answered");
}

/// Every visit that was answered 200 lies in `raw`, and each visitor's first copies in their order. Returns how many
/// records were not answered, and how many are marked as perhaps second copies.
pub fn all_are_in_raw(names: &Names, acked: &[(u128, Visit)]) -> (u64, u64) {
    let topic = names.topic("raw");
    eventually_ok(IN_RAW_WITHIN, "raw holds as much as was answered 200", || {
        let there: i64 = topics::ends(&names.servers, &topic).values().map(|(low, high)| high - low).sum();
        ensure!(there >= i64::try_from(acked.len())?, "{there} of {}", acked.len());
        Ok(())
    });
    let mut open: HashMap<u128, Visit> = acked.iter().copied().collect();
    assert_eq!(open.len(), acked.len(), "ids are given once");
    let (mut last, mut others, mut resent, mut seen) = (HashMap::new(), 0, 0, HashSet::new());
    topics::visit(&names.servers, &topic, Isolation::Uncommitted, |record: Found| {
        let id = id(record.header("ce_id").expect("an id")).expect("a UUID");
        let marked = record.header("hl_resent").is_some();
        resent += u64::from(marked);
        let Some(visit) = open.remove(&id) else {
            // Second copies are marked. An event without an answer may be there all the same.
            assert!(marked || seen.insert(id), "{id:x} is there twice and not marked");
            others += u64::from(!marked);
            return;
        };
        seen.insert(id);
        assert_eq!(record.value.as_deref(), Some(visit.body().as_bytes()), "the bytes of {visit:?}");
        let before = last.insert(visit.visitor, visit.number);
        assert!(before < Some(visit.number), "{visit:?} lies behind its successor {before:?}");
    });
    let missing = open.values().take(3).collect::<Vec<_>>();
    assert!(open.is_empty(), "{} that were answered 200 are not in raw, such as {missing:?}", open.len());
    (others, resent)
}

struct Visitor {
    address: SocketAddr,
    me: u32,
    client: Client,
    random: u64,
    visits: Visits,
}

impl Visitor {
    fn run(mut self, manner: &Manner, stop: &AtomicBool, acked: &AtomicU64) -> Visits {
        let mut thought = Duration::ZERO;
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            match manner {
                Manner::Reconnecting { .. } => self.client = Client::new(self.address),
                Manner::Stay { kept, .. } => match self.client.was_closed() {
                    Ok(true) if thought < *kept => self.fault(&early(thought)),
                    Ok(closed) => self.visits.retired += u64::from(closed),
                    Err(error) => self.fault(&error),
                },
            }
            let visit = Visit { visitor: self.me, number };
            let start = Instant::now();
            match self.send(visit) {
                Ok(id) => {
                    self.visits.slowest = self.visits.slowest.max(start.elapsed());
                    self.visits.acked.push((id, visit));
                    acked.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => self.fault(&error),
            }
            thought = match manner {
                Manner::Reconnecting { pause } => *pause,
                Manner::Stay { think, .. } => self.think(think),
            };
            std::thread::sleep(thought);
        }
        self.visits
    }

    fn send(&mut self, visit: Visit) -> io::Result<u128> {
        let answer = self.client.post("/v1/events/visits", FORM, visit.body().as_bytes())?;
        let given = answer.json()["id"].as_str().and_then(id);
        let turned = || io::Error::new(ErrorKind::PermissionDenied, format!("{} {}", answer.status, answer.text()));
        given.filter(|_| answer.status == 200).ok_or_else(turned)
    }

    fn fault(&mut self, error: &io::Error) {
        self.visits.faults.entry(error.kind()).or_insert_with(|| (0, error.to_string())).0 += 1;
    }

    fn think(&mut self, spans: &[Range<Duration>]) -> Duration {
        let index = usize::try_from(self.draw()).unwrap_or_default() % spans.len();
        let Range { start, end } = spans[index];
        start + end.saturating_sub(start).mul_f64(f64::from(self.draw()) / f64::from(u32::MAX))
    }

    fn draw(&mut self) -> u32 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.random >> 32).expect("32 bits")
    }
}

/// A request a moment earlier would have had no answer.
fn early(thought: Duration) -> io::Error {
    let what = format!("closed after {thought:?} of thought, though nothing said that it would be");
    io::Error::new(ErrorKind::NotConnected, what)
}

/// A UUID's 128 bits.
fn id(text: &str) -> Option<u128> {
    u128::from_str_radix(&text.replace('-', ""), 16).ok()
}
