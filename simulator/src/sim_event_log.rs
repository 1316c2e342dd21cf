//! An [`EventLog`] of the simulated world: `kafka_log` with [`Broker`] in place of librdkafka.
//!
//! It hands the baton back at each call, and in [`EventLog::publish`] before every step, so that a schedule can stop,
//! kill or overtake a processor there.
//!
//! [`Broker`]: crate::broker::Broker

use std::collections::BTreeMap;
use std::time::Duration;

use event_log::contract::{Topic, header};
use event_log::hanging::{Doubts, end_what_hangs};
use event_log::{Applied, EventLog, EventLogError, FactOffsets, LogEvent, LogReader, Output, Position, Visit};
use primitives::time::Timestamp;

use crate::being::{Being, INJECTED};
use crate::broker::TRANSACTION_MS_MAX;
use crate::judge::DERIVED;
use crate::mutation::Mutation;
use crate::world::World;

mod member;
mod opening;
mod producer;
mod view;

use member::Member;
use opening::Opening;
use producer::Producer;
use view::{is_decided, places, span, stopping, uncommitted};

pub const IDENTITY: &str = "simulated";
/// The longest time of a transaction that does not hang, markers included.
const OPEN_MS_MAX: u64 = TRANSACTION_MS_MAX + 5_000;
const BATCH_MAX: usize = 12;

/// All logs, for one session.
pub struct SimEventLog {
    being: Being,
    producer: Producer,
    partitions: u32,
    member: Member,
    followed: BTreeMap<u32, u64>,
    /// The broker's restarts at the last check.
    restarts: u64,
    doubts: Doubts,
    /// A commit that was acknowledged before it was tried: a deliberate bug.
    owed: bool,
    publication: Option<Publication>,
    /// How many there were.
    publications: u32,
    /// Facts are not read: a deliberate bug.
    is_taking_over: bool,
}

impl SimEventLog {
    /// Fences the previous life.
    pub fn open(being: &Being) -> Result<Self, EventLogError> {
        being.pause("open");
        {
            let mut world = being.world.lock();
            if world.fenced.contains(&being.life) {
                world.violate(format!("life {} was fenced, and opened the logs again", being.life));
            }
            let broken = world.faults.broken;
            if world.chance(broken) {
                return Err(EventLogError::Fatal(format!("we may not write, {INJECTED}")));
            }
        }
        let restarts = being.world.lock().broker.restarts;
        let producer = Producer::open(being)?;
        let partitions = being.world.lock().broker.partitions();
        Ok(Self {
            being: being.clone(),
            producer,
            partitions,
            member: Member::new(&being.instance),
            followed: BTreeMap::new(),
            restarts,
            doubts: Doubts::default(),
            owed: false,
            publication: None,
            publications: 0,
            is_taking_over: false,
        })
    }

    /// Waits until no transaction is open below `until`, up to the transaction timeout.
    fn wait_until_decided(&mut self, topic: Topic, partition: u32, until: u64) -> Result<(), EventLogError> {
        let began_ms = self.being.world.lock().broker.now_ms;
        let handle = self.being.world.clone();
        loop {
            self.being.pause("wait until all is decided");
            let mut world = handle.lock();
            self.serve(&mut world, false)?;
            if is_decided(&world, topic, partition, until) {
                return Ok(());
            }
            if self.being.stop.requested() {
                return Err(stopping());
            }
            if world.broker.now_ms > began_ms + OPEN_MS_MAX {
                return Err(EventLogError::Reopen(format!("{}/{partition} stays undecided", topic.name())));
            }
        }
    }

    /// Waits until no transaction is open in the outputs of a partition.
    fn wait_until_published(&mut self, partition: u32) -> Result<(), EventLogError> {
        for topic in DERIVED {
            let until = self.being.world.lock().broker.log(topic, partition).bounds().1;
            self.wait_until_decided(topic, partition, until)?;
        }
        Ok(())
    }

    fn doubt(&mut self) {
        let restarts = self.being.world.lock().broker.restarts;
        if std::mem::replace(&mut self.restarts, restarts) != restarts {
            self.doubts.doubt(self.partitions);
        }
    }

