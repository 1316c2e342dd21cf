//! The keys of the vault: what the setting `vault-key` holds, and HPKE with them. The only file that names the libraries.
//!
//! HPKE takes two multiplications on the curve, and made-up portals bring tokens as fast as they can send. So it encapsulates
//! a secret once an hour, and exports from it the key that seals the entries of this hour, each with its number as nonce.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use hpke::aead::ExportOnlyAead;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, HpkeError, Kem, OpModeR, OpModeS, Serializable, setup_receiver, setup_sender};
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
/// What is exported from HPKE.
const EXPORTED: &[u8] = b"entries";
/// How long one exported key seals.
const SEALS_FOR: Duration = Duration::from_secs(60 * 60);
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
    sealing: Arc<Mutex<Option<Sealing>>>,
}

/// A key that seals for an hour, in this process alone.
struct Sealing {
    encapsulated: Vec<u8>,
    cipher: ChaCha20Poly1305,
    since: Instant,
    /// No number is taken twice.
    next: u64,
}

/// A sealed text, and what its key and nonce are found by.
pub(super) struct SealedText {
    /// The encapsulated secret of HPKE.
    pub enc: Vec<u8>,
    pub number: u64,
    pub ciphertext: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum SealError {
    #[error("{0}")]
    Hpke(HpkeError),
    #[error("the text is too long")]
    TooLong,
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
        Ok(Self { private, seals, ids, sealing: Arc::default() })
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

    pub(super) fn seal(&self, place: &[u8], text: &[u8]) -> Result<SealedText, SealError> {
        let mut known = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = known.take().filter(|known| known.since.elapsed() < SEALS_FOR);
        let mut sealing = fresh.map_or_else(|| Sealing::new(&self.seals).map_err(SealError::Hpke), Ok)?;
        let number = sealing.next;
        sealing.next += 1;
        let sealed = sealing.cipher.encrypt(&nonce(number), Payload { msg: text, aad: place });
        let enc = sealing.encapsulated.clone();
        *known = Some(sealing);
        Ok(SealedText { enc, number, ciphertext: sealed.map_err(|_| SealError::TooLong)? })
    }

    pub(super) fn open(&self, id: &str, place: &[u8], sealed: &SealedText) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let known = self.ids.iter().position(|known| known == id);
        // The id is of a record that anything may have written.
        let shown = || id.chars().filter(char::is_ascii_hexdigit).take(ID_DIGITS).collect();
        let private = &self.private[known.ok_or_else(|| OpenError::NoKey(shown()))?];
        let open = || {
            let enc = <X25519 as Kem>::EncappedKey::from_bytes(&sealed.enc).ok()?;
            let context = setup_receiver::<ExportOnlyAead, HkdfSha256, X25519>(&OpModeR::Base, private, &enc, INFO);
            let context = context.ok()?;
            let cipher = cipher(|key| context.export(EXPORTED, key)).ok()?;
            cipher.decrypt(&nonce(sealed.number), Payload { msg: &sealed.ciphertext, aad: place }).ok()
        };
        open().map(Zeroizing::new).ok_or(OpenError::Damaged)
    }
}

impl Sealing {
    fn new(seals: &PublicKey) -> Result<Self, HpkeError> {
        let (enc, context) = setup_sender::<ExportOnlyAead, HkdfSha256, X25519>(&OpModeS::Base, seals, INFO)?;
        let cipher = cipher(|key| context.export(EXPORTED, key))?;
        Ok(Self { encapsulated: enc.to_bytes().to_vec(), cipher, since: Instant::now(), next: 0 })
    }
}

fn cipher(export: impl FnOnce(&mut [u8]) -> Result<(), HpkeError>) -> Result<ChaCha20Poly1305, HpkeError> {
    let mut key = Zeroizing::new([0; 32]);
    export(&mut *key)?;
    Ok(ChaCha20Poly1305::new((&*key).into()))
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = Nonce::default();
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
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
