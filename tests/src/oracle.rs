//! What must be known after certain events: a second fold, written from the documents and from nothing else.
//!
//! It goes through `raw` event by event and remembers everything; the programs may not do it so simply.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::load::Acked;
use crate::topics::Found;

mod body;

use body::Fields;

/// How a portal describes itself, in the order in which a record names what is omitted.
const FIELDS: [&str; 7] = ["domain", "client_endpoint", "server_endpoint", "version", "licence", "language", "scope"];

/// Events of principals that are not trusted yet are held; the last hundred of each.
const HELD_MAX: usize = 100;

/// Of a principal's decisions the newest are known.
const DECISIONS_MAX: usize = 1_000;

/// How long a decision about a method can hold: an access token lives no longer.
const CONSENT_MS: u64 = 3_600_000;

/// Decisions that are so much older than the newest one are forgotten.
const DECISIONS_KEPT_MS: u64 = 7 * 24 * 3_600_000;

/// No event occurred so much later than it was received.
const AHEAD_MS_MAX: u64 = 5 * 60_000;

/// What must be known.
#[derive(Default)]
pub struct Oracle {
    /// By `{app}/{member_id}`.
    pub portals: BTreeMap<String, Known>,
    /// The ids of all facts.
    pub facts: BTreeSet<String>,
    /// The ids of all events whose principal is trusted, now or since: what `events` must hold.
    pub events: BTreeSet<String>,
    /// The ids of all events whose principal was not trusted when they came.
    pub unverified: BTreeSet<String>,
    /// The places in `raw` of what cannot be an event.
    pub rejected: BTreeSet<(i32, i64)>,
    seen: BTreeSet<String>,
    /// Whether the places in `raw` are known.
    placed: bool,
}

/// All that is known of one installation.
#[derive(Default)]
pub struct Known {
    principals: BTreeMap<String, Principal>,
}

#[derive(Default)]
struct Principal {
    /// By name in the record: when it occurred, and the value.
    latest: BTreeMap<&'static str, (Stamp, Value)>,
    /// When it occurred, and whether data were to be removed; none for an install.
    status: Option<(Stamp, Option<Value>)>,
    uninstalled: Option<Stamp>,
    decisions: BTreeMap<(String, String), (Stamp, &'static str)>,
    last_decision_ms: u64,
    last_fact: Value,
    position: Value,
    /// When, and what an operator or another one said about it.
    attested: Option<(Stamp, String)>,
    /// The place of its first event in the order of the log.
    first: i64,
    /// Its installs: the place, when it occurred and was received.
    installs: Vec<(i64, (u64, String))>,
    held: Vec<Held>,
}

/// An event that is released once its principal is trusted.
struct Held {
    id: String,
    /// It is the first that was heard of its principal.
    is_first: bool,
    fact: Lifecycle,
}

/// What may be a fact: a lifecycle event, or what another one says about the portal.
struct Lifecycle {
    event: String,
    fields: Fields,
    stamp: Stamp,
    place: (i32, i64),
}

impl Lifecycle {
    fn is_turn(&self) -> bool {
        match self.event.as_str() {
            "ONAPPINSTALL" => self.fields.is_complete(),
            event => event == "ONAPPUNINSTALL",
        }
    }
}

/// When it occurred in milliseconds, received, id.
type Stamp = (u64, String, String);

impl Oracle {
    /// Goes through `raw`, which is in order within each partition.
    pub fn of(raw: &[Found]) -> Self {
        let mut oracle = Self { placed: true, ..Self::default() };
        for record in raw {
            oracle.take(record);
        }
        oracle
    }

    /// Where `raw` cannot be read: what was answered 200, by one sender after another, so in its order.
    pub fn of_acked(acked: &[Acked]) -> Self {
        let now = humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string();
        let mut oracle = Self::default();
        for (offset, Acked { id, webhook, .. }) in (0..).zip(acked) {
            let fields = Fields::read(&webhook.body);
            let member_id = fields.get("auth[member_id]").or_else(|| fields.get("member_id"));
            oracle.take(&Found {
                partition: 0,
                offset,
                key: member_id.map(|member_id| format!("{}/{member_id}", webhook.app)),
                value: Some(webhook.body.clone()),
                headers: vec![("ce_id".to_owned(), id.clone()), ("hl_received".to_owned(), now.clone())],
            });
        }
        oracle
    }

