//! Query tokens, and what each of them may do.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitrix24::AppName;
use primitives::secret::Fingerprint;

/// Shorter tokens can be guessed.
const TOKEN_BYTES_MIN: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Every query.
    Read,
    /// The newest OAuth tokens of an installation.
    Tokens,
    /// Commands that change something.
    Operate,
}

impl Scope {
    const ALL: [Self; 3] = [Self::Read, Self::Tokens, Self::Operate];

    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Tokens => "tokens",
            Self::Operate => "operate",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    scopes: BTreeSet<Scope>,
    /// None is every app.
    apps: Option<BTreeSet<AppName>>,
}

impl Access {
    /// For a port without tokens, which is for this machine alone: any user of it may ask. So it hands out no OAuth
    /// tokens.
    pub fn full() -> Self {
        Self { scopes: [Scope::Read, Scope::Operate].into(), apps: None }
    }

    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    pub fn is_limited(&self) -> bool {
        self.apps.is_some()
    }

    /// None means all.
    pub fn apps(&self) -> Option<&BTreeSet<AppName>> {
        self.apps.as_ref()
    }

    pub fn sees(&self, app: &AppName) -> bool {
        self.apps.as_ref().is_none_or(|apps| apps.contains(app))
    }
}

/// One of `query-tokens`; only the token's fingerprint is kept.
#[derive(Clone, Debug)]
pub struct QueryToken {
    pub fingerprint: Fingerprint,
    pub access: Arc<Access>,
}

impl QueryToken {
    /// `TOKEN`, which reads, or `TOKEN read tokens operate app=crm-sync`. The error repeats nothing of it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let token = words.next().unwrap_or_default();
        if token.len() < TOKEN_BYTES_MIN {
            let bytes = token.len();
            return Err(format!(
                "has {bytes} bytes, and less than {TOKEN_BYTES_MIN} can be guessed; `openssl rand -hex 16` makes one"
            ));
        }
        let (mut scopes, mut apps) = (BTreeSet::new(), BTreeSet::new());
        for word in words {
            if let Some(app) = word.strip_prefix("app=") {
                apps.insert(AppName::parse(app).ok_or("is limited to an app with an impossible name")?);
            } else {
                let scope = Scope::ALL.into_iter().find(|scope| scope.name() == word);
                scopes.insert(scope.ok_or_else(|| {
                    let known = Scope::ALL.map(Scope::name).join(", ");
                    format!("has an unknown scope; scopes are {known}, and `app=NAME` limits it to an app")
                })?);
            }
        }
        if scopes.is_empty() {
            scopes.insert(Scope::Read);
        }
        let access = Access { scopes, apps: (!apps.is_empty()).then_some(apps) };
        Ok(Self { fingerprint: Fingerprint::of(token), access: Arc::new(access) })
    }

    /// The apps that it is limited to.
    pub fn apps(&self) -> impl Iterator<Item = &AppName> {
        self.access.apps.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "s6p6eclrvim6da22";

    #[test]
    fn a_token_reads_every_app_unless_it_says_otherwise() {
        let scopes = |more: &str| {
            let token = QueryToken::parse(&format!("{TOKEN} {more}")).expect("valid");
            assert_eq!(token.fingerprint, Fingerprint::of(TOKEN));
            Scope::ALL.map(|scope| token.access.has(scope))
        };
        assert_eq!(scopes(""), [true, false, false]);
        assert_eq!(scopes("app=crm-sync"), [true, false, false]);
        assert_eq!(scopes("operate"), [false, false, true]);
        assert_eq!(scopes(" read  tokens\toperate app=a"), [true, true, true]);

        let apps = ["a", "b", "c"].map(|app| AppName::parse(app).expect("a name"));
        let sees = |more: &str| {
            let token = QueryToken::parse(&format!("{TOKEN} {more}")).expect("valid");
            apps.clone().map(|app| token.access.sees(&app))
        };
        assert_eq!(sees("read"), [true, true, true]);
        assert_eq!(sees("app=a app=c"), [true, false, true]);
    }

    #[test]
    fn a_mistake_is_told_without_what_was_given() {
        for (text, reason) in [
            ("short-secret", "has 12 bytes"),
            ("", "has 0 bytes"),
            (&format!("{TOKEN} hidden"), "unknown scope; scopes are read, tokens, operate"),
            (&format!("{TOKEN} app=HIDDEN"), "impossible name"),
            (&format!("{TOKEN} app="), "impossible name"),
        ] {
            let error = QueryToken::parse(text).expect_err("a mistake");
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.to_lowercase().contains("hidden") && !error.contains(TOKEN), "{error}");
        }
    }
}
