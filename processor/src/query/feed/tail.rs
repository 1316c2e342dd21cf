//! The thread that follows `events` for all readers, while there are any, into the [`Ring`].

use std::mem;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};

use event_log::contract::Topic;
use event_log::{Entry, EventLogError, LogQuery, LogTail, Stretch};
use primitives::time::Timestamp;
use runtime::lifecycle::Stop;
use tokio::sync::watch;

use super::cursor::{Lane, name_of};
use super::page::reaches_back_to;
use super::ring::Ring;

const POLL_WAIT: Duration = Duration::from_millis(200);
/// Between two batches: so many readers are not woken for each event.
const PAUSE: Duration = Duration::from_millis(20);
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// How long it goes on without readers: those that poll come back.
const LINGER: Duration = Duration::from_secs(60);
/// Offsets of each partition that it begins with, so that it knows the records that readers saw last.
const BACK: u64 = 16;
/// How often it looks how far the log reaches back.
const LOOK_EVERY: Duration = Duration::from_secs(30);

pub struct Tail {
    logs: Arc<dyn LogQuery>,
    stop: Stop,
    /// None until the log was reached, and after an error.
    ring: RwLock<Option<Ring>>,
    /// The end of the last ring.
    next: AtomicU64,
    /// Changes with the ring.
    grown: watch::Sender<u64>,
    run: Mutex<Run>,
    /// The feed is gone.
    is_over: AtomicBool,
    reach: Mutex<Option<Reach>>,
}

#[derive(Default)]
struct Run {
    is_running: bool,
    readers: usize,
    left_at: Option<Instant>,
}

/// How far the log reaches back.
#[derive(Clone, Copy)]
pub struct Reach {
    /// None if it has no records.
    pub to: Option<Timestamp>,
    looked_at: Instant,
}

impl Tail {
    pub fn new(logs: Arc<dyn LogQuery>, stop: Stop) -> Arc<Self> {
        Arc::new(Self {
            logs,
            stop,
            ring: RwLock::default(),
            next: AtomicU64::default(),
            grown: watch::Sender::default(),
            run: Mutex::default(),
            is_over: AtomicBool::new(false),
            reach: Mutex::default(),
        })
    }

    /// A reader that waits has come.
    pub fn enter(self: &Arc<Self>) {
        let mut run = self.run();
        run.readers += 1;
        if !run.is_running {
            let tail = Arc::clone(self);
            let thread = thread::Builder::new().name("feed".into()).spawn(move || tail.run_to_end());
            // The next reader tries again; until then readers wait in vain, and read the log with their next query.
            run.is_running = thread.inspect_err(|error| tracing::warn!("no thread for the feed: {error}")).is_ok();
        }
    }

    pub fn leave(&self) {
        let mut run = self.run();
        run.readers = run.readers.saturating_sub(1);
        run.left_at = Some(Instant::now());
    }

