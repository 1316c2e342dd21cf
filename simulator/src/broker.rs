//! A simulated Kafka: logs, transactions whose markers are delayed, and a group.
//!
//! A transaction is decided at one moment, as by Kafka's coordinator; its markers reach each log, and the group's
//! offsets, one by one and later. Until then a committed reader does not pass its records. A restarted broker may
//! forget markers; then the next marker of the same producer also stands for them.

use std::collections::{BTreeMap, BTreeSet};

use event_log::contract::Topic;
use event_log::{Entry, Position, Record};
use fastrand::Rng;
use primitives::time::Timestamp;

pub mod group;
mod log;
mod refusal;

use group::Group;
pub use log::{Log, Slot};
pub use refusal::Refusal;

/// Transactions that are open for longer are aborted.
pub const TRANSACTION_MS_MAX: u64 = 10_000;

/// Everything that outlives the processors.
pub struct Broker {
    pub now_ms: u64,
    pub group: Group,
    pub restarts: u64,
    partitions: u32,
    logs: BTreeMap<(Topic, u32), Log>,
    transactions: Vec<Transaction>,
    producers: BTreeMap<String, Producer>,
}

#[derive(Default)]
struct Producer {
    epoch: u32,
    /// Whether the coordinator raised the epoch, and the identity was not taken since.
    timed_out: bool,
    current: Option<usize>,
}

struct Transaction {
    state: State,
    began_ms: u64,
    producer: String,
    logs: BTreeSet<(Topic, u32)>,
    offsets: BTreeMap<u32, u64>,
    /// Markers that are not written yet.
    unmarked: Vec<Mark>,
    /// Forgotten markers: here the transaction hangs.
    forgotten: Vec<Mark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Committed,
    Aborted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Log(Topic, u32),
    Offsets,
}

impl Broker {
    pub fn new(partitions: u32, now_ms: u64) -> Self {
        let places = Topic::ALL.into_iter().flat_map(|topic| (0..partitions).map(move |partition| (topic, partition)));
        Self {
            now_ms,
            group: Group::new(partitions),
            restarts: 0,
            partitions,
            logs: places.map(|place| (place, Log::default())).collect(),
            transactions: Vec::new(),
            producers: BTreeMap::new(),
        }
    }

    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    pub fn log(&self, topic: Topic, partition: u32) -> &Log {
        &self.logs[&(topic, partition)]
    }

