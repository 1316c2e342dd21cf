//! What [`end_what_hangs`](event_log::hanging::end_what_hangs) asks of the simulated broker.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use event_log::contract::{Topic, header};
use event_log::hanging::{LeftOff, Published, Recovering, Undecided};
use event_log::{Entry, EventLogError, Output, Position};

use super::producer::Producer;
use super::view::{places, stopping};
use crate::being::Being;
use crate::mutation::Mutation;
use crate::world::World;

/// Longer open transactions are not about to be decided.
const IN_FLIGHT_MS_MAX: u64 = 300;

pub struct Opening<'a> {
    being: &'a Being,
    producer: &'a Producer,
}

impl<'a> Opening<'a> {
    pub fn new(being: &'a Being, producer: &'a Producer) -> Self {
        Self { being, producer }
    }

    fn say(&self, how: &str, outputs: &[Output], read: &[Position]) {
        let places: Vec<String> =
            outputs.iter().map(|output| format!("{}/{}", output.topic.name(), output.partition)).collect();
        let life = self.being.life;
        self.being.world.lock().note(|| format!("life {life}: in case that it hangs, {how} {places:?} {read:?}"));
    }

    fn note(&self, topic: Topic, open: &Entry) {
        let Entry { position: Position { partition, offset }, record } = open;
        let cause = record.header(header::RAW_OFFSET).map(String::from_utf8_lossy).unwrap_or_default();
        let (life, name) = (self.being.life, topic.name());
        self.being
            .world
            .lock()
            .note(|| format!("life {life}: {name}/{partition} hangs at {offset}, because of {cause}"));
    }
}

impl Recovering for Opening<'_> {
    fn undecided(&self) -> Result<Undecided, EventLogError> {
        let (first, until_ms) = {
            self.being.pause("ask what is open");
            let world = self.being.world.lock();
            (published(&world), world.broker.now_ms + IN_FLIGHT_MS_MAX)
        };
        let mut unknown: BTreeSet<u32> = first.iter().map(|published| published.partition).collect();
        loop {
            self.being.pause("wait for what is about to be decided");
            let world = self.being.world.lock();
            let left_off = left_off(&world);
            unknown.retain(|partition| left_off.unknown.contains(partition));
            let published = published(&world);
            let open = first.iter().zip(&published).filter(|(first, now)| first.is_open() && now.stable < first.end);
            let hanging: BTreeSet<(Topic, u32)> = open.map(|(_, now)| (now.topic, now.partition)).collect();
            if world.has(Mutation::LeavesWhatHangs) {
                return Ok(Undecided { published, hanging: BTreeSet::new(), left_off: LeftOff::default() });
            }
            if hanging.is_empty() && unknown.is_empty() || world.broker.now_ms >= until_ms {
                return Ok(Undecided { published, hanging, left_off: LeftOff { unknown, ..left_off } });
            }
            if self.being.stop.requested() {
                return Err(stopping());
            }
        }
    }

    fn newest(&self, published: &Published, visit: &mut dyn FnMut(&Entry)) -> Result<bool, EventLogError> {
        self.being.pause("look for the newest records");
        let world = self.being.world.lock();
        let Published { topic, partition, stable, .. } = *published;
        if !world.has(Mutation::AbortsWhatHangs) {
            world.broker.read(topic, Position { partition, offset: 0 }, stable, usize::MAX).iter().for_each(visit);
        }
        Ok(true)
    }

    fn open(
        &self,
        published: &Published,
        visit: &mut dyn FnMut(&Entry) -> ControlFlow<()>,
    ) -> Result<(), EventLogError> {
        self.being.pause("look at what is open");
        let open: Vec<Entry> = {
            let world = self.being.world.lock();
            let Position { partition, offset } = published.place();
            let open = world.broker.log(published.topic, partition).uncommitted(offset);
            open.map(|slot| Entry {
                position: Position { partition, offset: slot.offset },
                record: slot.record.clone(),
            })
            .collect()
        };
        for entry in &open {
            self.note(published.topic, entry);
            if visit(entry).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, outputs: &[Output]) -> Result<(), EventLogError> {
        self.say("commits", outputs, &[]);
        self.being.pause("commit what hangs");
        self.producer.commit_at_once(outputs)
    }

    fn abort(&self, outputs: &[Output], read: &[Position]) -> Result<(), EventLogError> {
        self.say("aborts", outputs, read);
        let restarts = self.being.world.lock().broker.restarts;
        self.producer.produce(outputs.to_vec(), restarts, &mut BTreeMap::new())?;
        if !read.is_empty() {
            self.producer.send_offsets(read, None)?;
        }
        self.producer.abort()
    }
}

fn published(world: &World) -> Vec<Published> {
    let publication = |(topic, partition)| {
        let log = world.broker.log(topic, partition);
        Published { topic, partition, stable: log.stable_end(), end: log.bounds().1 }
    };
    places(world).map(publication).collect()
}

fn left_off(world: &World) -> LeftOff {
    let mut left_off = LeftOff::default();
    for partition in 0..world.broker.partitions() {
        match world.broker.committed(partition) {
            _ if world.has(Mutation::AbortsWhatHangs) => {}
            _ if world.has(Mutation::CommitsWhatHangs) => left_off.known.extend([(partition, u64::MAX / 2)]),
            Ok(offset) => left_off.known.extend(offset.map(|offset| (partition, offset))),
            Err(_) => left_off.unknown.extend([partition]),
        }
    }
    left_off
}