    pub fn ring(&self) -> RwLockReadGuard<'_, Option<Ring>> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of each change of the ring from now on.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.grown.subscribe()
    }

    pub fn behind(&self, lanes: &[Lane]) -> u64 {
        self.ring().as_ref().map_or(0, |ring| ring.behind(lanes))
    }

    /// None if that was not looked at lately.
    pub fn reach(&self) -> Option<Reach> {
        let reach = self.reach.lock().unwrap_or_else(PoisonError::into_inner);
        reach.filter(|reach| reach.looked_at.elapsed() < LOOK_EVERY * 2)
    }

    /// Looks how far the log reaches back.
    pub fn look(&self) -> Result<Reach, EventLogError> {
        let reach = Reach { to: reaches_back_to(&*self.logs)?, looked_at: Instant::now() };
        *self.reach.lock().unwrap_or_else(PoisonError::into_inner) = Some(reach);
        Ok(reach)
    }

    /// Ends the thread.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    fn run_to_end(&self) {
        let mut is_told = false;
        while !self.retires() {
            if let Err(error) = self.follow() {
                if !mem::replace(&mut is_told, true) {
                    tracing::warn!("the feed cannot follow the log, and tries again: {error}");
                }
                self.replace(None);
                self.stop.sleep(RETRY_WAIT);
            }
        }
    }

    /// Until it is not wanted, or an error.
    fn follow(&self) -> Result<(), EventLogError> {
        let (ring, mut tail) = self.open()?;
        self.replace(Some(ring));
        let mut looked_at: Option<Instant> = None;
        while self.is_wanted(&self.run()) {
            if looked_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
                looked_at = Some(Instant::now());
                self.look()?;
                self.read_to_the_end()?;
            }
            let entries = tail.next(POLL_WAIT)?;
            if !entries.is_empty() {
                self.change(|ring| entries.iter().for_each(|entry| ring.push(entry)));
                self.stop.sleep(PAUSE);
            }
        }
        Ok(())
    }

    fn is_wanted(&self, run: &Run) -> bool {
        let is_used = run.readers > 0 || run.left_at.is_some_and(|at| at.elapsed() < LINGER);
        is_used && !self.stop.requested() && !self.is_over.load(Ordering::Acquire)
    }

    /// Whether the thread ends; the next reader starts another one.
    fn retires(&self) -> bool {
        let mut run = self.run();
        run.is_running = self.is_wanted(&run);
        if !run.is_running {
            self.replace(None);
        }
        !run.is_running
    }

    /// A ring with the last records of the log, and what follows them.
    fn open(&self) -> Result<(Ring, Box<dyn LogTail>), EventLogError> {
        let bounds = self.logs.bounds(Topic::Events)?;
        let log = name_of(&self.logs.identity(Topic::Events)?, bounds.len());
        let begins: Vec<u64> = bounds.iter().map(|(first, end)| end.saturating_sub(BACK).max(*first)).collect();
        let ends: Vec<u64> = bounds.iter().map(|(_, end)| *end).collect();
        let mut ring = Ring::new(log, &begins, self.next.load(Ordering::Acquire));
        self.read(&begins, &ends, |entry| ring.push(&entry))?;
        (0..).zip(&ends).for_each(|(partition, end)| ring.is_read_to(partition, *end));
        Ok((ring, self.logs.tail(Topic::Events, &ends)?))
    }

    /// Behind the last event there may be markers of transactions, of which no tail tells. A reader moves on behind them,
    /// too: otherwise it would be too old once retention has deleted them.
    fn read_to_the_end(&self) -> Result<(), EventLogError> {
        let known = self.ring().as_ref().map(Ring::ends).unwrap_or_default();
        let ends = self.logs.bounds(Topic::Events)?;
        let untils: Vec<u64> = known.iter().zip(&ends).map(|(known, (_, end))| (*end).min(known + BACK)).collect();
        let mut is_empty = vec![true; untils.len()];
        self.read(&known, &untils, |entry| is_empty[entry.position.partition as usize] = false)?;
        self.change(|ring| {
            for (partition, until) in untils.iter().enumerate().filter(|(partition, _)| is_empty[*partition]) {
                ring.is_read_to(partition, *until);
            }
        });
        Ok(())
    }

    fn read(&self, froms: &[u64], untils: &[u64], mut visit: impl FnMut(Entry)) -> Result<(), EventLogError> {
        let stretches = (0..).zip(froms.iter().zip(untils));
        let stretches = stretches.map(|(partition, (from, until))| Stretch { partition, from: *from, until: *until });
        let stretches: Vec<Stretch> = stretches.filter(|stretch| stretch.from < stretch.until).collect();
        self.logs.read(Topic::Events, &stretches, &mut |entry| {
            visit(entry);
            ControlFlow::Continue(())
        })
    }

    fn change(&self, change: impl FnOnce(&mut Ring)) {
        if let Some(ring) = self.ring.write().unwrap_or_else(PoisonError::into_inner).as_mut() {
            change(ring);
        }
        self.tell();
    }

    fn replace(&self, ring: Option<Ring>) {
        let before = mem::replace(&mut *self.ring.write().unwrap_or_else(PoisonError::into_inner), ring);
        if let Some(before) = before {
            self.next.store(before.end(), Ordering::Release);
        }
        self.tell();
    }

    fn tell(&self) {
        self.grown.send_modify(|changes| *changes += 1);
    }

    fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
