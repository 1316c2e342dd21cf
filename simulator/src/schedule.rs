//! A schedule: the moves of threads, incoming events and faults from one seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bitrix24::AppName;
use bitrix24::Trust;
use event_log::contract::Topic;
use event_log::{Position, Record};
use fastrand::Rng;
use primitives::time::Timestamp;
use processor::metrics::Metrics;
use processor::run::limits::Limits;
use processor::run::recent_events::RecentEvents;
use processor::run::session::{Processor, Timings};
use processor::run::shared::Shared;
use processor::state::{FOLD_VERSION, Store, Trusts};
use runtime::lifecycle::{Readiness, Stop};
use runtime::telemetry;

use crate::baton::{End, Go, Pause, Runner};
use crate::being::{Being, INJECTED};
use crate::broker::Broker;
use crate::disk::{Disk, SimStateDir};
use crate::ingress::company::Company;
use crate::ingress::judge::id;
use crate::judge::{DERIVED, Judge};
use crate::mutation::Mutation;
use crate::portals::{FIRST_EVENT_APP, Portals, second_copy};
use crate::seeds::Outcome;
use crate::sim_event_log::SimEventLog;
use crate::world::{Faults, Handle, Life, World};

const BEGIN_S: u64 = 1_800_000_000;
/// Enough rounds to come to rest.
const ROUNDS_MAX: u64 = 3_000;
/// One in this many schedules has ingresses of its own.
const WITH_INGRESS_EVERY: u64 = 4;
/// Limit of stalled and replaced processors.
const ZOMBIES_MAX: usize = 2;

pub fn run(seed: u64, mutation: Option<Mutation>, traced: bool) -> Outcome {
    let mut schedule = Schedule::new(seed, mutation, traced);
    if let Err(violation) = schedule.play() {
        schedule.world.lock().violate(violation);
    }
    schedule.end()
}

struct Schedule {
    world: Handle,
    random: Rng,
    seats: Vec<Seat>,
    zombies: Vec<Run>,
    lives: Life,
    metrics: Metrics,
    trusts: Trusts,
    portals: Portals,
    /// Events that ingress has stored but not delivered.
    hand: VecDeque<Record>,
    /// In some schedules, simulated ingresses do that.
    company: Option<Company>,
    /// The positions of first copies.
    firsts: BTreeMap<Vec<u8>, (u32, u64)>,
    /// Of every second copy in `raw`: the partition, and the offsets of both copies.
    copies: Vec<(u32, u64, u64)>,
    measures: bool,
}

/// The place of a processor: its name and its disk outlive its lives.
struct Seat {
    instance: String,
    disk: Disk,
    /// The state of a newer version, beside the current one.
    beside: Disk,
    fold_version: u32,
    /// An earlier copy.
    older: Option<Disk>,
    run: Option<Run>,
}

struct Run {
    life: Life,
    runner: Runner,
    stop: Stop,
    shared: Shared,
    is_stopped: bool,
}

impl Schedule {
    fn new(seed: u64, mutation: Option<Mutation>, traced: bool) -> Self {
        let mut random = Rng::with_seed(seed);
        let partitions = random.u32(1..=3);
        let broker = Broker::new(partitions, BEGIN_S * 1_000);
        let first_event = AppName::parse(FIRST_EVENT_APP).expect("a name");
        let trusts = Trusts::new([(first_event, Trust::FirstEvent)]);
        let mut portals = Portals::new(&mut random, broker.now());
        let company = seed.is_multiple_of(WITH_INGRESS_EVERY).then(|| {
            // Several ingresses keep no order between them.
            portals.is_orderly = false;
            Company::new(Rng::with_seed(!seed), partitions, broker.now_ms, None, traced)
        });
        let rate = |random: &mut Rng, most: u32| if random.bool() { random.u32(..most) } else { 0 };
        let faults = Faults {
            again: rate(&mut random, 200),
            reopen: rate(&mut random, 30),
            answer_lost: rate(&mut random, 200),
            broken: rate(&mut random, 100),
            rows: rate(&mut random, 4),
            forgets: random.bool(),
        };
        let seats = (0..random.u32(1..=3)).map(|number| Seat {
            instance: format!("processor-{number}"),
            disk: Disk::default(),
            beside: Disk::default(),
            fold_version: FOLD_VERSION,
            older: None,
            run: None,
        });
        let seats = seats.collect();
        let world = World {
            broker,
            random: random.fork(),
            judge: Judge::new(partitions, trusts.clone()),
            faults,
            mutation,
            hearts: BTreeMap::new(),
            fenced: BTreeSet::new(),
            brought: BTreeMap::new(),
            violation: None,
            trace: traced.then(Vec::new),
            steps: 0,
        };
        Self {
            world: Handle::new(world),
            measures: faults.forgets || random.bool(),
            random,
            seats,
            zombies: Vec::new(),
            lives: 0,
            metrics: Metrics::new(&telemetry::registry()),
            trusts,
            portals,
            hand: VecDeque::new(),
            company,
            firsts: BTreeMap::new(),
            copies: Vec::new(),
        }
    }

