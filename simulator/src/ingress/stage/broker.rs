//! Kafka as seen by ingress: each producer has a line, on which records are stored in order, and acknowledged later or
//! not.

use std::collections::{BTreeMap, VecDeque};

use event_log::Record;
use kafka_log::{Fault, FaultScope, ReportError, SendError};

use super::Stage;
use crate::ingress::mutation::Mutation;

/// The limit of the client's queue.
const QUEUE_RECORDS_MAX: usize = 40;

/// A delivery report.
pub type Report = (u64, Result<(), ReportError>);

/// All brokers, and the records of the producers.
pub struct Broker {
    /// Whether they respond.
    pub is_up: bool,
    /// The largest accepted record, in bytes.
    pub size_max: usize,
    /// New records of `raw`, which no caller has fetched yet.
    pub fresh: VecDeque<(u32, Record)>,
    partitions: u32,
    lines: BTreeMap<u64, Line>,
    next: u64,
    /// The number of records in each partition of `raw`.
    ends: Vec<u64>,
}

/// The records of one producer that are in flight.
struct Line {
    seat: usize,
    life: u32,
    is_successor: bool,
    queues: Vec<VecDeque<SentRecord>>,
    reports: VecDeque<Report>,
    is_done_for: bool,
}

impl Line {
    fn is_quiet(&self) -> bool {
        self.reports.is_empty() && self.queues.iter().all(VecDeque::is_empty)
    }
}

struct SentRecord {
    ticket: u64,
    record: Record,
    is_stored: bool,
}

impl Broker {
    pub fn new(partitions: u32) -> Self {
        Self {
            is_up: true,
            size_max: usize::MAX,
            fresh: VecDeque::new(),
            partitions,
            lines: BTreeMap::new(),
            next: 0,
            ends: vec![0; partitions as usize],
        }
    }

    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// A line for a new producer.
    pub fn open(&mut self, seat: usize, life: u32, is_successor: bool) -> u64 {
        self.next += 1;
        let queues = (0..self.partitions).map(|_| VecDeque::new()).collect();
        let line = Line { seat, life, is_successor, queues, reports: VecDeque::new(), is_done_for: false };
        self.lines.insert(self.next, line);
        self.next
    }

    pub fn is_done_for(&self, line: u64) -> bool {
        self.lines.get(&line).is_none_or(|line| line.is_done_for)
    }

    pub fn has_report(&self, life: u32) -> bool {
        self.lines.values().any(|line| line.life == life && !line.reports.is_empty())
    }

    /// The next report, and whether its client has no more records.
    pub fn report(&mut self, life: u32) -> Option<(Report, bool)> {
        self.lines.values_mut().filter(|line| line.life == life).find_map(|line| {
            let report = line.reports.pop_front()?;
            Some((report, line.is_quiet()))
        })
    }

    /// Whether nothing is in flight.
    pub fn is_quiet(&self) -> bool {
        self.lines.values().all(Line::is_quiet)
    }

    fn queue(&mut self, line: u64, partition: u32) -> Option<&mut VecDeque<SentRecord>> {
        self.lines.get_mut(&line)?.queues.get_mut(partition as usize)
    }
}

impl Stage {
    pub fn send(&mut self, line: u64, partition: u32, record: Record, ticket: u64) -> Result<(), SendError> {
        let (rate, size_max) = (self.faults.full, self.broker.size_max);
        let is_full = self.chance(rate);
        // Some are refused by the client, others by the broker.
        let is_large = record.size() > size_max && self.random.bool();
        let judge = &mut self.judge;
        let Some(queue) = self.broker.queue(line, partition) else { return Err(SendError::Fatal) };
        if is_large {
            judge.refused(&record);
            return Err(SendError::TooLarge);
        }
        if is_full || queue.len() >= QUEUE_RECORDS_MAX {
            return Err(SendError::Full);
        }
        queue.push_back(SentRecord { ticket, record, is_stored: false });
        if self.has(Mutation::SettlesBeforeAck) {
            self.report(line, (ticket, Ok(())));
        }
        Ok(())
    }

    /// On one line something is stored or acknowledged, or fails.
    pub fn move_brokers(&mut self) {
        let lines: Vec<u64> = self.broker.lines.keys().copied().collect();
        if lines.is_empty() || !self.broker.is_up {
            return;
        }
        let line = lines[self.random.usize(..lines.len())];
        let partition = self.random.u32(..self.broker.partitions);
        let faults = self.faults;
        if self.broker.is_done_for(line) {
            return;
        }
        if self.chance(faults.fatal) {
            self.end_in_error(line);
        } else if self.chance(faults.failed) {
            self.fail_first(line, partition);
        } else if self.random.bool() {
            self.store(line, partition);
        } else {
            self.acknowledge(line, partition);
        }
    }

