//! The settings of ingress, once they are read.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bitrix24::AppName;
use http_edge::listener::is_handed_over;
use http_edge::{Limits, TlsFiles};
use runtime::settings::{App, KafkaSettings, Settings, SettingsError};
use runtime::telemetry::LogFormat;

use crate::admission::budget::Allowance;
use crate::admission::proxies::Proxies;
use crate::admission::source_check::{Check, Sources};
use crate::admission::source_list::Place;
use crate::delivery::state::Rules;

mod table;

pub use table::{WEBHOOKS, table};

/// Kafka's default record limit is about a megabyte; a body leaves room for key and headers.
const BODY_LIMIT_BYTES_MAX: u64 = 900 * 1024;
/// With less, a large body takes longer than a client waits.
const LARGE_BYTES_PER_SECOND_MIN: u64 = 64 * 1024;
/// A restart waits for idle connections this long.
const IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// Enough for a head or a body on any line.
const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// A service manager waits as long for our end.
const STOP_NOTICE_MAX: Duration = Duration::from_secs(300);
const HANDED_OVER_RECORDS_MAX: usize = 20_000;
const HANDED_OVER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long an acknowledgement is awaited when the disk log has no room.
const REPORT_WAIT_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Webhooks {
    pub listen: SocketAddr,
    /// How long `/readyz` fails before the end begins.
    pub stop_notice: Duration,
    pub limits: Limits,
    pub body_bytes_max: usize,
    /// None means any app.
    pub apps: BTreeMap<AppName, App>,
    /// The proxies that are trusted with the client's address.
    pub proxies: Proxies,
    pub sources: Sources,
    pub junk: Allowance,
    /// Whether proxies use the PROXY protocol, version 2.
    pub proxy_protocol: bool,
    pub tls: Option<TlsFiles>,
}

impl Webhooks {
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let body_limit = settings.size("body-limit")?;
        if body_limit == 0 || body_limit > BODY_LIMIT_BYTES_MAX {
            return Err(SettingsError("body-limit must be more than zero and at most 900KiB".into()));
        }
        let webhooks = Self {
            listen: settings.address("ingress-listen")?,
            stop_notice: stop_notice(settings)?,
            limits: limits(settings)?,
            body_bytes_max: usize::try_from(body_limit).expect("checked above"),
            apps: settings.apps().clone(),
            proxies: Proxies::read(settings)?,
            proxy_protocol: proxy_protocol(settings)?,
            tls: tls_files(settings)?,
            sources: Sources::read(settings)?,
            junk: Allowance::read(settings)?,
        };
        webhooks.check_apps(webhooks.listen)?;
        webhooks.check_proxies()?;
        Ok(webhooks)
    }

    /// Whether these webhooks may be served at this address: the socket's own, which may differ from the settings if it
    /// was handed over.
    pub fn check_address(&self, address: SocketAddr) -> Result<(), SettingsError> {
        self.check_apps(address)?;
        if self.sources.check == Check::Enforce && is_loopback(address) && self.proxies.is_empty() {
            let why = format!(
                "source-check is enforce and webhooks are taken at {address}: clients of that address are proxies, \
                 and all would be refused; name them, for example `--trusted-proxies 127.0.0.1`"
            );
            return Err(SettingsError(why));
        }
        Ok(())
    }

    /// Whether requests of foreign web pages are refused: on loopback without a proxy only programs and browsers of
    /// this machine are expected.
    pub(crate) fn refuses_pages_at(&self, address: SocketAddr) -> bool {
        self.proxies.is_empty() && is_loopback(address)
    }

    /// Apps without a key, at an address that strangers may reach.
    fn open_apps(&self, address: SocketAddr) -> Vec<&AppName> {
        let open = |(name, app): (_, &App)| app.path_key.is_none().then_some(name);
        if is_loopback(address) { Vec::new() } else { self.apps.iter().filter_map(open).collect() }
    }

    /// Logs [`Self::open_apps`].
    pub fn warn_of_open_apps(&self, address: SocketAddr) {
        let open = self.open_apps(address);
        if !open.is_empty() {
            let names = open.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
            tracing::warn!(
                apps = names,
                "the apps {names} have no path key, and {address} is not loopback: their URLs can be guessed from their names; \
                 set path-key in their tables, or path-keys-dir"
            );
        }
    }

    /// Any app's name is accepted on loopback only.
    fn check_apps(&self, address: SocketAddr) -> Result<(), SettingsError> {
        if self.apps.is_empty() && !is_loopback(address) {
            let why = format!(
                "webhooks are taken at {address}, which is not loopback, so the apps must be named: \
                 set apps, for example `--apps crm-sync`; without it strangers could make up any"
            );
            return Err(SettingsError(why));
        }
        Ok(())
    }

    /// A proxy may forward the internet, from any address.
    fn check_proxies(&self) -> Result<(), SettingsError> {
        if self.apps.is_empty() && !self.proxies.is_empty() {
            let why = "trusted-proxies is set, so webhooks come from the internet, and the apps must be named: \
                       set apps, for example `--apps crm-sync`; without it strangers could make up any";
            return Err(SettingsError(why.into()));
        }
        Ok(())
    }

    /// Whether certificate and source lists can be read now, if they are used, and the address may be served.
    pub fn check(&self) -> anyhow::Result<()> {
        if !is_handed_over() {
            self.check_address(self.listen)?;
        }
        self.tls.as_ref().map_or(Ok(()), TlsFiles::check)?;
        match self.sources.check {
            Check::Off => Ok(()),
            Check::Observe | Check::Enforce => self.sources.places.iter().try_for_each(Place::check),
        }
    }
}

