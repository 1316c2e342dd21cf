//! Incoming events: lives of portals, forgers, junk and second copies, as records of `raw`.

use bitrix24::form::Form;
use bitrix24::{AppName, Installation};
use bytes::Bytes;
use domain::{Attest, Attestation};
use event_log::Record;
use event_log::contract::header;
use event_log::{EventId, RawEvent};
use fastrand::Rng;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;

/// The app with trust on the first event.
pub const FIRST_EVENT_APP: &str = "tasks";
const APPS: [&str; 3] = ["crm-sync", "telephony", FIRST_EVENT_APP];
const METHODS: [&str; 3] = ["user.get", "Voximplant.user.get", "crm.lead.list"];
const CRM: [&str; 3] = ["ONCRMLEADADD", "ONCRMCONTACTUPDATE", "ONTASKADD"];

pub struct Portals {
    all: Vec<Portal>,
    /// Each `ts` is greater than all before, so that a simple oracle can follow.
    pub is_orderly: bool,
    ts: u64,
    events: u64,
}

struct Portal {
    app: &'static str,
    member_id: String,
    tokens: u32,
    version: u32,
    names: u32,
}

impl Portals {
    pub fn new(random: &mut Rng, now: Timestamp) -> Self {
        let number = random.u32(2..=6);
        let portal = |number| Portal {
            app: APPS[random.usize(..APPS.len())],
            member_id: format!("m{number}x{:x}", random.u16(..)),
            tokens: 1,
            version: 1,
            names: 1,
        };
        let all = (0..number).map(portal).collect();
        Self { all, is_orderly: random.bool(), ts: now.s() - 100_000, events: 0 }
    }

    /// The next event, as ingress would store it.
    pub fn next(&mut self, random: &mut Rng, now: Timestamp) -> Record {
        self.events += 1;
        let ts = self.ts(random, now);
        let index = random.usize(..self.all.len());
        let portal = &mut self.all[index];
        let (event, data) = event(random, portal);
        let forged = random.u32(..6) == 0;
        let token = if forged {
            format!("forged-{}", random.u32(..3))
        } else {
            format!("token-{}-{}", portal.member_id, portal.tokens)
        };
        if random.u32(..30) == 0 {
            return command(random, portal, &token, now);
        }
        portal.names += u32::from(random.u32(..40) == 0);
        let member = &portal.member_id;
        let domain = format!("{member}-{}.bitrix24.test", portal.names);
        let oauth = "oauth.bitrix24.test";
        let shown = if event == "ONAPPUSERREADY" { oauth } else { &domain };
        let mut body = format!(
            "event={event}&ts={ts}{data}&auth[member_id]={member}&auth[domain]={shown}&auth[scope]=crm,user\
             &auth[client_endpoint]=https://{domain}/rest/&auth[server_endpoint]=https://{oauth}/rest/"
        );
        match random.u32(..40) {
            // Without a sender.
            0 => {}
            3 => body = format!("hello=world&auth[member_id]={member}"),
            1 => body = format!("hello=world&auth[member_id]={member}&auth[application_token]={token}"),
            2 => "junk".clone_into(&mut body),
            _ => body.extend(["&auth[application_token]=", &token]),
        }
        let app = AppName::parse(portal.app).expect("a name");
        let received_at = Timestamp::from_s(now.s());
        let mut raw = RawEvent::new(app, Form::parse(body.as_bytes()).head(), Bytes::from(body), received_at);
        raw.id = EventId::from_u128(u128::from(received_at.ms()) << 80 | u128::from(random.u64(..)));
        raw.unknown_source = random.u32(..40) == 0;
        // Ingress crashed before the first copy was stored.
        raw.resent = random.u32(..25) == 0;
        let mut record = raw.into_record();
        if random.u32(..80) == 0 {
            // A record of another writer to the topic.
            record.headers.retain(|(name, _)| name != header::RECEIVED);
        }
        record
    }

    fn ts(&mut self, random: &mut Rng, now: Timestamp) -> u64 {
        if self.is_orderly {
            self.ts += 1;
            return self.ts;
        }
        match random.u32(..10) {
            0 => now.s() + 200_000,
            1 => now.s() - 9 * 86_400,
            2..=4 => now.s() - random.u64(..30),
            _ => now.s(),
        }
    }
}

/// An operator's word about a principal of a portal.
fn command(random: &mut Rng, portal: &Portal, token: &str, now: Timestamp) -> Record {
    let attestations = [Attestation::Vouched, Attestation::Imported, Attestation::Operator, Attestation::Revoked];
    let attest = Attest {
        principal: Fingerprint::of(token),
        attestation: attestations[random.usize(..attestations.len())],
        domain: None,
        version: None,
        installed_at: None,
    };
    let installation = Installation::parse(portal.app, &portal.member_id).expect("valid");
    let received_at = Timestamp::from_s(now.s());
    let mut raw = attest.into_raw(installation, received_at);
    raw.id = EventId::from_u128(u128::from(received_at.ms()) << 80 | u128::from(random.u64(..)));
    raw.into_record()
}

/// A second copy of a record, as ingress resends it after a crash.
pub fn second_copy(record: &Record) -> Record {
    let mut copy = record.clone();
    if copy.header(header::RESENT).is_none() {
        copy.headers.push((header::RESENT.into(), b"1".to_vec()));
    }
    copy
}

fn event(random: &mut Rng, portal: &mut Portal) -> (&'static str, String) {
    match random.u32(..24) {
        0..=2 => ("ONAPPINSTALL", format!("&data[VERSION]={}&data[LANGUAGE_ID]=de", portal.version)),
        3 => ("ONAPPINSTALL", "&data[VERSION]=1&data[INSTALLED]=N".to_owned()),
        4 => {
            portal.version += 1;
            ("ONAPPUPDATE", format!("&data[VERSION]={}&data[PREVIOUS_VERSION]=1", portal.version))
        }
        5..=6 => {
            // A reinstalled app has another token.
            let data = format!("&data[CLEAN]={}", random.u32(..2));
            portal.tokens += random.u32(..2);
            ("ONAPPUNINSTALL", data)
        }
        7..=10 => {
            let (method, token) = (METHODS[random.usize(..METHODS.len())], random.u32(..2));
            // Sometimes without a meaning.
            let decision = if random.u32(..20) == 0 { "maybe" } else { ["0", "1"][random.usize(..2)] };
            (
                "ONAPPMETHODCONFIRM",
                format!("&data[METHOD]={method}&data[TOKEN]=token{token}&data[CONFIRMED]={decision}"),
            )
        }
        11 => ("ONAPPPAYMENT", "&data[CODE]=c&data[STATUS]=P&data[PAYMENT_EXPIRED]=N&data[DAYS]=30".to_owned()),
        12 => ("ONAPPUSERREADY", "&data[user_id]=7&data[client_id]=c".to_owned()),
        _ => (CRM[random.usize(..CRM.len())], format!("&data[FIELDS][ID]={}", random.u32(..100))),
    }
}
