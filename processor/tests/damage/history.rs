//! A history of `facts` out of a seed, and logs that hold nothing else.

use event_log::contract::partition_of_installation;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitrix24::Installation;
use bytes::Bytes;
use domain::{Decision, Fact, FactKey, FactKind, HeldDetails, HeldEvent, Method, Profile, Revision, Stamp};
use event_log::contract::Topic;
use event_log::{
    Applied, Entry, EventId, EventLog, EventLogError, FactOffsets, LogEvent, LogReader, Output, Position, Record,
};
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

/// Logs of a history: `facts` are there, `raw` has been read to its end, and whoever has taken over is asked to stop.
pub struct Facts {
    pub history: Arc<History>,
    pub shared: Shared,
    pub stop: Stop,
    pub seen: Arc<Mutex<Seen>>,
    pub was_assigned: bool,
}

/// What an asker would have seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// What the state was when all had been taken over.
    pub digests: Vec<String>,
    /// So often a state of an older fold answered, while facts were read.
    pub stale: usize,
}

/// Whose facts these are.
pub const LOG: &str = "a history";

impl LogReader for Facts {
    fn identity(&self) -> &str {
        LOG
    }

    fn partitions(&self) -> u32 {
        PARTITIONS
    }

    fn tells_progress(&self) -> bool {
        false
    }

    fn committed(&mut self, _: u32) -> Result<Option<u64>, EventLogError> {
        Ok(None)
    }

    fn bounds(&mut self, topic: Topic, partition: u32) -> Result<(u64, u64), EventLogError> {
        Ok(if topic == Topic::Facts { (0, self.history.end(partition)) } else { (0, 1 << 40) })
    }

    fn read(
        &mut self,
        topic: Topic,
        from: Position,
        until: u64,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), EventLogError> {
        assert_eq!(topic, Topic::Facts);
        if let Some(store) = self.shared.get().filter(|store| store.is_outdated()) {
            assert!(store.next_installation(None).expect("it answers").is_some());
            self.seen.lock().expect("not poisoned").stale += 1;
        }
        let wanted = |entry: &&Entry| (from.offset..until).contains(&entry.position.offset);
        for entry in self.history.facts(from.partition).iter().filter(wanted) {
            if visit(entry.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn offset_at(&mut self, _: u32, _: Timestamp) -> Result<u64, EventLogError> {
        Ok(0)
    }
}

impl EventLog for Facts {
    fn recover(&mut self, _: &[Applied]) -> Result<(), EventLogError> {
        Ok(())
    }

    fn join(&mut self) -> Result<(), EventLogError> {
        Ok(())
    }

    fn next(&mut self, _: Duration) -> Result<LogEvent, EventLogError> {
        if std::mem::replace(&mut self.was_assigned, true) {
            return Ok(LogEvent::Quiet);
        }
        Ok(LogEvent::Assigned((0..PARTITIONS).collect()))
    }

    fn start(&mut self, _: &[Position]) -> Result<(), EventLogError> {
        let store = self.shared.get().ok_or_else(|| EventLogError::Fatal("there is no state".into()))?;
        self.seen.lock().expect("not poisoned").digests = (0..PARTITIONS).map(|at| store.digest(at)).collect();
        self.stop.request();
        Ok(())
    }

    fn follow(&mut self, _: &[Position]) -> Result<(), EventLogError> {
        Ok(())
    }

    fn unowned(&mut self) -> Option<usize> {
        None
    }

    fn lost_a_broker(&mut self) -> bool {
        false
    }

    fn undecided(&mut self) -> Result<Vec<(Topic, Position)>, EventLogError> {
        Ok(Vec::new())
    }

    fn begin_publication(&mut self, _: Vec<Output>, _: &[Position]) -> Result<(), EventLogError> {
        Err(EventLogError::Fatal("nothing is published here".into()))
    }

    fn end_publication(&mut self) -> Result<FactOffsets, EventLogError> {
        Ok(FactOffsets::new())
    }
}