fn proxy_protocol(settings: &Settings) -> Result<bool, SettingsError> {
    match settings.text("proxy-protocol") {
        Some("off") | None => Ok(false),
        Some("v2") if Proxies::read(settings)?.is_empty() => Err(SettingsError(
            "proxy-protocol is v2, so trusted-proxies must name the proxies: without them every connection would be \
             refused"
                .into(),
        )),
        Some("v2") => Ok(true),
        Some(_) => Err(SettingsError("proxy-protocol is `off` or `v2`".into())),
    }
}

fn tls_files(settings: &Settings) -> Result<Option<TlsFiles>, SettingsError> {
    match (settings.text("tls-cert-file"), settings.text("tls-key-file")) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            Ok(Some(TlsFiles { cert: settings.path("tls-cert-file")?, key: settings.path("tls-key-file")? }))
        }
        (Some(_), None) => Err(SettingsError("tls-cert-file is set, so tls-key-file must name its private key".into())),
        (None, Some(_)) => Err(SettingsError("tls-key-file is set, so tls-cert-file must name its certificate".into())),
    }
}

#[derive(Clone, Debug)]
pub struct Config {
    pub webhooks: Webhooks,
    pub admin_listen: SocketAddr,
    pub kafka: KafkaSettings,
    pub data_dir: PathBuf,
    pub disk_log_bytes_max: u64,
    pub rules: Rules,
    pub adopt_dirs: Vec<PathBuf>,
    pub adopt_after: Duration,
    pub log_format: LogFormat,
}

