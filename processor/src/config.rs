//! The settings of the processor, read once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bitrix24::AppName;
use http_edge::Limits;
use runtime::settings::{
    App, KAFKA, KafkaSettings, PROCESS, Setting, Settings, SettingsError, TRUSTED_PROXIES, admin_listen,
};
use runtime::telemetry::LogFormat;

use crate::forward::{ForwardConfig, Reachable, TargetConfig, check_url};
use crate::query::feed::FeedLimits;
use crate::query::tokens::QueryToken;
use crate::query::{BODY_TIMEOUT, HEAD_TIMEOUT, REQUEST_BYTES_MAX};
use crate::state::Trusts;
use crate::vault::VaultKeys;
use crate::vouch::{Servers, VouchConfig};
use domain::EndpointHosts;

pub const PROCESSOR: &[Setting] = &[
    Setting::new("group")
        .default("hookledger-processor")
        .help("The consumer group: processors of one group share the partitions."),
    Setting::new("instance-id")
        .help("The static member id in the group; generated once and stored in data-dir unless set."),
];

/// Limits of the fold, and vouching; standalone has them, too.
pub const FOLDING: &[Setting] = &[
    Setting::new("untrusted-installations-limit")
        .default("10000")
        .help("Limit of installations per app that have only unverified events."),
    Setting::new("vouch-budget")
        .default("5/s")
        .help("Calls to Bitrix24's authorisation server, of all processors of the group together."),
    Setting::new("vouch-servers")
        .default("https://oauth.bitrix.info,https://oauth.bitrix24.tech")
        .help("The authorisation servers; others than Bitrix24's must be on this machine."),
    VAULT_KEY,
];
/// Settings of forwarding; standalone has them, too.
pub const FORWARDING: &[Setting] = &[
    Setting::new("forward-to").secret().help(
        "The URL of an older handler that gets the requests of verified events, for apps without one of their own.",
    ),
    Setting::new("forward-networks").repeated().help(
        "Networks that handlers may be in besides the internet: `loopback` (this machine), `private` (a local network, \
               Docker's), or others such as `100.64.0.0/10`. Only there http is taken.",
    ),
    Setting::new("forward-timeout").default("30s").help("How long one delivery to a handler may take."),
    Setting::new("forward-park-after")
        .default("24h")
        .help("How long an event is tried that the handler does not take; then an operator decides."),
    Setting::new("forward-parallel").default("16").help("Deliveries to the handler of an app at once."),
    Setting::new("forward-since").default("1h").help("How far back forwarding begins where it is new."),
];
const FORWARD_TIMEOUT_MAX: Duration = Duration::from_secs(600);
const FORWARD_PARK_MAX: Duration = Duration::from_secs(14 * 24 * 60 * 60);
const FORWARD_PARALLEL_MAX: u32 = 256;

const VOUCH_RATE_MAX: f64 = 100.0;

/// The keys of the vault; `hookledger vault rekey` reads it, too.
pub const VAULT_KEY: Setting = Setting::new("vault-key").secret().help(
    "The key that tokens are sealed to, as `hookledger vault keygen` makes it; further lines are keys that open \
           what was sealed before. Without it the vault is off.",
);

/// Settings of the query server; standalone has them, too.
pub const QUERIES: &[Setting] = &[
    Setting::new("query-listen").default("127.0.0.1:8081").help("The address of the query API and the status page."),
    Setting::new("query-tokens").secret().help(
        "Bearer tokens for queries, of 16 bytes or more, separated by commas or lines, each with its scopes and apps, \
               such as `TOKEN read app=crm-sync`; required unless query-listen is loopback.",
    ),
    Setting::new("endpoint-hosts")
        .repeated()
        .help("Hosts of endpoints that records show besides the portal's own and Bitrix24's, such as `*.example.org`."),
    Setting::new("query-connections-limit")
        .default("256")
        .help("Limit of query connections; above it, the longest idle one is closed."),
    Setting::new("query-idle-timeout").default("30s").help("How long a connection may be idle between two queries."),
    Setting::new("feed-readers-limit")
        .default("200")
        .help("Limit of readers of the feed: streams, and queries that wait; at most four fifths of the connections."),
    Setting::new("feed-answer-limit")
        .default("1MiB")
        .help("Limit of the events in one answer of the feed; a single larger event comes alone."),
    Setting::new("feed-stream-timeout")
        .default("1h")
        .help("How long a stream of the feed lasts; then the reader connects again."),
];