    /// Waits for decisions that must precede these outputs.
    fn make_sure(&mut self, outputs: &[Output]) -> Result<(), EventLogError> {
        self.doubt();
        for partition in self.doubts.due(outputs) {
            self.committed(partition)?;
            self.doubts.decided(partition);
        }
        Ok(())
    }

    /// Responds to the group; while reading, only if no record may arrive.
    fn serve(&mut self, world: &mut World, always: bool) -> Result<(), EventLogError> {
        if always || !self.member.has_started() {
            let polled = self.member.poll(&mut world.broker);
            polled.map_err(|refusal| self.producer.judge(world, "poll", &refusal))?;
            if let Some(id) = self.member.id() {
                world.hearts.insert(self.being.life, (self.being.instance.clone(), id));
            }
        }
        Ok(())
    }

    /// Commits what was acknowledged too early: a deliberate bug.
    fn pay(&mut self) -> Result<(), EventLogError> {
        if std::mem::take(&mut self.owed) { self.producer.commit() } else { Ok(()) }
    }

    fn raw(&mut self, world: &mut World) -> Option<LogEvent> {
        let places = self.member.places();
        let most = world.random.usize(1..=BATCH_MAX);
        let mut batch = Vec::new();
        for Position { partition, offset } in places {
            let from = Position { partition, offset };
            let left = most - batch.len().min(most);
            for mut entry in world.broker.read(Topic::Raw, from, u64::MAX, left) {
                self.member.pass(entry.position);
                world.brought.insert((self.being.life, partition), entry.position.offset + 1);
                if world.has(Mutation::NoLookBack) {
                    entry.record.headers.retain(|(name, _)| name != header::RESENT);
                }
                batch.push(entry);
            }
        }
        let life = self.being.life;
        (!batch.is_empty()).then(|| {
            world.note(|| format!("life {life}: raw {}", span(&batch)));
            LogEvent::Raw(batch)
        })
    }

    fn facts(&mut self, world: &mut World) -> Option<LogEvent> {
        let most = world.random.usize(1..=BATCH_MAX);
        let mut batch = Vec::new();
        for (partition, next) in &mut self.followed {
            let from = Position { partition: *partition, offset: *next };
            let left = most - batch.len().min(most);
            let read = if world.has(Mutation::ReadsUncommitted) {
                uncommitted(world, Topic::Facts, from, u64::MAX, left)
            } else {
                world.broker.read(Topic::Facts, from, u64::MAX, left)
            };
            for mut entry in read {
                *next = entry.position.offset + 1;
                if world.has(Mutation::FactsOfAnotherPartition) {
                    entry.position.partition = (entry.position.partition + 1) % self.partitions;
                }
                batch.push(entry);
            }
        }
        let life = self.being.life;
        (!batch.is_empty()).then(|| {
            world.note(|| format!("life {life}: facts {}", span(&batch)));
            LogEvent::Facts(batch)
        })
    }
}

