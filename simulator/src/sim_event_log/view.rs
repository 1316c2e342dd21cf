//! What a session sees of the world, and how it says so.

use event_log::contract::Topic;
use event_log::{Entry, EventLogError, Position};

use crate::judge::DERIVED;
use crate::mutation::Mutation;
use crate::world::World;

/// All output partitions.
pub fn places(world: &World) -> impl Iterator<Item = (Topic, u32)> + use<> {
    let partitions = world.broker.partitions();
    DERIVED.into_iter().flat_map(move |topic| (0..partitions).map(move |partition| (topic, partition)))
}

/// Whether no transaction that began below is open; two of the deliberate bugs ignore that.
pub fn is_decided(world: &World, topic: Topic, partition: u32, until: u64) -> bool {
    let careless = world.has(Mutation::ReadsBeforeDecided) || world.has(Mutation::ReadsUncommitted);
    careless || world.broker.log(topic, partition).stable_end() >= until
}

/// Records that a committed reader does not see.
pub fn uncommitted(world: &World, topic: Topic, from: Position, until: u64, most: usize) -> Vec<Entry> {
    let log = world.broker.log(topic, from.partition);
    let slots = log.uncommitted(from.offset).take_while(|slot| slot.offset < until).take(most);
    let place = |offset| Position { partition: from.partition, offset };
    slots.map(|slot| Entry { position: place(slot.offset), record: slot.record.clone() }).collect()
}

pub fn span(batch: &[Entry]) -> String {
    let places: Vec<String> =
        batch.iter().map(|entry| format!("{}/{}", entry.position.partition, entry.position.offset)).collect();
    places.join(" ")
}

pub fn stopping() -> EventLogError {
    EventLogError::Reopen("asked to stop".into())
}
