//! The encoding of rows: compact, or JSON in a state of the first version.
//!
//! The encoding depends on the version of the fold, which no row outlives.

use std::collections::BTreeSet;

use bitrix24::Installation;
use event_log::{EventId, Position};
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use super::StoreError;
use domain::{
    Attestation, Claims, Decision, Fact, FactKind, Held, Latest, Method, Profile, ProfileField, Revision, Stamp,
    VaultEntry,
};

/// The last field of claims, if there is none.
const NONE: &[u8] = &[0];

/// The encoding of all rows except those of owner and checkpoint, which every version can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Version 1.
    Json,
    /// Up to version 4: claims end before [`Claims::first_heard_at`].
    CompactOnce,
    /// postcard: a fifth of the size. Rows of an older form are damage, so they are folded again.
    Compact,
}

impl Codec {
    pub fn of(fold_version: u32) -> Self {
        match fold_version {
            0..=1 => Self::Json,
            2..=4 => Self::CompactOnce,
            _ => Self::Compact,
        }
    }

    pub fn claims(self, row: &[u8]) -> Result<Claims, StoreError> {
        match self {
            Self::Json | Self::Compact => self.decode(row),
            Self::CompactOnce => self.decode(&[row, NONE].concat()),
        }
    }

    pub fn decision(self, row: &[u8]) -> Result<Latest<Decision>, StoreError> {
        self.decode(row)
    }

    pub fn vault_entry(self, row: &[u8]) -> Result<VaultEntry, StoreError> {
        self.decode(row)
    }

    pub fn timestamp(self, row: &[u8]) -> Result<Timestamp, StoreError> {
        self.decode(row)
    }

    /// The key identifies the installation.
    pub fn fact(self, installation: &Installation, row: &[u8]) -> Result<Fact, StoreError> {
        match self {
            Self::Json => self.decode(row),
            Self::CompactOnce | Self::Compact => {
                let FactRow { stamp, principal, raw, revision: (interpretation, correction), kind } =
                    self.decode(row)?;
                let revision = Revision { interpretation, correction };
                Ok(Fact { installation: installation.clone(), stamp, principal, raw, revision, kind })
            }
        }
    }

    pub fn encode(self, value: &impl Serialize) -> Vec<u8> {
        match self {
            Self::Json => serde_json::to_vec(value).expect("our own types have a JSON form"),
            Self::CompactOnce | Self::Compact => {
                postcard::to_allocvec(value).expect("our own types have a form in bytes")
            }
        }
    }

    pub fn encode_claims(self, claims: &Claims) -> Vec<u8> {
        match self {
            Self::Json | Self::Compact => self.encode(claims),
            Self::CompactOnce => {
                let mut claims = claims.clone();
                claims.first_heard_at = None;
                let mut row = self.encode(&claims);
                row.truncate(row.len() - NONE.len());
                row
            }
        }
    }

    pub fn encode_fact(self, fact: &Fact) -> Vec<u8> {
        let Fact { installation: _, stamp, principal, raw, revision, kind } = fact;
        match self {
            Self::Json => self.encode(fact),
            Self::CompactOnce | Self::Compact => {
                let revision = (revision.interpretation, revision.correction);
                self.encode(&(stamp, principal, raw, revision, FactKindOut(kind)))
            }
        }
    }

    fn decode<T: for<'de> Deserialize<'de>>(self, row: &[u8]) -> Result<T, StoreError> {
        let wrong = |why: String| StoreError::Damaged(format!("a row cannot be read: {why}"));
        match self {
            Self::Json => serde_json::from_slice(row).map_err(|error| wrong(error.to_string())),
            Self::CompactOnce | Self::Compact => match postcard::take_from_bytes(row) {
                Ok((value, [])) => Ok(value),
                Ok(_) => Err(wrong("it is too long".to_owned())),
                Err(error) => Err(wrong(error.to_string())),
            },
        }
    }
}

/// A held event: its id and size, which rows of older versions lack.
pub fn held(row: &[u8]) -> Result<Held, StoreError> {
    let malformed = || StoreError::Damaged("a held event is malformed".to_owned());
    let (id, bytes) = row.split_at_checked(16).ok_or_else(malformed)?;
    let id = EventId::from_slice(id).map_err(|_| malformed())?;
    match *bytes {
        [] => Ok(Held { id, bytes: 0, has_fact: false }),
        [a, b, c, d, has_fact] => Ok(Held { id, bytes: u32::from_be_bytes([a, b, c, d]), has_fact: has_fact != 0 }),
        _ => Err(malformed()),
    }
}

pub fn encode_held(held: Held) -> Vec<u8> {
    [&held.id.as_bytes()[..], &held.bytes.to_be_bytes(), &[u8::from(held.has_fact)]].concat()
}

/// The offset of a fact, and its revision if that takes bytes.
pub type PlaceRow = (u64, Option<(u32, u32)>);

pub fn append_place(place: PlaceRow, row: Vec<u8>) -> Vec<u8> {
    postcard::to_extend(&place, row).expect("our own types have a form in bytes")
}

/// The place at the beginning of these bytes, and the bytes behind it.
pub fn take_place(row: &[u8]) -> Option<(PlaceRow, &[u8])> {
    postcard::take_from_bytes(row).ok()
}

/// [`Profile`] with all of its fields, always.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Profile")]
struct ProfileRow {
    domain: Option<String>,
    client_endpoint: Option<String>,
    server_endpoint: Option<String>,
    version: Option<String>,
    licence: Option<String>,
    language: Option<String>,
    scope: Option<Vec<String>>,
    omitted: BTreeSet<ProfileField>,
}

#[derive(Deserialize)]
struct FactRow {
    stamp: Stamp,
    principal: Fingerprint,
    raw: Position,
    revision: (u32, u32),
    #[serde(with = "FactKindRow")]
    kind: FactKind,
}

/// [`FactKind`] without its internally tagged JSON form.
#[derive(Serialize, Deserialize)]
#[serde(remote = "FactKind")]
enum FactKindRow {
    Installed {
        complete: bool,
        #[serde(with = "ProfileRow")]
        profile: Profile,
    },
    Updated {
        previous_version: Option<String>,
        #[serde(with = "ProfileRow")]
        profile: Profile,
    },
    Uninstalled {
        clean: Option<bool>,
        #[serde(with = "ProfileRow")]
        profile: Profile,
    },
    Paid {
        code: Option<String>,
        days: Option<i64>,
        expired: Option<bool>,
        #[serde(with = "ProfileRow")]
        profile: Profile,
    },
    MethodDecided {
        method: Method,
        token: Fingerprint,
        decision: Decision,
        #[serde(with = "ProfileRow")]
        profile: Profile,
    },
    UserReady {
        user_id: Option<String>,
        client_id: Option<String>,
        #[serde(with = "ProfileRow")]
        profile: Profile,
    },
    Described {
        #[serde(with = "ProfileRow")]
        profile: Profile,
    },
    Attested {
        attestation: Attestation,
        installed_at: Option<Timestamp>,
        #[serde(with = "ProfileRow")]
        profile: Profile,
    },
}

struct FactKindOut<'a>(&'a FactKind);

impl Serialize for FactKindOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        FactKindRow::serialize(self.0, serializer)
    }
}