    /// The installation record, as far as it must be so.
    pub fn installation(&self, key: &str) -> Value {
        let (app, member_id) = key.split_once('/').expect("a key");
        let mut record = json!({ "app": app, "member_id": member_id, "status": "untrusted", "trusted": [] });
        let known = &self.portals[key];
        record["contested"] = if known.is_contested() { json!(true) } else { Value::Null };
        let trusted = known.trusted();
        if trusted.is_empty() {
            return record;
        }
        let claims: Vec<&Principal> = trusted.iter().map(|trusted| &known.principals[&trusted.principal]).collect();
        record["trusted"] = trusted.iter().map(Trusted::shown).collect();
        let last = claims.iter().max_by_key(|claims| claims.position["offset"].as_i64()).expect("there is one");
        record["last_fact"] = last.last_fact.clone();
        if self.placed {
            record["position"] = last.position.clone();
        }
        let latest =
            |name| claims.iter().filter_map(|claims| claims.latest.get(name)).max_by(|(a, _), (b, _)| a.cmp(b));
        for name in FIELDS {
            record[name] = latest(name).map_or(Value::Null, |(_, value)| value.clone());
        }
        let mut omitted: Vec<_> =
            FIELDS.into_iter().filter(|name| latest(name).is_some() && record[name].is_null()).collect();
        for name in strangers(&record) {
            record[name] = Value::Null;
            omitted.push(name);
        }
        omitted.sort_by_key(|name| FIELDS.iter().position(|field| field == name));
        record["omitted"] = if omitted.is_empty() { Value::Null } else { json!(omitted) };
        let last_words = || claims.iter().filter_map(|claims| claims.status.as_ref());
        let installs = last_words().filter(|(_, removed)| removed.is_none());
        match installs.max_by(|(a, _), (b, _)| a.cmp(b)).or_else(|| last_words().max_by(|(a, _), (b, _)| a.cmp(b))) {
            Some((since, removed)) => {
                record["since"] = at(since.0);
                record["status"] = if removed.is_some() { json!("uninstalled") } else { json!("installed") };
                record["cleaned"] = removed.clone().unwrap_or_default();
            }
            None => record["status"] = json!("trusted"),
        }
        record
    }

    /// The method-permission records, by method and token.
    pub fn permissions(&self, key: &str) -> Vec<Value> {
        let known = &self.portals[key];
        let mut decisions: BTreeMap<&(String, String), &(Stamp, &str)> = BTreeMap::new();
        for trusted in known.trusted() {
            for (place, decision) in &known.principals[&trusted.principal].decisions {
                let newest = decisions.entry(place).or_insert(decision);
                if newest.0 < decision.0 {
                    *newest = decision;
                }
            }
        }
        let record = |((method, token), (made, decision)): (&(String, String), &(Stamp, &str))| {
            json!({ "method": method, "token": token, "decision": decision,
                "decided_at": at(made.0), "expires_at": at(made.0.min(milliseconds(&made.1)) + CONSENT_MS) })
        };
        decisions.into_iter().map(record).collect()
    }

