//! An incremental digest of a set of rows.

use sha2::{Digest as _, Sha256};

use super::{Checkpoint, json};

/// The sum of the hashes of all rows, in any order.
///
/// It detects damage, not malice: an attacker who can write the state can also write its digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u128);

impl Digest {
    /// Replaces the old value of a row by its new one.
    pub fn replace(&mut self, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) {
        if let Some(old) = old {
            self.0 = self.0.wrapping_sub(hash(key, old));
        }
        if let Some(new) = new {
            self.0 = self.0.wrapping_add(hash(key, new));
        }
    }
}

/// The digest together with its checkpoint.
pub fn seal(digest: Digest, checkpoint: &Checkpoint) -> String {
    let sealed = hash(&digest.0.to_be_bytes(), &json(checkpoint));
    format!("{sealed:032x}")
}

fn hash(key: &[u8], value: &[u8]) -> u128 {
    let length = u64::try_from(key.len()).expect("a key is short").to_be_bytes();
    let hash = Sha256::new().chain_update(length).chain_update(key).chain_update(value).finalize();
    u128::from_be_bytes(hash[..16].try_into().expect("16 of 32 bytes"))
}
