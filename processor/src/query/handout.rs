//! `POST /v1/tokens/{app}/{member_id}`: the newest tokens of an installation, from the vault. Each call is logged and
//! counted, without the tokens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use bitrix24::Installation;
use event_log::contract::partition_of_installation;
use primitives::secret::{Fingerprint, Secret};
use primitives::time::Timestamp;
use prometheus::{IntCounterVec, Opts, Registry};
use runtime::telemetry::registered;
use serde_json::{Value, json};
use tracing::info;

use super::installations::find;
use super::parameters::{AFTER, WAIT};
use super::problem::Problem;
use super::request::{QueryRequest, block};
use crate::vault::index::VaultIndex;
use crate::vault::{Content, OpenError, Vault, entry_of};
use domain::{InstallationState, Pair, VaultEntry, VaultKey, VaultKind};

/// How long an answer waits until the index has what the state knows.
const INDEX_WAIT_MAX: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 5_000 });
const HANDED_OUT: &str = "handed_out";
/// Enough to know the query token again, and too little to find it.
const SHOWN_DIGITS: usize = 8;

/// The vault as queries use it.
pub struct Handout {
    vault: Option<(Arc<Vault>, Arc<VaultIndex>)>,
    outcomes: IntCounterVec,
}

impl Handout {
    /// Without a vault every answer is [`Problem::VaultOff`].
    pub fn new(vault: Option<(Arc<Vault>, Arc<VaultIndex>)>, registry: &Registry) -> Self {
        let outcomes = Opts::new("tokens_total", "Queries for the tokens of an installation, by outcome.");
        let outcomes = registered(registry, IntCounterVec::new(outcomes, &["outcome"]));
        outcomes.with_label_values(&[HANDED_OUT]);
        for problem in [Problem::VaultOff, Problem::NoTokens, Problem::UnknownInstallation, Problem::VaultDamaged] {
            outcomes.with_label_values(&[&problem.label()]);
        }
        outcomes.with_label_values(&[&Problem::VaultKeyMissing(String::new()).label()]);
        Self { vault, outcomes }
    }
}

pub async fn show(query: QueryRequest, path: web::Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let answer = answer(&query, &path).await;
    let outcome = answer.as_ref().map_or_else(Problem::label, |_| HANDED_OUT.to_owned());
    query.context.handout.outcomes.with_label_values(&[&outcome]).inc();
    let by = query.caller.token().map(|token| token.to_string()[..SHOWN_DIGITS].to_owned()).unwrap_or_default();
    if let Some(installation) = Installation::parse(&path.0, &path.1) {
        info!(%installation, by, outcome, "tokens of {installation}: {outcome}, for the query token {by}…");
    }
    answer.map(|answer| HttpResponse::Ok().json(answer))
}

async fn answer(query: &QueryRequest, path: &(String, String)) -> Result<Value, Problem> {
    let parameters = query.parameters(&[AFTER, WAIT])?;
    let installation = Installation::parse(&path.0, &path.1).ok_or(Problem::UnknownInstallation)?;
    query.caller.must_see(&installation.app)?;
    let (vault, index) = query.context.handout.vault.clone().ok_or(Problem::VaultOff)?;
    let store = query.store(&parameters).await?;
    let (installation, state) = find(&store, &query.caller, path)?;
    let rules = store.rules(&installation.app);
    let principal = state.vault_newest(&state.verdict(rules.trust)).ok_or(Problem::NoTokens)?;
    let record = state.record(&installation, partition_of_installation(&installation, store.partitions()), rules);
    let wanted = (installation.clone(), principal, Arc::clone(&state));
    let read = block(
        &query.context.log_reads,
        || Problem::NotReadable,
        move || {
            let (installation, principal, state) = wanted;
            Kept::read(&vault, &index, &installation, principal, &state)
        },
    );
    let Kept { application_token, pair, omitted } = read.await??;
    let (entry, pair) = pair.unzip();
    let profile = record.profile;
    Ok(json!({
        "app": installation.app,
        "member_id": installation.member_id,
        "status": record.status,
        "principal": principal,
        "domain": profile.domain,
        "client_endpoint": profile.client_endpoint,
        "server_endpoint": profile.server_endpoint,
        "application_token": application_token.as_ref().map(Secret::reveal),
        "access_token": pair.as_ref().map(|pair| pair.access_token.reveal()),
        "refresh_token": pair.as_ref().map(|pair| pair.refresh_token.reveal()),
        "expires_at": pair.as_ref().map(|pair| pair.expires_at),
        "user_id": pair.as_ref().and_then(|pair| pair.user_id.as_ref()),
        "scope": pair.as_ref().map(|pair| &pair.scope),
        "occurred_at": entry.as_ref().map(|entry| entry.stamp.occurred_at),
        "received_at": entry.as_ref().map(|entry| entry.stamp.received_at),
        "stale": pair.as_ref().zip(entry.as_ref()).map(|(pair, entry)| is_stale(&state, principal, pair, entry)),
        "omitted": omitted,
    }))
}

/// Whether the access token does not work any more: it has ended, or the app was uninstalled since.
fn is_stale(state: &InstallationState, principal: Fingerprint, pair: &Pair, entry: &VaultEntry) -> bool {
    pair.expires_at <= Timestamp::now() || state.has_uninstalled_since(principal, entry.stamp)
}

/// What the vault has of one principal.
#[derive(Default)]
struct Kept {
    application_token: Option<Secret>,
    pair: Option<(VaultEntry, Pair)>,
    /// What is there, and cannot be opened.
    omitted: BTreeSet<&'static str>,
}

impl Kept {
    /// An error if nothing can be opened.
    fn read(
        vault: &Vault,
        index: &VaultIndex,
        installation: &Installation,
        principal: Fingerprint,
        state: &InstallationState,
    ) -> Result<Self, Problem> {
        let (mut kept, mut failed) = (Self::default(), None);
        for kind in VaultKind::ALL {
            let Some(known) = state.vault.get(&(principal, kind)) else { continue };
            let key = VaultKey { installation: installation.clone(), kind, principal };
            // The state may be behind the vault, or before it.
            let is_wanted =
                |value: &[u8]| entry_of(value).is_some_and(|entry| kind.is_fixed() || !known.is_newer(&entry));
            let value = index.read(&key, INDEX_WAIT_MAX, is_wanted)?;
            match value.map_or(Err(OpenError::Damaged), |value| vault.open(&key, &value)) {
                Ok((_, Content::ApplicationToken(token))) => kept.application_token = Some(token),
                Ok((entry, Content::Tokens(pair))) => kept.pair = Some((entry, pair)),
                Err(error) => {
                    tracing::error!(%key, "an entry of the vault cannot be opened: {error}");
                    kept.omitted.insert(kind.name());
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) if kept.application_token.is_none() && kept.pair.is_none() => Err(error.into()),
            Some(_) | None => Ok(kept),
        }
    }
}

impl From<OpenError> for Problem {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::NoKey(id) => Self::VaultKeyMissing(id),
            OpenError::Damaged => Self::VaultDamaged,
        }
    }
}
