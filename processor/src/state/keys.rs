//! The keys of rows: everything about one installation shares a prefix.
//!
//! ```text
//! p app NUL member NUL t principal                       claims
//! p app NUL member NUL d principal method NUL token      a decision
//! p app NUL member NUL l                                 when a trusted principal was last heard of
//! p app NUL member NUL s principal kind                  what the vault has of a principal
//! p app NUL member NUL w principal offset                a held event
//! p app NUL member NUL x id                              where facts lie in `facts`, up to this event id
//! p app NUL member NUL y                                 where the newest facts lie
//! v app NUL member NUL principal offset                  the fact of a held event
//! m partition                                            checkpoint and digest
//! o                                                      log, partitions and version of this fold
//! ```
//!
//! Before version 5, `h app NUL member NUL id` was a fact.

use bitrix24::{AppName, Installation};
use event_log::EventId;
use primitives::secret::Fingerprint;

use domain::{Method, VaultKind};

pub const OWNER: &[u8] = b"o";
pub const INSTALLATIONS: &[u8] = b"p";
pub const FACTS_ONCE: &[u8] = b"h";
pub const HELD_FACTS: &[u8] = b"v";

pub enum Part {
    Claims(Fingerprint),
    Decision(Fingerprint, Method, Fingerprint),
    Held(Fingerprint, u64),
    HeardAt,
    Vault(Fingerprint, VaultKind),
    /// With the last id.
    Places(EventId),
    NewestPlaces,
}

pub fn installations_of(app: &AppName) -> Vec<u8> {
    [INSTALLATIONS, app.as_str().as_bytes(), b"\0"].concat()
}

pub fn installation_rows(installation: &Installation) -> Vec<u8> {
    prefix(INSTALLATIONS, installation)
}

pub fn facts_once(installation: &Installation) -> Vec<u8> {
    prefix(FACTS_ONCE, installation)
}

/// Behind all other rows of an installation, so that its state is read without them.
pub fn first_places(installation: &Installation) -> Vec<u8> {
    [&installation_rows(installation)[..], b"x"].concat()
}

/// The row of places with this last id; for the digest, the place of one fact.
pub fn places(installation: &Installation, id: EventId) -> Vec<u8> {
    [&installation_rows(installation)[..], b"x", id.as_bytes()].concat()
}

pub fn newest_places(installation: &Installation) -> Vec<u8> {
    [&installation_rows(installation)[..], b"y"].concat()
}

/// Whether a row behind the prefix of the installation holds places.
pub fn has_places(part: &[u8]) -> bool {
    part.first().is_some_and(|kind| b"xy".contains(kind))
}

pub fn all_held_facts(installation: &Installation) -> Vec<u8> {
    prefix(HELD_FACTS, installation)
}

pub fn held_fact(installation: &Installation, principal: Fingerprint, offset: u64) -> Vec<u8> {
    [&all_held_facts(installation)[..], principal.as_bytes(), &offset.to_be_bytes()].concat()
}

pub fn claims(installation: &Installation, principal: Fingerprint) -> Vec<u8> {
    [&installation_rows(installation)[..], b"t", principal.as_bytes()].concat()
}

pub fn decision(installation: &Installation, principal: Fingerprint, method: &Method, token: Fingerprint) -> Vec<u8> {
    let method = method.as_str().as_bytes();
    [&installation_rows(installation)[..], b"d", principal.as_bytes(), method, b"\0", token.as_bytes()].concat()
}

pub fn held(installation: &Installation, principal: Fingerprint, offset: u64) -> Vec<u8> {
    [&installation_rows(installation)[..], b"w", principal.as_bytes(), &offset.to_be_bytes()].concat()
}

pub fn heard_at(installation: &Installation) -> Vec<u8> {
    [&installation_rows(installation)[..], b"l"].concat()
}

pub fn vault(installation: &Installation, principal: Fingerprint, kind: VaultKind) -> Vec<u8> {
    [&installation_rows(installation)[..], b"s", principal.as_bytes(), kind.name().as_bytes()].concat()
}

pub fn checkpoint(partition: u32) -> Vec<u8> {
    [b"m", &partition.to_be_bytes()[..]].concat()
}

pub fn is_checkpoint(key: &[u8], partitions: u32) -> bool {
    let number = key.strip_prefix(b"m").and_then(|number| number.try_into().ok()).map(u32::from_be_bytes);
    number.is_some_and(|number| number < partitions)
}

/// The first key behind this one.
pub fn behind(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// The first key behind all that begin with this prefix; parts begin with a letter.
pub fn behind_all(mut prefix: Vec<u8>) -> Vec<u8> {
    prefix.push(0xff);
    prefix
}

pub fn installation(key: &[u8]) -> Option<Installation> {
    if ![INSTALLATIONS, FACTS_ONCE, HELD_FACTS].iter().any(|kind| key.starts_with(kind)) {
        return None;
    }
    let mut parts = key.get(1..)?.splitn(3, |byte| *byte == 0);
    let app = std::str::from_utf8(parts.next()?).ok()?;
    let member_id = std::str::from_utf8(parts.next()?).ok()?;
    parts.next()?;
    Installation::parse(app, member_id)
}

/// Parses the part of the key behind the prefix of the installation.
pub fn part(key: &[u8]) -> Option<Part> {
    let (kind, rest) = key.split_first()?;
    match (kind, rest) {
        (b'l', []) => return Some(Part::HeardAt),
        (b'x', id) => return EventId::from_slice(id).ok().map(Part::Places),
        (b'y', []) => return Some(Part::NewestPlaces),
        _ => {}
    }
    let (principal, rest) = rest.split_at_checked(32)?;
    let principal = fingerprint(principal)?;
    match kind {
        b't' if rest.is_empty() => Some(Part::Claims(principal)),
        b'd' => {
            let (method, token) = rest.split_at_checked(rest.len().checked_sub(33)?)?;
            let method = Method::parse(std::str::from_utf8(method).ok()?)?;
            Some(Part::Decision(principal, method, fingerprint(&token[1..])?))
        }
        b's' => Some(Part::Vault(principal, VaultKind::parse(std::str::from_utf8(rest).ok()?)?)),
        b'w' => Some(Part::Held(principal, u64::from_be_bytes(rest.try_into().ok()?))),
        _ => None,
    }
}

fn prefix(kind: &[u8], installation: &Installation) -> Vec<u8> {
    let (app, member_id) = (installation.app.as_str(), installation.member_id.as_str());
    [kind, app.as_bytes(), b"\0", member_id.as_bytes(), b"\0"].concat()
}

fn fingerprint(bytes: &[u8]) -> Option<Fingerprint> {
    Some(Fingerprint::from_bytes(bytes.try_into().ok()?))
}
