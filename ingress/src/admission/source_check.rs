//! Checks senders against Bitrix24's published list, and counts or refuses others.
//!
//! A refused event is answered 403, but not thrown away: a list may be outdated, and Bitrix24 sends
//! once. The event is kept in `raw` within the budget for junk and with a mark, so that no processor folds it.

use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::Registry;
use runtime::settings::{Settings, SettingsError};

use crate::admission::source_list::{Place, SourceList, Verdict};
use crate::metrics::{Metrics, register_source_lists};

/// More frequent requests are a burden for the list's server.
const REFRESH_WAIT_MIN: Duration = Duration::from_secs(1);
const LOG_WAIT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Sources {
    pub check: Check,
    pub places: Vec<Place>,
    pub refresh: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    Off,
    Observe,
    Enforce,
}

impl Sources {
    /// From `source-check`, `source-list` and `source-refresh`.
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let check = match settings.text("source-check") {
            Some("off") | None => Check::Off,
            Some("observe") => Check::Observe,
            Some("enforce") => Check::Enforce,
            Some(_) => return Err(SettingsError("source-check is `off`, `observe` or `enforce`".into())),
        };
        let refresh = settings.duration("source-refresh")?;
        if refresh < REFRESH_WAIT_MIN {
            return Err(SettingsError("source-refresh is at least 1s; Bitrix24 asks for a minute or more".into()));
        }
        let given = settings.all("source-list");
        let places: Option<Vec<_>> = given.iter().map(|text| Place::parse(text)).collect();
        let wrong = "source-list takes files, and URLs with http or https and without a password";
        match places {
            Some(places) if check == Check::Off || !places.is_empty() => Ok(Self { check, places, refresh }),
            Some(_) | None => Err(SettingsError(wrong.into())),
        }
    }
}

pub struct SourceCheck {
    enforce: bool,
    list: Option<SourceList>,
    metrics: Metrics,
    logged_at: Mutex<Option<Instant>>,
}

impl SourceCheck {
    /// Starts the renewal of the lists, if senders are checked.
    pub fn start(sources: &Sources, registry: &Registry, metrics: Metrics) -> io::Result<Self> {
        let list = match sources.check {
            Check::Off => None,
            Check::Observe | Check::Enforce => {
                for place in sources.places.iter().filter(|place| place.is_open()) {
                    tracing::warn!(
                        "the source list {place} is read without TLS: a third party on the network can add senders"
                    );
                }
                Some(SourceList::start(&sources.places, sources.refresh)?)
            }
        };
        if let Some(list) = &list {
            register_source_lists(registry, list.known());
        }
        Ok(Self { enforce: sources.check == Check::Enforce, list, metrics, logged_at: Mutex::default() })
    }

    pub fn refuses(&self, source: Option<IpAddr>) -> bool {
        let (Some(list), Some(source)) = (&self.list, source) else { return false };
        let verdict = list.judge(source, Instant::now());
        self.metrics.judged(verdict);
        match verdict {
            Verdict::Listed | Verdict::NoList => false,
            Verdict::Unlisted => {
                self.log(source);
                self.enforce
            }
        }
    }

    fn log(&self, source: IpAddr) {
        let mut logged_at = self.logged_at.lock().unwrap_or_else(PoisonError::into_inner);
        if logged_at.is_some_and(|logged_at| logged_at.elapsed() < LOG_WAIT) {
            return;
        }
        *logged_at = Some(Instant::now());
        drop(logged_at);
        let then = match (self.enforce, is_inside(source)) {
            (true, true) => {
                "they are answered 403. An address like this is not the internet's: is it a proxy that trusted-proxies does not name?"
            }
            (true, false) => "they are answered 403, and kept aside in raw within the budget for junk",
            (false, true) => {
                "they are taken. An address like this is not the internet's: is it a proxy that trusted-proxies does not name?"
            }
            (false, false) => "they are taken; with `source-check = enforce` they would be answered 403",
        };
        tracing::warn!(%source, "webhooks come from {source}, which is not in the source list: {then}");
    }
}

/// Whether the address cannot be one of the internet.
fn is_inside(source: IpAddr) -> bool {
    match source.to_canonical() {
        IpAddr::V4(address) => address.is_private() || address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
    }
}
