//! Plays the life of a portal with one app: bodies of every kind, in every form seen on the wire, each different from all
//! others.
//!
//! A player remembers the secrets that it sent, so that a test can look for them where they must not be.

use crate::portal::{Encoding, Event, OAUTH_DIGITS, Portal, SYSTEM_USER_ID, Token, digits, now_s};

/// One webhook, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    pub app: String,
    pub content_type: &'static str,
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
    /// Report late an update of long ago.
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
pub struct Player {
    /// The app's name in our URL.
    pub app: String,
    pub member_id: String,
    portal: Portal,
    number: u64,
    /// The token and the method of the last decision.
    decided: (Token, String),
    clock_s: u64,
    webhooks: u64,
    steps: usize,
    version: u64,
    secrets: Vec<String>,
}

impl Player {
    /// The same number makes the same bodies, but for their times.
    pub fn new(app: &str, number: u64) -> Self {
        let mut portal = Portal::of(digits(&format!("{app}/{number}"), 32));
        portal.domain = format!("portal-{number}.bitrix24.com");
        portal.language = one_of(["de", "ru", "com"], number).into();
        portal.status = "L".into();
        let mut player = Self {
            app: app.to_owned(),
            member_id: portal.member_id.clone(),
            portal,
            number,
            decided: (Token::new(""), String::new()),
            clock_s: now_s() - 1_000,
            webhooks: 0,
            steps: 0,
            version: 1,
            secrets: Vec::new(),
        };
        player.portal.application_token = player.secret("application", 32);
        player
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
        (self.decided.0.reveal(), &self.decided.1)
    }

    /// The same portal, later, with another application token.
    #[must_use]
    pub fn with_another_token(&self) -> Self {
        let mut other = self.clone();
        other.clock_s += 100;
        other.portal.application_token = other.secret("application", 32);
        other
    }

    /// The next webhook of its life.
    pub fn next_webhook(&mut self) -> Webhook {
        let life = one_of(LIVES, self.number);
        loop {
            let step = life.get(self.steps).unwrap_or_else(|| &AFTERWARDS[self.steps % AFTERWARDS.len()]);
            self.steps += 1;
            if *step == ChangeToken {
                self.portal.application_token = self.secret("application", 32);
            } else if *step == FirstToken {
                self.portal.application_token = Token::new(self.secrets[0].clone());
            } else {
                return self.webhook(*step);
            }
        }
    }

    /// The webhook of one step.
    pub fn webhook(&mut self, step: Step) -> Webhook {
        self.webhooks += 1;
        self.clock_s += 1;
        let at_s = if step == LateUpdate { self.clock_s - 500 } else { self.clock_s };
        self.portal.scope = format!("crm,user,scope-{}", self.version);
        let event = self.event(step);
        // Events that a user caused carry that user's tokens.
        if !matches!(step, Uninstall { .. } | Grant | Deny | Revoke | Payment) {
            self.portal.access_token = self.secret("access", OAUTH_DIGITS);
        }
        if matches!(step, Install | Update | LateUpdate | UserReady) {
            self.portal.refresh_token = self.secret("refresh", OAUTH_DIGITS);
        }
        let encoding = match (self.number + self.webhooks) % 4 {
            0 => Encoding::Json,
            1 => Encoding::PlainForm,
            _ => Encoding::Form,
        };
        let body = self.portal.body(&event, at_s, encoding).into();
        Webhook { app: self.app.clone(), content_type: encoding.content_type(), body }
    }

    fn event(&mut self, step: Step) -> Event {
        let version = self.version.to_string();
        match step {
            Install => Event::Install { version },
            Update | LateUpdate => {
                self.version += 1;
                Event::Update { version: self.version.to_string(), previous_version: version }
            }
            Uninstall { clean } => Event::Uninstall { clean },
            Payment => Event::Payment { code: "vendor.app".into(), version, status: "P".into(), days: None },
            Grant | Deny | Revoke => {
                if step != Revoke {
                    let method = one_of(["voximplant.user.get", "User.Admin", "log.blogpost.add"], self.webhooks);
                    self.decided = (self.secret("access", OAUTH_DIGITS), method.to_owned());
                }
                let (token, method) = self.decided.clone();
                Event::MethodConfirm { method, token, confirmed: step == Grant }
            }
            UserReady => Event::UserReady {
                user_id: SYSTEM_USER_ID,
                access_token: self.secret("system access", OAUTH_DIGITS),
                refresh_token: self.secret("system refresh", OAUTH_DIGITS),
            },
            PassedOn | ChangeToken | FirstToken if self.webhooks.is_multiple_of(2) => {
                Event::Crm { name: "ONCRMCONTACTADD", id: self.webhooks }
            }
            PassedOn | ChangeToken | FirstToken => Event::UserAdd { id: self.webhooks, name: "a b+c&d=ä".into() },
        }
    }

    /// A secret that no webhook had before.
    fn secret(&mut self, what: &str, length: usize) -> Token {
        let seed = format!("{}/{}/{what}/{}/{}", self.app, self.number, self.webhooks, self.secrets.len());
        let secret = digits(&seed, length);
        self.secrets.push(secret.clone());
        Token::new(secret)
    }
}

fn one_of<T: Copy, const N: usize>(all: [T; N], number: u64) -> T {
    all[usize::try_from(number % N as u64).expect("below the length")]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::read::fields;

    #[test]
    fn bodies_differ_and_hold_no_token_that_is_not_remembered() {
        let mut bodies = BTreeSet::new();
        for number in 0..12 {
            let mut player = Player::new("crm-sync", number);
            for _ in 0..40 {
                let body = player.next_webhook().body;
                let is_token = |name: &str| name.to_lowercase().contains("token");
                for (name, value) in fields(&body).into_iter().filter(|(name, _)| is_token(name)) {
                    assert!(player.secrets().contains(&value), "{name} of {player:?}");
                }
                assert!(bodies.insert(body), "a body was sent twice");
            }
            let sent = player.secrets().iter().collect::<BTreeSet<_>>();
            assert_eq!(sent.len(), player.secrets().len(), "each secret is new");
        }
    }
}
