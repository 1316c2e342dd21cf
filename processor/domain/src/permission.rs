//! Whether a method may be called: derived when asked, with the time as an argument.

use std::time::Duration;

use bitrix24::Trust;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::fact::Method;
use super::installation::InstallationState;
use super::record::RecordStatus;

/// A decision holds for the token it was made about, and no token lives longer.
pub const CONSENT: Duration = Duration::from_secs(60 * 60);

/// What an administrator decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// The holder of the token may call the method.
    Granted,
    /// It may not.
    Denied,
}

/// The answer to «may this token call this method?»
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It may, until then.
    Granted {
        /// When the token is certainly dead.
        until: Timestamp,
    },
    /// It may not.
    Denied(Denial),
    /// Nobody has decided, as far as we know.
    Unanswered,
}

/// Why a method may not be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// An administrator said no.
    Refused,
    /// An administrator said yes, but the token is too old.
    Expired,
    /// The app is not installed any more.
    NotInstalled,
    /// No trusted principal reported this installation.
    UnknownInstallation,
}

impl Denial {
    /// As answers say it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::NotInstalled => "not-installed",
            Self::UnknownInstallation => "unknown-installation",
        }
    }
}

/// Installed, and granted, and younger than the token's hour.
pub fn permits(state: &InstallationState, trust: Trust, method: &Method, token: Fingerprint, now: Timestamp) -> Answer {
    match state.status(trust) {
        RecordStatus::Untrusted => return Answer::Denied(Denial::UnknownInstallation),
        RecordStatus::Uninstalled => return Answer::Denied(Denial::NotInstalled),
        RecordStatus::Installed => {}
    }
    let Some(latest) = state.decision(trust, method, token) else {
        return Answer::Unanswered;
    };
    let until = latest.since.occurred_at.plus(CONSENT);
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

    use super::super::{Change, Fact, FactKind, Place, Profile, Revision, Stamp};
    use super::*;

    const HOUR: u64 = 3_600;

    fn state(facts: &[(u64, FactKind)]) -> InstallationState {
        let mut state = InstallationState::default();
        for (offset, (at, kind)) in (0..).zip(facts) {
            let at = Timestamp::from_s(*at);
            state.apply(&Change::Fact(Box::new(Fact {
                installation: Installation::parse("crm-sync", "a223").expect("valid"),
                stamp: Stamp::new(Some(at), at, EventId::from_u128(offset.into())),
                principal: Fingerprint::of("application token"),
                raw: Place { partition: 0, offset },
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
        let gone = FactKind::Uninstalled { clean: true, profile: Profile::default() };
        let facts = [(1, installed()), (2, decided(Decision::Granted)), (3, gone)];
        assert_eq!(ask(&facts, 5), Answer::Denied(Denial::NotInstalled));
    }
}
