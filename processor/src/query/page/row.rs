//! One event as the page shows it: a record of `events`, `unverified` or `rejected`.

use bitrix24::{AppName, Installation, MemberId};
use domain::{Fact, FactKind, Reason};
use event_log::contract::Topic;
use event_log::{Entry, EventId, Position};
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::html::{Html, Table};
use crate::query::access::Caller;
use crate::query::problem::Problem;
use crate::query::rejected::Item;
use crate::state::Store;

/// Where events of all kinds are.
pub const TOPICS: [Topic; 3] = [Topic::Events, Topic::Unverified, Topic::Rejected];
pub const HEADS: &[&str] = &["received", "app", "portal", "event", "what became of it"];
pub const HEADS_OF_PORTAL: &[&str] = &["received", "event", "what became of it"];
/// Longer names are cut. None of Bitrix24's is as long.
const TEXT_CHARS_MAX: usize = 128;
/// Events that change a record.
const RECORDED: [&str; 6] =
    ["ONAPPINSTALL", "ONAPPUPDATE", "ONAPPUNINSTALL", "ONAPPPAYMENT", "ONAPPMETHODCONFIRM", "ONAPPUSERREADY"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    PassedOn,
    Unverified,
    Rejected,
}

impl Became {
    pub const ALL: [(Self, &str); 3] =
        [(Self::PassedOn, "passed-on"), (Self::Unverified, "unverified"), (Self::Rejected, "rejected")];

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, name)| *name == text).map(|(became, _)| became)
    }

    pub fn topic(self) -> Topic {
        match self {
            Self::PassedOn => Topic::Events,
            Self::Unverified => Topic::Unverified,
            Self::Rejected => Topic::Rejected,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Row {
    became: Became,
    /// In its own topic.
    place: Position,
    id: Option<EventId>,
    received_at: Timestamp,
    pub app: Option<AppName>,
    pub member_id: Option<MemberId>,
    domain: Option<String>,
    /// Of a rejected event, the reason.
    pub name: Option<String>,
    principal: Option<Fingerprint>,
    raw: Option<Position>,
}

/// What is read of a record of `events` and `unverified`. Parts may have any shape.
#[derive(Deserialize)]
struct Shown {
    id: EventId,
    event: Option<String>,
    call: Option<String>,
    app: AppName,
    member_id: MemberId,
    received_at: Timestamp,
    principal: Option<Fingerprint>,
    #[serde(default)]
    auth: Value,
    raw: Option<Position>,
}

impl Row {
    /// None for a noop record, and for what another program wrote.
    pub fn of(topic: Topic, entry: &Entry) -> Option<Self> {
        let place = entry.position;
        if topic == Topic::Rejected {
            let Item { id, reason, app, member_id, received_at, raw, .. } = Item::of(entry)?;
            let (became, domain, principal) = (Became::Rejected, None, None);
            let (name, raw) = (Some(reason), Some(raw));
            return Some(Self { became, place, id, received_at, app, member_id, domain, name, principal, raw });
        }
        let shown: Shown = serde_json::from_slice(entry.record.value.as_deref()?).ok()?;
        let became = if topic == Topic::Events { Became::PassedOn } else { Became::Unverified };
        let text = |text: &str| text.chars().take(TEXT_CHARS_MAX).collect::<String>();
        Some(Self {
            became,
            place,
            id: Some(shown.id),
            received_at: shown.received_at,
            app: Some(shown.app),
            member_id: Some(shown.member_id),
            domain: shown.auth.get("domain").and_then(Value::as_str).map(text),
            name: shown.event.or(shown.call).as_deref().map(text),
            principal: shown.principal,
            raw: shown.raw,
        })
    }

    pub fn is_seen_by(&self, caller: &Caller) -> bool {
        caller.sees_rejected(self.app.as_ref())
    }

    /// Appends it to a table of [`HEADS`], or for a portal's own page of [`HEADS_OF_PORTAL`].
    pub fn show(&self, table: &mut Table<'_>, store: &Store, has_portal: bool) -> Result<(), Problem> {
        let Position { partition, offset } = self.place;
        let topic = self.became.topic().name();
        let held = self.held(store)?;
        table.row(&format!("{topic}-{partition}-{offset}")).with(|html| html.time(self.received_at));
        if has_portal {
            match &self.app {
                Some(app) => table.cell(app),
                None => table.cell("–"),
            };
            let domain = self.domain(store)?;
            table.with(|html| self.portal(html, domain.as_deref()));
        }
        let name = self.name.as_deref().filter(|_| self.became != Became::Rejected);
        table.with(|html| html.code(name.unwrap_or("–")));
        table.with(|html| match self.became {
            Became::PassedOn if name.is_some_and(|name| RECORDED.contains(&name)) => {
                html.badge("good", "recorded").raw(" <span class=\"why\">in the record, and passed on</span>")
            }
            Became::PassedOn => html.badge("good", "passed on"),
            Became::Unverified => Self::show_held(html, held),
            Became::Rejected => self.show_rejected(html),
        });
        Ok(())
    }

    /// That of the record, if it is known: anyone can name any domain in an event.
    fn domain(&self, store: &Store) -> Result<Option<String>, Problem> {
        let Some(installation) = self.installation() else { return Ok(None) };
        let state = store.installation(&installation)?;
        let record = state.record(&installation, 0, store.rules(&installation.app));
        Ok(record.profile.domain.or_else(|| self.domain.clone()))
    }

    fn installation(&self) -> Option<Installation> {
        Some(Installation { app: self.app.clone()?, member_id: self.member_id.clone()? })
    }

    fn portal<'a>(&self, html: &'a mut Html, domain: Option<&str>) -> &'a mut Html {
        match self.installation() {
            Some(one) => html.link(&path(&one), domain.unwrap_or(one.member_id.as_str())),
            None => html.raw("–"),
        }
    }

    fn held(&self, store: &Store) -> Result<Hold, Problem> {
        let (Became::Unverified, Some(installation)) = (self.became, self.installation()) else {
            return Ok(Hold::NoToken);
        };
        let Some(principal) = self.principal else { return Ok(Hold::NoToken) };
        let state = store.installation(&installation)?;
        let known = state.principals.get(&principal);
        let is_held = known.zip(self.raw).is_some_and(|(known, raw)| known.held.contains_key(&raw.offset));
        Ok(match state.verdict(store.trust(&installation.app)).trusts(principal) {
            _ if is_held => Hold::Kept(principal),
            true => Hold::Released,
            false => Hold::GaveWay(principal),
        })
    }

    fn show_held(html: &mut Html, held: Hold) -> &mut Html {
        let why = match held {
            Hold::Kept(principal) => {
                html.badge("warn", "held");
                format!("its principal {} is not trusted", short(principal))
            }
            Hold::Released => {
                html.badge("good", "released");
                "its principal is trusted now".to_owned()
            }
            Hold::GaveWay(principal) => {
                html.badge("warn", "unverified");
                format!("its principal {} is not trusted, and it is not held", short(principal))
            }
            Hold::NoToken => {
                html.badge("warn", "unverified");
                "it has no application_token".to_owned()
            }
        };
        html.raw(" <span class=\"why\">").text(why).raw("</span>")
    }

    fn show_rejected<'a>(&self, html: &'a mut Html) -> &'a mut Html {
        let label = self.name.as_deref().unwrap_or_default();
        html.badge("bad", label.replace('_', " "));
        html.raw(" <span class=\"why\">").text(why(label)).raw("</span>");
        if let Some(id) = self.id {
            html.raw(" ").command(format_args!("hookledger rejected show {id}"));
        }
        html
    }
}