    fn take(&mut self, record: &Found) {
        let id = record.header("ce_id").expect("an id").to_owned();
        // Only what a crash made ingress hand over again can be there twice.
        if !self.seen.insert(id.clone()) {
            assert_eq!(record.header("hl_resent"), Some("1"), "{id} is in raw twice and not marked");
            return;
        }
        if record.header("ce_type").is_some_and(|kind| kind.starts_with("com.hookledger.")) {
            return self.command(record);
        }
        let fields = Fields::read(record.value.as_deref().unwrap_or_default());
        // Ingress refused it, and kept it aside.
        let is_aside = record.header("hl_unknown_source").is_some() || record.header("hl_compression").is_some();
        let (Some(key), true) = (&record.key, !is_aside && fields.is_whole()) else {
            self.rejected.insert((record.partition, record.offset));
            return;
        };
        let event = fields.get("event").unwrap_or_default();
        let token = match fields.get("auth[application_token]") {
            None if fields.is_call() => fields.get("APPLICATION_TOKEN"),
            token => token,
        };
        let Some(token) = token else {
            // A call without a token is shown, and of no principal.
            if fields.is_call() {
                self.unverified.insert(id);
            } else {
                self.rejected.insert((record.partition, record.offset));
            }
            return;
        };
        let received = record.header("hl_received").expect("a time of receipt").to_owned();
        let known = self.portals.entry(key.clone()).or_default();
        let principal = fingerprint(token);
        let ts: Option<u64> = fields.get("ts").and_then(|ts| ts.parse().ok());
        let received_ms = milliseconds(&received);
        let latest_ms = received_ms + AHEAD_MS_MAX;
        let occurred_ms = ts.map_or(received_ms, |ts| ts.saturating_mul(1_000).min(latest_ms));
        let lifecycle = Lifecycle {
            event: if fields.is_lifecycle() { event.to_owned() } else { "com.hookledger.described".to_owned() },
            stamp: (occurred_ms, received, id.clone()),
            place: (record.partition, record.offset),
            fields,
        };
        let was_trusted = known.trusts(&principal);
        let is_first = known.principals.get(&principal).is_none_or(|known| known.first == i64::MAX);
        let known_principal = known.principals.entry(principal.clone()).or_default();
        if is_first {
            known_principal.first = record.offset;
        }
        // What was said by others is no news either.
        let is_news = was_trusted && known.learns(&lifecycle);
        let is_open = known.principals.values().all(|known| known.attested.is_none());
        let known_principal = known.principals.get_mut(&principal).expect("put in above");
        if (lifecycle.is_turn() && is_open) || (was_trusted && lifecycle.fields.is_lifecycle()) || is_news {
            self.facts.insert(known_principal.add(&lifecycle));
        }
        self.release(key);
        let known = self.portals.get_mut(key).expect("put in above");
        if was_trusted || known.trusts(&principal) {
            self.events.insert(id);
        } else {
            self.unverified.insert(id.clone());
            let held = &mut known.principals.get_mut(&principal).expect("put in above").held;
            // What is first heard of a principal says when that was.
            held.push(Held { id, is_first, fact: lifecycle });
            if held.len() > HELD_MAX {
                held.remove(1);
            }
        }
    }

    /// An operator's word about a principal.
    fn command(&mut self, record: &Found) {
        let key = record.key.as_ref().expect("a command names an installation");
        let said: Value = serde_json::from_slice(record.value.as_deref().unwrap_or_default()).expect("JSON");
        let principal = said["principal"].as_str().expect("a principal");
        let attestation = said["attestation"].as_str().expect("an attestation");
        let received = record.header("hl_received").expect("a time of receipt").to_owned();
        let id = record.header("ce_id").expect("an id").to_owned();
        let stamp = (milliseconds(&received), received, id.clone());
        let known = self.portals.entry(key.clone()).or_default();
        let known_principal = known
            .principals
            .entry(principal.to_owned())
            .or_insert_with(|| Principal { first: i64::MAX, ..Principal::default() });
        let is_weaker = ["vouched", "imported"].contains(&attestation);
        let says_nothing = known_principal
            .attested
            .as_ref()
            .is_some_and(|(_, known)| known == attestation || (is_weaker && known != "revoked"));
        if says_nothing {
            return;
        }
        if known_principal.attested.as_ref().is_none_or(|(since, _)| *since < stamp) {
            known_principal.attested = Some((stamp, attestation.to_owned()));
        }
        self.facts.insert(id);
        self.release(key);
    }

