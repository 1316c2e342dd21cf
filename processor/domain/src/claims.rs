//! What one principal claims about an installation: a join of its facts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use primitives::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Attestation, Fact, FactKind, Latest, Stamp, endpoint};

/// Decisions about methods are kept this long behind the newest one.
pub const DECISIONS_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Portal metadata; fields that are missing from the event are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    pub domain: Option<String>,
    pub client_endpoint: Option<String>,
    pub server_endpoint: Option<String>,
    pub version: Option<String>,
    /// The status letter: L, F, D, T, P, S, or a future one.
    pub licence: Option<String>,
    pub language: Option<String>,
    pub scope: Option<Vec<String>>,
    /// Fields whose values cannot be shown: they are `None` above, and an older value is not used instead.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub omitted: BTreeSet<ProfileField>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProfileField {
    Domain,
    ClientEndpoint,
    ServerEndpoint,
    Version,
    Licence,
    Language,
    Scope,
    // Of facts alone.
    PreviousVersion,
    Code,
    Days,
    UserId,
    ClientId,
}

impl ProfileField {
    pub const ALL: [Self; 12] = [
        Self::Domain,
        Self::ClientEndpoint,
        Self::ServerEndpoint,
        Self::Version,
        Self::Licence,
        Self::Language,
        Self::Scope,
        Self::PreviousVersion,
        Self::Code,
        Self::Days,
        Self::UserId,
        Self::ClientId,
    ];

    /// Whether records show it; others are of facts alone.
    fn is_of_records(self) -> bool {
        match self {
            Self::Domain
            | Self::ClientEndpoint
            | Self::ServerEndpoint
            | Self::Version
            | Self::Licence
            | Self::Language
            | Self::Scope => true,
            Self::PreviousVersion | Self::Code | Self::Days | Self::UserId | Self::ClientId => false,
        }
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::Domain => "domain",
            Self::ClientEndpoint => "client_endpoint",
            Self::ServerEndpoint => "server_endpoint",
            Self::Version => "version",
            Self::Licence => "licence",
            Self::Language => "language",
            Self::Scope => "scope",
            Self::PreviousVersion => "previous_version",
            Self::Code => "code",
            Self::Days => "days",
            Self::UserId => "user_id",
            Self::ClientId => "client_id",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Installed,
    Uninstalled {
        /// Whether the portal asked for removal of the app's data, if it said so.
        clean: Option<bool>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    /// `occurred_at`, then `received_at`: the latest turn of a principal decides whether it is installed.
    pub(crate) when: (Timestamp, Timestamp),
    pub(crate) installed: bool,
}

/// The number of a principal's first turns that are kept, and of its last ones.
const TURNS_KEPT: usize = 8;

/// Turns by their offset in `raw`. Only the first and last ones are kept, independent of the order of arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64, u64, bool)>", into = "Vec<(u64, u64, u64, bool)>")]
pub(crate) struct Turns(BTreeMap<u64, Turn>);

impl Turns {
    /// In the order of the log.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, Turn)> {
        self.0.iter().map(|(offset, turn)| (*offset, *turn))
    }

    fn join(&mut self, offset: u64, turn: Turn) {
        self.0.insert(offset, turn);
        if self.0.len() > 2 * TURNS_KEPT {
            let middle = self.0.keys().nth(TURNS_KEPT).copied();
            self.0.retain(|offset, _| Some(*offset) != middle);
        }
    }
}

impl From<Vec<(u64, u64, u64, bool)>> for Turns {
    fn from(rows: Vec<(u64, u64, u64, bool)>) -> Self {
        let turn = |(offset, occurred_at, received_at, installed)| {
            let when = (Timestamp::from_ms(occurred_at), Timestamp::from_ms(received_at));
            (offset, Turn { when, installed })
        };
        Self(rows.into_iter().map(turn).collect())
    }
}

impl From<Turns> for Vec<(u64, u64, u64, bool)> {
    fn from(turns: Turns) -> Self {
        turns.iter().map(|(offset, turn)| (offset, turn.when.0.ms(), turn.when.1.ms(), turn.installed)).collect()
    }
}

/// The newest fact of a principal, in the order of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastFact {
    /// In `raw`.
    pub(crate) offset: u64,
    pub(crate) name: String,
    pub(crate) stamp: Stamp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// The principal's first fact: its offset in `raw`, and when it occurred.
    pub first_word: Option<(u64, Timestamp)>,
    /// The newest attestation, and its offset in `raw`.
    pub(crate) attestation: Option<Latest<(Attestation, u64)>>,
    pub(crate) turns: Turns,
    pub(crate) status: Option<Latest<Status>>,
    /// Decisions from before it are void.
    pub(crate) last_uninstall: Option<Stamp>,
    /// Decisions older than [`DECISIONS_KEPT`] before it are forgotten.
    pub(crate) last_decision: Option<Timestamp>,
    pub(crate) last_fact: Option<LastFact>,
    pub(crate) description: Description,
    /// When the first of its events was received that are facts. The last field: see the encoding of rows.
    pub first_heard_at: Option<Timestamp>,
}

