//! The numbers of records, by what they say.

use std::collections::BTreeMap;

use bitrix24::Trust;
use domain::{Decision, InstallationState, RecordStatus};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PrincipalState {
    Trusted,
    Untrusted,
    Revoked,
}

impl PrincipalState {
    pub const ALL: [Self; 3] = [Self::Trusted, Self::Untrusted, Self::Revoked];

    pub fn label(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Untrusted => "untrusted",
            Self::Revoked => "revoked",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub installations: BTreeMap<RecordStatus, i64>,
    pub contested: i64,
    pub principals: BTreeMap<PrincipalState, i64>,
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
        for (principal, known) in &state.principals {
            let state = match verdict.trusts(*principal) {
                true => PrincipalState::Trusted,
                false if known.is_revoked() => PrincipalState::Revoked,
                false => PrincipalState::Untrusted,
            };
            *self.principals.entry(state).or_default() += by;
        }
        for latest in state.trusted(&verdict).flat_map(|known| known.decisions.by_key().values()) {
            *self.permissions.entry(latest.value).or_default() += by;
        }
        self.installations.retain(|_, count| *count != 0);
        self.permissions.retain(|_, count| *count != 0);
        self.principals.retain(|_, count| *count != 0);
    }
}
