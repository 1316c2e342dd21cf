//! Several ingresses with their disks, and the faults that they suffer.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use disk_log::Options;
use event_log::Record;
use fastrand::Rng;
use ingress::delivery::state::Rules;
use primitives::clock::Clock;

use super::disk::Shelf;
use super::judge::{Counts, Judge};
use super::life::{Crew, Signs, SimDispatcher, WAITS_FOR_REPORTS, is_wanted};
use super::mutation::Mutation;
use super::stage::broker::Broker;
use super::stage::{Faults, Handle, Stage};
use crate::baton::{End, Go, Pause, Runner};

/// In bytes: the largest record of a schedule, above what brokers accept at times.
pub const LARGE_BYTES: usize = 600;
/// Limit of events that wait for an ingress.
const INBOX_MAX: usize = 30;

pub struct Company {
    stage: Handle,
    random: Rng,
    seats: Vec<Seat>,
    lives: u32,
    rules: Rules,
    options: Options,
    /// Whether Kafka may refuse records for their size.
    has_large: bool,
}

/// The place of an ingress: its disk outlives its lives.
struct Seat {
    shelf: Shelf,
    inbox: Arc<Mutex<VecDeque<Record>>>,
    /// One at most, except during an adoption.
    lives: Vec<Life>,
}

struct Life {
    crew: Crew,
    runners: Vec<Runner>,
    dispatcher: Weak<SimDispatcher>,
}

impl Company {
    pub fn new(mut random: Rng, partitions: u32, now_ms: u64, mutation: Option<Mutation>, traced: bool) -> Self {
        let rate = |random: &mut Rng, most: u32| if random.bool() { random.u32(..most) } else { 0 };
        let faults = Faults {
            disk: rate(&mut random, 15),
            full: rate(&mut random, 100),
            failed: rate(&mut random, 30),
            fatal: rate(&mut random, 20),
        };
        let rules = Rules {
            disk_first: random.u32(..4) == 0,
            deadline: Duration::from_millis(300),
            report_wait_max: Duration::from_secs(10),
            records_max: if random.bool() { random.usize(2..20) } else { 1_000 },
            bytes_max: if random.u32(..3) == 0 { random.usize(1_000..20_000) } else { 1_000_000 },
            move_parked_above_bytes: random.u64(1_000..20_000),
        };
        let bytes_max = (random.u32(..4) == 0).then(|| random.u64(20_000..60_000));
        let options =
            Options { segment_bytes: random.u64(1_500..9_000), bytes_max, segment_age_max: None, ..Options::log() };
        let seats = (0..random.usize(1..=2)).map(|_| Seat {
            shelf: Shelf::default(),
            inbox: Arc::default(),
            lives: Vec::new(),
        });
        let seats = seats.collect();
        let has_large = random.u32(..3) == 0;
        let mut broker = Broker::new(partitions);
        if has_large && random.bool() {
            broker.size_max = LARGE_BYTES;
        }
        let may_refuse = faults.disk > 0 || options.bytes_max.is_some();
        let stage = Stage {
            random: random.fork(),
            clock: Clock::simulated(),
            now_ms,
            broker,
            judge: Judge::new(may_refuse),
            faults,
            mutation,
            violation: None,
            trace: traced.then(Vec::new),
            steps: 0,
        };
        Self { stage: Handle::new(stage), random, seats, lives: 0, rules, options, has_large }
    }

    pub fn stage(&self) -> &Handle {
        &self.stage
    }

    pub fn take(&mut self, record: Record) {
        let seat = self.random.usize(..self.seats.len());
        let mut inbox = self.seats[seat].inbox();
        if inbox.len() < INBOX_MAX {
            inbox.push_back(record);
        }
    }

    pub fn act(&mut self) -> Result<(), String> {
        match self.random.u32(..1_000) {
            0..=749 => self.step_any()?,
            750..=992 => self.stage.lock().move_brokers(),
            _ => self.disturb(),
        }
        self.violation()
    }

    /// Runs without faults.
    pub fn rest(&mut self) -> Result<(), String> {
        {
            let mut stage = self.stage.lock();
            stage.faults = Faults::default();
            (stage.broker.is_up, stage.broker.size_max) = (true, usize::MAX);
        }
        for seat in 0..self.seats.len() {
            self.seats[seat].shelf.set_full(false);
            for life in self.seats[seat].lives.iter().filter(|life| life.crew.adopts) {
                life.crew.signs.stop.store(true, Ordering::SeqCst);
            }
            self.start(seat, false);
            let steps: Vec<(usize, usize)> = (0..self.seats[seat].lives.len())
                .flat_map(|life| (0..self.seats[seat].lives[life].runners.len()).map(move |runner| (life, runner)))
                .collect();
            // In reverse: an ending life must not move another one before its turn.
            for (life, runner) in steps.into_iter().rev() {
                if self.seats[seat].lives.get(life).is_some_and(|life| runner < life.runners.len()) {
                    self.step(seat, life, runner)?;
                }
            }
        }
        for _ in 0..8 {
            self.stage.lock().move_brokers();
        }
        self.violation()
    }