/// Every reader that does not keep up holds one answer in memory.
const FEED_ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
const FEED_STREAM_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(600);

pub fn settings() -> Vec<Setting> {
    let own = [PROCESSOR, FOLDING, FORWARDING, QUERIES, KAFKA, PROCESS].concat();
    own.into_iter().chain([TRUSTED_PROXIES, admin_listen("127.0.0.1:9081")]).collect()
}

#[derive(Clone, Debug)]
pub struct Config {
    pub kafka: KafkaSettings,
    pub group: String,
    /// Generated and stored in the state directory unless set.
    pub instance_id: Option<String>,
    /// Serves `/livez`, `/readyz` and `/metrics`.
    pub admin_listen: SocketAddr,
    pub log_format: LogFormat,
    pub service: ServiceConfig,
}

/// The configuration that does not depend on the logs.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    pub dir: PathBuf,
    pub trusts: Trusts,
    /// The table of apps; empty where any app is taken.
    pub apps: BTreeSet<AppName>,
    /// Limit of installations without facts, per app.
    pub untrusted_limit: usize,
    pub query_listen: SocketAddr,
    pub query_limits: Limits,
    pub vouch: VouchConfig,
    /// None leaves the vault off.
    pub vault: Option<VaultKeys>,
    pub forward: ForwardConfig,
    pub feed: FeedLimits,
    /// Accepted tokens; empty if none is required.
    pub query_tokens: Vec<QueryToken>,
}

impl Config {
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let missing = || SettingsError("kafka is not set: the processor reads its events from there".into());
        Ok(Self {
            kafka: settings.kafka()?.ok_or_else(missing)?,
            group: group(settings)?,
            instance_id: settings.text("instance-id").map(str::to_owned),
            admin_listen: settings.address("admin-listen")?,
            log_format: settings.log_format()?,
            service: ServiceConfig::read(settings)?,
        })
    }
}

fn group(settings: &Settings) -> Result<String, SettingsError> {
    match settings.text("group") {
        None | Some("") => Err(SettingsError("group is empty, but it takes the name of a consumer group".into())),
        Some(group) => Ok(group.to_owned()),
    }
}

fn endpoint_hosts(settings: &Settings) -> Result<EndpointHosts, SettingsError> {
    let given = settings.all("endpoint-hosts");
    let given = given.iter().flat_map(|hosts| hosts.split(',')).map(str::trim).filter(|host| !host.is_empty());
    let wrong = |host: &str| {
        let rule = "hosts without a port, or `*.` and a domain";
        SettingsError(format!("endpoint-hosts has `{host}`, but it takes {rule}; for example `*.example.org`"))
    };
    let host = |host| EndpointHosts::host(host).ok_or_else(|| wrong(host));
    given.map(host).collect::<Result<_, _>>().map(EndpointHosts::new)
}

fn query_tokens(settings: &Settings) -> Result<Vec<QueryToken>, SettingsError> {
    let given = settings.secret("query-tokens");
    let lines = given.as_ref().map_or("", |tokens| tokens.reveal()).split([',', '\n']).map(str::trim);
    let mut tokens: Vec<QueryToken> = Vec::new();
    for (number, line) in (1..).zip(lines.filter(|line| !line.is_empty())) {
        let wrong = |why: &str| SettingsError(format!("query-tokens: token {number} {why}"));
        let token = QueryToken::parse(line).map_err(|why| wrong(&why))?;
        if tokens.iter().any(|other| other.fingerprint == token.fingerprint) {
            return Err(wrong("is given twice"));
        }
        let apps = settings.apps();
        if !apps.is_empty() && token.apps().any(|app| !apps.contains_key(app)) {
            return Err(wrong("is limited to an app that is not among apps"));
        }
        tokens.push(token);
    }
    Ok(tokens)
}