#[derive(Clone, Copy)]
enum Hold {
    Kept(Fingerprint),
    Released,
    GaveWay(Fingerprint),
    NoToken,
}

/// The page of an installation.
pub fn path(installation: &Installation) -> String {
    format!("/installations/{installation}")
}

/// Enough to tell fingerprints apart; commands have all of it.
pub fn short(fingerprint: Fingerprint) -> String {
    fingerprint.to_string().chars().take(12).chain(['…']).collect()
}

/// What a reason means, and what to do.
pub fn why(label: &str) -> &'static str {
    let Some(reason) = Reason::parse(label) else { return "a reason of a newer version" };
    match reason {
        Reason::NotARawEvent => "the record in raw was not written by ingress",
        Reason::UnknownSource => "its sender is in no source list",
        Reason::Compressed => "its body is compressed, and was not read",
        Reason::TooManyFields => "its body has more than 10,000 fields",
        Reason::NoEvent => "its body names no event: is this URL used by something else?",
        Reason::NoMember => "it has no auth[member_id]: which portal sent it is not known",
        Reason::MissingToken => "it has no auth[application_token], the only proof of its origin",
        Reason::MissingField => "a field that this event requires is missing",
        Reason::BadValue => "a field has an impossible value",
        Reason::TooManyPrincipals => "the installation has too many attested principals",
        Reason::SecretInName => "its event or member_id holds a secret of the same body",
        Reason::GaveWay => "it was held, and gave way to others before its principal was trusted",
    }
}

