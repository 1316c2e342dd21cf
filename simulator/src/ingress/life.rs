//! One run of an ingress: the threads of its dispatcher, whose loops pause in every turn.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use disk_log::{AppendError, Delivered, DiskLog, Options};
use event_log::Record;
use ingress::delivery::disk::write;
use ingress::delivery::dispatcher::{Dispatcher, WorkerSide};
use ingress::delivery::drain::Drain;
use ingress::delivery::state::{Input, Offer, Role, Rules, Waiter, Work};
use kafka_log::Reports;
use primitives::clock::Clock;

use super::client::SimClient;
use super::disk::{Shelf, SimDisk, pause, wait_at};
use super::judge::{Id, id};
use super::mutation::Mutation;
use super::stage::Handle;
use super::stage::broker::name;
use crate::baton::{Port, Runner};
use crate::being::INJECTED;

/// A dispatcher between a simulated producer and a simulated disk.
pub type SimDispatcher = Dispatcher<SimClient>;

/// As in `ingress::delivery::worker` and `ingress::delivery::producer_supervisor`.
const TICK: Duration = Duration::from_millis(20);
const SAVE_EVERY: Duration = Duration::from_secs(1);
const PARKED_AGAIN_AFTER: Duration = Duration::from_secs(30);
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);
/// Where the client's thread pauses without reports.
pub const WAITS_FOR_REPORTS: &str = "reports";
/// Limit of turns that the end waits for reports.
const FLUSH_TURNS_MAX: u32 = 20;

/// The shared context of all threads of a life.
#[derive(Clone)]
pub struct Crew {
    pub seat: usize,
    pub life: u32,
    /// Whether the log belongs to another ingress.
    pub adopts: bool,
    pub stage: Handle,
    pub shelf: Shelf,
    pub inbox: Arc<Mutex<VecDeque<Record>>>,
    pub rules: Rules,
    pub options: Options,
    pub signs: Arc<Signs>,
}

#[derive(Default)]
pub struct Signs {
    pub stop: AtomicBool,
    pub alive: Arc<AtomicBool>,
    /// How many requests wait for an answer.
    pub waiting: AtomicUsize,
    /// All requests are answered.
    served: AtomicBool,
    /// No further records are handed over.
    flushed: AtomicBool,
    dispatcher: Mutex<Option<Arc<SimDispatcher>>>,
}

impl Signs {
    pub fn alive() -> Self {
        Self { alive: Arc::new(AtomicBool::new(true)), ..Self::default() }
    }

    /// Returns the dispatcher once, when it is there.
    pub fn dispatcher(&self) -> Option<Arc<SimDispatcher>> {
        self.dispatcher.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub fn is_flushed(&self) -> bool {
        Self::is_set(&self.flushed)
    }

    fn is_set(sign: &AtomicBool) -> bool {
        sign.load(Ordering::SeqCst)
    }
}

impl Crew {
    /// The thread that opens the log and builds the dispatcher; the others follow.
    pub fn supervise(&self) -> Runner {
        let crew = self.clone();
        Runner::start(move |port| {
            wait_at(port);
            let dispatcher = Arc::new(crew.open()?);
            *crew.signs.dispatcher.lock().unwrap_or_else(PoisonError::into_inner) = Some(dispatcher.clone());
            Supervisor::new(crew, dispatcher).run()
        })
    }

    pub fn others(&self, dispatcher: &Arc<SimDispatcher>) -> Vec<Runner> {
        let start = |work: fn(&Self, &SimDispatcher) -> anyhow::Result<()>| {
            let (crew, dispatcher) = (self.clone(), dispatcher.clone());
            Runner::start(move |port: &Arc<Port>| {
                wait_at(port);
                work(&crew, &dispatcher)
            })
        };
        vec![start(Self::work), start(Self::write), start(Self::listen)]
    }