    /// Passes on what is held of trusted principals.
    fn release(&mut self, key: &str) {
        let known = self.portals.get_mut(key).expect("an installation");
        loop {
            let holding =
                known.trusted().into_iter().find(|trusted| !known.principals[&trusted.principal].held.is_empty());
            let Some(Trusted { principal, .. }) = holding else { return };
            let held = std::mem::take(&mut known.principals.get_mut(&principal).expect("a trusted one").held);
            for Held { id, is_first, fact } in held {
                if is_first || fact.fields.is_lifecycle() || known.learns(&fact) {
                    let known_principal = known.principals.get_mut(&principal).expect("a trusted one");
                    self.facts.insert(known_principal.add(&fact));
                }
                self.events.insert(id);
            }
        }
    }
}

/// A trusted principal, why, and since when.
struct Trusted {
    principal: String,
    basis: String,
    since: Value,
}

impl Trusted {
    fn shown(&self) -> Value {
        json!({ "principal": self.principal, "basis": self.basis, "since": self.since })
    }
}

impl Known {
    /// Principals that may hold the place: those that were heard of and are not revoked.
    fn candidates(&self) -> impl Iterator<Item = (&String, &Principal)> {
        let revoked =
            |known: &Principal| known.attested.as_ref().is_some_and(|(_, attestation)| attestation == "revoked");
        self.principals.iter().filter(move |(_, known)| known.first < i64::MAX && !revoked(known))
    }

    /// The first principal heard of; behind its uninstall the one with the first install that occurred later, and so
    /// on. With it, when that install occurred.
    fn holder(&self) -> Option<(String, Option<u64>)> {
        let (mut holder, _) = self.candidates().min_by_key(|(_, known)| known.first)?;
        let (mut took, mut former) = (None, BTreeSet::new());
        while let Some(((left, received, _), Some(_))) = &self.principals[holder].status {
            former.insert(holder);
            let left = (*left, received.clone());
            let others = self.candidates().filter(|(principal, _)| !former.contains(principal));
            let install = |(principal, known): (_, &Principal)| {
                let (place, when) = known.installs.iter().filter(|(_, when)| *when > left).min()?.clone();
                Some((place, principal, when.0))
            };
            let Some((_, next, when)) = others.filter_map(install).min() else { break };
            (holder, took) = (next, Some(when));
        }
        Some((holder.clone(), took))
    }

    /// The attested principals; where there are none, the holder of the place that reported an install.
    fn trusted(&self) -> Vec<Trusted> {
        let attested = self.principals.iter().filter_map(|(principal, known)| {
            let (stamp, basis) = known.attested.clone().filter(|(_, attestation)| attestation != "revoked")?;
            Some(Trusted { principal: principal.clone(), basis, since: json!(stamp.1) })
        });
        let attested: Vec<_> = attested.collect();
        if !attested.is_empty() {
            return attested;
        }
        let Some((principal, took)) = self.holder() else { return Vec::new() };
        let Some((_, first)) = self.principals[&principal].installs.iter().min() else { return Vec::new() };
        let since = at(took.unwrap_or(first.0));
        vec![Trusted { principal, basis: "first-install".to_owned(), since }]
    }

    fn trusts(&self, principal: &str) -> bool {
        self.trusted().iter().any(|trusted| trusted.principal == principal)
    }

    /// Whether an event shows something about the portal that no trusted principal said.
    fn learns(&self, lifecycle: &Lifecycle) -> bool {
        let trusted = self.trusted();
        lifecycle.fields.profile().into_iter().any(|(name, value)| {
            let latest = trusted.iter().filter_map(|trusted| self.principals[&trusted.principal].latest.get(name));
            let newest = latest.max_by(|(a, _), (b, _)| a.cmp(b));
            newest.is_none_or(|(since, known)| *since < lifecycle.stamp && *known != value)
        })
    }

    /// Whether another one says that it is installed.
    fn is_contested(&self) -> bool {
        if self.trusted().iter().any(|trusted| trusted.basis != "first-install") {
            return false;
        }
        let Some((holder, _)) = self.holder() else { return false };
        let says =
            |(principal, known): (&String, &Principal)| *principal != holder && matches!(known.status, Some((_, None)));
        self.candidates().any(says)
    }
}

impl Principal {
    /// Takes a fact. Returns its id.
    fn add(&mut self, lifecycle: &Lifecycle) -> String {
        let Lifecycle { event, fields, stamp, place: (partition, offset) } = lifecycle;
        if event == "ONAPPINSTALL" && fields.is_complete() {
            self.installs.push((*offset, (stamp.0, stamp.1.clone())));
        }
        self.take(event, fields, stamp);
        if self.position["offset"].as_i64().is_none_or(|last| last < *offset) {
            self.last_fact = json!({ "type": event, "id": stamp.2, "at": at(stamp.0) });
            self.position = json!({ "partition": partition, "offset": offset });
        }
        stamp.2.clone()
    }

