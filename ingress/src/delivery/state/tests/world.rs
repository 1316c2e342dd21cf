//! Kafka, its client and a disk around the state machine: each does what the test says, when it says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::Record;
use primitives::time::Timestamp;

use super::super::{
    Batch, DeliveryState, Effects, Input, Offer, ProducerState, Reply, Reported, Role, Rules, Span, Waiter, Work, flag,
};

const PARTITIONS: u32 = 2;

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Offer,
    /// So many milliseconds pass.
    Pass(u64),
    /// Kafka reports the oldest record that the client holds.
    Report(Reported),
    /// It is reported as failed, although Kafka keeps it.
    LoseReport,
    Fail,
    Connect,
    Poll(Role),
    /// The work is done, or fails.
    Done(Role, bool),
}

pub struct World {
    pub state: DeliveryState,
    pub now: Instant,
    /// Passed to the client and not reported: ticket, partition, number of the record, whether flagged.
    pub client: VecDeque<(u64, u32, u64, bool)>,
    /// Per partition.
    pub kafka: BTreeMap<u32, Vec<(u64, bool)>>,
    /// In the disk log, by offset.
    disk: BTreeMap<u64, (u64, bool)>,
    pub delivered: BTreeSet<u64>,
    /// What is being done, by thread.
    work: BTreeMap<Role, Work>,
    pub replies: BTreeMap<u64, Reply>,
    pub offered: u64,
}

impl World {
    /// The disk has entries of an earlier run, numbered from 1,000.
    pub fn new(rules: Rules, entries: u64) -> Self {
        Self {
            state: DeliveryState::new(rules, PARTITIONS, 0, entries),
            now: Instant::now(),
            client: VecDeque::new(),
            kafka: BTreeMap::new(),
            disk: (0..entries).map(|offset| (offset, (1_000 + offset, false))).collect(),
            delivered: BTreeSet::new(),
            work: BTreeMap::new(),
            replies: BTreeMap::new(),
            offered: 0,
        }
    }

    /// Returns whether there may be something to send.
    pub fn play(&mut self, step: Step) -> bool {
        match step {
            Step::Offer => {
                let number = self.offered;
                self.offered += 1;
                let waiter = Waiter { worker: 0, slot: u32::try_from(number).expect("small"), generation: 0 };
                self.handle(Input::Offered(Offer {
                    waiter,
                    partition: partition(number),
                    record: record(number, false),
                }))
            }
            Step::Pass(ms) => {
                self.now += Duration::from_millis(ms);
                self.handle(Input::Tick)
            }
            Step::Report(reported) => self.report(reported, reported == Reported::Kept),
            Step::LoseReport => self.report(Reported::Failed, true),
            Step::Fail => self.handle(Input::Failed),
            Step::Connect => self.connect(),
            Step::Poll(role) => self.poll(role),
            Step::Done(role, succeeds) => self.done(role, succeeds),
        }
    }

    /// As [`Self::play`]; then the client takes all that may be sent.
    pub fn run(&mut self, step: Step) {
        if self.play(step) {
            while self.poll(Role::Send) {
                self.done(Role::Send, true);
            }
        }
    }

    /// Runs the work of a role, if there is some.
    pub fn work(&mut self, role: Role, succeeds: bool) -> bool {
        let is_polled = self.poll(role);
        self.run(Step::Done(role, succeeds));
        is_polled
    }

    pub fn is_busy(&self, role: Role) -> bool {
        self.work.contains_key(&thread(role))
    }

    pub fn report_all(&mut self) {
        while !self.client.is_empty() {
            self.run(Step::Report(Reported::Kept));
        }
    }

    pub fn drain(&mut self) {
        while self.work(Role::Drain, true) {}
    }

    /// All faults end; everything that is possible happens.
    pub fn heal(&mut self) {
        for _ in 0..1_000 {
            self.run(Step::Pass(300));
            for role in [Role::Send, Role::Append, Role::Drain] {
                self.run(Step::Done(role, true));
            }
            self.work(Role::Append, true);
            self.report_all();
            self.run(Step::Connect);
            self.drain();
            self.work(Role::Retry, true);
            let status = self.state.status(self.now);
            if (status.direct, status.open, status.appends, status.parked) == (true, 0, 0, 0) {
                return;
            }
        }
        panic!("no rest: {:?}", self.state.status(self.now));
    }

    pub fn is_in_kafka(&self, number: u64) -> bool {
        self.kafka.values().flatten().any(|(other, _)| *other == number)
    }

    pub fn disk_end(&self) -> u64 {
        self.disk.len() as u64
    }