    pub fn is_at_rest(&self) -> bool {
        let is_idle = |seat: &Seat| {
            let dispatcher = seat.lives.first().and_then(|life| life.dispatcher.upgrade());
            let is_through = |dispatcher: Arc<SimDispatcher>| {
                let status = dispatcher.status();
                status.open == 0 && status.direct && dispatcher.delivered().undelivered() == 0
            };
            seat.inbox().is_empty()
                // A failed sync holds up only those that wait for it.
                && seat.lives.iter().all(|life| life.crew.signs.waiting.load(Ordering::SeqCst) == 0)
                && dispatcher.is_some_and(is_through)
        };
        self.stage.lock().broker.is_quiet() && self.seats.iter().all(is_idle)
    }

    /// New records of `raw` since the last call.
    pub fn fresh(&self) -> Vec<(u32, Record)> {
        self.stage.lock().broker.fresh.drain(..).collect()
    }

    pub fn conclude(&self) -> Result<(), String> {
        self.stage.lock().judge.conclude()
    }

    pub fn state(&self) -> String {
        let lives = self.seats.iter().flat_map(|seat| &seat.lives);
        let lives: Vec<String> = lives
            .map(|life| {
                let at: Vec<_> = life.runners.iter().map(Runner::at).collect();
                let dispatcher = life.dispatcher.upgrade();
                let left = dispatcher.map(|dispatcher| (dispatcher.delivered().undelivered(), dispatcher.status()));
                format!("life {} at {at:?} with {left:?}", life.crew.life)
            })
            .collect();
        format!("{lives:?}, brokers are quiet: {}", self.stage.lock().broker.is_quiet())
    }