/// A fact in a portal's history, in a few words.
pub fn fact(fact: &Fact) -> String {
    match &fact.kind {
        FactKind::Installed { complete: true, profile } => match &profile.version {
            Some(version) => format!("installed, version {version}"),
            None => "installed".to_owned(),
        },
        FactKind::Installed { complete: false, .. } => "install begun, not finished".to_owned(),
        FactKind::Updated { previous_version, profile } => {
            let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "?".to_owned());
            format!("updated from version {} to {}", version(previous_version), version(&profile.version))
        }
        FactKind::Uninstalled { clean: Some(true), .. } => "uninstalled, and asked that its data be removed".to_owned(),
        FactKind::Uninstalled { clean: Some(false) | None, .. } => "uninstalled".to_owned(),
        FactKind::Paid { days, .. } => match days {
            Some(days) => format!("paid, {days} days left"),
            None => "paid".to_owned(),
        },
        FactKind::MethodDecided { method, decision, .. } => format!("{method} {}", decision_name(*decision)),
        FactKind::UserReady { .. } => "a user is ready".to_owned(),
        FactKind::Described { .. } => "said something new about itself".to_owned(),
        FactKind::Attested { attestation, .. } => format!("a principal was attested: {}", json_name(attestation)),
    }
}

pub fn decision_name(decision: domain::Decision) -> &'static str {
    match decision {
        domain::Decision::Granted => "granted",
        domain::Decision::Denied => "denied",
    }
}

/// The name of a value in JSON.
pub fn json_name(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use event_log::Record;
    use serde_json::json;

    use super::*;

    fn row(topic: Topic, value: &Value) -> Option<Row> {
        let value = Some(value.to_string().into());
        let record = Record { key: None, value, headers: vec![], at: Timestamp::from_s(1) };
        Row::of(topic, &Entry { position: Position { partition: 0, offset: 7 }, record })
    }

    #[test]
    fn records_of_any_shape_are_shown_or_left_out() {
        let mut value = json!({
            "id": EventId::from_u128(7), "event": "x".repeat(1_000), "app": "crm-sync", "member_id": "a223",
            "received_at": Timestamp::from_s(1), "principal": null, "auth": { "domain": ["no", "text"] },
        });
        let shown = row(Topic::Unverified, &value).expect("shown");
        assert_eq!((shown.became, shown.domain, shown.principal), (Became::Unverified, None, None));
        assert_eq!(shown.name.map(|name| name.len()), Some(TEXT_CHARS_MAX));
        value["app"] = json!("<script>");
        assert!(row(Topic::Events, &value).is_none());
    }

    #[test]
    fn every_reason_is_explained() {
        for reason in Reason::ALL {
            assert!(!why(reason.label()).contains("newer version"), "{}", reason.label());
        }
        assert!(why("odd").contains("newer version"));
    }
}
