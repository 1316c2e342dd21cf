//! The vault: the newest tokens of trusted principals, sealed, in the topic or log `vault`.
//!
//! The owner of a partition seals ([`Vault::seal`]) in the step that publishes the facts. A query finds the sealed entry
//! by an index ([`index`]), and opens it with the private key. Nothing else has tokens in clear.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use domain::{Pair, VaultEntry, VaultKey, VaultKind, tokens};
use event_log::RawEvent;
use primitives::secret::Secret;
use primitives::time::Timestamp;
use prometheus::{IntGauge, Registry};
use runtime::telemetry::registered;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use zeroize::Zeroizing;

pub use self::keys::{VaultKeys, new_key};
use crate::run::publish::json_bytes;
use keys::SealedText;

pub mod index;
mod keys;
pub mod rekey;

/// Room for a whole entry, so that no copy of it stays behind where the buffer grew.
const PLAIN_BYTES: usize = 16 * 1024;

pub struct Vault(VaultKeys);

/// The value of a record of `vault`.
#[derive(Serialize, Deserialize)]
struct Sealed {
    #[serde(flatten)]
    entry: VaultEntry,
    /// The encapsulated secret of HPKE, as base64. Entries of an hour have the same one, and a number each.
    enc: String,
    number: u64,
    /// The sealed entry, as base64.
    ciphertext: String,
}

/// What is sealed, as JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Plain<'a> {
    ApplicationToken {
        application_token: &'a str,
    },
    Tokens {
        access_token: &'a str,
        refresh_token: &'a str,
        expires_at: Timestamp,
        user_id: &'a Option<String>,
        scope: &'a Vec<String>,
    },
}

/// What was sealed: one of the two kinds.
#[derive(Deserialize)]
struct Opened {
    application_token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
    expires_at: Option<Timestamp>,
    user_id: Option<String>,
    #[serde(default)]
    scope: Vec<String>,
}

/// The content of an entry.
pub enum Content {
    ApplicationToken(Secret),
    Tokens(Pair),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The key with this id is not at hand.
    #[error("it is sealed to the key {0}, which is not in vault-key")]
    NoKey(String),
    /// The record is not what was sealed under this key of the log.
    #[error("it is damaged, or of another place")]
    Damaged,
}

impl Vault {
    pub fn new(keys: VaultKeys) -> Self {
        Self(keys)
    }

    /// From the setting `vault-key`; tells in log and metric whether there is a vault.
    pub fn start(keys: Option<VaultKeys>, registry: &Registry) -> Option<Arc<Self>> {
        let help = "1 if there is a vault: tokens are kept, sealed.";
        let enabled = registered(registry, IntGauge::new("vault_enabled", help));
        enabled.set(i64::from(keys.is_some()));
        if let Some(keys) = keys {
            info!(key = keys.ids()[0], "tokens are kept in the vault, sealed to the key {}", keys.ids()[0]);
            Some(Arc::new(Self(keys)))
        } else {
            info!("the vault is off: tokens are not kept. vault-key-file turns it on");
            None
        }
    }

    pub fn keys(&self) -> &VaultKeys {
        &self.0
    }

    /// The value of the record. None if the event does not have the secret, or cannot be read again.
    pub(crate) fn seal(&self, key: &VaultKey, entry: &VaultEntry, raw: &RawEvent) -> Option<Bytes> {
        let tokens = tokens(raw)?;
        let plain = match (key.kind, &tokens.pair) {
            (VaultKind::ApplicationToken, _) => {
                Plain::ApplicationToken { application_token: tokens.application_token.reveal() }
            }
            (VaultKind::Tokens, Some(pair)) => Plain::Tokens {
                access_token: pair.access_token.reveal(),
                refresh_token: pair.refresh_token.reveal(),
                expires_at: pair.expires_at,
                user_id: &pair.user_id,
                scope: &pair.scope,
            },
            (VaultKind::Tokens, None) => return None,
        };
        let mut text = Zeroizing::new(Vec::with_capacity(PLAIN_BYTES));
        serde_json::to_writer(&mut *text, &plain).expect("our own types have a JSON form");
        self.seal_text(key, entry, &text)
    }

    fn seal_text(&self, key: &VaultKey, entry: &VaultEntry, text: &[u8]) -> Option<Bytes> {
        let sealed = self.0.seal(key.to_string().as_bytes(), text);
        let SealedText { enc, number, ciphertext } =
            sealed.inspect_err(|error| warn!(%key, "tokens could not be sealed: {error}")).ok()?;
        let [enc, ciphertext] = [enc, ciphertext].map(|bytes| BASE64_STANDARD.encode(bytes));
        Some(json_bytes(&Sealed { entry: entry.clone(), enc, number, ciphertext }))
    }

    pub(crate) fn open(&self, key: &VaultKey, value: &[u8]) -> Result<(VaultEntry, Content), OpenError> {
        let (entry, text) = self.open_text(key, value)?;
        let opened: Opened = serde_json::from_slice(&text).map_err(|_| OpenError::Damaged)?;
        let Opened { application_token, access_token, refresh_token, expires_at, user_id, scope } = opened;
        let [application_token, access_token, refresh_token] =
            [application_token, access_token, refresh_token].map(|token| token.map(Secret::new));
        let content = match (key.kind, application_token, access_token, refresh_token, expires_at) {
            (VaultKind::ApplicationToken, Some(token), ..) => Content::ApplicationToken(token),
            (VaultKind::Tokens, _, Some(access_token), Some(refresh_token), Some(expires_at)) => {
                Content::Tokens(Pair { access_token, refresh_token, expires_at, user_id, scope })
            }
            _ => return Err(OpenError::Damaged),
        };
        Ok((entry, content))
    }

    fn open_text(&self, key: &VaultKey, value: &[u8]) -> Result<(VaultEntry, Zeroizing<Vec<u8>>), OpenError> {
        let Sealed { entry, enc, number, ciphertext } =
            serde_json::from_slice(value).map_err(|_| OpenError::Damaged)?;
        let decode = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| OpenError::Damaged);
        let sealed = SealedText { enc: decode(&enc)?, number, ciphertext: decode(&ciphertext)? };
        let text = self.0.open(&entry.key, key.to_string().as_bytes(), &sealed)?;
        Ok((entry, text))
    }
}

/// The entry that the value of a record is of, without opening it.
pub(crate) fn entry_of(value: &[u8]) -> Option<VaultEntry> {
    serde_json::from_slice::<Sealed>(value).ok().map(|sealed| sealed.entry)
}

/// Makes a file with a new key, for its owner alone. An existing one is an error.
pub fn make_key_file(path: &Path) -> anyhow::Result<String> {
    use std::io::Write;
    let (text, id) = new_key();
    let mut file = runtime::private::file().create_new(true).open(path)?;
    file.write_all(text.reveal().as_bytes())?;
    file.sync_all()?;
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::File::open(dir)?.sync_all()?;
    }
    Ok(id)
}

#[cfg(test)]
mod tests;
