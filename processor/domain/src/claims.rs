//! What one principal claims about an installation: a join of its facts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use primitives::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Fact, FactKind, Latest, Stamp};

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

    pub(crate) fn number(&self) -> usize {
        self.0.len()
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
    /// The offset in `raw` of the principal's first fact.
    pub first_word: Option<u64>,
    pub(crate) turns: Turns,
    pub(crate) status: Option<Latest<Status>>,
    /// Decisions from before it are void.
    pub(crate) last_uninstall: Option<Stamp>,
    /// Decisions older than [`DECISIONS_KEPT`] before it are forgotten.
    pub(crate) last_decision: Option<Timestamp>,
    pub(crate) last_fact: Option<LastFact>,
    domain: Option<Latest<String>>,
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
        self.first_word = Some(earlier(self.first_word, offset));
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
            | FactKind::Spoke => {}
        }
        if let Some(profile) = fact.kind.profile() {
            self.describe(profile, fact.stamp);
        }
    }

    /// Forgets the turns before an offset, as if the principal's first fact were at that offset.
    pub(crate) fn forget_before(&mut self, offset: u64) {
        self.turns.0 = self.turns.0.split_off(&offset);
        self.first_word = self.first_word.map(|first| first.max(offset));
    }

    pub(crate) fn keeps_decision(&self, made: Stamp) -> bool {
        let void = self.last_uninstall.is_some_and(|uninstall| made < uninstall);
        let old = self.last_decision.is_some_and(|last| made.occurred_at < last.minus(DECISIONS_KEPT));
        !void && !old
    }

    pub(crate) fn profile(&self) -> Profile {
        let mut omitted = BTreeSet::new();
        let mut profile = Profile {
            domain: self.newest(ProfileField::Domain, self.domain.as_ref(), &mut omitted),
            client_endpoint: self.newest(ProfileField::ClientEndpoint, self.client_endpoint.as_ref(), &mut omitted),
            server_endpoint: self.newest(ProfileField::ServerEndpoint, self.server_endpoint.as_ref(), &mut omitted),
            version: self.newest(ProfileField::Version, self.version.as_ref(), &mut omitted),
            licence: self.newest(ProfileField::Licence, self.licence.as_ref(), &mut omitted),
            language: self.newest(ProfileField::Language, self.language.as_ref(), &mut omitted),
            scope: self.newest(ProfileField::Scope, self.scope.as_ref(), &mut omitted),
            omitted: BTreeSet::new(),
        };
        profile.omitted = omitted;
        profile
    }

    /// The newest value of a field, unless that one cannot be shown.
    fn newest<T: Clone>(
        &self,
        field: ProfileField,
        known: Option<&Latest<T>>,
        omitted: &mut BTreeSet<ProfileField>,
    ) -> Option<T> {
        let is_older = |last: &Stamp| known.is_none_or(|known| known.since < *last);
        if self.omitted.get(&field).is_some_and(is_older) {
            omitted.insert(field);
            return None;
        }
        known.map(|known| known.value.clone())
    }

    fn describe(&mut self, profile: &Profile, since: Stamp) {
        fn join<T: Clone>(known: &mut Option<Latest<T>>, newer: Option<&T>, since: Stamp) {
            if let Some(value) = newer {
                Latest::join(known, Latest { since, value: value.clone() });
            }
        }
        join(&mut self.domain, profile.domain.as_ref(), since);
        join(&mut self.client_endpoint, profile.client_endpoint.as_ref(), since);
        join(&mut self.server_endpoint, profile.server_endpoint.as_ref(), since);
        join(&mut self.version, profile.version.as_ref(), since);
        join(&mut self.licence, profile.licence.as_ref(), since);
        join(&mut self.language, profile.language.as_ref(), since);
        join(&mut self.scope, profile.scope.as_ref(), since);
        for field in &profile.omitted {
            let last = self.omitted.entry(*field).or_insert(since);
            *last = since.max(*last);
        }
    }
}

fn earlier(known: Option<u64>, offset: u64) -> u64 {
    known.map_or(offset, |known| known.min(offset))
}