    /// Chaos, rest, and one processor that reads everything again.
    fn play(&mut self) -> Result<(), String> {
        for _ in 0..self.random.u32(80..650) {
            self.act()?;
            let ms = self.random.u64(..20);
            self.pass_time(ms)?;
        }
        self.rest("after the last fault")?;

        let ends = self.ends();
        let seat = self.random.usize(..self.seats.len());
        self.note(|| "one state is deleted: nothing may come of it".to_owned());
        self.kill(seat);
        self.seats[seat].disk.wipe();
        self.rest("after a state was deleted")?;
        if self.ends() == ends { Ok(()) } else { Err("I3: reading facts again published something".to_owned()) }
    }

    fn end(mut self) -> Outcome {
        self.zombies.clear();
        self.seats.clear();
        self.company = None;
        let mut world = self.world.lock();
        let mut counts = world.judge.counts;
        counts.lives = u64::from(self.lives);
        Outcome { counts, violation: world.violation.take(), trace: world.trace.take().unwrap_or_default() }
    }

    fn act(&mut self) -> Result<(), String> {
        if let Some(company) = &mut self.company {
            for _ in 0..self.random.u32(..4) {
                company.act()?;
            }
            self.bring();
        }
        match self.random.u32(..1_000) {
            0..=759 => self.step_any(),
            760..=879 => {
                let mut world = self.world.lock();
                let world = &mut *world;
                world.broker.write_marker(&mut world.random);
                world.judge.subscribe(&world.broker)
            }
            880..=949 => {
                self.come();
                Ok(())
            }
            _ => {
                self.disturb();
                Ok(())
            }
        }
    }

    fn step_any(&mut self) -> Result<(), String> {
        let runs = self.seats.iter().filter_map(|seat| seat.run.as_ref()).chain(&self.zombies);
        let able: Vec<Life> = runs.filter(|run| !run.is_stopped).map(|run| run.life).collect();
        if able.is_empty() {
            let seat = self.random.usize(..self.seats.len());
            self.start(seat);
            return Ok(());
        }
        let life = able[self.random.usize(..able.len())];
        self.step(life)
    }

    /// Starts or ends a fault.
    fn disturb(&mut self) {
        let seat = self.random.usize(..self.seats.len());
        match self.random.u32(..21) {
            0..=2 => {
                self.start(seat);
            }
            3..=4 => {
                self.kill(seat);
                self.come_back(seat);
            }
            5..=7 => self.halt(seat),
            8..=9 => self.go_on(),
            10 => {
                if let Some(run) = &self.seats[seat].run {
                    run.stop.request();
                }
            }
            11 => self.replace(seat),
            12 => {
                let jump_ms = self.random.u64(1_000..15_000);
                // Expirations happen at the next tick.
                self.world.lock().broker.now_ms += jump_ms;
                self.beat();
            }
            13 => self.compact(),
            14 => self.trim(),
            15 => self.seats[seat].older = Some(self.seats[seat].disk.copy()),
            16 => self.upgrade(seat),
            17..=19 => self.restart_the_broker(),
            _ => {
                let mut world = self.world.lock();
                if world.broker.group.is_empty() && !world.broker.is_undecided() {
                    world.note(|| "the group's offsets expire".to_owned());
                    world.broker.group.offsets.clear();
                    world.judge.offsets_expired();
                }
            }
        }
    }

