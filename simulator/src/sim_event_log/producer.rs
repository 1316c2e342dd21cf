//! A transactional producer: what `kafka_log::transaction` does with librdkafka.

use event_log::contract::Topic;
use event_log::{EventLogError, FactOffsets, Output, Position};

use super::view::stopping;
use crate::being::{Being, INJECTED};
use crate::broker::Refusal;
use crate::mutation::Mutation;
use crate::world::World;

/// Instance, member and generation of the group member that commits offsets.
pub type Membership<'a> = Option<(&'a str, u64, u32)>;

pub struct Producer {
    being: Being,
    epoch: u32,
}

impl Producer {
    /// Fences the previous life, and waits until its transaction is decided.
    pub fn open(being: &Being) -> Result<Self, EventLogError> {
        loop {
            being.pause("init transactions");
            let mut world = being.world.lock();
            if let Ok(epoch) = world.broker.init(&being.instance) {
                world.note(|| format!("life {} ({}) has epoch {epoch}", being.life, being.instance));
                return Ok(Self { being: being.clone(), epoch });
            }
            drop(world);
            if being.stop.requested() {
                return Err(stopping());
            }
        }
    }

    /// Retries a step of a publication while the broker says so.
    fn insist<T>(
        &self,
        at: &'static str,
        mut step: impl FnMut(&mut World) -> Result<T, Refusal>,
    ) -> Result<T, EventLogError> {
        loop {
            self.being.pause(at);
            let mut world = self.being.world.lock();
            let faults = world.faults;
            if world.chance(faults.again) {
                continue;
            }
            if world.chance(faults.reopen) {
                world.note(|| format!("life {}: {at} fails", self.being.life));
                return Err(EventLogError::Reopen(format!("{at}, {INJECTED}")));
            }
            match step(&mut world) {
                Ok(done) => return Ok(done),
                Err(Refusal::Again) if self.being.stop.requested() => return Err(stopping()),
                Err(Refusal::Again) => {}
                Err(refusal) => return Err(self.judge(&mut world, at, &refusal)),
            }
        }
    }

    /// Maps a refusal to an error. A timeout of the own transaction is reported either way.
    pub fn judge(&self, world: &mut World, at: &'static str, refusal: &Refusal) -> EventLogError {
        let life = self.being.life;
        world.note(|| format!("life {life}: {at}: {refusal:?}"));
        let fenced = |world: &mut World, why: &str| {
            if world.has(Mutation::FencedIsTriedAgain) {
                world.fenced.insert(life);
                return EventLogError::Reopen(why.to_owned());
            }
            world.fenced.insert(life);
            EventLogError::Fenced(why.to_owned())
        };
        match refusal {
            Refusal::Again => EventLogError::Reopen(at.to_owned()),
            Refusal::Abort(why) => EventLogError::Reopen(format!("{at}: {why}")),
            Refusal::TimedOut if world.random.bool() => EventLogError::Reopen(format!("{at}: timed out")),
            Refusal::TimedOut => fenced(world, "the transaction timed out"),
            Refusal::Fenced(why) => fenced(world, why),
        }
    }

    /// Sends records, unless the broker was restarted since `restarts`. Adds the offset of each record of `facts` to
    /// `offsets`.
    pub fn produce(&self, outputs: Vec<Output>, restarts: u64, offsets: &mut FactOffsets) -> Result<(), EventLogError> {
        for output in outputs {
            let Output { topic, partition, record } = output;
            let mut offset = None;
            let put = |world: &mut World| {
                let (instance, epoch) = (&self.being.instance, self.epoch);
                if world.broker.restarts != restarts {
                    return Err(Refusal::Abort("the broker went away"));
                }
                world.broker.produce(instance, epoch, topic, partition, record.clone())
            };
            // Most records are sent together; sometimes one is alone.
            let is_alone = self.being.world.lock().chance(250);
            if !is_alone {
                let mut world = self.being.world.lock();
                match put(&mut world) {
                    Ok(at) => offset = Some(at),
                    Err(Refusal::Again) => {}
                    Err(refusal) => return Err(self.judge(&mut world, "produce", &refusal)),
                }
            }
            let offset = match offset {
                Some(offset) => offset,
                None => self.insist("produce", put)?,
            };
            if topic == Topic::Facts {
                offsets.entry(partition).or_default().push(offset);
            }
        }
        Ok(())
    }

    pub fn send_offsets(&self, read: &[Position], member: Membership<'_>) -> Result<(), EventLogError> {
        self.insist("send offsets", |world| world.broker.send_offsets(&self.being.instance, self.epoch, member, read))
    }

    /// Commits; the schedule decides the answer, and whether it arrives.
    pub fn commit(&self) -> Result<(), EventLogError> {
        loop {
            let lost = {
                self.being.pause("commit");
                let mut world = self.being.world.lock();
                let rate = world.faults.answer_lost;
                world.chance(rate).then(|| world.random.u32(..3))
            };
            let life = self.being.life;
            // The request is lost, the response is lost, or the response is lost and the request repeated.
            if lost != Some(0) {
                let done = self.insist("commit", |world| {
                    world.broker.commit(&self.being.instance, self.epoch)?;
                    world.note(|| format!("life {life}: committed"));
                    Ok(())
                });
                if lost.is_none() {
                    done?;
                    self.being.pause("committed");
                    return Ok(());
                }
                done?;
            }
            if lost == Some(2) {
                continue;
            }
            let mut world = self.being.world.lock();
            world.note(|| format!("life {life}: the answer to its commit is lost"));
            if world.has(Mutation::UnknownIsCommitted) {
                // The client requires an end of the transaction before the next one.
                world.broker.abort(&self.being.instance, self.epoch);
                return Ok(());
            }
            return Err(EventLogError::Reopen(format!("commit: no answer, {INJECTED}")));
        }
    }

    /// A whole transaction in one step. With Kafka, a crash of this life in between would undo the hanging
    /// transaction's end: that is outside the promise, and is not simulated.
    pub fn commit_at_once(&self, outputs: &[Output]) -> Result<(), EventLogError> {
        let (id, epoch) = (&self.being.instance, self.epoch);
        let mut world = self.being.world.lock();
        let broker = &mut world.broker;
        let mut write = || {
            for Output { topic, partition, record } in outputs {
                broker.produce(id, epoch, *topic, *partition, record.clone())?;
            }
            broker.commit(id, epoch)
        };
        write().map_err(|refusal| self.judge(&mut world, "commit what hangs", &refusal))
    }

    pub fn abort(&self) -> Result<(), EventLogError> {
        self.insist("abort", |world| {
            world.broker.abort(&self.being.instance, self.epoch);
            Ok(())
        })
    }
}
