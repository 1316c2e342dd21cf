//! One run of an ingress: the threads that move its desk, each a loop whose every turn begins with a pause.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use common::clock::Clock;
use common::log::Record;
use common::log::disk::{AppendError, DiskLog, Options, Settled};
use common::log::kafka::Reports;
use ingress::delivery::disk::write;
use ingress::delivery::dispatcher::Desk;
use ingress::delivery::drain::Drain;
use ingress::delivery::state::{Offer, Rules, Waiter};

use super::client::SimClient;
use super::disk::{Shelf, SimDisk, pause, wait_at};
use super::judge::{Id, id};
use super::mutation::Mutation;
use super::stage::Handle;
use crate::baton::{Port, Runner};
use crate::event_log::INJECTED;

/// A desk between a played producer and a played disk.
pub type SimDesk = Desk<SimClient>;

/// As in `ingress::delivery::worker` and `ingress::delivery::supervisor`.
const TICK: Duration = Duration::from_millis(20);
const SAVE_EVERY: Duration = Duration::from_secs(1);
const REFUSED_AGAIN_AFTER: Duration = Duration::from_secs(30);
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);
/// Where the client's thread is while nothing is reported.
pub const WAITS_FOR_REPORTS: &str = "reports";
/// The end waits for reports so many turns at most.
const FLUSH_TURNS_MAX: u32 = 20;

/// What all threads of a life know.
#[derive(Clone)]
pub struct Crew {
    /// Where it is: its disk, and who sends to it.
    pub seat: usize,
    /// Its number.
    pub life: u32,
    /// Whether the log belongs to somebody else.
    pub adopts: bool,
    /// Everything around it.
    pub stage: Handle,
    /// Its disk.
    pub shelf: Shelf,
    /// What comes in.
    pub inbox: Arc<Mutex<VecDeque<Record>>>,
    /// The limits of its hand-over.
    pub rules: Rules,
    /// How its disk log is kept.
    pub options: Options,
    /// What it was told, and how far it is.
    pub signs: Arc<Signs>,
}

/// What threads tell each other.
#[derive(Default)]
pub struct Signs {
    /// It is asked to end.
    pub stop: AtomicBool,
    /// It was not killed.
    pub alive: Arc<AtomicBool>,
    /// How many wait for an answer.
    pub waiting: AtomicUsize,
    /// Nobody waits for an answer any more.
    served: AtomicBool,
    /// Nothing more is handed over.
    flushed: AtomicBool,
    /// The desk, once it is there.
    desk: Mutex<Option<Arc<SimDesk>>>,
}

impl Signs {
    /// Of a life that has just begun.
    pub fn alive() -> Self {
        Self { alive: Arc::new(AtomicBool::new(true)), ..Self::default() }
    }

    /// The desk, once.
    pub fn desk(&self) -> Option<Arc<SimDesk>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether nothing more is handed over.
    pub fn is_flushed(&self) -> bool {
        Self::is_set(&self.flushed)
    }

    fn is_set(sign: &AtomicBool) -> bool {
        sign.load(Ordering::SeqCst)
    }
}

impl Crew {
    /// The thread that opens the log and makes the desk; the others follow once that is there.
    pub fn link(&self) -> Runner {
        let crew = self.clone();
        Runner::start(move |port| {
            wait_at(port);
            let desk = Arc::new(crew.open()?);
            *crew.signs.desk.lock().unwrap_or_else(PoisonError::into_inner) = Some(desk.clone());
            Link::new(crew, desk).run()
        })
    }

    /// The threads behind the desk.
    pub fn others(&self, desk: &Arc<SimDesk>) -> Vec<Runner> {
        let start = |work: fn(&Self, &SimDesk) -> anyhow::Result<()>| {
            let (crew, desk) = (self.clone(), desk.clone());
            Runner::start(move |port: &Arc<Port>| {
                wait_at(port);
                work(&crew, &desk)
            })
        };
        vec![start(Self::work), start(Self::write), start(Self::listen)]
    }