    /// Events arrive at ingress, which delivers some to `raw`.
    fn come(&mut self) {
        let (now, partitions) = {
            let world = self.world.lock();
            (world.broker.now(), world.broker.partitions())
        };
        for _ in 0..self.random.u32(..6) {
            let event = self.portals.next(&mut self.random, now);
            match &mut self.company {
                Some(company) => company.take(event),
                None => self.hand.push_back(event),
            }
        }
        if self.company.is_some() {
            return;
        }
        for _ in 0..self.random.u32(..6) {
            let at = if self.portals.is_orderly { 0 } else { self.random.usize(..self.hand.len().max(1)) };
            let Some(record) = self.hand.remove(at) else { break };
            self.hand_over(&record);
        }
        if self.random.u32(..4) == 0 {
            let partition = self.random.u32(..partitions);
            self.hand_over_again(partition);
        }
    }

    fn hand_over(&mut self, record: &Record) -> (u32, u64) {
        let partitions = self.world.lock().broker.partitions();
        let key = record.key.as_deref().unwrap_or_default();
        self.append(event_log::contract::partition_of(key, partitions), record)
    }

    /// Moves records of the ingresses to `raw`.
    fn bring(&mut self) {
        let Some(company) = &self.company else { return };
        let (lines, fresh) = (company.new_lines(), company.fresh());
        for line in lines {
            self.note(|| format!("ingress: {}", line.trim_start()));
        }
        for (partition, record) in fresh {
            let (partition, offset) = self.append(partition, &record);
            self.world.lock().judge.counts.by_ingress += 1;
            let (_, first) = *self.firsts.entry(id(&record)).or_insert((partition, offset));
            if first < offset {
                self.copies.push((partition, first, offset));
            }
        }
    }

    fn append(&mut self, partition: u32, record: &Record) -> (u32, u64) {
        let mut world = self.world.lock();
        let key = record.key.as_deref().unwrap_or_default();
        let offset = world.broker.append(Topic::Raw, partition, record.clone());
        world.note(|| format!("raw {partition}/{offset}: {key} {}", body(record)));
        world.judge.came(partition, record);
        (partition, offset)
    }

    /// A second copy of a recent record.
    fn hand_over_again(&mut self, partition: u32) {
        let young = self.world.lock().broker.now().minus(Duration::from_secs(20));
        let copied = {
            let world = self.world.lock();
            let log = world.broker.log(Topic::Raw, partition);
            let young: Vec<(u64, Record)> = log
                .committed(0)
                .filter(|slot| slot.record.at >= young)
                .map(|slot| (slot.offset, slot.record.clone()))
                .collect();
            (!young.is_empty()).then(|| young[self.random.usize(..young.len())].clone())
        };
        if let Some((first, record)) = copied {
            let (partition, second) = self.hand_over(&second_copy(&record));
            self.copies.push((partition, first, second));
        }
    }

    /// Retention of `raw`: never unread records, nor a first copy before its second one is read.
    fn trim(&mut self) {
        if self.company.is_some() {
            // Any record may still get a second copy.
            return;
        }
        let mut world = self.world.lock();
        let partition = self.random.u32(..world.broker.partitions());
        let read_until = world.judge.read_until(partition);
        let kept = self.copies.iter().filter(|(at, _, second)| *at == partition && *second >= read_until);
        let young = world.broker.now().minus(Duration::from_secs(30));
        let young = world.broker.log(Topic::Raw, partition).offset_at(young);
        let before = kept.map(|(_, first, _)| *first).chain([read_until, young]).min().unwrap_or(0);
        world.note(|| format!("raw/{partition} is trimmed to {before}"));
        world.broker.log_mut(Topic::Raw, partition).trim(before);
    }