impl ServiceConfig {
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let query_listen = settings.address("query-listen")?;
        let query_tokens = query_tokens(settings)?;
        if query_tokens.is_empty() && !query_listen.ip().is_loopback() {
            return Err(SettingsError(format!(
                "query-listen is {query_listen}, which others can reach: set query-tokens, or listen on 127.0.0.1"
            )));
        }
        let is_proxied = settings.all(TRUSTED_PROXIES.name).iter().any(|networks| !networks.trim().is_empty());
        if query_tokens.is_empty() && is_proxied {
            let why = "trusted-proxies is set, so a proxy may forward queries from the internet: set query-tokens, for \
                       example with `--query-tokens-file FILE`; `openssl rand -hex 32` makes one";
            return Err(SettingsError(why.into()));
        }
        Ok(Self {
            dir: settings.path("data-dir")?.join("processor"),
            trusts: Trusts::new(settings.apps().iter().map(|(name, app)| (name.clone(), app.trust)))
                .with_endpoint_hosts(endpoint_hosts(settings)?),
            apps: settings.apps().keys().cloned().collect(),
            untrusted_limit: settings
                .number("untrusted-installations-limit")?
                .map_or(usize::MAX, |limit| limit as usize),
            query_listen,
            query_limits: Limits {
                head_timeout: HEAD_TIMEOUT,
                body_timeout: BODY_TIMEOUT,
                idle_timeout: settings.wait("query-idle-timeout", IDLE_TIMEOUT_MAX)?,
                connections_max: settings.connections("query-connections-limit")?,
                request_bytes_max: REQUEST_BYTES_MAX,
                large_bytes_per_second: None,
            },
            query_tokens,
            vouch: vouch(settings)?,
            vault: vault(settings)?,
            forward: forward(settings)?,
            feed: feed(settings)?,
        })
    }
}

fn feed(settings: &Settings) -> Result<FeedLimits, SettingsError> {
    let answer_bytes = match settings.size("feed-answer-limit")? {
        bytes @ 1..=FEED_ANSWER_BYTES_MAX => usize::try_from(bytes).unwrap_or(usize::MAX),
        _ => return Err(SettingsError("feed-answer-limit must be more than zero and at most 16MiB".into())),
    };
    Ok(FeedLimits {
        readers: settings.connections("feed-readers-limit")?,
        answer_bytes,
        stream_time: settings.wait("feed-stream-timeout", FEED_STREAM_TIME_MAX)?,
    })
}

fn forward(settings: &Settings) -> Result<ForwardConfig, SettingsError> {
    let networks = settings.all("forward-networks");
    let reachable = Reachable::parse(networks.iter().map(String::as_str)).map_err(|wrong| {
        SettingsError(format!(
            "forward-networks has `{wrong}`, but it takes `loopback`, `private`, and networks such as 172.16.0.0/12"
        ))
    })?;
    let general = settings.secret("forward-to");
    if general.is_some() && settings.apps().is_empty() {
        return Err(SettingsError(
            "forward-to is set, but apps is not: name the apps whose events are forwarded".into(),
        ));
    }
    let mut targets = BTreeMap::new();
    for (name, app) in settings.apps() {
        let Some(url) = app.forward_to.as_ref().or(general.as_ref()) else { continue };
        check_url(url.reveal(), &reachable)
            .map_err(|why| SettingsError(format!("forward-to of the app {name} {why}")))?;
        targets.insert(name.clone(), TargetConfig { url: url.clone(), unverified: app.forward_unverified });
    }
    let parallel = match settings.number("forward-parallel")? {
        Some(parallel @ 1..=FORWARD_PARALLEL_MAX) => parallel as usize,
        _ => return Err(SettingsError(format!("forward-parallel is a number from 1 to {FORWARD_PARALLEL_MAX}"))),
    };
    Ok(ForwardConfig {
        targets,
        reachable,
        parallel,
        timeout: settings.wait("forward-timeout", FORWARD_TIMEOUT_MAX)?,
        park_after: settings.wait("forward-park-after", FORWARD_PARK_MAX)?,
        since: settings.duration("forward-since")?,
    })
}