    fn open(&self) -> anyhow::Result<SimDispatcher> {
        let clock = self.clock();
        let disk = SimDisk::new(self.shelf.clone(), self.stage.clone(), self.signs.alive.clone());
        let log = DiskLog::open_simulated(Arc::new(disk), clock, self.options.clone()).context("open the disk log")?;
        let delivered = Delivered::load(&log).context("load what is delivered")?;
        let (first, end) = log.bounds();
        let (life, watermark) = (self.life, delivered.watermark());
        let mut stage = self.stage.lock();
        stage.note(|| format!("life {life} has opened its log: {first} to {end}, delivered below {watermark}"));
        if stage.has(Mutation::CursorSkipsOne) && watermark < end {
            delivered.deliver(watermark);
        }
        let partitions = stage.broker.partitions();
        drop(stage);
        let (stage, dispatcher) = (self.stage.clone(), Dispatcher::new(log, delivered, partitions, self.rules));
        Ok(dispatcher.traced(Box::new(move |input| stage.lock().note(|| format!("life {life} <- {}", told(input))))))
    }

    fn clock(&self) -> Clock {
        self.stage.lock().clock.clone()
    }

    /// The loop of a worker thread: answers, ticks, turns.
    fn work(&self, dispatcher: &SimDispatcher) -> anyhow::Result<()> {
        let (clock, (worker, reply_queue)) = (self.clock(), dispatcher.register_worker());
        let mut waiting: BTreeMap<u32, Id> = BTreeMap::new();
        let (mut ticked_at, mut slot, mut answers) = (clock.now(), 0, Vec::new());
        loop {
            pause("worker");
            reply_queue.take(&mut answers);
            for (Waiter { slot, .. }, answer) in answers.drain(..) {
                let id = waiting.remove(&slot).context("a reply without a request")?;
                let mut stage = self.stage.lock();
                stage.note(|| format!("answered: {} {answer:?}", String::from_utf8_lossy(&id)));
                let verdict = stage.judge.answered(&id, answer);
                stage.judged(verdict);
            }
            self.signs.waiting.store(waiting.len(), Ordering::SeqCst);
            if clock.since(ticked_at) >= TICK {
                ticked_at = clock.now();
                dispatcher.handle([Input::Tick]);
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
                let partition = dispatcher.partition_of(&record);
                turn.push(Input::Offered(Offer { waiter, partition, record: Arc::new(record) }));
            }
            self.signs.waiting.store(waiting.len(), Ordering::SeqCst);
            if !turn.is_empty() {
                dispatcher.handle(turn);
            }
        }
    }

    /// The loop of the disk log's thread.
    fn write(&self, dispatcher: &SimDispatcher) -> anyhow::Result<()> {
        let mut failing = false;
        loop {
            pause("disk");
            let lies = self.stage.lock().has(Mutation::AnswersFailedWrites);
            match dispatcher.poll(Role::Append) {
                Some(Work::Append(group)) if lies => {
                    let records = group.iter().map(|(record, _)| Record::clone(record)).collect();
                    let kept = dispatcher.log().append_blocking(records);
                    let first = kept.unwrap_or_else(|_: AppendError| dispatcher.log().bounds().1);
                    dispatcher.handle([Input::Appended { first }]);
                }
                Some(Work::Append(group)) => write(dispatcher, group, &mut failing),
                _ if Signs::is_set(&self.signs.flushed) => return Ok(()),
                _ => {
                    if self.stage.lock().chance(300) {
                        dispatcher.log().idle();
                    }
                }
            }
        }
    }

    /// The loop of the client's thread.
    fn listen(&self, dispatcher: &SimDispatcher) -> anyhow::Result<()> {
        loop {
            pause(WAITS_FOR_REPORTS);
            let report = self.stage.lock().broker.report(self.life);
            match report {
                Some(((ticket, outcome), last)) => dispatcher.reported(ticket, outcome, last),
                None if Signs::is_set(&self.signs.flushed) => return Ok(()),
                None => {}
            }
        }
    }
}

/// The loop of `ingress::delivery::producer_supervisor`, without its logging.
struct Supervisor {
    crew: Crew,
    dispatcher: Arc<SimDispatcher>,
    clock: Clock,
    drain: Drain,
    is_connected: bool,
    is_successor: bool,
    broke_at: Option<Instant>,
    saved_at: Instant,
    tried_at: Instant,
    /// The parked entry that was retried last.
    trying: Option<u64>,
}

impl Supervisor {
    fn new(crew: Crew, dispatcher: Arc<SimDispatcher>) -> Self {
        let clock = crew.clock();
        let (saved_at, tried_at) = (clock.now(), clock.now());
        let (is_connected, is_successor, broke_at, drain) = (false, false, None, Drain::default());
        Self { crew, dispatcher, clock, drain, is_connected, is_successor, broke_at, saved_at, tried_at, trying: None }
    }

