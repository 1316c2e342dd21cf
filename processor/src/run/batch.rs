//! One step of the fold, and what was folded before it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bitrix24::Installation;
use event_log::{EventId, Output};
use primitives::time::Timestamp;

use super::limits::Limits;
use super::recent_events::RejectedEvent;
use crate::state::{Store, StoreError};
use domain::{Change, Fact, HeldEvent, InstallationState};

#[derive(Default)]
pub(super) struct Batch {
    /// The state of the installations in this step, including its changes.
    pub installations: HashMap<Installation, Arc<InstallationState>>,
    /// Facts of this step, which the store does not have yet.
    pub facts: HashSet<EventId>,
    pub held_facts: BTreeMap<HeldEvent, Fact>,
    pub outputs: Vec<Output>,
    pub bytes: usize,
    pub partitions: BTreeMap<u32, Done>,
    pub rejected: Vec<RejectedEvent>,
}

#[derive(Default)]
pub(super) struct Done {
    /// `K` behind the step.
    pub raw: u64,
    /// The time of the record before `K`.
    pub at: Timestamp,
    /// The event before `K`, if it has an id.
    pub last: Option<EventId>,
    pub changes: Vec<Change>,
    pub ids: Vec<EventId>,
}

impl Batch {
    pub fn put(&mut self, output: Output) {
        self.bytes += output.record.size();
        self.outputs.push(output);
    }

    pub fn is_full(&self, limits: &Limits) -> bool {
        self.bytes >= limits.step_bytes || self.outputs.len() >= limits.step_records
    }
}

/// What was folded before a step: the state, and above it the step that is being published.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub store: &'a Store,
    pub published: Option<&'a Batch>,
}

impl Known<'_> {
    pub fn has_fact(self, installation: &Installation, id: EventId) -> Result<bool, StoreError> {
        let is_published = self.published.is_some_and(|batch| batch.facts.contains(&id));
        Ok(is_published || self.store.has_fact(installation, id)?)
    }

    pub fn held_fact(self, held: &HeldEvent) -> Result<Option<Fact>, StoreError> {
        match self.published.and_then(|batch| batch.held_facts.get(held)) {
            Some(fact) => Ok(Some(fact.clone())),
            None => self.store.held_fact(held),
        }
    }

    /// The state of an installation, from this step, or else from before it.
    pub fn get<'b>(
        self,
        installations: &'b mut HashMap<Installation, Arc<InstallationState>>,
        installation: &Installation,
    ) -> Result<&'b mut Arc<InstallationState>, StoreError> {
        if !installations.contains_key(installation) {
            let published = self.published.and_then(|batch| batch.installations.get(installation));
            let state =
                published.map_or_else(|| self.store.installation(installation), |state| Ok(Arc::clone(state)))?;
            installations.insert(installation.clone(), state);
        }
        Ok(installations.get_mut(installation).expect("inserted above"))
    }
}