impl LogReader for SimEventLog {
    fn identity(&self) -> &str {
        IDENTITY
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn tells_progress(&self) -> bool {
        true
    }

    fn committed(&mut self, partition: u32) -> Result<Option<u64>, EventLogError> {
        let began_ms = self.being.world.lock().broker.now_ms;
        let committed = loop {
            self.being.pause("ask where the group left off");
            let world = self.being.world.lock();
            match world.broker.committed(partition) {
                Ok(offset) => break offset,
                Err(_) if self.being.stop.requested() => return Err(stopping()),
                Err(_) if world.broker.now_ms > began_ms + OPEN_MS_MAX => {
                    return Err(EventLogError::Reopen("the group's offset stays undecided".into()));
                }
                Err(_) => {}
            }
        };
        if !self.being.world.lock().has(Mutation::GoesOnBesideWhatHangs) {
            self.wait_until_published(partition)?;
        }
        Ok(committed)
    }

    fn bounds(&mut self, topic: Topic, partition: u32) -> Result<(u64, u64), EventLogError> {
        self.being.pause("ask for bounds");
        let mut world = self.being.world.lock();
        let faults = world.faults;
        if world.chance(faults.reopen / 4) {
            return Err(EventLogError::Reopen(format!("ask for bounds, {INJECTED}")));
        }
        Ok(world.broker.log(topic, partition).bounds())
    }

    fn read(&mut self, topic: Topic, from: Position, until: u64, visit: Visit<'_>) -> Result<(), EventLogError> {
        let Position { partition, mut offset } = from;
        if offset >= until {
            return Ok(());
        }
        let handle = self.being.world.clone();
        if self.is_taking_over && topic == Topic::Facts && handle.lock().has(Mutation::SkipsCatchUp) {
            return Ok(());
        }
        self.wait_until_decided(topic, partition, until)?;
        loop {
            self.being.pause("read");
            let mut world = handle.lock();
            let (first, _) = world.broker.log(topic, partition).bounds();
            if offset < first {
                let name = topic.name();
                return Err(EventLogError::Fatal(format!(
                    "{name}/{partition} begins at {first}: the record at {offset} was deleted"
                )));
            }
            let most = world.random.usize(1..=BATCH_MAX * 4);
            let from = Position { partition, offset };
            let entries = if world.has(Mutation::ReadsUncommitted) {
                uncommitted(&world, topic, from, until, most)
            } else {
                world.broker.read(topic, from, until, most)
            };
            drop(world);
            let Some(last) = entries.last() else { return Ok(()) };
            offset = last.position.offset + 1;
            for entry in entries {
                if visit(entry).is_break() {
                    return Ok(());
                }
            }
        }
    }

    fn offset_at(&mut self, partition: u32, at: Timestamp) -> Result<u64, EventLogError> {
        self.being.pause("ask for a time");
        let world = self.being.world.lock();
        let at = if world.has(Mutation::LooksBackTooLate) { at.plus(Duration::from_secs(1)) } else { at };
        Ok(world.broker.log(Topic::Raw, partition).offset_at(at))
    }
}

impl EventLog for SimEventLog {
    fn recover(&mut self, applied: &[Applied]) -> Result<(), EventLogError> {
        let applied = if self.being.world.lock().has(Mutation::AbortsWhatHangs) { &[] } else { applied };
        let published_in = end_what_hangs(&Opening::new(&self.being, &self.producer), applied)?;
        self.doubts.published(published_in);
        Ok(())
    }

    fn join(&mut self) -> Result<(), EventLogError> {
        self.being.pause("join the group");
        let Being { world, life, instance, .. } = &self.being;
        let mut world = world.lock();
        world.note(|| format!("life {life} ({instance}) joins"));
        let id = self.member.join(&mut world.broker);
        world.hearts.insert(*life, (instance.clone(), id));
        Ok(())
    }

    fn next(&mut self, _wait: Duration) -> Result<LogEvent, EventLogError> {
        self.pay()?;
        self.is_taking_over = false;
        self.being.pause("next");
        let handle = self.being.world.clone();
        let mut world = handle.lock();
        let faults = world.faults;
        if world.chance(faults.reopen / 4) {
            return Err(EventLogError::Reopen(format!("read raw, {INJECTED}")));
        }
        self.serve(&mut world, true)?;
        if let Some(change) = self.member.change() {
            let life = self.being.life;
            world.note(|| format!("life {life}: {change:?}"));
            self.is_taking_over = matches!(change, LogEvent::Assigned(_));
            return Ok(change);
        }
        let raw_first = world.random.bool();
        let first = if raw_first { self.raw(&mut world) } else { self.facts(&mut world) };
        let turn = first.or_else(|| if raw_first { self.facts(&mut world) } else { self.raw(&mut world) });
        Ok(turn.unwrap_or(LogEvent::Quiet))
    }

    fn start(&mut self, starts: &[Position]) -> Result<(), EventLogError> {
        let world = self.being.world.lock();
        for start in starts {
            let brought = world.brought.get(&(self.being.life, start.partition)).copied();
            let beyond = brought.filter(|_| world.has(Mutation::NoRewindAfterAbort)).unwrap_or(0);
            self.member.start(Position { offset: start.offset.max(beyond), ..*start });
        }
        Ok(())
    }

    fn follow(&mut self, starts: &[Position]) -> Result<(), EventLogError> {
        self.followed = starts.iter().map(|start| (start.partition, start.offset)).collect();
        let world = self.being.world.lock();
        if world.has(Mutation::FollowsOneTooFar) {
            self.followed.values_mut().for_each(|next| *next += 1);
        }
        Ok(())
    }

