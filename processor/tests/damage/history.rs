//! A history of `facts` out of a seed, and logs that hold nothing else.

use event_log::contract::partition_of_installation;
use std::sync::{Arc, Mutex};

use bitrix24::Installation;
use bytes::Bytes;
use domain::{Decision, Fact, FactKey, FactKind, HeldDetails, HeldEvent, Method, Profile, Revision, Stamp};
use event_log::memory::{MemoryEventLog, MemoryFacts, Script};
use event_log::{Entry, EventId, EventLogError, LogEvent, Position, Record};
use fastrand::Rng;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use processor::run::shared::Shared;
use runtime::lifecycle::Stop;
use serde_json::json;

pub const PARTITIONS: u32 = 2;
const INSTALLATIONS: u32 = 40;
/// As a transaction's markers, places that hold nothing for readers.
const GAPS: u32 = 5;

/// Records of `facts`, by partition.
pub struct History(Vec<Vec<Entry>>);

impl History {
    /// So many facts and held events, in steps with a progress record each.
    pub fn of(seed: u64, records: usize) -> Self {
        let mut random = Rng::with_seed(seed);
        let mut partitions = vec![Vec::new(); PARTITIONS as usize];
        let mut held: Vec<Vec<HeldEvent>> = vec![Vec::new(); PARTITIONS as usize];
        let mut places = vec![(0_u64, 0_u64); PARTITIONS as usize];
        let logs: Vec<EventId> = (0..PARTITIONS).map(|_| EventId::from_u128(random.u128(..))).collect();
        for _ in 0..records {
            let installation = Installation::parse("crm-sync", &format!("member{}", random.u32(..INSTALLATIONS)));
            let installation = installation.expect("valid");
            let installation_partition = partition_of_installation(&installation, PARTITIONS);
            let partition = installation_partition as usize;
            let (facts, raw) = &mut places[partition];
            let (key, value) = match random.u32(..8) {
                0 if !held[partition].is_empty() => {
                    let known = &mut held[partition];
                    (FactKey::Held(known.swap_remove(random.usize(..known.len()))), None)
                }
                1 => {
                    let principal = principal(&mut random);
                    let id = EventId::from_u128(random.u128(..));
                    let one = HeldEvent { installation, id, principal, offset: *raw };
                    held[partition].push(one.clone());
                    let at = Position { partition: installation_partition, offset: *raw };
                    let kind = random.bool().then(|| Box::new(fact(&mut random, one.installation.clone(), *raw)));
                    let details = HeldDetails { raw: at, bytes: random.u32(..1_000), fact: kind };
                    (FactKey::Held(one), Some(serde_json::to_vec(&details).expect("JSON").into()))
                }
                _ => {
                    let fact = fact(&mut random, installation, *raw);
                    let value = serde_json::to_vec(&fact).expect("JSON");
                    (FactKey::Fact(fact.installation, fact.stamp.id), Some(value.into()))
                }
            };
            *raw += 1;
            push(&mut partitions[partition], facts, partition, &key, value);
            if random.u32(..6) == 0 {
                let progress = json!({ "raw": *raw, "log": logs[partition], "folded": [] });
                let value = Some(progress.to_string().into());
                push(&mut partitions[partition], facts, partition, &FactKey::Progress, value);
                *facts += u64::from(random.u32(..GAPS) == 0);
            }
        }
        Self(partitions)
    }

    /// The records of a partition.
    pub fn facts(&self, partition: u32) -> &[Entry] {
        &self.0[partition as usize]
    }

    fn record(&self, partition: u32, offset: u64) -> Option<Record> {
        let facts = self.facts(partition);
        let found = facts.binary_search_by_key(&offset, |entry| entry.position.offset);
        found.ok().map(|index| facts[index].record.clone())
    }

    /// Behind the last record of a partition.
    pub fn end(&self, partition: u32) -> u64 {
        self.facts(partition).last().map_or(0, |entry| entry.position.offset + 1)
    }
}

fn push(entries: &mut Vec<Entry>, offset: &mut u64, partition: usize, key: &FactKey, value: Option<Bytes>) {
    let partition = u32::try_from(partition).expect("few");
    let record = Record { key: Some(key.to_string()), value, headers: vec![], at: Timestamp::from_s(1_700_000_000) };
    entries.push(Entry { position: Position { partition, offset: *offset }, record });
    *offset += 1;
}

fn principal(random: &mut Rng) -> Fingerprint {
    Fingerprint::of(["one", "two", "three"][random.usize(..3)])
}

fn fact(random: &mut Rng, installation: Installation, offset: u64) -> Fact {
    let at = Timestamp::from_s(1_700_000_000 + random.u64(..1_000_000));
    let profile = Profile { domain: Some(format!("portal{}.bitrix24.com", random.u8(..))), ..Profile::default() };
    let kind = match random.u32(..6) {
        0 => FactKind::Installed { complete: random.bool(), profile },
        1 => FactKind::Uninstalled { clean: Some(random.bool()), profile },
        2 => FactKind::Updated { previous_version: Some("1".to_owned()), profile },
        3 => FactKind::Paid { code: None, days: Some(30), expired: Some(false), profile },
        _ => FactKind::MethodDecided {
            method: Method::parse(&format!("method{}.get", random.u8(..20))).expect("a method"),
            token: Fingerprint::of(&random.u8(..20).to_string()),
            decision: if random.bool() { Decision::Granted } else { Decision::Denied },
            profile,
        },
    };
    let place = Position { partition: partition_of_installation(&installation, PARTITIONS), offset };
    let stamp = Stamp::new(Some(at), at, EventId::from_u128(random.u128(..)));
    Fact { installation, stamp, principal: principal(random), raw: place, revision: Revision::default(), kind }
}

/// The logs of a history: `facts` are there, `raw` has been read to its end, and a processor is asked to stop once it
/// has restored the partitions.
pub fn logs(history: &Arc<History>, restored: Restored) -> MemoryEventLog<Restored> {
    let facts = |partition| {
        let known = history.clone();
        MemoryFacts::made(0, history.end(partition), move |offset| known.record(partition, offset))
    };
    MemoryEventLog::new((0..PARTITIONS).map(facts).collect(), false, restored)
}

/// Notes what is seen, and stops the processor.
pub struct Restored {
    pub shared: Shared,
    pub stop: Stop,
    pub seen: Arc<Mutex<Seen>>,
    pub was_assigned: bool,
}

/// What a query would have seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The state when all partitions had been restored.
    pub digests: Vec<String>,
    /// How often a state of an older fold answered, while facts were read.
    pub stale: usize,
}

impl Script for Restored {
    fn reads(&mut self) {
        if let Some(store) = self.shared.get().filter(|store| store.is_outdated()) {
            assert!(store.next_installation(None).expect("it answers").is_some());
            self.seen.lock().expect("not poisoned").stale += 1;
        }
    }

    fn next(&mut self) -> LogEvent {
        if std::mem::replace(&mut self.was_assigned, true) {
            return LogEvent::Quiet;
        }
        LogEvent::Assigned((0..PARTITIONS).collect())
    }

    fn started(&mut self) -> Result<(), EventLogError> {
        let store = self.shared.get().ok_or_else(|| EventLogError::Fatal("there is no state".into()))?;
        self.seen.lock().expect("not poisoned").digests = (0..PARTITIONS).map(|at| store.digest(at)).collect();
        self.stop.request();
        Ok(())
    }
}
