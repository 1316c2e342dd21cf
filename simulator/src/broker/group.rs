//! The consumer group: generations, static members, `range`, as Kafka's classic protocol has them.

use std::collections::BTreeMap;

use super::refusal::Refusal;

/// Silent members are removed after this time.
pub const SESSION_MS_MAX: u64 = 10_000;
/// Members that do not rejoin are removed after this time.
const REBALANCE_MS_MAX: u64 = 60_000;

pub struct Group {
    pub offsets: BTreeMap<u32, u64>,
    partitions: u32,
    generation: u32,
    /// The start of the rebalance; `None` if the group is stable.
    waits_since_ms: Option<u64>,
    members: BTreeMap<String, Member>,
    ids: u64,
}

struct Member {
    id: u64,
    heard_ms: u64,
    has_joined: bool,
    given: Vec<u32>,
}

/// The group's answer to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// The session has expired: join again.
    Unknown,
    /// Another process has this member's place.
    Fenced,
    /// Release everything and join again.
    Rejoin,
    /// Wait for the others.
    Wait,
    /// The generation, and the assigned partitions.
    Given(u32, Vec<u32>),
}

impl Group {
    pub fn new(partitions: u32) -> Self {
        Self {
            offsets: BTreeMap::new(),
            partitions,
            generation: 0,
            waits_since_ms: None,
            members: BTreeMap::new(),
            ids: 0,
        }
    }

    /// Takes the place of an instance. A returning static member keeps its partitions.
    pub fn join(&mut self, instance: &str, now_ms: u64) -> u64 {
        self.ids += 1;
        let id = self.ids;
        if let Some(member) = self.members.get_mut(instance) {
            (member.id, member.heard_ms, member.has_joined) = (id, now_ms, true);
        } else {
            let given = Vec::new();
            self.members.insert(instance.to_owned(), Member { id, heard_ms: now_ms, has_joined: true, given });
            self.rebalance(now_ms);
            self.members.get_mut(instance).expect("inserted above").has_joined = true;
        }
        id
    }

    pub fn word(&self, instance: &str, id: u64) -> Word {
        match self.members.get(instance) {
            None => Word::Unknown,
            Some(member) if member.id != id => Word::Fenced,
            Some(member) if self.waits_since_ms.is_some() && member.has_joined => Word::Wait,
            Some(_) if self.waits_since_ms.is_some() => Word::Rejoin,
            Some(member) => Word::Given(self.generation, member.given.clone()),
        }
    }

    pub fn rejoin(&mut self, instance: &str, now_ms: u64) {
        if let Some(member) = self.members.get_mut(instance) {
            (member.has_joined, member.heard_ms) = (true, now_ms);
        }
        self.go_on();
    }

    pub fn hear(&mut self, instance: &str, id: u64, now_ms: u64) {
        if let Some(member) = self.members.get_mut(instance).filter(|member| member.id == id) {
            member.heard_ms = now_ms;
        }
    }

    pub fn check(&self, instance: &str, id: u64, generation: u32) -> Result<(), Refusal> {
        match self.members.get(instance) {
            None => Err(Refusal::Abort("unknown member")),
            Some(member) if member.id != id => Err(Refusal::Fenced("another process has our place in the group")),
            Some(_) if self.generation != generation => Err(Refusal::Abort("illegal generation")),
            Some(_) => Ok(()),
        }
    }

    /// The number of partitions without an owner, once the group is stable.
    pub fn unowned(&self) -> Option<usize> {
        let given: usize = self.members.values().map(|member| member.given.len()).sum();
        self.waits_since_ms.is_none().then(|| self.partitions as usize - given)
    }

    /// Whether it has members that all know their assignment.
    pub fn is_stable(&self) -> bool {
        self.waits_since_ms.is_none() && !self.members.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Removes silent members, and continues the rebalance.
    pub fn tick(&mut self, now_ms: u64) {
        let slow = self.waits_since_ms.is_some_and(|since_ms| now_ms > since_ms + REBALANCE_MS_MAX);
        let before = self.members.len();
        self.members.retain(|_, member| now_ms <= member.heard_ms + SESSION_MS_MAX && (member.has_joined || !slow));
        if self.members.len() < before && self.waits_since_ms.is_none() {
            self.rebalance(now_ms);
        }
        self.go_on();
    }

    fn rebalance(&mut self, now_ms: u64) {
        if self.waits_since_ms.is_none() {
            self.waits_since_ms = Some(now_ms);
            for member in self.members.values_mut() {
                member.has_joined = false;
            }
        }
    }

    /// Starts the next generation, once all members have joined.
    fn go_on(&mut self) {
        if self.waits_since_ms.is_none() || self.members.values().any(|member| !member.has_joined) {
            return;
        }
        self.waits_since_ms = None;
        self.generation += 1;
        let (mut first, members) = (0, u32::try_from(self.members.len()).expect("few"));
        for (index, member) in (0..).zip(self.members.values_mut()) {
            let share = self.partitions / members + u32::from(index < self.partitions % members);
            member.given = (first..first + share).collect();
            first += share;
        }
    }
}