    fn take(&mut self, event: &str, fields: &Fields, stamp: &Stamp) {
        for (name, value) in fields.profile() {
            let known = self.latest.get(name);
            if known.is_none_or(|(since, _)| since < stamp) {
                self.latest.insert(name, (stamp.clone(), value));
            }
        }
        let newer = self.status.as_ref().is_none_or(|(since, _)| since < stamp);
        match event {
            "ONAPPINSTALL" if fields.is_complete() && newer => self.status = Some((stamp.clone(), None)),
            "ONAPPUNINSTALL" => {
                if newer {
                    self.status = Some((stamp.clone(), Some(fields.clean())));
                }
                self.uninstalled = self.uninstalled.take().max(Some(stamp.clone()));
            }
            "ONAPPMETHODCONFIRM" => {
                let method = fields.get("data[METHOD]").expect("a method").to_lowercase();
                let place = (method, fingerprint(fields.get("data[TOKEN]").expect("a token")));
                let decision = if fields.get("data[CONFIRMED]") == Some("1") { "granted" } else { "denied" };
                if self.decisions.get(&place).is_none_or(|(made, _)| made < stamp) {
                    self.decisions.insert(place, (stamp.clone(), decision));
                }
                self.last_decision_ms = self.last_decision_ms.max(stamp.0);
            }
            _ => {}
        }
        let oldest_ms = self.last_decision_ms.saturating_sub(DECISIONS_KEPT_MS);
        let uninstalled = self.uninstalled.clone();
        self.decisions
            .retain(|_, (made, _)| made.0 >= oldest_ms && uninstalled.as_ref().is_none_or(|removed| *made > *removed));
        while self.decisions.len() > DECISIONS_MAX {
            let oldest = self.decisions.iter().min_by_key(|(_, (made, _))| made.clone());
            let oldest = oldest.map(|(place, _)| place.clone()).expect("there are some");
            self.decisions.remove(&oldest);
        }
    }
}

/// The endpoints of a record that are neither the portal's nor Bitrix24's.
fn strangers(record: &Value) -> Vec<&'static str> {
    let host = |url: &Value| Some(url.as_str()?.split('/').nth(2)?.split(':').next()?.to_lowercase());
    let domain = record["domain"].as_str().map(|domain| domain.split(':').next().unwrap_or_default().to_lowercase());
    // A portal may appear under two of Bitrix24's own domains.
    let cloud =
        |host: &str| [".bitrix24.com", ".bitrix24.ru"].iter().find_map(|end| host.strip_suffix(end).map(str::to_owned));
    let is_own = |host: &str| {
        domain
            .as_deref()
            .is_some_and(|domain| domain == host || cloud(host).is_some_and(|name| cloud(domain) == Some(name)))
    };
    let is_server = |host: &str| ["oauth.bitrix.info", "oauth.bitrix24.tech"].contains(&host);
    let mut strangers = Vec::new();
    if host(&record["client_endpoint"]).is_some_and(|host| !is_own(&host)) {
        strangers.push("client_endpoint");
    }
    if host(&record["server_endpoint"]).is_some_and(|host| !is_server(&host)) {
        strangers.push("server_endpoint");
    }
    strangers
}

/// What remains of a secret: lower-case hex SHA-256.
pub fn fingerprint(secret: &str) -> String {
    format!("{:x}", Sha256::digest(secret))
}

fn at(ms: u64) -> Value {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms);
    json!(humantime::format_rfc3339_millis(at).to_string())
}

fn milliseconds(at: &str) -> u64 {
    let at = humantime::parse_rfc3339(at).expect("RFC 3339");
    let since = at.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("a year of four digits")
}
