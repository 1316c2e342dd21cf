//! Whether a method may be called. Computed on request, with the time as an argument.

use std::time::Duration;

use bitrix24::Trust;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{InstallationState, Method, RecordStatus, Stamp};

/// A decision applies to one token, and no token lives longer.
const CONSENT: Duration = Duration::from_secs(60 * 60);

/// The latest possible expiry of a token that a decision applies to: it was issued before the decision occurred, and
/// before it was received.
pub(crate) fn consent_ends(decided: Stamp) -> Timestamp {
    decided.occurred_at.min(decided.received_at).plus(CONSENT)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    Granted,
    Denied,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Granted {
        /// The latest possible expiry of the token.
        until: Timestamp,
    },
    Denied(Denial),
    Unanswered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    Refused,
    Expired,
    NotInstalled,
    /// No trusted principal has reported this installation.
    UnknownInstallation,
}

impl Denial {
    pub fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::NotInstalled => "not-installed",
            Self::UnknownInstallation => "unknown-installation",
        }
    }
}

/// Requires a trusted principal without a last word of uninstalling, a grant, and a token younger than [`CONSENT`].
pub fn permits(state: &InstallationState, trust: Trust, method: &Method, token: Fingerprint, now: Timestamp) -> Answer {
    let verdict = state.verdict(trust);
    match state.status_by(&verdict) {
        RecordStatus::Untrusted => return Answer::Denied(Denial::UnknownInstallation),
        RecordStatus::Uninstalled => return Answer::Denied(Denial::NotInstalled),
        RecordStatus::Installed | RecordStatus::Trusted => {}
    }
    let Some(latest) = state.decision(&verdict, method, token) else {
        return Answer::Unanswered;
    };
    let until = consent_ends(latest.since);
    match latest.value {
        Decision::Denied => Answer::Denied(Denial::Refused),
        Decision::Granted if now >= until => Answer::Denied(Denial::Expired),
        Decision::Granted => Answer::Granted { until },
    }
}

#[cfg(test)]
mod tests {
    use bitrix24::Installation;
    use event_log::EventId;

    use super::super::{Change, Fact, FactKind, Position, Profile, Revision};
    use super::*;

    const HOUR: u64 = 3_600;

    fn state(facts: &[(u64, FactKind)]) -> InstallationState {
        let mut state = InstallationState::default();
        for (offset, (at, kind)) in (0..).zip(facts) {
            // The portal's clock is two minutes ahead.
            let (at, ahead) = (Timestamp::from_s(*at), Timestamp::from_s(*at + 120));
            state.apply(&Change::Fact(Box::new(Fact {
                installation: Installation::parse("crm-sync", "a223").expect("valid"),
                stamp: Stamp::new(Some(ahead), at, EventId::from_u128(offset.into())),
                principal: Fingerprint::of("application token"),
                raw: Position { partition: 0, offset },
                revision: Revision::default(),
                kind: kind.clone(),
            })));
        }
        state
    }

    fn method() -> Method {
        Method::parse("user.get").expect("a method")
    }

    fn installed() -> FactKind {
        FactKind::Installed { complete: true, profile: Profile::default() }
    }

    fn decided(decision: Decision) -> FactKind {
        let token = Fingerprint::of("token");
        FactKind::MethodDecided { method: method(), token, decision, profile: Profile::default() }
    }

    fn ask(facts: &[(u64, FactKind)], now: u64) -> Answer {
        permits(&state(facts), Trust::FirstInstall, &method(), Fingerprint::of("token"), Timestamp::from_s(now))
    }

    #[test]
    fn a_grant_holds_for_the_tokens_hour_and_not_a_second_longer() {
        let facts = [(1, installed()), (10, decided(Decision::Granted))];
        let until = Timestamp::from_s(10 + HOUR);
        assert_eq!(ask(&facts, 11), Answer::Granted { until });
        assert_eq!(ask(&facts, 10 + HOUR - 1), Answer::Granted { until });
        assert_eq!(ask(&facts, 10 + HOUR), Answer::Denied(Denial::Expired));
    }

    #[test]
    fn each_no_has_its_reason() {
        assert_eq!(ask(&[], 5), Answer::Denied(Denial::UnknownInstallation));
        assert_eq!(ask(&[(1, installed())], 5), Answer::Unanswered);
        assert_eq!(ask(&[(1, installed()), (2, decided(Decision::Denied))], 5), Answer::Denied(Denial::Refused));
        let gone = FactKind::Uninstalled { clean: Some(true), profile: Profile::default() };
        let facts = [(1, installed()), (2, decided(Decision::Granted)), (3, gone)];
        assert_eq!(ask(&facts, 5), Answer::Denied(Denial::NotInstalled));
    }
}
