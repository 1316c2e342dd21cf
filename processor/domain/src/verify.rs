//! Who speaks for an installation: whether a token is trusted, and what is known of each principal.

use bitrix24::Trust;
use event_log::made_at;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use serde::Serialize;

use crate::trust::Basis;
use crate::{InstallationState, Principal, RecordStatus};

/// Whether a token is the portal's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// None if it is not known.
    pub verified: Option<bool>,
    pub basis: Option<Basis>,
    pub reason: TokenStatus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenStatus {
    Trusted,
    /// Another principal is trusted, and has not uninstalled.
    OtherPrincipal,
    /// The trusted principal has uninstalled: the token may be that of a new install, which has not come in.
    Uninstalled,
    NoTrustedPrincipal,
    /// More than one principal claims the place, and no attestation decided.
    Contested,
    /// An operator revoked the trust in this one.
    Revoked,
    UnknownInstallation,
}

/// What is known of one principal of an installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PrincipalRecord {
    pub principal: Fingerprint,
    pub trusted: bool,
    pub basis: Option<Basis>,
    /// When that occurred for which it is trusted.
    pub since: Option<Timestamp>,
    /// When the first of its known events was received.
    pub first_heard_at: Option<Timestamp>,
    pub last_heard_at: Option<Timestamp>,
    /// Events that are held until the principal is trusted.
    pub held_events: usize,
}

impl InstallationState {
    pub fn verify(&self, trust: Trust, token: Fingerprint) -> Verification {
        let verdict = self.verdict(trust);
        let found = verdict.trusted.iter().find(|trusted| trusted.principal.is_same(&token));
        let (verified, reason) = if found.is_some() {
            (Some(true), TokenStatus::Trusted)
        } else if self.principals.is_empty() {
            (None, TokenStatus::UnknownInstallation)
        } else if self.principals.get(&token).is_some_and(Principal::is_revoked) {
            (Some(false), TokenStatus::Revoked)
        } else if verdict.trusted.is_empty() {
            (None, TokenStatus::NoTrustedPrincipal)
        } else if verdict.contested {
            (None, TokenStatus::Contested)
        } else if self.status_by(&verdict) == RecordStatus::Uninstalled {
            (None, TokenStatus::Uninstalled)
        } else {
            (Some(false), TokenStatus::OtherPrincipal)
        };
        Verification { verified, basis: found.map(|trusted| trusted.basis), reason }
    }

    /// Principals behind `after`, in the order of their fingerprints.
    pub fn principal_records(&self, trust: Trust, after: Option<Fingerprint>) -> Vec<PrincipalRecord> {
        let verdict = self.verdict(trust);
        let behind = self.principals.iter().filter(|(principal, _)| after.is_none_or(|after| **principal > after));
        let record = |(principal, known): (&Fingerprint, &Principal)| {
            let trusted = verdict.of(*principal);
            PrincipalRecord {
                principal: *principal,
                trusted: trusted.is_some(),
                basis: trusted.map(|trusted| trusted.basis),
                since: trusted.map(|trusted| trusted.since),
                first_heard_at: known.first_heard_at(),
                last_heard_at: known.last_heard_at(),
                held_events: known.held.len(),
            }
        };
        behind.map(record).collect()
    }
}

impl Principal {
    /// When its newest fact, in the order of the log, was received.
    pub fn last_fact_at(&self) -> Option<Timestamp> {
        self.claims.last_fact.as_ref().map(|last| last.stamp.received_at)
    }

    fn first_heard_at(&self) -> Option<Timestamp> {
        self.heard_at().min()
    }

    fn last_heard_at(&self) -> Option<Timestamp> {
        self.heard_at().max()
    }

    /// Of its first and last facts, some of its turns, and its held events.
    fn heard_at(&self) -> impl Iterator<Item = Timestamp> {
        let turns = self.claims.turns.iter().map(|(_, turn)| turn.when.1);
        let held = self.held.values().filter_map(|held| made_at(held.id));
        turns.chain(held).chain(self.claims.first_heard_at).chain(self.last_fact_at())
    }
}