    fn open(&self) -> anyhow::Result<SimDesk> {
        let clock = self.clock();
        let disk = SimDisk::new(self.shelf.clone(), self.stage.clone(), self.signs.alive.clone());
        let log = DiskLog::open_simulated(Arc::new(disk), clock, self.options.clone()).context("open the disk log")?;
        let settled = Settled::load(&log).context("load what is settled")?;
        let (first, end) = log.bounds();
        let (life, watermark) = (self.life, settled.watermark());
        let mut stage = self.stage.lock();
        stage.note(|| format!("life {life} has opened its log: {first} to {end}, settled below {watermark}"));
        if stage.has(Mutation::CursorSkipsOne) && watermark < end {
            settled.settle(watermark);
        }
        let partitions = stage.broker.partitions();
        drop(stage);
        Ok(Desk::new(log, settled, partitions, self.rules))
    }

    fn clock(&self) -> Clock {
        self.stage.lock().clock.clone()
    }

    /// What a worker thread does: answers, ticks, turns.
    fn work(&self, desk: &SimDesk) -> anyhow::Result<()> {
        let (clock, (worker, outbox)) = (self.clock(), desk.enlist());
        let mut waiting: BTreeMap<u32, Id> = BTreeMap::new();
        let (mut ticked_at, mut slot, mut answers) = (clock.now(), 0, Vec::new());
        loop {
            pause("worker");
            outbox.take(&mut answers);
            for (Waiter { slot, .. }, answer) in answers.drain(..) {
                let id = waiting.remove(&slot).context("an answer for nobody")?;
                let mut stage = self.stage.lock();
                stage.note(|| format!("answered: {} {answer:?}", String::from_utf8_lossy(&id)));
                let verdict = stage.judge.answered(&id, answer);
                stage.judged(verdict);
            }
            self.signs.waiting.store(waiting.len(), Ordering::SeqCst);
            if clock.since(ticked_at) >= TICK {
                ticked_at = clock.now();
                desk.tick();
            }
            if Signs::is_set(&self.signs.stop) {
                if waiting.is_empty() {
                    self.signs.served.store(true, Ordering::SeqCst);
                    return Ok(());
                }
                continue;
            }
            let mut turn = Vec::new();
            for record in self.inbox.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                slot += 1;
                waiting.insert(slot, id(&record));
                self.stage.lock().judge.sent(self.seat, &record);
                let waiter = Waiter { worker, slot, generation: 0 };
                turn.push(Offer { waiter, partition: desk.partition_of(&record), record: Arc::new(record) });
            }
            self.signs.waiting.store(waiting.len(), Ordering::SeqCst);
            if !turn.is_empty() {
                desk.offer(&mut turn);
            }
        }
    }

    /// What the thread of the disk log does.
    fn write(&self, desk: &SimDesk) -> anyhow::Result<()> {
        let mut failing = false;
        loop {
            pause("disk");
            let lies = self.stage.lock().has(Mutation::AnswersFailedWrites);
            match desk.group() {
                Some(group) if lies => {
                    let records = group.iter().map(|(record, _)| Record::clone(record)).collect();
                    let kept = desk.log().append_blocking(records);
                    desk.appended(kept.unwrap_or_else(|_: AppendError| desk.log().bounds().1));
                }
                Some(group) => write(desk, group, &mut failing),
                None if Signs::is_set(&self.signs.flushed) => return Ok(()),
                None => {
                    if self.stage.lock().chance(300) {
                        desk.log().idle();
                    }
                }
            }
        }
    }

    /// What the client's thread does.
    fn listen(&self, desk: &SimDesk) -> anyhow::Result<()> {
        loop {
            pause(WAITS_FOR_REPORTS);
            let report = self.stage.lock().broker.report(self.life);
            match report {
                Some((ticket, outcome)) => desk.reported(ticket, outcome),
                None if Signs::is_set(&self.signs.flushed) => return Ok(()),
                None => {}
            }
        }
    }
}

/// What `ingress::delivery::supervisor` does, without what it says to people.
struct Link {
    crew: Crew,
    desk: Arc<SimDesk>,
    clock: Clock,
    drain: Drain,
    is_connected: bool,
    /// Whether there was a producer before.
    is_successor: bool,
    broke_at: Option<Instant>,
    saved_at: Instant,
    tried_at: Instant,
    /// The refused event that was tried last.
    trying: Option<u64>,
}