/// What a principal says about the portal: the newest value of each field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Description {
    domain: Option<Latest<String>>,
    /// A loopback or private address never stands in for a public one.
    private_domain: Option<Latest<String>>,
    client_endpoint: Option<Latest<String>>,
    server_endpoint: Option<Latest<String>>,
    version: Option<Latest<String>>,
    licence: Option<Latest<String>>,
    language: Option<Latest<String>>,
    scope: Option<Latest<Vec<String>>>,
    /// The time of the last value that cannot be shown, by field.
    omitted: BTreeMap<ProfileField, Stamp>,
}

impl Claims {
    pub(crate) fn join(&mut self, fact: &Fact) {
        let offset = fact.raw.offset;
        if let FactKind::Attested { attestation, installed_at, profile } = &fact.kind {
            let value = (*attestation, offset);
            Latest::join(&mut self.attestation, Latest { since: fact.stamp, value });
            if let Some(occurred_at) = *installed_at {
                let since = Stamp { occurred_at, ..fact.stamp };
                Latest::join(&mut self.status, Latest { since, value: Status::Installed });
            }
            self.description.join(profile, fact.stamp);
            return;
        }
        let first_word = (offset, fact.stamp.occurred_at);
        self.first_word = Some(self.first_word.map_or(first_word, |known| known.min(first_word)));
        let received_at = fact.stamp.received_at;
        self.first_heard_at = Some(self.first_heard_at.map_or(received_at, |known| known.min(received_at)));
        if self.last_fact.as_ref().is_none_or(|last| last.offset < offset) {
            self.last_fact = Some(LastFact { offset, name: fact.kind.name().to_owned(), stamp: fact.stamp });
        }
        let when = (fact.stamp.occurred_at, fact.stamp.received_at);
        match &fact.kind {
            FactKind::Installed { complete: true, .. } => {
                self.turns.join(offset, Turn { when, installed: true });
                Latest::join(&mut self.status, Latest { since: fact.stamp, value: Status::Installed });
            }
            FactKind::Uninstalled { clean, .. } => {
                let value = Status::Uninstalled { clean: *clean };
                Latest::join(&mut self.status, Latest { since: fact.stamp, value });
                self.last_uninstall = self.last_uninstall.max(Some(fact.stamp));
                self.turns.join(offset, Turn { when, installed: false });
            }
            FactKind::MethodDecided { .. } => {
                self.last_decision = self.last_decision.max(Some(fact.stamp.occurred_at));
            }
            // An unfinished install has nothing but the portal's description.
            FactKind::Installed { complete: false, .. }
            | FactKind::Updated { .. }
            | FactKind::Paid { .. }
            | FactKind::UserReady { .. }
            | FactKind::Described { .. }
            | FactKind::Attested { .. } => {}
        }
        if let Some(profile) = fact.kind.profile() {
            self.description.join(profile, fact.stamp);
        }
    }

    /// Whether an attestation says nothing new.
    pub(crate) fn has(&self, fact: &Fact) -> bool {
        let FactKind::Attested { attestation, installed_at, profile } = &fact.kind else { return false };
        let Some(known) = &self.attestation else { return false };
        let is_weaker = matches!(attestation, Attestation::Vouched | Attestation::Imported);
        let is_same = known.value.0 == *attestation || (is_weaker && known.value.0 != Attestation::Revoked);
        let has_install = |at: Timestamp| self.status.as_ref().is_some_and(|status| status.since.occurred_at >= at);
        is_same && installed_at.is_none_or(has_install) && !self.description.learns(profile, fact.stamp)
    }

    pub(crate) fn first_install(&self) -> Option<(u64, Turn)> {
        self.turns.iter().find(|(_, turn)| turn.installed)
    }

    /// Whether the last word is an install.
    pub(crate) fn says_installed(&self) -> bool {
        matches!(self.status, Some(Latest { value: Status::Installed, .. }))
    }

    /// The times of the uninstall that is the last word: when it occurred, and when it was received.
    pub(crate) fn left_at(&self) -> Option<(Timestamp, Timestamp)> {
        let status = self.status.as_ref().filter(|_| !self.says_installed())?;
        Some((status.since.occurred_at, status.since.received_at))
    }

    pub(crate) fn keeps_decision(&self, made: Stamp) -> bool {
        let void = self.last_uninstall.is_some_and(|uninstall| made < uninstall);
        let old = self.last_decision.is_some_and(|last| made.occurred_at < last.minus(DECISIONS_KEPT));
        !void && !old
    }
}

impl Description {
    /// The newest value of each field, unless that one cannot be shown.
    pub(crate) fn profile(&self) -> Profile {
        let text = |field| self.text(field).filter(|_| !self.is_omitted(field)).map(|known| known.value.clone());
        let scope = self.scope.as_ref().filter(|_| !self.is_omitted(ProfileField::Scope));
        Profile {
            domain: text(ProfileField::Domain),
            client_endpoint: text(ProfileField::ClientEndpoint),
            server_endpoint: text(ProfileField::ServerEndpoint),
            version: text(ProfileField::Version),
            licence: text(ProfileField::Licence),
            language: text(ProfileField::Language),
            scope: scope.map(|known| known.value.clone()),
            omitted: self.omitted.keys().copied().filter(|field| self.is_omitted(*field)).collect(),
        }
    }