    /// Restarts the broker; in some schedules it forgets the outcome of transactions.
    fn restart_the_broker(&mut self) {
        let mut world = self.world.lock();
        let world = &mut *world;
        if !world.faults.forgets {
            return;
        }
        let hung = world.broker.restart(&mut world.random);
        world.judge.counts.hung += hung as u64;
        world.note(|| format!("the broker is killed and started again: {hung} transactions hang"));
    }

    fn compact(&mut self) {
        let mut world = self.world.lock();
        let world = &mut *world;
        let partition = self.random.u32(..world.broker.partitions());
        for topic in [Topic::Facts, Topic::Installations, Topic::Permissions] {
            let before = self.random.u64(..=world.broker.log(topic, partition).stable_end());
            world.note(|| format!("{}/{partition} is compacted below {before}", topic.name()));
            let log = world.broker.log_mut(topic, partition);
            log.compact(before);
            if world.mutation == Some(Mutation::CompactsTooMuch) {
                log.lose_newest("progress");
            }
        }
    }

    fn start(&mut self, seat: usize) {
        if self.seats[seat].run.is_some() {
            return;
        }
        self.lives += 1;
        let being = |port: &Arc<crate::baton::Port>, world, life, instance, stop| Being {
            life,
            instance,
            world,
            port: port.clone(),
            stop,
        };
        let (life, instance, stop) = (self.lives, self.seats[seat].instance.clone(), Stop::default());
        let (shared, world) = (Shared::default(), self.world.clone());
        let Seat { disk, beside, fold_version, .. } = &self.seats[seat];
        let (disk, beside, fold_version) = (disk.clone(), beside.clone(), *fold_version);
        self.note(|| format!("life {life} begins as {instance}"));
        let measure_every = if self.measures { Duration::ZERO } else { Duration::MAX };
        // Logs are never inconsistent here; otherwise the life ends with that.
        let timings = Timings {
            backoff: Duration::ZERO,
            measure_every,
            check_again: None,
            unowned_wait: Duration::MAX,
            // The event log reports only old transactions.
            open_max: Duration::ZERO,
            ..Timings::default()
        };
        // Independent of the machine's clock. In every other life most batches span several steps.
        let step_records = if life % 2 == 0 { 6 } else { Limits::default().step_records };
        let (step_time, batch_time) = (Duration::MAX, Duration::MAX);
        let limits = Limits { step_records, step_time, batch_time, ..Limits::default() };
        let (trusts, metrics) = (self.trusts.clone(), self.metrics.clone());
        let (asked, seen) = (stop.clone(), shared.clone());
        let runner = Runner::start(move |port| {
            let being = being(port, world, life, instance, asked.clone());
            let state_dir = Box::new(SimStateDir { disk, beside, fold_version, being: being.clone() });
            let recent_events = RecentEvents::default();
            let processor = Processor {
                vouching: None,
                vault: None,
                forwarding: None,
                state_dir,
                timings,
                limits,
                trusts,
                shared: seen,
                recent_events,
                metrics,
                stop: asked,
            };
            processor.run(|| SimEventLog::open(&being), Readiness::default().pending("facts"))
        });
        self.seats[seat].run = Some(Run { life, runner, stop, shared, is_stopped: false });
    }

    fn kill(&mut self, seat: usize) {
        let Some(run) = self.seats[seat].run.take() else { return };
        self.world.lock().judge.counts.kills += 1;
        self.note(|| format!("life {} is killed at: {}", run.life, run.runner.at()));
        drop(run);
    }

    /// The program is replaced by another version of the fold.
    fn upgrade(&mut self, seat: usize) {
        self.kill(seat);
        self.seats[seat].fold_version += 1;
        self.note(|| "its program is replaced by a newer one".to_owned());
        self.come_back(seat);
    }

    /// What a killed processor finds on its restart, immediate or later.
    fn come_back(&mut self, seat: usize) {
        let Seat { disk, beside, older, .. } = &self.seats[seat];
        let found = match self.random.u32(..8) {
            0 => {
                disk.wipe();
                "nothing"
            }
            1 => {
                let damaged = if self.random.u32(..4) == 0 { beside } else { disk };
                damaged.damage(&mut self.random);
                "damage"
            }
            2 if older.is_some() => {
                if let Some(older) = older {
                    disk.restore(older);
                }
                "what was there before"
            }
            _ => "its state",
        };
        let instance = self.seats[seat].instance.clone();
        self.note(|| format!("{instance} will find {found}"));
        if self.random.bool() {
            self.start(seat);
        }
    }