    /// New lines of the trace since the last call.
    pub fn new_lines(&self) -> Vec<String> {
        self.stage.lock().trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub fn end(self) -> (Counts, Option<String>, Vec<String>) {
        let mut stage = self.stage.lock();
        (stage.judge.counts, stage.violation.take(), stage.trace.take().unwrap_or_default())
    }

    fn violation(&self) -> Result<(), String> {
        self.stage.lock().violation.clone().map_or(Ok(()), Err)
    }

    fn step_any(&mut self) -> Result<(), String> {
        let seat = self.random.usize(..self.seats.len());
        let lives = &self.seats[seat].lives;
        if lives.is_empty() {
            self.start(seat, false);
            return Ok(());
        }
        let life = self.random.usize(..lives.len());
        let runner = self.random.usize(..lives[life].runners.len());
        if self.waits_in_vain(&lives[life], runner) {
            self.stage.lock().move_brokers();
        }
        self.step(seat, life, runner)
    }

    /// Whether a thread would find nothing to do.
    fn waits_in_vain(&self, life: &Life, runner: usize) -> bool {
        let Crew { life: number, signs, .. } = &life.crew;
        let is_listening = life.runners[runner].at() == WAITS_FOR_REPORTS && !signs.is_flushed();
        is_listening && !self.stage.lock().broker.has_report(*number)
    }

    /// Runs a thread to its next pause.
    fn step(&mut self, seat: usize, life: usize, runner: usize) -> Result<(), String> {
        if self.waits_in_vain(&self.seats[seat].lives[life], runner) {
            return Ok(());
        }
        self.stage.lock().steps += 1;
        let stepped = &mut self.seats[seat].lives[life];
        let pause = stepped.runners[runner].step(Go::On);
        if let Some(dispatcher) = stepped.crew.signs.dispatcher() {
            stepped.dispatcher = Arc::downgrade(&dispatcher);
            stepped.runners.extend(stepped.crew.others(&dispatcher));
        }
        let Pause::Ended(end) = pause else { return Ok(()) };
        drop(stepped.runners.remove(runner));
        let number = stepped.crew.life;
        if stepped.runners.is_empty() {
            self.seats[seat].lives.remove(life);
            self.stage.lock().hang_up(number);
            self.note(|| format!("life {number} has ended"));
        }
        match end {
            End::InOrder => Ok(()),
            End::Failed(why) if is_wanted(&why) => {
                self.note(|| format!("life {number} ends: {why}"));
                self.end_life(seat, number);
                Ok(())
            }
            End::Failed(_) | End::Killed | End::Panicked(_) => {
                Err(format!("life {number} ended for no good reason: {end:?}"))
            }
        }
    }

    /// Starts or ends a fault.
    fn disturb(&mut self) {
        let seat = self.random.usize(..self.seats.len());
        match self.random.u32(..16) {
            0..=1 => self.kill(seat),
            2..=3 => self.lose_power(seat),
            4 => {
                for life in &self.seats[seat].lives {
                    life.crew.signs.stop.store(true, Ordering::SeqCst);
                }
                self.note(|| format!("seat {seat} is asked to stop"));
            }
            5..=6 => self.adopt(seat),
            7 => {
                let mut stage = self.stage.lock();
                stage.broker.is_up = false;
                stage.note(|| "brokers are away".to_owned());
            }
            8..=10 => {
                let mut stage = self.stage.lock();
                stage.broker.is_up = true;
                stage.note(|| "brokers are there".to_owned());
            }
            11 => {
                let is_full = self.random.u32(..3) == 0;
                self.seats[seat].shelf.set_full(is_full);
                self.stage.lock().judge.may_refuse |= is_full;
                self.note(|| format!("the disk of seat {seat} is full: {is_full}"));
            }
            12 if self.has_large => {
                let size_max = if self.random.bool() { LARGE_BYTES } else { usize::MAX };
                self.stage.lock().broker.size_max = size_max;
                self.note(|| format!("Kafka takes {size_max} bytes"));
            }
            _ => {
                let ms =
                    if self.random.u32(..3) == 0 { self.random.u64(1_000..40_000) } else { self.random.u64(50..500) };
                self.stage.lock().pass(ms);
            }
        }
    }

    fn start(&mut self, seat: usize, adopts: bool) {
        if self.seats[seat].lives.is_empty() {
            self.begin(seat, adopts);
        }
    }

    /// An ingress seems to be gone for good, and its log is adopted.
    fn adopt(&mut self, seat: usize) {
        if !self.stage.lock().has(Mutation::AdoptsTheLiving) {
            self.kill(seat);
        }
        self.stage.lock().judge.counts.adoptions += 1;
        self.begin(seat, true);
    }

    fn begin(&mut self, seat: usize, adopts: bool) {
        self.lives += 1;
        let life = self.lives;
        self.note(|| format!("life {life} begins at seat {seat}{}", if adopts { ", to adopt its log" } else { "" }));
        self.stage.lock().judge.began(seat);
        let rules = if adopts { Rules { deadline: Duration::from_secs(5), ..self.rules } } else { self.rules };
        let bytes_max = self.options.bytes_max.filter(|_| !adopts);
        let Seat { shelf, inbox, .. } = &self.seats[seat];
        let crew = Crew {
            seat,
            life,
            adopts,
            stage: self.stage.clone(),
            shelf: shelf.clone(),
            inbox: if adopts { Arc::default() } else { inbox.clone() },
            rules,
            options: Options { bytes_max, ..self.options.clone() },
            signs: Arc::new(Signs::alive()),
        };
        let runners = vec![crew.supervise()];
        self.seats[seat].lives.push(Life { crew, runners, dispatcher: Weak::new() });
    }

    fn kill(&mut self, seat: usize) {
        while let Some(life) = self.seats[seat].lives.first() {
            let number = life.crew.life;
            let at: Vec<_> = life.runners.iter().map(Runner::at).collect();
            self.note(|| format!("life {number} is killed at {at:?}"));
            self.stage.lock().judge.counts.kills += 1;
            self.end_life(seat, number);
        }
    }

    fn lose_power(&mut self, seat: usize) {
        self.kill(seat);
        self.note(|| format!("seat {seat} loses its power"));
        self.stage.lock().judge.counts.power_losses += 1;
        self.seats[seat].shelf.medium().lose_power(&mut self.random);
    }

    /// From here on, the life has no effect.
    fn end_life(&mut self, seat: usize, number: u32) {
        let lives = &mut self.seats[seat].lives;
        let Some(index) = lives.iter().position(|life| life.crew.life == number) else { return };
        let Life { crew, runners, .. } = lives.remove(index);
        crew.signs.alive.store(false, Ordering::SeqCst);
        drop(runners);
        drop(crew.signs.dispatcher());
        self.stage.lock().hang_up(number);
    }

    fn note(&self, line: impl FnOnce() -> String) {
        self.stage.lock().note(line);
    }
}

impl Drop for Company {
    /// Kills the remaining threads in order, so that they touch no disk.
    fn drop(&mut self) {
        for seat in 0..self.seats.len() {
            while let Some(life) = self.seats[seat].lives.first() {
                self.end_life(seat, life.crew.life);
            }
        }
    }
}

impl Seat {
    fn inbox(&self) -> std::sync::MutexGuard<'_, VecDeque<Record>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