fn vouch(settings: &Settings) -> Result<VouchConfig, SettingsError> {
    let client_id = |(name, app): (&AppName, &App)| Some((name.clone(), app.client_id.clone()?));
    let servers = settings.text("vouch-servers").map_or(Some(Servers::default()), Servers::parse);
    let wrong = || SettingsError("vouch-servers takes Bitrix24's authorisation servers, or http on 127.0.0.1".into());
    let budget = settings.text("vouch-budget").unwrap_or_default();
    let rate = budget.strip_suffix("/s").and_then(|number| number.parse().ok());
    let rate: Option<f64> = rate.filter(|rate| (0.01..=VOUCH_RATE_MAX).contains(rate));
    let malformed = || {
        SettingsError(format!(
            "vouch-budget is `{budget}`, but it takes calls a second, such as 5/s, up to {VOUCH_RATE_MAX}/s"
        ))
    };
    Ok(VouchConfig {
        client_ids: settings.apps().iter().filter_map(client_id).collect(),
        servers: servers.ok_or_else(wrong)?,
        budget: rate.ok_or_else(malformed)?,
    })
}

fn vault(settings: &Settings) -> Result<Option<VaultKeys>, SettingsError> {
    let wrong = |why: String| SettingsError(format!("vault-key {why}"));
    let given = settings.secret("vault-key");
    given.map(|text| VaultKeys::parse(text.reveal()).map_err(wrong)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Config, String> {
        let args = ["processor", "--kafka", "h:1"].iter().chain(args).map(Into::into);
        let settings = runtime::settings::read("processor", "", &settings(), args, &|_| None, []);
        settings.and_then(|settings| Config::read(&settings)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_group_has_a_name() {
        assert!(read(&["--group", ""]).is_err_and(|error| error.starts_with("group is empty")));
    }

    #[test]
    fn a_wrong_token_is_named_by_its_number() {
        let (first, second) = ("s6p6eclrvim6da22ft9ch94ekreb52lv", "0123456789abcdef");
        let error = |tokens: &str| read(&["--apps", "a", "--query-tokens", tokens]).expect_err("refused");
        assert!(error(&format!("{first},{second} write")).starts_with("query-tokens: token 2 has an unknown scope"));
        assert!(error(&format!("{first}\n{second} app=a\n{first} read")).ends_with("token 3 is given twice"));
        assert!(error(&format!("{first} app=b")).ends_with("token 1 is limited to an app that is not among apps"));
    }

    #[test]
    fn a_handler_is_where_events_may_go() {
        let to = |url: &str, more: &[&str]| {
            read(&[&["--apps", "a,b", "--forward-to", url][..], more].concat()).map(|config| config.service.forward)
        };
        let forward = to("https://example.org/x?key=hidden", &[]).expect("public");
        assert_eq!(forward.targets.len(), 2, "every app without a handler of its own");
        assert!(!format!("{forward:?}").contains("hidden"));
        let here = "http://127.0.0.1:8000/x?key=hidden";
        let error = to(here, &[]).expect_err("this machine");
        assert!(error.starts_with("forward-to of the app a names 127.0.0.1: set forward-networks"), "{error}");
        assert!(!error.contains("hidden"), "{error}");
        assert!(to(here, &["--forward-networks", "private,loopback"]).is_ok());
        for (more, why) in [
            (["--forward-networks", "home"], "forward-networks has `home`"),
            (["--forward-parallel", "0"], "forward-parallel is a number from 1 to 256"),
            (["--forward-park-after", "0s"], "forward-park-after must be more than zero"),
            (["--forward-timeout", "1h"], "forward-timeout must be more than zero and at most 10m"),
        ] {
            let error = to("https://example.org/", &more).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        let error = read(&["--forward-to", "https://example.org/"]).expect_err("no apps");
        assert!(error.contains("apps is not"), "{error}");
        assert!(read(&["--apps", "a"]).expect("valid").service.forward.targets.is_empty());
    }

    #[test]
    fn what_others_reach_needs_tokens() {
        let tokens = ["--query-tokens", "s6p6eclrvim6da22ft9ch94ekreb52lv"];
        for reached in [["--query-listen", "0.0.0.0:8081"], ["--trusted-proxies", "127.0.0.1"]] {
            let error = read(&reached).expect_err("tokens are needed");
            assert!(error.contains(&reached[0][2..]) && error.contains("set query-tokens"), "{error}");
            assert!(read(&[&reached[..], &tokens].concat()).is_ok(), "{reached:?}");
        }
        assert!(read(&[]).is_ok(), "on loopback, and no proxy");
        assert!(read(&["--trusted-proxies", ""]).is_ok(), "an empty variable of compose is no proxy");
    }
}