    /// Stops a process, often for longer than its session.
    fn halt(&mut self, seat: usize) {
        let Some(run) = &mut self.seats[seat].run else { return };
        run.is_stopped = true;
        let line = format!("life {} stands still at: {}", run.life, run.runner.at());
        self.note(|| line);
        self.world.lock().judge.counts.stops += 1;
        if self.random.bool() {
            self.world.lock().broker.now_ms += 11_000;
            self.beat();
        }
    }

    fn go_on(&mut self) {
        let runs = self.seats.iter_mut().filter_map(|seat| seat.run.as_mut()).chain(&mut self.zombies);
        let mut stopped: Vec<&mut Run> = runs.filter(|run| run.is_stopped).collect();
        if !stopped.is_empty() {
            let index = self.random.usize(..stopped.len());
            stopped[index].is_stopped = false;
        }
    }

    /// Another process takes the identity of a stalled one, with a copy of its state or none.
    fn replace(&mut self, seat: usize) {
        let is_stopped = self.seats[seat].run.as_ref().is_some_and(|run| run.is_stopped);
        if !is_stopped || self.zombies.len() >= ZOMBIES_MAX {
            return;
        }
        self.zombies.extend(self.seats[seat].run.take());
        let disk = if self.random.bool() { self.seats[seat].disk.copy() } else { Disk::default() };
        self.seats[seat].disk = disk;
        self.seats[seat].beside = Disk::default();
        self.start(seat);
    }

    fn step(&mut self, life: Life) -> Result<(), String> {
        self.world.lock().steps += 1;
        let seat = self.seats.iter().position(|seat| seat.run.as_ref().is_some_and(|run| run.life == life));
        let zombie = self.zombies.iter().position(|run| run.life == life);
        let run = match (seat, zombie) {
            (Some(seat), _) => self.seats[seat].run.as_mut(),
            (None, Some(zombie)) => self.zombies.get_mut(zombie),
            (None, None) => None,
        };
        let Some(run) = run else { return Ok(()) };
        let pause = run.runner.step(Go::On);
        if let Pause::Ended(end) = pause {
            let asked = run.stop.requested();
            if let Some(seat) = seat {
                self.seats[seat].run = None;
            } else if let Some(zombie) = zombie {
                self.zombies.remove(zombie);
            }
            self.ended(life, asked, &end)?;
        }
        self.world.lock().violation.clone().map_or(Ok(()), Err)
    }

    /// A processor may end on request, by fencing, or by an injected fault.
    fn ended(&self, life: Life, asked: bool, end: &End) -> Result<(), String> {
        let mut world = self.world.lock();
        world.note(|| format!("life {life} ends: {end:?}"));
        match end {
            End::InOrder if asked => Ok(()),
            End::Failed(_) if asked || world.fenced.contains(&life) => Ok(()),
            End::Failed(why) if why.contains(INJECTED) => Ok(()),
            End::InOrder | End::Failed(_) | End::Killed | End::Panicked(_) => {
                Err(format!("life {life} ended for no good reason: {end:?}"))
            }
        }
    }

    fn pass_time(&mut self, ms: u64) -> Result<(), String> {
        self.world.lock().broker.now_ms += ms;
        if let Some(company) = &self.company {
            company.stage().lock().pass(ms);
        }
        self.beat();
        let mut world = self.world.lock();
        world.broker.tick();
        world.violation.clone().map_or(Ok(()), Err)
    }

    /// Running processes send heartbeats, whatever they are doing.
    fn beat(&self) {
        let mut world = self.world.lock();
        let world = &mut *world;
        let runs = self.seats.iter().filter_map(|seat| seat.run.as_ref()).chain(&self.zombies);
        for run in runs.filter(|run| !run.is_stopped) {
            if let Some((instance, id)) = world.hearts.get(&run.life) {
                world.broker.group.hear(instance, *id, world.broker.now_ms);
            }
        }
    }

