//! What one principal claims about an installation: a join of its facts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use primitives::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::fact::{Fact, FactKind};
use super::stamp::{Latest, Stamp};

/// Decisions about methods are kept this long behind the newest one.
pub const DECISIONS_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How a portal describes itself; what an event does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// The portal's address.
    pub domain: Option<String>,
    /// Where the portal's API is.
    pub client_endpoint: Option<String>,
    /// Where tokens are renewed.
    pub server_endpoint: Option<String>,
    /// The app's version on the portal.
    pub version: Option<String>,
    /// The status letter: L, F, D, T, P, S, or one that is yet to be invented.
    pub licence: Option<String>,
    /// The portal's language.
    pub language: Option<String>,
    /// What the app may do.
    pub scope: Option<Vec<String>>,
    /// Fields with a value that cannot be shown: they are `None` above, and an older value does not stand in.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub omitted: BTreeSet<ProfileField>,
}

/// A field of a profile, by its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is the field of this name")]
pub enum ProfileField {
    Domain,
    ClientEndpoint,
    ServerEndpoint,
    Version,
    Licence,
    Language,
    Scope,
}

/// Whether the app is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is.
    Installed,
    /// It is not.
    Uninstalled {
        /// The portal asked that the app's data be removed.
        clean: bool,
    },
}

/// A principal came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    /// By the portal's word when, then when we heard of it: which of a principal's turns is its last word.
    pub when: (Timestamp, Timestamp),
    /// It came.
    pub installed: bool,
}

/// So many of a principal's first turns are remembered, and as many of its last.
const TURNS_KEPT: usize = 8;

/// When a principal came and went, by places in `raw`. The first and the last of very many, and the same ones in
/// whatever order they were heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64, u64, bool)>", into = "Vec<(u64, u64, u64, bool)>")]
pub struct Turns(BTreeMap<u64, Turn>);

impl Turns {
    /// All that are remembered, in the log's order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Turn)> {
        self.0.iter().map(|(offset, turn)| (*offset, *turn))
    }

    /// How many are remembered.
    pub fn number(&self) -> usize {
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

/// The newest fact of a principal, in the log's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFact {
    /// Its place in `raw`.
    pub offset: u64,
    /// Its type.
    pub name: String,
    /// When it became true, and its id.
    pub stamp: Stamp,
}

/// The join of all facts of one principal about one installation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// The place in `raw` of the principal's first fact.
    pub first_word: Option<u64>,
    /// When the principal came and went.
    pub turns: Turns,
    /// Installed or not.
    pub status: Option<Latest<Status>>,
    /// The principal's last uninstall: decisions from before are void.
    pub last_uninstall: Option<Stamp>,
    /// When the newest decision about a method was made: much older ones are forgotten.
    pub last_decision: Option<Timestamp>,
    /// The newest fact.
    pub last_fact: Option<LastFact>,
    domain: Option<Latest<String>>,
    client_endpoint: Option<Latest<String>>,
    server_endpoint: Option<Latest<String>>,
    version: Option<Latest<String>>,
    licence: Option<Latest<String>>,
    language: Option<Latest<String>>,
    scope: Option<Latest<Vec<String>>>,
    /// When each last had a value that cannot be shown.
    omitted: BTreeMap<ProfileField, Stamp>,
}

impl Claims {
    /// Joins a fact of this principal.
    pub fn join(&mut self, fact: &Fact) {
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

    /// Forgets the turns before a place, as if the principal had first spoken behind it.
    pub fn forget_before(&mut self, offset: u64) {
        self.turns.0 = self.turns.0.split_off(&offset);
        self.first_word = self.first_word.map(|first| first.max(offset));
    }

    /// Whether a decision that was made then is still worth keeping.
    pub fn keeps_decision(&self, made: Stamp) -> bool {
        let void = self.last_uninstall.is_some_and(|uninstall| made < uninstall);
        let old = self.last_decision.is_some_and(|last| made.occurred_at < last.minus(DECISIONS_KEPT));
        !void && !old
    }

    /// How the portal describes itself, by the newest word on each point.
    pub fn profile(&self) -> Profile {
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

    /// The newest word on a field, unless it was one that cannot be shown.
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
        fn join<T: Clone>(known: &mut Option<Latest<T>>, told: Option<&T>, since: Stamp) {
            if let Some(value) = told {
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