impl Config {
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let without = "kafka is not set: ingress hands webhooks to Kafka; one process without a broker is `hookledger standalone`";
        Ok(Self {
            webhooks: Webhooks::read(settings)?,
            admin_listen: settings.address("admin-listen")?,
            kafka: settings.kafka()?.ok_or_else(|| SettingsError(without.into()))?,
            data_dir: settings.path("data-dir")?,
            disk_log_bytes_max: settings.size("disk-log-limit")?,
            rules: rules(settings)?,
            adopt_dirs: settings.all("adopt-dirs").into_iter().map(PathBuf::from).collect(),
            adopt_after: settings.duration("adopt-after")?,
            log_format: settings.log_format()?,
        })
    }

    /// Checks everything that can be checked without running.
    pub fn check(&self) -> anyhow::Result<()> {
        use anyhow::Context;
        kafka_log::check(&self.kafka)?;
        self.webhooks.check()?;
        let dir = self.disk_log_dir();
        runtime::private::make_dir(&dir).with_context(|| format!("make the directory {}", dir.display()))
    }

    pub(crate) fn disk_log_dir(&self) -> PathBuf {
        self.data_dir.join("ingress")
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn limits(settings: &Settings) -> Result<Limits, SettingsError> {
    let request_memory = settings.size("request-memory-limit")?;
    let too_much = |_| SettingsError("request-memory-limit is more than this machine can address".into());
    Ok(Limits {
        head_timeout: settings.wait("head-timeout", REQUEST_TIMEOUT_MAX)?,
        body_timeout: settings.wait("body-timeout", REQUEST_TIMEOUT_MAX)?,
        idle_timeout: settings.wait("idle-timeout", IDLE_TIMEOUT_MAX)?,
        connections_max: settings.connections("connections-limit")?,
        request_bytes_max: usize::try_from(request_memory).map_err(too_much)?,
        large_bytes_per_second: large_bytes_per_second(settings)?,
    })
}

fn large_bytes_per_second(settings: &Settings) -> Result<Option<u64>, SettingsError> {
    let name = "large-request-bytes-per-second";
    if settings.text(name) == Some("off") {
        return Ok(None);
    }
    match settings.size(name)? {
        rate if rate < LARGE_BYTES_PER_SECOND_MIN => Err(SettingsError(format!("{name} is at least 64KiB, or `off`"))),
        rate => Ok(Some(rate)),
    }
}

fn stop_notice(settings: &Settings) -> Result<Duration, SettingsError> {
    let notice = settings.duration("stop-notice")?;
    if notice > STOP_NOTICE_MAX {
        return Err(SettingsError("stop-notice is at most 5m".into()));
    }
    Ok(notice)
}

fn rules(settings: &Settings) -> Result<Rules, SettingsError> {
    let disk_first = match settings.text("keep") {
        Some("kafka") | None => false,
        Some("disk") => true,
        Some(_) => return Err(SettingsError("keep is `kafka` or `disk`".into())),
    };
    Ok(Rules {
        disk_first,
        deadline: settings.duration("kafka-deadline")?,
        report_wait_max: REPORT_WAIT_MAX,
        records_max: HANDED_OVER_RECORDS_MAX,
        bytes_max: HANDED_OVER_BYTES_MAX,
        move_parked_above_bytes: settings.size("disk-log-limit")? / 4,
    })
}

/// How webhooks are taken with these settings, and for the app `a` where a proxy asks for names.
#[cfg(test)]
pub(crate) fn webhooks(args: &[&str]) -> Webhooks {
    let apps: &[&str] = if args.contains(&"--trusted-proxies") { &["--apps", "a"] } else { &[] };
    let args = std::iter::once("ingress").chain([args, apps].concat()).map(Into::into);
    let settings = runtime::settings::read("ingress", "", &table(), args, &|_| None, []).expect("known settings");
    Webhooks::read(&settings).expect("valid settings")
}

#[cfg(test)]
impl Webhooks {
    /// What is set where nothing is.
    pub fn by_default() -> Self {
        webhooks(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Config, String> {
        let args = std::iter::once("ingress").chain(args.iter().copied()).map(Into::into);
        let settings = runtime::settings::read("ingress", "", &table(), args, &|_| None, []);
        settings.and_then(|settings| Config::read(&settings)).map_err(|error| error.to_string())
    }

    #[test]
    fn with_kafka_alone_every_other_setting_has_a_sensible_default() {
        let config = read(&["--kafka", "localhost:9092"]).expect("valid settings");
        assert_eq!(config.webhooks.body_bytes_max, 512 * 1024);
        assert_eq!(config.rules.deadline, Duration::from_millis(300));
        assert!(!config.rules.disk_first);
    }

    #[test]
    fn what_faces_the_internet_names_its_apps() {
        let open = ["--kafka", "localhost:9092", "--ingress-listen", "0.0.0.0:8080"];
        assert!(read(&open).is_err_and(|error| error.contains("--apps")));
        assert!(read(&[&open[..], &["--apps", "crm-sync"]].concat()).is_ok());
    }

    #[test]
    fn behind_a_proxy_the_apps_are_named_also_on_loopback() {
        let proxied = ["--kafka", "localhost:9092", "--trusted-proxies", "127.0.0.1"];
        assert!(read(&proxied).is_err_and(|error| error.contains("trusted-proxies") && error.contains("--apps")));
        assert!(read(&[&proxied[..], &["--apps", "crm-sync"]].concat()).is_ok());
    }

    #[test]
    fn an_app_without_a_path_key_is_open_where_strangers_come() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("shut"), "s6p6eclrvim6da22").expect("a key");
        let keys = directory.path().to_str().expect("a plain path");
        let args = ["--kafka", "h:1", "--apps", "open,shut", "--path-keys-dir", keys];
        let webhooks = read(&args).expect("valid settings").webhooks;
        let open = |address: &str| -> Vec<_> {
            webhooks.open_apps(address.parse().expect("an address")).into_iter().map(AppName::as_str).collect()
        };
        assert_eq!(open("0.0.0.0:80"), ["open"]);
        assert!(open("127.0.0.1:80").is_empty());
    }

    #[test]
    fn the_address_that_counts_is_the_sockets_own() {
        let webhooks = read(&["--kafka", "localhost:9092"]).expect("valid settings").webhooks;
        let check = |address: &str| webhooks.check_address(address.parse().expect("an address")).is_ok();
        for loopback in ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
            assert!(check(loopback), "{loopback}");
        }
        for open in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "[::ffff:10.0.0.1]:80"] {
            assert!(!check(open), "{open}");
        }
    }

    #[test]
    fn senders_on_loopback_are_refused_only_if_their_proxy_is_known() {
        let check = |more: &[&str], address: &str| {
            let webhooks = read(&[&["--kafka", "h:1", "--apps", "a", "--source-check", "enforce"], more].concat());
            let address = address.parse().expect("an address");
            webhooks.expect("valid settings").webhooks.check_address(address)
        };
        assert!(check(&[], "127.0.0.1:80").is_err_and(|error| error.0.contains("--trusted-proxies")));
        assert_eq!(check(&["--trusted-proxies", "127.0.0.1"], "127.0.0.1:80"), Ok(()));
        // A socket that was handed over may be open although ingress-listen is loopback.
        assert_eq!(check(&[], "0.0.0.0:80"), Ok(()));
    }

    #[test]
    fn a_check_refuses_an_address_that_a_start_refuses() {
        let check = |listen: &str| {
            let args = ["--kafka", "h:1", "--apps", "a", "--source-check", "enforce", "--source-list", "/missing"];
            read(&[&args[..], &["--ingress-listen", listen]].concat()).expect("valid settings").webhooks.check()
        };
        assert!(check("127.0.0.1:80").is_err_and(|error| error.to_string().contains("--trusted-proxies")));
        assert!(check("0.0.0.0:80").is_err_and(|error| error.to_string().contains("read the source list")));
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        for (args, name) in [
            (&[][..], "kafka"),
            (&["--kafka", "h:1", "--keep", "both"][..], "keep"),
            (&["--kafka", "h:1", "--body-limit", "2MiB"][..], "body-limit"),
            (&["--kafka", "h:1", "--connections-limit", "0"][..], "connections-limit"),
            (&["--kafka", "h:1", "--head-timeout", "0s"][..], "head-timeout"),
            (&["--kafka", "h:1", "--proxy-protocol", "v1"][..], "proxy-protocol"),
            (&["--kafka", "h:1", "--proxy-protocol", "v2"][..], "trusted-proxies"),
            (&["--kafka", "h:1", "--proxy-protocol", "v2", "--trusted-proxies", ""][..], "trusted-proxies"),
            (&["--kafka", "h:1", "--trusted-proxies", "127.0.0.1"][..], "apps"),
            (&["--kafka", "h:1", "--tls-cert-file", "a.pem"][..], "tls-key-file"),
            (&["--kafka", "h:1", "--tls-key-file", "a.pem"][..], "tls-cert-file"),
            (&["--kafka", "h:1", "--trusted-proxies", "10.0.0.0/33"][..], "trusted-proxies"),
            (&["--kafka", "h:1", "--source-check", "on"][..], "source-check"),
            (&["--kafka", "h:1", "--source-list", "ftp://h/list"][..], "source-list"),
            (&["--kafka", "h:1", "--source-check", "observe", "--source-list", ""][..], "source-list"),
            (&["--kafka", "h:1", "--source-refresh", "10ms"][..], "source-refresh"),
            (&["--kafka", "h:1", "--junk-per-minute", "100001"][..], "junk-per-minute"),
            (&["--kafka", "h:1", "--junk-bytes-per-minute", "9"][..], "junk-bytes-per-minute"),
            (&["--kafka", "h:1", "--large-request-bytes-per-second", "9KiB"][..], "or `off`"),
            (&["--kafka", "h:1", "--junk-bytes-per-minute-per-source", "some"][..], "junk-bytes-per-minute-per-source"),
            (&["--kafka", "h:1", "--idle-timeout", "0s"][..], "idle-timeout"),
            (&["--kafka", "h:1", "--idle-timeout", "11m"][..], "idle-timeout"),
            (&["--kafka", "h:1", "--stop-notice", "6m"][..], "stop-notice"),
        ] {
            assert!(read(args).is_err_and(|error| error.contains(name)), "{args:?}");
        }
    }
}