    /// Without faults, everything must come to rest, in the expected state.
    fn rest(&mut self, when: &str) -> Result<(), String> {
        self.note(|| format!("rest {when}"));
        self.world.lock().faults = Faults::default();
        for _ in 0..ROUNDS_MAX {
            while let Some(record) = self.hand.pop_front() {
                self.hand_over(&record);
            }
            if let Some(company) = &mut self.company {
                company.rest()?;
                self.bring();
            }
            for seat in 0..self.seats.len() {
                self.start(seat);
            }
            let runs = self.seats.iter_mut().filter_map(|seat| seat.run.as_mut()).chain(&mut self.zombies);
            let lives: Vec<Life> = runs
                .map(|run| {
                    run.is_stopped = false;
                    run.life
                })
                .collect();
            for life in lives {
                self.step(life)?;
            }
            {
                let mut world = self.world.lock();
                let world = &mut *world;
                while world.broker.write_marker(&mut world.random) {}
                world.judge.subscribe(&world.broker)?;
            }
            self.pass_time(100)?;
            if let Some(concluded) = self.conclude() {
                return concluded;
            }
        }
        let ingress = self.company.as_ref().map(Company::state).unwrap_or_default();
        Err(format!("I8: no rest {when}: {} {ingress}", self.state()))
    }

    /// The verdict, once everything is at rest.
    fn conclude(&self) -> Option<Result<(), String>> {
        let stores: Vec<Arc<Store>> = self.seats.iter().filter_map(|seat| seat.run.as_ref()?.shared.get()).collect();
        let mut world = self.world.lock();
        let world = &mut *world;
        let is_calm = self.company.as_ref().is_none_or(Company::is_at_rest)
            && self.zombies.is_empty()
            && world.broker.group.is_stable()
            && !world.broker.is_undecided();
        let is_whole = || stores.iter().all(|store| !store.is_outdated() && world.judge.is_whole(&world.broker, store));
        if !is_calm || stores.len() < self.seats.len() || !is_whole() {
            return None;
        }
        let stores: Vec<&Store> = stores.iter().map(AsRef::as_ref).collect();
        let kept = self.company.as_ref().map_or(Ok(()), Company::conclude);
        Some(kept.and_then(|()| world.judge.conclude(&world.broker, &stores, self.portals.is_orderly)))
    }

    fn ends(&self) -> Vec<u64> {
        let world = self.world.lock();
        let partitions = world.broker.partitions();
        let places = DERIVED.into_iter().flat_map(|topic| (0..partitions).map(move |partition| (topic, partition)));
        let visible = |(topic, partition)| {
            let from = Position { partition, offset: 0 };
            world.broker.read(topic, from, u64::MAX, usize::MAX).last().map_or(0, |entry| entry.position.offset + 1)
        };
        places.map(visible).collect()
    }

    fn state(&self) -> String {
        let runs = self.seats.iter().filter_map(|seat| seat.run.as_ref()).chain(&self.zombies);
        let runs: Vec<String> = runs.map(|run| format!("life {} at: {}", run.life, run.runner.at())).collect();
        let world = self.world.lock();
        let group = if world.broker.group.is_stable() { "stable" } else { "not stable" };
        let read: Vec<(u64, u64)> = (0..world.broker.partitions())
            .map(|partition| (world.judge.read_until(partition), world.broker.log(Topic::Raw, partition).bounds().1))
            .collect();
        format!("{runs:?}, the group is {group}, read: {read:?}, undecided: {}", world.broker.is_undecided())
    }

    fn note(&self, line: impl FnOnce() -> String) {
        self.world.lock().note(line);
    }
}

fn body(record: &Record) -> String {
    let value = record.value.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let resent = if record.header("hl_resent").is_some() { " resent" } else { "" };
    let at = Timestamp::ms(record.at) % 100_000_000;
    format!("{}…{resent} at {at}", value.chars().take(60).collect::<String>())
}
