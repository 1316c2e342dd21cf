//! Portals that play Bitrix24: bodies of every kind, in every form seen on the wire, each different from all others.
//!
//! A portal remembers its secrets, so that a test can look for them where they must not be.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use crate::http::{FORM, JSON};

pub mod body;

use body::{form, json};

/// One webhook, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Which app's URL it goes to.
    pub app: String,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// The bytes.
    pub body: Vec<u8>,
}

impl Webhook {
    /// Where it is posted to.
    pub fn path(&self) -> String {
        format!("/v1/events/{}", self.app)
    }
}

/// What a portal may do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Install, or install again.
    Install,
    /// Update to the next version.
    Update,
    /// Tell late of an update that was long ago.
    LateUpdate,
    /// Uninstall, perhaps with the wish that data be removed.
    Uninstall {
        /// Whether data are to be removed.
        clean: bool,
    },
    /// Pay.
    Payment,
    /// Allow a method for a new token.
    Grant,
    /// Refuse a method for a new token.
    Deny,
    /// Refuse what was decided last, for the same token.
    Revoke,
    /// Have its system user ready.
    UserReady,
    /// An event that is only passed on.
    PassedOn,
    /// From now on another token speaks for the same portal: a reinstalled local app, or a forger.
    ChangeToken,
    /// The first token speaks again.
    FirstToken,
}

use Step::{
    ChangeToken, Deny, FirstToken, Grant, Install, LateUpdate, PassedOn, Payment, Revoke, Uninstall, Update, UserReady,
};

/// What different portals do first, ten webhooks each.
const LIVES: [&[Step]; 6] = [
    &[Install, PassedOn, Grant, Update, PassedOn, Payment, Deny, PassedOn, Uninstall { clean: true }, PassedOn],
    &[UserReady, PassedOn, Install, PassedOn, Grant, Revoke, PassedOn, Update, Payment, PassedOn],
    &[Install, Grant, Uninstall { clean: false }, Install, PassedOn, Grant, Deny, LateUpdate, PassedOn, PassedOn],
    &[
        Install,
        Update,
        ChangeToken,
        Install,
        Grant,
        Uninstall { clean: true },
        PassedOn,
        FirstToken,
        PassedOn,
        Grant,
        Deny,
        LateUpdate,
    ],
    &[
        Install,
        Grant,
        Uninstall { clean: false },
        PassedOn,
        ChangeToken,
        UserReady,
        Install,
        Grant,
        PassedOn,
        Deny,
        Update,
    ],
    &[PassedOn, Grant, UserReady, Update, PassedOn, Install, PassedOn, PassedOn, Payment, Uninstall { clean: false }],
];

/// What every portal does afterwards, again and again.
const AFTERWARDS: &[Step] = &[PassedOn, Grant, PassedOn, Update, PassedOn, Deny];

/// One portal with one app.
#[derive(Clone, Debug)]
pub struct Portal {
    /// The app's name in our URL.
    pub app: String,
    /// The portal.
    pub member_id: String,
    number: u64,
    application_token: String,
    decided: (String, String),
    clock_s: u64,
    webhooks: u64,
    steps: usize,
    version: u64,
    secrets: Vec<String>,
}

impl Portal {
    /// The portal of that number; the same number makes the same bodies, but for their times.
    pub fn new(app: &str, number: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let mut portal = Self {
            app: app.to_owned(),
            member_id: digits(&format!("{app}/{number}"), 32),
            number,
            application_token: String::new(),
            decided: (String::new(), String::new()),
            clock_s: now - 1_000,
            webhooks: 0,
            steps: 0,
            version: 1,
            secrets: Vec::new(),
        };
        portal.application_token = portal.secret("application", 32);
        portal
    }

    /// All secrets that its webhooks held so far.
    pub fn secrets(&self) -> &[String] {
        &self.secrets
    }

    /// The record's key.
    pub fn key(&self) -> String {
        format!("{}/{}", self.app, self.member_id)
    }

    /// The token of the last decision, and its method.
    pub fn decided(&self) -> (&str, &str) {
        (&self.decided.0, &self.decided.1)
    }

    /// The same portal, later, for which another token speaks.
    #[must_use]
    pub fn with_another_token(&self) -> Self {
        let mut other = self.clone();
        other.clock_s += 100;
        other.application_token = other.secret("application", 32);
        other
    }

    /// The next webhook of its life.
    pub fn next_webhook(&mut self) -> Webhook {
        let life = LIVES[usize::try_from(self.number % 6).expect("below 6")];
        loop {
            let step = life.get(self.steps).unwrap_or_else(|| &AFTERWARDS[self.steps % AFTERWARDS.len()]);
            self.steps += 1;
            if *step == ChangeToken {
                self.application_token = self.secret("application", 32);
            } else if *step == FirstToken {
                self.application_token.clone_from(&self.secrets[0]);
            } else {
                return self.webhook(*step);
            }
        }
    }

