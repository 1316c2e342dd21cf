//! A member of the group, like `kafka_log::group`, with the same queue of changes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use event_log::{LogEvent, Position};

use crate::broker::group::Word;
use crate::broker::{Broker, Refusal};

pub struct Member {
    instance: String,
    /// `None` before it joined.
    id: Option<u64>,
    queue: VecDeque<Change>,
    /// The assignment by the group, which turns may lag behind.
    given: Option<(u32, Vec<u32>)>,
    /// The assignment as reported by turns.
    owned: BTreeSet<u32>,
    next: BTreeMap<u32, u64>,
    generation: Option<u32>,
}

enum Change {
    Assigned(Vec<u32>),
    Revoked(Vec<u32>),
}

impl Member {
    pub fn new(instance: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            id: None,
            queue: VecDeque::new(),
            given: None,
            owned: BTreeSet::new(),
            next: BTreeMap::new(),
            generation: None,
        }
    }

    pub fn join(&mut self, broker: &mut Broker) -> u64 {
        *self.id.insert(broker.group.join(&self.instance, broker.now_ms))
    }

    pub fn id(&self) -> Option<u64> {
        self.id
    }

    pub fn generation(&self) -> Option<u32> {
        self.generation
    }

    /// Polls the group, and responds. Does nothing before joining.
    pub fn poll(&mut self, broker: &mut Broker) -> Result<(), Refusal> {
        let now_ms = broker.now_ms;
        let Some(id) = self.id else { return Ok(()) };
        broker.group.hear(&self.instance, id, now_ms);
        match broker.group.word(&self.instance, id) {
            Word::Fenced => return Err(Refusal::Fenced("another process has our place in the group")),
            Word::Unknown => {
                self.lose();
                self.id = Some(broker.group.join(&self.instance, now_ms));
            }
            Word::Rejoin => {
                self.lose();
                broker.group.rejoin(&self.instance, now_ms);
            }
            Word::Wait => self.lose(),
            Word::Given(generation, partitions) => {
                if self.given.as_ref().is_none_or(|(known, _)| *known != generation) {
                    self.lose();
                    if !partitions.is_empty() {
                        self.queue.push_back(Change::Assigned(partitions.clone()));
                    }
                    self.given = Some((generation, partitions));
                }
            }
        }
        Ok(())
    }

    pub fn has_started(&self) -> bool {
        !self.next.is_empty()
    }

    /// The next change of the assignment.
    pub fn change(&mut self) -> Option<LogEvent> {
        match self.queue.pop_front()? {
            Change::Assigned(partitions) => {
                self.owned.extend(&partitions);
                self.generation = self.given.as_ref().map(|(generation, _)| *generation);
                Some(LogEvent::Assigned(partitions))
            }
            Change::Revoked(partitions) => {
                for partition in &partitions {
                    self.owned.remove(partition);
                    self.next.remove(partition);
                }
                Some(LogEvent::Revoked(partitions))
            }
        }
    }

    /// Starts to fetch a partition, unless it was revoked.
    pub fn start(&mut self, start: Position) {
        if self.queue.is_empty() && self.owned.contains(&start.partition) {
            self.next.insert(start.partition, start.offset);
        }
    }

    /// The next offset of each started partition.
    pub fn places(&self) -> Vec<Position> {
        self.next.iter().map(|(partition, offset)| Position { partition: *partition, offset: *offset }).collect()
    }

    pub fn pass(&mut self, position: Position) {
        self.next.insert(position.partition, position.offset + 1);
    }

    fn lose(&mut self) {
        if let Some((_, partitions)) = self.given.take()
            && !partitions.is_empty()
        {
            self.queue.push_back(Change::Revoked(partitions));
        }
    }
}