    fn run(mut self) -> anyhow::Result<()> {
        while !Signs::is_set(&self.crew.signs.served) {
            pause("supervisor");
            if !self.is_connected {
                self.connect();
            } else if self.dispatcher.failure().is_some() {
                self.renew();
            } else if let Some(Work::Drain(span)) = self.dispatcher.poll(Role::Drain) {
                self.drain.step(&self.dispatcher, Some(span)).context("read the disk log")?;
            }
            if self.clock.since(self.saved_at) >= SAVE_EVERY {
                self.saved_at = self.clock.now();
                self.save()?;
            }
            self.check_parked()?;
            if self.crew.adopts && self.dispatcher.delivered().undelivered() == 0 {
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
        self.dispatcher.connected(Arc::new(client));
        (self.is_connected, self.is_successor) = (true, true);
    }

    fn renew(&mut self) {
        let broke_at = *self.broke_at.get_or_insert(self.clock.now());
        if self.dispatcher.status().replaceable {
            self.let_go();
            (self.is_connected, self.broke_at) = (false, None);
        } else {
            self.dispatcher.give_up(self.clock.since(broke_at) >= ANSWER_WAIT_MAX);
        }
    }

    fn let_go(&self) {
        let Some(producer) = self.dispatcher.take_producer() else { return };
        while Arc::strong_count(&producer) > 1 {
            pause("let go");
        }
    }

    fn save(&self) -> anyhow::Result<()> {
        let (delivered, log) = (self.dispatcher.delivered(), self.dispatcher.log());
        let mutation = self.crew.stage.lock().mutation;
        if mutation == Some(Mutation::DeliveredIsAhead) && delivered.watermark() < log.bounds().1 {
            delivered.deliver(delivered.watermark());
        }
        forgive(delivered.save()).context("save what is delivered")?;
        if mutation == Some(Mutation::DeletesUnsettled) {
            forgive(log.delete_before(log.bounds().1)).context("delete")?;
        }
        Ok(())
    }

    fn check_parked(&mut self) -> anyhow::Result<()> {
        let is_taken = self.trying.is_some_and(|offset| self.dispatcher.delivered().is_delivered(offset));
        let is_due = is_taken || self.clock.since(self.tried_at) >= PARKED_AGAIN_AFTER;
        if self.crew.adopts || !is_due || self.dispatcher.status().parked == 0 {
            return Ok(());
        }
        self.tried_at = self.clock.now();
        self.trying = self.dispatcher.retry_parked().context("read a parked event")?;
        self.dispatcher.move_parked().context("move a parked event")
    }

    fn flush(self) -> anyhow::Result<()> {
        for _ in 0..FLUSH_TURNS_MAX {
            if self.dispatcher.status().open == 0 {
                break;
            }
            pause("flush");
            self.dispatcher.handle([Input::Tick]);
        }
        self.dispatcher.handle([Input::Failed]);
        self.let_go();
        self.save()?;
        self.crew.signs.flushed.store(true, Ordering::SeqCst);
        Ok(())
    }
}

/// An input of the delivery state machine, as in traces.
fn told(input: &Input) -> String {
    match input {
        Input::Offered(Offer { partition, record, .. }) => format!("Offered({partition}, {})", name(record)),
        Input::Drained { offset, record, .. } => format!("Drained({offset}, {})", name(record)),
        Input::Retried { offset, record, .. } => format!("Retried({offset}, {})", name(record)),
        Input::Moved { offset, record } => format!("Moved({offset}, {})", name(record)),
        Input::Sent { partition, refused } => format!("Sent({partition}, refused: {})", refused.len()),
        Input::NotAppended(group) => format!("NotAppended({})", group.len()),
        Input::Tick
        | Input::Failed
        | Input::Connected { .. }
        | Input::Reported { .. }
        | Input::Appended { .. }
        | Input::Passed { .. } => format!("{input:?}"),
    }
}

/// Ignores errors that the schedule injected.
fn forgive(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if is_wanted(&error.to_string()) => Ok(()),
        done => done,
    }
}

/// Whether the schedule injected this error.
pub fn is_wanted(why: &str) -> bool {
    why.contains(INJECTED) || why.contains(&io::Error::from(io::ErrorKind::StorageFull).to_string())
}