    /// A webhook that tells of one step.
    pub fn webhook(&mut self, step: Step) -> Webhook {
        self.webhooks += 1;
        self.clock_s += 1;
        let ts = if step == LateUpdate { self.clock_s - 500 } else { self.clock_s };
        let (event, data) = self.event(step);
        let mut fields = vec![("event".to_owned(), event.to_owned())];
        // Makes every body different; portals send it with most events, and with any other value.
        fields.push(("event_handler_id".to_owned(), self.webhooks.to_string()));
        fields.extend(data.into_iter().map(|(name, value)| (format!("data{name}"), value)));
        fields.push(("ts".to_owned(), ts.to_string()));
        fields.extend(self.auth(step).into_iter().map(|(name, value)| (format!("auth[{name}]"), value)));

        let (content_type, body) = match (self.number + self.webhooks) % 4 {
            0 => (JSON, json(&fields)),
            1 => (FORM, form(&fields, false)),
            _ => (FORM, form(&fields, true)),
        };
        Webhook { app: self.app.clone(), content_type, body }
    }

    fn event(&mut self, step: Step) -> (&'static str, Vec<(&'static str, String)>) {
        let language =
            ("[LANGUAGE_ID]", ["de", "ru", "com"][usize::try_from(self.number % 3).expect("below 3")].to_owned());
        let text = str::to_owned;
        match step {
            Install => {
                let version = ("[VERSION]", self.version.to_string());
                ("ONAPPINSTALL", vec![version, ("[ACTIVE]", text("Y")), ("[INSTALLED]", text("Y")), language])
            }
            Update | LateUpdate => {
                let previous = ("[PREVIOUS_VERSION]", self.version.to_string());
                self.version += 1;
                ("ONAPPUPDATE", vec![("[VERSION]", self.version.to_string()), previous, language])
            }
            Uninstall { clean } => ("ONAPPUNINSTALL", vec![language, ("[CLEAN]", u8::from(clean).to_string())]),
            Payment => {
                let version = ("[VERSION]", self.version.to_string());
                let expired = ("[PAYMENT_EXPIRED]", text("N"));
                ("ONAPPPAYMENT", vec![("[CODE]", text("vendor.app")), version, ("[STATUS]", text("P")), expired])
            }
            Grant | Deny | Revoke => {
                if step != Revoke {
                    let method = ["voximplant.user.get", "User.Admin", "log.blogpost.add"];
                    let method = method[usize::try_from(self.webhooks % 3).expect("below 3")];
                    self.decided = (self.secret("access", 70), method.to_owned());
                }
                let (token, method) = self.decided.clone();
                let confirmed = u8::from(step == Grant).to_string();
                (
                    "ONAPPMETHODCONFIRM",
                    vec![("[TOKEN]", token), ("[METHOD]", method), ("[CONFIRMED]", confirmed), language],
                )
            }
            UserReady => {
                let tokens = [
                    ("[access_token]", self.secret("system access", 70)),
                    ("[refresh_token]", self.secret("system refresh", 70)),
                ];
                let user = [("[user_id]", text("512")), ("[client_id]", text("app.573ad8a0346747.09223434"))];
                ("ONAPPUSERREADY", tokens.into_iter().chain(user).chain([language]).collect())
            }
            PassedOn | ChangeToken | FirstToken => {
                ("ONCRMCONTACTADD", vec![("[FIELDS][ID]", self.webhooks.to_string()), ("[LIST][0]", text("a b+c&d=ä"))])
            }
        }
    }

    fn auth(&mut self, step: Step) -> Vec<(&'static str, String)> {
        let host = format!("portal-{}.bitrix24.com", self.number);
        let domain = if step == UserReady { "oauth.bitrix.info".to_owned() } else { host.clone() };
        let mut auth = vec![
            ("domain", domain),
            ("server_endpoint", "https://oauth.bitrix.info/rest/".to_owned()),
            ("client_endpoint", format!("https://{host}/rest/")),
            ("member_id", self.member_id.clone()),
        ];
        // Those that a person caused carry that person's tokens.
        let tokens = !matches!(step, Uninstall { .. } | Grant | Deny | Revoke | Payment);
        if tokens {
            auth.push(("access_token", self.secret("access", 70)));
            auth.push(("expires_in", "3600".to_owned()));
            auth.push(("scope", format!("crm,user,scope-{}", self.version)));
            auth.push(("status", "L".to_owned()));
        }
        if matches!(step, Install | Update | LateUpdate | UserReady) {
            auth.push(("refresh_token", self.secret("refresh", 70)));
        }
        auth.push(("application_token", self.application_token.clone()));
        auth
    }

    /// A new secret, told to nobody else.
    fn secret(&mut self, what: &str, length: usize) -> String {
        let seed = format!("{}/{}/{what}/{}/{}", self.app, self.number, self.webhooks, self.secrets.len());
        let secret = digits(&seed, length);
        self.secrets.push(secret.clone());
        secret
    }
}

/// Hex digits that nobody could guess, but that are the same in every run.
fn digits(seed: &str, length: usize) -> String {
    let mut text = String::new();
    let mut block = Sha256::digest(seed);
    while text.len() < length {
        block.iter().for_each(|byte| write!(text, "{byte:02x}").expect("a String takes all"));
        block = Sha256::digest(block);
    }
    text.truncate(length);
    text
}