    /// Stores the next records of a line; one that is too large is refused alone.
    fn store(&mut self, line: u64, partition: u32) {
        for _ in 0..self.random.u32(1..6) {
            let size_max = self.broker.size_max;
            let turns = self.has(Mutation::SuccessorTurnsAround) && self.broker.lines[&line].is_successor;
            let Some(queue) = self.broker.queue(line, partition) else { return };
            let next = queue.iter().position(|sent| !sent.is_stored);
            let last = queue.iter().rposition(|sent| !sent.is_stored);
            let Some(index) = (if turns { last } else { next }) else { return };
            if queue[index].record.size() > size_max {
                let Some(SentRecord { ticket, record, .. }) = queue.remove(index) else { return };
                self.judge.refused(&record);
                self.note(|| format!("refused, too large: {}", name(&record)));
                self.report(line, (ticket, Err(refused())));
                continue;
            }
            queue[index].is_stored = true;
            let record = queue[index].record.clone();
            self.keep(partition, record);
        }
    }

    fn keep(&mut self, partition: u32, record: Record) {
        let end = &mut self.broker.ends[partition as usize];
        let offset = *end;
        *end += 1;
        let marked = if record.header("hl_resent").is_some() { " resent" } else { "" };
        self.note(|| format!("raw {partition}/{offset}: {}{marked}", name(&record)));
        let verdict = self.judge.stored(partition, &record, self.broker.partitions);
        self.judged(verdict);
        self.broker.fresh.push_back((partition, record));
    }

    fn acknowledge(&mut self, line: u64, partition: u32) {
        for _ in 0..self.random.u32(1..6) {
            let Some(queue) = self.broker.queue(line, partition) else { return };
            if !queue.front().is_some_and(|sent| sent.is_stored) {
                return;
            }
            let Some(sent) = queue.pop_front() else { return };
            if !self.has(Mutation::SettlesBeforeAck) {
                self.report(line, (sent.ticket, Ok(())));
            }
        }
    }

    /// The oldest record of a line fails, stored or not; the next ones continue.
    fn fail_first(&mut self, line: u64, partition: u32) {
        let Some(sent) = self.broker.queue(line, partition).and_then(VecDeque::pop_front) else { return };
        self.note(|| format!("fails: {} (stored: {})", name(&sent.record), sent.is_stored));
        self.fail(line, sent.ticket);
    }

    /// The producer fails. Some of its records are stored anyway; some are reported at once.
    fn end_in_error(&mut self, line: u64) {
        self.store_rest(line);
        let Some(done_for) = self.broker.lines.get_mut(&line) else { return };
        done_for.is_done_for = true;
        let seat = done_for.seat;
        self.note(|| format!("the producer of line {line} is done for"));
        self.judge.broke(seat);
        self.give_up(line, false);
    }

    /// A failed producer reports all or some of its records.
    pub fn give_up(&mut self, line: u64, all: bool) {
        if !self.broker.is_done_for(line) {
            return;
        }
        for partition in 0..self.broker.partitions {
            let Some(held) = self.broker.queue(line, partition).map(|queue| queue.len()) else { return };
            let kept = if all { 0 } else { self.random.usize(..=held) };
            let Some(given) = self.broker.queue(line, partition).map(|queue| queue.split_off(kept)) else { return };
            for sent in given {
                self.fail(line, sent.ticket);
            }
        }
    }

    fn fail(&mut self, line: u64, ticket: u64) {
        let Some(seat) = self.broker.lines.get(&line).map(|line| line.seat) else { return };
        self.judge.broke(seat);
        let kept = self.has(Mutation::FailedIsKept);
        self.report(line, (ticket, if kept { Ok(()) } else { Err(failed()) }));
    }

    /// Closes a producer. Its records may still be stored before others send; none is reported.
    pub fn let_go(&mut self, line: u64) {
        self.store_rest(line);
        self.broker.lines.remove(&line);
    }

    /// Closes all producers of a life.
    pub fn hang_up(&mut self, life: u32) {
        let lines = self.broker.lines.iter().filter(|(_, line)| line.life == life);
        for line in lines.map(|(line, _)| *line).collect::<Vec<_>>() {
            self.let_go(line);
        }
    }

    fn store_rest(&mut self, line: u64) {
        for partition in 0..self.broker.partitions {
            if self.broker.is_up && !self.broker.is_done_for(line) && self.random.bool() {
                self.store(line, partition);
            }
        }
    }

    fn report(&mut self, line: u64, report: Report) {
        if let Some(line) = self.broker.lines.get_mut(&line) {
            line.reports.push_back(report);
        }
    }
}

/// The name of a record in traces.
pub fn name(record: &Record) -> String {
    let id = record.header(event_log::contract::header::ID).map(String::from_utf8_lossy).unwrap_or_default();
    format!("{} of {}", id, record.key.as_deref().unwrap_or("nobody"))
}

fn failed() -> ReportError {
    ReportError { scope: FaultScope::Producer, fault: Fault::Other, reason: "it failed".to_owned() }
}

fn refused() -> ReportError {
    ReportError { scope: FaultScope::Record, fault: Fault::TooLarge, reason: "it is too large".to_owned() }
}