    fn unowned(&mut self) -> Option<usize> {
        self.being.world.lock().broker.group.unowned()
    }

    fn lost_a_broker(&mut self) -> bool {
        self.doubt();
        self.doubts.take_news()
    }

    fn undecided(&mut self) -> Result<Vec<(Topic, Position)>, EventLogError> {
        self.doubt();
        let world = self.being.world.lock();
        if world.has(Mutation::LeavesWhatHangs) {
            return Ok(Vec::new());
        }
        let (mut open, mut old) = (Vec::new(), Vec::new());
        let mut note = |topic, since_ms: u64, place| {
            open.push((topic, place));
            // Filtered here: the loop above has the machine's clock, not this world's.
            old.extend((world.broker.now_ms > since_ms + OPEN_MS_MAX).then_some((topic, place)));
        };
        for (topic, partition) in places(&world) {
            if let Some((since_ms, offset)) = world.broker.open_since(topic, partition) {
                note(topic, since_ms, Position { partition, offset });
            }
        }
        for partition in self.doubts.doubtful() {
            if let Some(since_ms) = world.broker.offset_open_since(*partition) {
                note(Topic::Raw, since_ms, Position { partition: *partition, offset: 0 });
            }
        }
        self.doubts.keep(&open);
        Ok(old)
    }

    /// Every second publication is over before anything else happens, as a fast broker would have it; of the others, the
    /// commit is still to come.
    fn begin_publication(&mut self, outputs: Vec<Output>, read: &[Position]) -> Result<(), EventLogError> {
        self.pay()?;
        self.make_sure(&outputs)?;
        self.being.pause("begin");
        let mutation = self.being.world.lock().mutation;
        if mutation == Some(Mutation::OffsetsOutsideTransaction) {
            let offsets = read.iter().map(|next| (next.partition, next.offset));
            self.being.world.lock().broker.group.offsets.extend(offsets);
        }
        let mut offsets = FactOffsets::new();
        let outputs = if mutation == Some(Mutation::TwoTransactions) {
            let (facts, others) = outputs.into_iter().partition(|output| output.topic == Topic::Facts);
            self.producer.produce(facts, self.restarts, &mut offsets)?;
            self.producer.commit()?;
            others
        } else {
            outputs
        };
        self.producer.produce(outputs, self.restarts, &mut offsets)?;
        // The generation is that of the beginning.
        let member = self.member.id().zip(self.member.generation());
        self.publications += 1;
        let mut publication = Publication { read: read.to_vec(), member, offsets, is_over: false };
        if self.publications.is_multiple_of(2) {
            self.commit(&mut publication)?;
        }
        self.publication = Some(publication);
        Ok(())
    }

    fn end_publication(&mut self) -> Result<FactOffsets, EventLogError> {
        let Some(mut publication) = self.publication.take() else { return Ok(FactOffsets::new()) };
        self.commit(&mut publication)?;
        Ok(publication.offsets)
    }
}

impl SimEventLog {
    fn commit(&mut self, publication: &mut Publication) -> Result<(), EventLogError> {
        if std::mem::replace(&mut publication.is_over, true) {
            return Ok(());
        }
        let mutation = self.being.world.lock().mutation;
        let read = &publication.read;
        if !read.is_empty() && mutation != Some(Mutation::OffsetsOutsideTransaction) {
            let Some((id, generation)) = publication.member else {
                return Err(EventLogError::Reopen("publish without being a member".into()));
            };
            let member = (self.being.instance.as_str(), id, generation);
            let member = (mutation != Some(Mutation::NamesNoGeneration)).then_some(member);
            self.producer.send_offsets(read, member)?;
        }
        if mutation == Some(Mutation::AppliesBeforeCommit) {
            self.owed = true;
        } else {
            self.producer.commit()?;
        }
        Ok(())
    }
}

/// A publication that is under way.
struct Publication {
    read: Vec<Position>,
    /// Its id and generation.
    member: Option<(u64, u32)>,
    offsets: FactOffsets,
    is_over: bool,
}

impl Drop for SimEventLog {
    /// Heartbeats end; the member stays for a session's time.
    fn drop(&mut self) {
        self.being.world.lock().hearts.remove(&self.being.life);
    }
}