    fn join(&mut self, profile: &Profile, since: Stamp) {
        fn join<T: Clone>(known: &mut Option<Latest<T>>, newer: Option<&T>, since: Stamp) {
            if let Some(value) = newer {
                Latest::join(known, Latest { since, value: value.clone() });
            }
        }
        let domain = profile.domain.as_ref();
        join(&mut self.domain, domain.filter(|domain| !endpoint::is_private(domain)), since);
        join(&mut self.private_domain, domain.filter(|domain| endpoint::is_private(domain)), since);
        join(&mut self.client_endpoint, profile.client_endpoint.as_ref(), since);
        join(&mut self.server_endpoint, profile.server_endpoint.as_ref(), since);
        join(&mut self.version, profile.version.as_ref(), since);
        join(&mut self.licence, profile.licence.as_ref(), since);
        join(&mut self.language, profile.language.as_ref(), since);
        join(&mut self.scope, profile.scope.as_ref(), since);
        for field in profile.omitted.iter().filter(|field| field.is_of_records()) {
            let last = self.omitted.entry(*field).or_insert(since);
            *last = since.max(*last);
        }
    }

    /// Adds what another principal says.
    pub(crate) fn merge(&mut self, other: &Self) {
        fn join<T: Clone>(known: &mut Option<Latest<T>>, other: Option<&Latest<T>>) {
            if let Some(other) = other {
                Latest::join(known, other.clone());
            }
        }
        join(&mut self.domain, other.domain.as_ref());
        join(&mut self.private_domain, other.private_domain.as_ref());
        join(&mut self.client_endpoint, other.client_endpoint.as_ref());
        join(&mut self.server_endpoint, other.server_endpoint.as_ref());
        join(&mut self.version, other.version.as_ref());
        join(&mut self.licence, other.licence.as_ref());
        join(&mut self.language, other.language.as_ref());
        join(&mut self.scope, other.scope.as_ref());
        for (field, since) in &other.omitted {
            let last = self.omitted.entry(*field).or_insert(*since);
            *last = (*since).max(*last);
        }
    }

    /// Whether a profile would change what is shown.
    pub(crate) fn learns(&self, profile: &Profile, now: Stamp) -> bool {
        let text = |field, value: &Option<String>| {
            let known = self.text(field);
            value
                .as_ref()
                .is_some_and(|value| known.is_none_or(|known| known.value != *value) || self.is_omitted(field))
                && self.is_before(field, now)
        };
        let domain = profile.domain.as_ref().filter(|domain| self.domain.is_none() || !endpoint::is_private(domain));
        let scope = |scope: &Vec<String>| {
            self.scope.as_ref().is_none_or(|known| known.value != *scope) || self.is_omitted(ProfileField::Scope)
        };
        text(ProfileField::Domain, &domain.cloned())
            || text(ProfileField::ClientEndpoint, &profile.client_endpoint)
            || text(ProfileField::ServerEndpoint, &profile.server_endpoint)
            || text(ProfileField::Version, &profile.version)
            || text(ProfileField::Licence, &profile.licence)
            || text(ProfileField::Language, &profile.language)
            || (profile.scope.as_ref().is_some_and(scope) && self.is_before(ProfileField::Scope, now))
            || profile
                .omitted
                .iter()
                .any(|field| field.is_of_records() && !self.is_omitted(*field) && self.is_before(*field, now))
    }

    /// Whether all that is known of a field is older.
    fn is_before(&self, field: ProfileField, now: Stamp) -> bool {
        self.since(field).max(self.omitted.get(&field).copied()).is_none_or(|known| known < now)
    }

    fn is_omitted(&self, field: ProfileField) -> bool {
        self.omitted.get(&field).is_some_and(|omitted| self.since(field).is_none_or(|known| known < *omitted))
    }

    fn since(&self, field: ProfileField) -> Option<Stamp> {
        let scope = self.scope.as_ref().filter(|_| field == ProfileField::Scope).map(|scope| scope.since);
        scope.or_else(|| self.text(field).map(|text| text.since))
    }

    fn text(&self, field: ProfileField) -> Option<&Latest<String>> {
        match field {
            ProfileField::Domain => self.domain.as_ref().or(self.private_domain.as_ref()),
            ProfileField::ClientEndpoint => self.client_endpoint.as_ref(),
            ProfileField::ServerEndpoint => self.server_endpoint.as_ref(),
            ProfileField::Version => self.version.as_ref(),
            ProfileField::Licence => self.licence.as_ref(),
            ProfileField::Language => self.language.as_ref(),
            ProfileField::Scope
            | ProfileField::PreviousVersion
            | ProfileField::Code
            | ProfileField::Days
            | ProfileField::UserId
            | ProfileField::ClientId => None,
        }
    }
}
