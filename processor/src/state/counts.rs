//! The numbers of records, by what they say.

use std::collections::BTreeMap;

use bitrix24::Trust;
use domain::{Decision, InstallationState, RecordStatus};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub installations: BTreeMap<RecordStatus, i64>,
    pub contested: i64,
    /// Of trusted principals.
    pub permissions: BTreeMap<Decision, i64>,
}

impl Counts {
    pub(super) fn add(&mut self, state: &InstallationState, trust: Trust, by: i64) {
        let verdict = state.verdict(trust);
        if !state.principals.is_empty() {
            *self.installations.entry(state.status_by(&verdict)).or_default() += by;
            self.contested += i64::from(verdict.contested) * by;
        }
        for latest in state.trusted(&verdict).flat_map(|known| known.decisions.by_key().values()) {
            *self.permissions.entry(latest.value).or_default() += by;
        }
        self.installations.retain(|_, count| *count != 0);
        self.permissions.retain(|_, count| *count != 0);
    }
}