#[cfg(test)]
mod tests {
    use bitrix24::Installation;
    use event_log::EventId;

    use super::*;
    use crate::{Change, Fact, FactKind, HeldDetails, HeldEvent, Position, Profile, Revision, Stamp};

    const TRUST: Trust = Trust::FirstInstall;

    fn installation() -> Installation {
        Installation::parse("crm-sync", "a223").expect("valid")
    }

    /// A line an event: principal and what happened, a second each.
    fn state(steps: &[(&str, &str)]) -> InstallationState {
        let mut state = InstallationState::default();
        for (offset, (principal, what)) in (0..).zip(steps) {
            let (principal, at) = (Fingerprint::of(principal), Timestamp::from_s(offset));
            let profile = Profile::default();
            let kind = match *what {
                "install" => FactKind::Installed { complete: true, profile },
                "uninstall" => FactKind::Uninstalled { clean: Some(true), profile },
                _ => {
                    let id = EventId::from_u128((u128::from(at.ms()) << 80) | (7 << 76) | (2 << 62));
                    let held = HeldEvent { installation: installation(), id, principal, offset };
                    let raw = Position { partition: 0, offset };
                    state.apply(&Change::Held(held, HeldDetails { raw, bytes: 1, fact: None }));
                    continue;
                }
            };
            state.apply(&Change::Fact(Box::new(Fact {
                installation: installation(),
                stamp: Stamp::new(None, at, EventId::from_u128(offset.into())),
                principal,
                raw: Position { partition: 0, offset },
                revision: Revision::default(),
                kind,
            })));
        }
        state
    }

    #[test]
    fn a_token_is_verified_by_the_trusted_principal_and_no_other() {
        let check = |steps: &[(&str, &str)], token, verified, reason| {
            let verification = state(steps).verify(TRUST, Fingerprint::of(token));
            assert_eq!((verification.verified, verification.reason), (verified, reason), "{token} in {steps:?}");
            assert_eq!(verification.basis.is_some(), verified == Some(true));
        };
        check(&[], "t", None, TokenStatus::UnknownInstallation);
        check(&[("t", "speaks")], "t", None, TokenStatus::NoTrustedPrincipal);
        let installed = [("t", "install"), ("x", "speaks")];
        check(&installed, "t", Some(true), TokenStatus::Trusted);
        check(&installed, "x", Some(false), TokenStatus::OtherPrincipal);
        check(&installed, "never heard", Some(false), TokenStatus::OtherPrincipal);
        let gone = [("t", "install"), ("t", "uninstall")];
        check(&gone, "t", Some(true), TokenStatus::Trusted);
        check(&gone, "new", None, TokenStatus::Uninstalled);
        let again = [&gone[..], &[("new", "install")]].concat();
        check(&again, "new", Some(true), TokenStatus::Trusted);
        check(&again, "t", Some(false), TokenStatus::OtherPrincipal);
    }

    #[test]
    fn principals_are_told_with_what_was_heard_of_them() {
        let state = state(&[("t", "install"), ("x", "speaks"), ("t", "uninstall"), ("x", "speaks")]);
        let records = state.principal_records(TRUST, None);
        let of = |token: &str| {
            let record = records.iter().find(|record| record.principal == Fingerprint::of(token)).expect("known");
            (
                record.trusted,
                record.first_heard_at.map(Timestamp::s),
                record.last_heard_at.map(Timestamp::s),
                record.held_events,
            )
        };
        assert_eq!(of("t"), (true, Some(0), Some(2), 0));
        assert_eq!(of("x"), (false, Some(1), Some(3), 2));
        let behind = state.principal_records(TRUST, Some(records[0].principal));
        assert_eq!(behind, records[1..]);
    }
}