    pub fn log_mut(&mut self, topic: Topic, partition: u32) -> &mut Log {
        self.logs.get_mut(&(topic, partition)).expect("a log for each topic and partition")
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.now_ms)
    }

    /// Takes an identity: the previous holder is fenced, and its transaction is decided first.
    pub fn init(&mut self, id: &str) -> Result<u32, Refusal> {
        let producer = self.producers.entry(id.to_owned()).or_default();
        if let Some(current) = producer.current {
            let transaction = &self.transactions[current];
            if transaction.state == State::Open {
                producer.epoch += 1;
                producer.timed_out = false;
                self.decide(current, false);
                return Err(Refusal::Again);
            }
            if !transaction.unmarked.is_empty() {
                return Err(Refusal::Again);
            }
        }
        producer.epoch += 1;
        producer.timed_out = false;
        producer.current = None;
        Ok(producer.epoch)
    }

    /// Appends a record of a transaction, which begins with its first record. Returns its offset.
    pub fn produce(
        &mut self,
        id: &str,
        epoch: u32,
        topic: Topic,
        partition: u32,
        record: Record,
    ) -> Result<u64, Refusal> {
        let current = self.open_transaction(id, epoch)?;
        self.transactions[current].logs.insert((topic, partition));
        Ok(self.log_mut(topic, partition).append(record, Some(current)))
    }

    pub fn append(&mut self, topic: Topic, partition: u32, record: Record) -> u64 {
        self.log_mut(topic, partition).append(record, None)
    }

    /// Adds offsets of the group to the transaction. Refuses a member of another generation.
    pub fn send_offsets(
        &mut self,
        id: &str,
        epoch: u32,
        member: Option<(&str, u64, u32)>,
        read: &[Position],
    ) -> Result<(), Refusal> {
        let current = self.open_transaction(id, epoch)?;
        if let Some((instance, member, generation)) = member {
            self.group.check(instance, member, generation)?;
        }
        let offsets = &mut self.transactions[current].offsets;
        offsets.extend(read.iter().map(|next| (next.partition, next.offset)));
        Ok(())
    }

    /// Commits the transaction. Idempotent.
    pub fn commit(&mut self, id: &str, epoch: u32) -> Result<(), Refusal> {
        let producer = self.current(id, epoch)?;
        let Some(current) = producer.current else { return Ok(()) };
        match self.transactions[current].state {
            State::Open => self.decide(current, true),
            State::Committed => {}
            State::Aborted => return Err(Refusal::Abort("there is no transaction")),
        }
        Ok(())
    }

    pub fn abort(&mut self, id: &str, epoch: u32) {
        if let Ok(Producer { current: Some(current), .. }) = self.current(id, epoch) {
            let current = *current;
            if self.transactions[current].state == State::Open {
                self.decide(current, false);
            }
        }
    }

    /// The group's offset, unless an undecided transaction may change it.
    pub fn committed(&self, partition: u32) -> Result<Option<u64>, Refusal> {
        let unstable = self.offset_open_since(partition).is_some();
        if unstable { Err(Refusal::Again) } else { Ok(self.group.offsets.get(&partition).copied()) }
    }

    pub fn read(&self, topic: Topic, from: Position, until: u64, most: usize) -> Vec<Entry> {
        let log = self.log(topic, from.partition);
        let slots = log.committed(from.offset).take_while(|slot| slot.offset < until).take(most);
        let place = |slot: &Slot| Position { partition: from.partition, offset: slot.offset };
        slots.map(|slot| Entry { position: place(slot), record: slot.record.clone() }).collect()
    }

    /// Ends expired sessions and transactions, and continues the rebalance.
    pub fn tick(&mut self) {
        let now_ms = self.now_ms;
        for current in 0..self.transactions.len() {
            let transaction = &self.transactions[current];
            if transaction.state == State::Open && now_ms > transaction.began_ms + TRANSACTION_MS_MAX {
                let producer = self.producers.get_mut(&transaction.producer).expect("began it");
                producer.epoch += 1;
                producer.timed_out = true;
                self.decide(current, false);
            }
        }
        self.group.tick(now_ms);
    }

    /// Writes one random due marker; returns whether there was one.
    pub fn write_marker(&mut self, random: &mut Rng) -> bool {
        let due: Vec<usize> =
            (0..self.transactions.len()).filter(|index| !self.transactions[*index].unmarked.is_empty()).collect();
        let Some(index) = (!due.is_empty()).then(|| due[random.usize(..due.len())]) else { return false };
        let transaction = &mut self.transactions[index];
        let mark = transaction.unmarked.swap_remove(random.usize(..transaction.unmarked.len()));
        let committed = transaction.state == State::Committed;
        let hanging = self.recall(index, mark);
        match mark {
            Mark::Log(topic, partition) => self.log_mut(topic, partition).mark(index, &hanging, committed),
            Mark::Offsets if committed => {
                for hanging in hanging {
                    for (partition, offset) in &self.transactions[hanging].offsets {
                        let known = self.group.offsets.entry(*partition).or_default();
                        *known = (*known).max(*offset);
                    }
                }
                self.group.offsets.extend(&self.transactions[index].offsets);
            }
            Mark::Offsets => {}
        }
        true
    }

    /// Restarts, and forgets some due markers. Returns how many transactions hang then. Two hanging ones in one log are
    /// indistinguishable, which is outside the promise: so it forgets only the last ones of a log.
    pub fn restart(&mut self, random: &mut Rng) -> usize {
        self.restarts += 1;
        let due = |index: &usize| !self.transactions[*index].unmarked.is_empty();
        let is_last = |index: usize| self.transactions[index].logs.iter().all(|place| self.logs[place].is_last(index));
        let due: Vec<usize> = (0..self.transactions.len()).filter(due).collect();
        let forgotten: Vec<usize> = due.into_iter().filter(|index| random.bool() && is_last(*index)).collect();
        for index in &forgotten {
            let transaction = &mut self.transactions[*index];
            transaction.forgotten.append(&mut transaction.unmarked);
        }
        forgotten.len()
    }

    /// Whether a transaction of a producer is open in `facts` of a partition below this offset.
    pub fn is_open(&self, id: &str, partition: u32, below: u64) -> bool {
        let of = |transaction: &Transaction| transaction.state == State::Open && transaction.producer == id;
        self.log(Topic::Facts, partition).open_below(below).any(|transaction| of(&self.transactions[transaction]))
    }

    /// The start of an undecided transaction that may change the group's offset.
    pub fn offset_open_since(&self, partition: u32) -> Option<u64> {
        let moves = |transaction: &&Transaction| {
            let marks = [&transaction.unmarked, &transaction.forgotten];
            let waits = marks.into_iter().any(|marks| marks.contains(&Mark::Offsets));
            (transaction.state == State::Open || waits) && transaction.offsets.contains_key(&partition)
        };
        self.transactions.iter().filter(moves).map(|transaction| transaction.began_ms).min()
    }

    /// The start and the offset of the first open transaction.
    pub fn open_since(&self, topic: Topic, partition: u32) -> Option<(u64, u64)> {
        let (transaction, offset) = self.log(topic, partition).first_open()?;
        Some((self.transactions[transaction].began_ms, offset))
    }

    /// The transactions for which this marker also stands.
    fn recall(&mut self, index: usize, mark: Mark) -> Vec<usize> {
        let producer = self.transactions[index].producer.clone();
        let mut recalled = Vec::new();
        for (index, transaction) in self.transactions.iter_mut().enumerate() {
            if let Some(place) = transaction.forgotten.iter().position(|forgotten| *forgotten == mark)
                && transaction.producer == producer
            {
                transaction.forgotten.swap_remove(place);
                recalled.push(index);
            }
        }
        recalled
    }

    /// Whether a transaction is open or lacks markers.
    pub fn is_undecided(&self) -> bool {
        let is_decided =
            |one: &Transaction| one.state != State::Open && one.unmarked.is_empty() && one.forgotten.is_empty();
        !self.transactions.iter().all(is_decided)
    }

    fn open_transaction(&mut self, id: &str, epoch: u32) -> Result<usize, Refusal> {
        let current = self.current(id, epoch)?.current;
        if let Some(current) = current {
            let transaction = &self.transactions[current];
            if transaction.state == State::Open {
                return Ok(current);
            }
            if !transaction.unmarked.is_empty() {
                return Err(Refusal::Again);
            }
        }
        self.transactions.push(Transaction {
            state: State::Open,
            began_ms: self.now_ms,
            producer: id.to_owned(),
            logs: BTreeSet::new(),
            offsets: BTreeMap::new(),
            unmarked: Vec::new(),
            forgotten: Vec::new(),
        });
        let current = self.transactions.len() - 1;
        self.producers.get_mut(id).expect("has an epoch").current = Some(current);
        Ok(current)
    }

    fn current(&self, id: &str, epoch: u32) -> Result<&Producer, Refusal> {
        let producer = &self.producers[id];
        if producer.epoch == epoch {
            return Ok(producer);
        }
        if producer.timed_out && producer.epoch == epoch + 1 {
            return Err(Refusal::TimedOut);
        }
        Err(Refusal::Fenced("the producer has a newer epoch"))
    }

    fn decide(&mut self, current: usize, commit: bool) {
        let transaction = &mut self.transactions[current];
        transaction.state = if commit { State::Committed } else { State::Aborted };
        transaction.unmarked =
            transaction.logs.iter().map(|(topic, partition)| Mark::Log(*topic, *partition)).collect();
        if !transaction.offsets.is_empty() {
            transaction.unmarked.push(Mark::Offsets);
        }
    }
}
