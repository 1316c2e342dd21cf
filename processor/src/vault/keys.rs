//! The keys of the vault: what the setting `vault-key` holds, and HPKE with them. The only file that names the library.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, HpkeError, Kem, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal};
use primitives::secret::{Fingerprint, Secret};
use zeroize::Zeroizing;

use super::OpenError;

type X25519 = X25519HkdfSha256;
type PrivateKey = <X25519 as Kem>::PrivateKey;
type PublicKey = <X25519 as Kem>::PublicKey;

/// Begins each line of a key.
const PREFIX: &str = "hookledger-vault-1";
/// What HPKE binds each entry to, besides its place.
const INFO: &[u8] = b"hookledger vault 1";
const ID_DIGITS: usize = 16;
/// More than any file of keys.
const FILE_BYTES: usize = 16 * 1024;
/// Two during a rotation; more are a mistake sooner than a plan.
const KEYS_MAX: usize = 4;

/// The first key seals; each one opens.
#[derive(Clone)]
pub struct VaultKeys {
    private: Vec<PrivateKey>,
    seals: PublicKey,
    ids: Vec<String>,
}

/// A new key as the text of its file, and its id.
pub fn new_key() -> (Secret, String) {
    let (private, public) = X25519::gen_keypair();
    let id = id_of(&public);
    let private = Zeroizing::new(BASE64_STANDARD.encode(Zeroizing::new(private.to_bytes().to_vec())));
    let text = format!(
        "# The key of Hookledger's vault. It opens the tokens; without it they are lost. Keep a copy.\n\
         {PREFIX} {id} {}\n",
        *private
    );
    (Secret::new(text), id)
}

/// The first digits of the SHA-256 of the public key, as base64.
fn id_of(public: &PublicKey) -> String {
    Fingerprint::of(&BASE64_STANDARD.encode(public.to_bytes())).to_string()[..ID_DIGITS].to_owned()
}

impl fmt::Debug for VaultKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VaultKeys").field(&self.ids).finish()
    }
}

impl VaultKeys {
    /// A key a line, `hookledger-vault-1 ID KEY`; `#` begins a comment. The error repeats nothing of a key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = (1..).zip(text.lines().map(str::trim));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let (mut private, mut ids, mut seals) = (Vec::new(), Vec::new(), None);
        for (number, line) in lines {
            let (key, id) = key(line).map_err(|why| format!("line {number} {why}"))?;
            if ids.contains(&id) {
                return Err(format!("line {number} is the key {id} again"));
            }
            seals.get_or_insert_with(|| X25519::sk_to_pk(&key));
            private.push(key);
            ids.push(id);
        }
        let seals = seals.ok_or("holds no key; `hookledger vault keygen FILE` makes one")?;
        if ids.len() > KEYS_MAX {
            return Err(format!("holds {} keys, and at most {KEYS_MAX} are taken", ids.len()));
        }
        Ok(Self { private, seals, ids })
    }

    /// From a file, within a bound.
    pub fn read(file: &Path) -> Result<Self, String> {
        let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES));
        let opened = File::open(file).map_err(|error| format!("cannot be opened: {error}"))?;
        let read = opened.take(FILE_BYTES as u64).read_to_string(&mut text);
        read.map_err(|error| format!("cannot be read: {error}"))?;
        Self::parse(&text)
    }

    /// The first is that of the key that seals.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// The encapsulated key, and the sealed text.
    pub(super) fn seal(&self, place: &[u8], text: &[u8]) -> Result<(Vec<u8>, Vec<u8>), HpkeError> {
        let (enc, sealed) =
            single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519>(&OpModeS::Base, &self.seals, INFO, text, place)?;
        Ok((enc.to_bytes().to_vec(), sealed))
    }

    pub(super) fn open(
        &self,
        id: &str,
        place: &[u8],
        enc: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let known = self.ids.iter().position(|known| known == id);
        // The id is of a record that anything may have written.
        let shown = || id.chars().filter(char::is_ascii_hexdigit).take(ID_DIGITS).collect();
        let private = &self.private[known.ok_or_else(|| OpenError::NoKey(shown()))?];
        let enc = <X25519 as Kem>::EncappedKey::from_bytes(enc).map_err(|_| OpenError::Damaged)?;
        single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519>(&OpModeR::Base, private, &enc, INFO, sealed, place)
            .map(Zeroizing::new)
            .map_err(|_| OpenError::Damaged)
    }
}

fn key(line: &str) -> Result<(PrivateKey, String), &'static str> {
    const FORM: &str = "is no key: it takes `hookledger-vault-1 ID KEY`, as `hookledger vault keygen FILE` makes it";
    let words: Vec<&str> = line.split_whitespace().collect();
    let [PREFIX, id, key] = words[..] else { return Err(FORM) };
    let bytes = Zeroizing::new(BASE64_STANDARD.decode(key).map_err(|_| FORM)?);
    let private = PrivateKey::from_bytes(&bytes).map_err(|_| FORM)?;
    let found = id_of(&X25519::sk_to_pk(&private));
    if found != id {
        return Err("is damaged: the key does not have its id");
    }
    Ok((private, found))
}