impl Link {
    fn new(crew: Crew, desk: Arc<SimDesk>) -> Self {
        let clock = crew.clock();
        let (saved_at, tried_at) = (clock.now(), clock.now());
        let (is_connected, is_successor, broke_at, drain) = (false, false, None, Drain::default());
        Self { crew, desk, clock, drain, is_connected, is_successor, broke_at, saved_at, tried_at, trying: None }
    }

    fn run(mut self) -> anyhow::Result<()> {
        while !Signs::is_set(&self.crew.signs.served) {
            pause("link");
            if !self.is_connected {
                self.connect();
            } else if self.desk.failure().is_some() {
                self.renew();
            } else if self.desk.is_drainable() {
                self.drain.step(&self.desk).context("read the disk log")?;
            }
            if self.clock.since(self.saved_at) >= SAVE_EVERY {
                self.saved_at = self.clock.now();
                self.save()?;
            }
            self.look_after_refused()?;
            if self.crew.adopts && self.desk.settled().unsettled() == 0 {
                self.crew.signs.stop.store(true, Ordering::SeqCst);
            }
        }
        self.flush()
    }

    fn connect(&mut self) {
        let Crew { seat, life, stage, signs, .. } = &self.crew;
        if !stage.lock().broker.is_up {
            return;
        }
        stage.lock().note(|| format!("life {life} has a producer"));
        let client = SimClient::connect(stage, *seat, *life, self.is_successor, &signs.alive);
        self.desk.connected(Arc::new(client));
        (self.is_connected, self.is_successor) = (true, true);
    }

    fn renew(&mut self) {
        let broke_at = *self.broke_at.get_or_insert(self.clock.now());
        if self.desk.is_empty_after_failure() {
            self.let_go();
            (self.is_connected, self.broke_at) = (false, None);
        } else {
            self.desk.give_up(self.clock.since(broke_at) >= ANSWER_WAIT_MAX);
        }
    }

    fn let_go(&self) {
        let Some(producer) = self.desk.take_producer() else { return };
        while Arc::strong_count(&producer) > 1 {
            pause("let go");
        }
    }

    fn save(&self) -> anyhow::Result<()> {
        let (settled, log) = (self.desk.settled(), self.desk.log());
        let mutation = self.crew.stage.lock().mutation;
        if mutation == Some(Mutation::SettledIsAhead) && settled.watermark() < log.bounds().1 {
            settled.settle(settled.watermark());
        }
        forgive(settled.save()).context("save what is settled")?;
        if mutation == Some(Mutation::DeletesUnsettled) {
            forgive(log.delete_before(log.bounds().1)).context("delete")?;
        }
        Ok(())
    }

    fn look_after_refused(&mut self) -> anyhow::Result<()> {
        let is_taken = self.trying.is_some_and(|offset| self.desk.settled().is_settled(offset));
        let is_due = is_taken || self.clock.since(self.tried_at) >= REFUSED_AGAIN_AFTER;
        if self.crew.adopts || !is_due || self.desk.standing().refused == 0 {
            return Ok(());
        }
        self.tried_at = self.clock.now();
        self.trying = self.desk.try_refused().context("read a refused event")?;
        self.desk.carry_refused().context("carry a refused event")
    }

    fn flush(self) -> anyhow::Result<()> {
        for _ in 0..FLUSH_TURNS_MAX {
            if self.desk.open() == 0 {
                break;
            }
            pause("flush");
            self.desk.tick();
        }
        self.desk.fail();
        self.let_go();
        self.save()?;
        self.crew.signs.flushed.store(true, Ordering::SeqCst);
        Ok(())
    }
}

/// What a disk does that the schedule makes fail is no news.
fn forgive(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if is_wanted(&error.to_string()) => Ok(()),
        done => done,
    }
}

/// Whether these are the words of something that the schedule made up.
pub fn is_wanted(why: &str) -> bool {
    why.contains(INJECTED) || why.contains(&io::Error::from(io::ErrorKind::StorageFull).to_string())
}