    fn handle(&mut self, input: Input) -> bool {
        let mut effects = Effects::default();
        self.state.handle(self.now, input, &mut effects);
        for (waiter, reply) in effects.replies {
            let number = u64::from(waiter.slot);
            assert_eq!(self.replies.insert(number, reply), None, "{number} was answered twice");
            match reply {
                Reply::Kafka => assert!(self.is_in_kafka(number), "{number}"),
                Reply::Disk => assert!(self.disk.values().any(|(other, _)| *other == number), "{number}"),
                Reply::StorageUnavailable => {}
            }
        }
        for offset in effects.delivered {
            let number = self.disk[&offset].0;
            let elsewhere = self.disk.iter().any(|(other, (twin, _))| *other > offset && *twin == number);
            assert!(self.is_in_kafka(number) || elsewhere, "entry {offset} was delivered too early");
            self.delivered.insert(offset);
        }
        effects.send
    }

    /// The client takes the first half of a batch at once.
    fn poll(&mut self, role: Role) -> bool {
        if self.is_busy(role) {
            return false;
        }
        let Some(mut work) = self.state.poll(self.now, role) else { return false };
        if let Work::Send(Batch { partition, records }) = &mut work {
            let half = records.len() / 2;
            let first = records.drain(..half).map(|(ticket, record)| taken(ticket, *partition, &record));
            self.client.extend(first);
        }
        self.work.insert(thread(role), work);
        true
    }

    fn done(&mut self, role: Role, succeeds: bool) -> bool {
        match self.work.remove(&thread(role)) {
            Some(Work::Send(Batch { partition, mut records })) => {
                if succeeds {
                    self.client.extend(records.drain(..).map(|(ticket, record)| taken(ticket, partition, &record)));
                }
                self.handle(Input::Sent { partition, refused: records })
            }
            Some(Work::Append(group)) if succeeds => {
                let first = self.disk_end();
                for (offset, (record, resent)) in (first..).zip(group) {
                    self.disk.insert(offset, (number_of(&record), resent || is_flagged(&record)));
                }
                self.handle(Input::Appended { first })
            }
            Some(Work::Append(group)) => self.handle(Input::NotAppended(group)),
            Some(Work::Drain(Span { next, end, count_max })) if succeeds => {
                let end = end.min(next + count_max as u64);
                (next..end).filter(|offset| self.drain_entry(*offset)).count() > 0
            }
            Some(Work::Retry(offset)) if succeeds => {
                let record = self.entry(offset);
                self.handle(Input::Retried { offset, partition: partition(number_of(&record)), record })
            }
            Some(Work::Move(offset)) if succeeds => self.handle(Input::Moved { offset, record: self.entry(offset) }),
            Some(Work::Drain(_) | Work::Retry(_) | Work::Move(_)) | None => false,
        }
    }

    fn report(&mut self, reported: Reported, is_kept: bool) -> bool {
        let Some((ticket, partition, number, flagged)) = self.client.pop_front() else { return false };
        if is_kept {
            self.kafka.entry(partition).or_default().push((number, flagged));
        }
        self.handle(Input::Reported { ticket, reported })
    }

    fn connect(&mut self) -> bool {
        let status = self.state.status(self.now);
        let wants_one = status.replaceable || status.producer == ProducerState::Connecting;
        if !wants_one || self.is_busy(Role::Drain) {
            return false;
        }
        let first = (0..self.disk_end()).find(|offset| !self.delivered.contains(offset));
        self.handle(Input::Connected { first_undelivered: first.unwrap_or(self.disk_end()) })
    }

    fn drain_entry(&mut self, offset: u64) -> bool {
        if self.delivered.contains(&offset) {
            return self.handle(Input::Passed { offset });
        }
        let record = self.entry(offset);
        self.handle(Input::Drained { offset, partition: partition(number_of(&record)), record })
    }

    fn entry(&self, offset: u64) -> Arc<Record> {
        let (number, flagged) = self.disk[&offset];
        record(number, flagged)
    }
}

pub fn rules() -> Rules {
    Rules {
        disk_first: false,
        deadline: Duration::from_millis(300),
        report_wait_max: Duration::from_secs(10),
        records_max: 20_000,
        bytes_max: 32 * 1024 * 1024,
        move_parked_above_bytes: 0,
    }
}

pub fn partition(number: u64) -> u32 {
    u32::try_from(number % u64::from(PARTITIONS)).expect("small")
}

/// One thread connects producers and has these roles.
fn thread(role: Role) -> Role {
    match role {
        Role::Send | Role::Append => role,
        Role::Drain | Role::Retry | Role::Move => Role::Drain,
    }
}

fn taken(ticket: u64, partition: u32, record: &Record) -> (u64, u32, u64, bool) {
    (ticket, partition, number_of(record), is_flagged(record))
}

fn record(number: u64, flagged: bool) -> Arc<Record> {
    let mut record = Record { key: Some(number.to_string()), value: None, headers: vec![], at: Timestamp::default() };
    if flagged {
        flag(&mut record);
    }
    Arc::new(record)
}

fn number_of(record: &Record) -> u64 {
    record.key.as_ref().and_then(|key| key.parse().ok()).expect("a number")
}

fn is_flagged(record: &Record) -> bool {
    record.header("hl_resent").is_some()
}
