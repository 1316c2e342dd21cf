//! The set-up as Bitrix24 sees it: the name, the certificate, each app's URL, and the way of one event.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bitrix24::AppName;
use clap::ArgMatches;
use humantime::format_duration;
use portal_sim::client::block_on;
use portal_sim::portal::{Encoding, Event, FORM, Portal};
use runtime::settings::App;
use serde_json::Value;
use ureq::http::{Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::SetUp;
use super::certificate::{Broken, Trusted};
use super::report::Report;
use crate::arguments::text;
use crate::outcome::Usage;
use crate::query::Query;
use crate::query_error::QueryError;

const NAME: &str = "name";
const CERTIFICATE: &str = "certificate";
const URL: &str = "url";
const CLOCK: &str = "clock";
const QUERIES: &str = "queries";
const ROUND_TRIP: &str = "round-trip";
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// How long an event may take until it is folded.
const FOLD_WAIT_MAX: &str = "10s";
const ADDRESSES_MAX: usize = 16;
/// Of tables larger than this, the first ones.
const APPS_MAX: usize = 20;
const DAYS_LEFT_MIN: u32 = 14;
/// Beyond this, times of events are wrong by more than a person expects.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);
/// The made-up portal of test events: always the same, so that they do not add up.
const MEMBER: &str = "hookledger-doctor";
/// Where an app that is not in the table would be; only on this machine any name is taken.
const ANY_APP: &str = "doctor";

/// What Bitrix24 calls, without the path of an app.
pub struct Public {
    url: String,
    host: String,
    port: u16,
    is_tls: bool,
    trusted: Trusted,
}

impl Public {
    pub fn from_arguments(arguments: &ArgMatches) -> anyhow::Result<Option<Self>> {
        let trusted = Trusted::read(arguments.get_one::<PathBuf>("ca-file").map(PathBuf::as_path))?;
        text(arguments, "url").map(|url| Self::parse(url, trusted)).transpose()
    }

    fn parse(url: &str, trusted: Trusted) -> anyhow::Result<Self> {
        // What was given may hold a password.
        let wrong =
            || Usage("--url takes a URL without a password and a query, such as https://hooks.example.com".into());
        let url = url.trim_end_matches('/');
        let parsed: Uri = url.parse().map_err(|_| wrong())?;
        let is_tls = match parsed.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong().into()),
        };
        if parsed.query().is_some() || parsed.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong().into());
        }
        let host = parsed.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let port = parsed.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self { url: url.to_owned(), host, port, is_tls, trusted })
    }

    /// By its own words: a name that leads here is a fault, this is a trial.
    pub fn is_on_this_machine(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }

    fn agent(&self) -> Agent {
        let roots = self.trusted.certificates.as_ref().map_or(RootCerts::WebPki, |certificates| {
            certificates.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).into()
        });
        let config = Agent::config_builder()
            .timeout_global(Some(ANSWER_WAIT_MAX))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            // As Bitrix24: not by way of a proxy of ours.
            .proxy(None)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .user_agent(concat!("hookledger-doctor/", env!("CARGO_PKG_VERSION")))
            .build();
        Agent::new_with_config(config)
    }

    /// It may hold a secret.
    fn path(app: &str, path_key: Option<&str>) -> String {
        format!("/v1/events/{app}{}", path_key.map(|key| format!("/{key}")).unwrap_or_default())
    }
}

pub fn check(
    public: Option<Public>,
    set_up: &SetUp,
    query: &mut Query,
    may_send: bool,
    report: &mut Report,
) -> anyhow::Result<()> {
    let answers = check_queries(query, set_up, report)?;
    let Some(public) = public else {
        report.skipped(URL, "give --url to see it as Bitrix24 does, and to send a test event");
        return Ok(());
    };
    let reachable = check_name(&public, report).is_some_and(|addresses| check_certificate(&public, &addresses, report));
    if !reachable {
        report.skipped(URL, "what comes before it is at fault");
        return Ok(());
    }
    let agent = public.agent();
    let Some(app) = check_urls(&public, &agent, set_up, report) else { return Ok(()) };
    if !may_send || !answers {
        report.skipped(ROUND_TRIP, if may_send { "queries are not answered" } else { "--no-test-event" });
        return Ok(());
    }
    check_round_trip(&public, &agent, &app, query, report)
}

fn check_queries(query: &mut Query, set_up: &SetUp, report: &mut Report) -> anyhow::Result<bool> {
    // A processor may be on another machine.
    if set_up.kafka.is_some() && matches!(block_on(async { Ok(query.answers().await) })?, Ok(false)) {
        report.skipped(QUERIES, "no processor answers here: name one with --query");
        return Ok(false);
    }
    let asked = block_on(async { Ok(query.get("/v1/installations", &[("limit", Some("1"))]).await) })?;
    let remedy = match asked {
        Ok(_) => {
            report.sound(QUERIES, format!("{} answers", query.url()));
            return Ok(true);
        }
        Err(QueryError::Problem { status: 401, .. }) => "give a token of query-tokens with --query-token-file",
        Err(QueryError::Problem { status: 403, .. }) => "give a token with the scope read for all apps",
        Err(QueryError::Problem { status: 503, .. }) => "the state is being read, or damaged: see the processor's log",
        Err(QueryError::Problem { .. } | QueryError::Foreign { .. }) => "see that --query names a processor",
        Err(QueryError::Unreachable { .. }) => "start the processor, or name its query-listen with --query",
    };
    let found = asked.err().map(|error| error.to_string()).unwrap_or_default();
    report.fault(QUERIES, found, remedy);
    Ok(false)
}

fn check_name(public: &Public, report: &mut Report) -> Option<Vec<SocketAddr>> {
    let host = &public.host;
    let resolved = (host.as_str(), public.port).to_socket_addrs();
    let addresses: Vec<SocketAddr> = match resolved {
        Ok(addresses) => addresses.take(ADDRESSES_MAX).collect(),
        Err(error) => {
            let remedy = "add an A or AAAA record for it, or correct --url";
            report.fault(NAME, format!("{host} does not resolve: {error}"), remedy);
            return None;
        }
    };
    if public.is_on_this_machine() {
        report.note(NAME, format!("{host} is this machine: Bitrix24 cannot reach it"));
        return Some(addresses);
    }
    if let Some(inner) = addresses.iter().map(SocketAddr::ip).find(|address| !is_global(*address)) {
        let found = format!("{host} leads to {inner}, which only your own network reaches");
        report.fault(NAME, found, "let the name lead to a public address, also in the DNS that Bitrix24 sees");
        return None;
    }
    if host.parse::<IpAddr>().is_ok() {
        report.fault(NAME, format!("{host} is an address"), "give it a name: certificates are for names");
    } else if !public.is_tls {
        let found = "webhooks with tokens go over plain HTTP, which everything between reads";
        report.fault(NAME, found, "put a proxy with a certificate before ingress, or set tls-cert-file");
    } else {
        let shown: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
        report.sound(NAME, format!("{host} leads to {}", shown.join(", ")));
    }
    Some(addresses)
}

fn is_global(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let is_shared = first == 100 && (64..128).contains(&second);
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || is_shared)
        }
        IpAddr::V6(ip) => {
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local())
        }
    }
}

/// Whether a request may be sent: without TLS, too, where no one else listens.
fn check_certificate(public: &Public, addresses: &[SocketAddr], report: &mut Report) -> bool {
    if !public.is_tls {
        return true;
    }
    let mut least = None;
    for address in addresses {
        match public.trusted.days_left(*address, &public.host) {
            Ok(days) => least = least.map_or(Some(days), |least: u32| Some(least.min(days))),
            Err(Broken::Connect(error)) => {
                let remedy = "see that the proxy listens there, and that no firewall is between";
                report.fault(CERTIFICATE, format!("{address} does not accept a connection: {error}"), remedy);
                return false;
            }
            Err(Broken::Handshake(why)) => {
                let remedy = "see that TLS is spoken at this port";
                report.fault(CERTIFICATE, format!("{address} does not finish a TLS handshake: {why}"), remedy);
                return false;
            }
            Err(Broken::Chain((found, remedy))) => {
                report.fault(CERTIFICATE, format!("{address}: {found}"), remedy);
                return false;
            }
        }
    }
    match least {
        Some(days) if days < DAYS_LEFT_MIN => {
            let found = format!("the certificate ends in {days} days");
            report.fault(CERTIFICATE, found, "renew it, and see why that was not done by itself");
        }
        Some(days) => report.sound(CERTIFICATE, format!("the chain is whole, and ends in {days} days")),
        None => return false,
    }
    true
}

/// The path of an app that can be called, if there is one.
fn check_urls(public: &Public, agent: &Agent, set_up: &SetUp, report: &mut Report) -> Option<String> {
    let apps: Vec<(String, String)> = if set_up.webhooks.apps.is_empty() {
        vec![(ANY_APP.to_owned(), Public::path(ANY_APP, None))]
    } else {
        let path = |(name, app): (&AppName, &App)| {
            let key = app.path_key.as_ref().map(|key| key.reveal().to_owned());
            (name.to_string(), Public::path(name.as_str(), key.as_deref()))
        };
        set_up.webhooks.apps.iter().take(APPS_MAX).map(path).collect()
    };
    let (mut callable, mut date) = (None, None);
    let faults = report.faults();
    for (app, path) in apps {
        match agent.get(format!("{}{path}", public.url)).call() {
            Err(error) => {
                let remedy = "see that proxy and ingress run, and which port the proxy forwards to";
                report.fault(URL, format!("GET for {app} is not answered: {}", without_url(&error)), remedy);
                // Each would wait as long.
                break;
            }
            Ok(mut answer) => {
                date = date.or_else(|| date_of(&answer));
                let status = answer.status().as_u16();
                if status == 200 && document(&mut answer)["send"] == "POST" {
                    callable = callable.or(Some(path));
                } else {
                    let (found, remedy) = explain(&app, status);
                    report.fault(URL, found, remedy);
                }
            }
        }
    }
    check_clock(date, report);
    if report.faults() == faults {
        report.sound(URL, format!("each app is reached at {}", public.url));
    }
    callable
}

fn explain(app: &str, status: u16) -> (String, &'static str) {
    let found = format!("GET for {app} is answered {status}, not by an ingress that knows it");
    let remedy = match status {
        301 | 302 | 307 | 308 => "give Bitrix24 the URL that is redirected to: it may not follow",
        401 | 403 => "let the proxy ask for nothing at this path",
        404 => "see that the proxy keeps the path, and that ingress has the same apps and path keys as these settings",
        502..=504 => "see that ingress runs where the proxy forwards to",
        _ => "see where the proxy forwards this path to",
    };
    (found, remedy)
}

/// The date of an answer is that of the machine that made it.
fn check_clock(date: Option<SystemTime>, report: &mut Report) {
    let Some(date) = date else {
        report.skipped(CLOCK, "no answer has a date to compare with");
        return;
    };
    let now = SystemTime::now();
    let skew = now.duration_since(date).unwrap_or_else(|error| error.duration());
    if skew > CLOCK_SKEW_MAX {
        let shown = format_duration(Duration::from_secs(skew.as_secs()));
        let found = format!("this machine and the server at --url differ by {shown}");
        report.fault(CLOCK, found, "let both take their time from the network (chrony, systemd-timesyncd)");
    } else {
        report.sound(CLOCK, "as that of the server at --url");
    }
}

fn check_round_trip(
    public: &Public,
    agent: &Agent,
    path: &str,
    query: &mut Query,
    report: &mut Report,
) -> anyhow::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let body = Portal::of(MEMBER).body(&Event::Test, now, Encoding::Form);
    let sent = agent.post(format!("{}{path}", public.url)).content_type(FORM).send(&body[..]);
    let mut answer = match sent {
        Err(error) => {
            let remedy = "see that the proxy passes POST with a body on";
            report.fault(ROUND_TRIP, format!("POST is not answered: {}", without_url(&error)), remedy);
            return Ok(());
        }
        Ok(answer) => answer,
    };
    let (status, document) = (answer.status().as_u16(), document(&mut answer));
    if status == 403 && document["type"].as_str().is_some_and(|kind| kind.ends_with("#unknown-source")) {
        report.skipped(ROUND_TRIP, "source-check lets only Bitrix24's addresses send");
        return Ok(());
    }
    let Some(id) = document["id"].as_str().filter(|_| status == 200) else {
        let title = document["title"].as_str().map(|title| format!(" ({title})")).unwrap_or_default();
        let remedy = match status {
            503 => "ingress has no room or no Kafka: see its log and /readyz",
            403 | 405 | 413 | 415 => "let the proxy pass POST with a form of 512 KiB on",
            _ => "see where the proxy forwards POST to",
        };
        report.fault(ROUND_TRIP, format!("POST is answered {status}{title}"), remedy);
        return Ok(());
    };
    let parameters = [("limit", Some("1")), ("after", Some(id)), ("wait", Some(FOLD_WAIT_MAX))];
    match block_on(async { Ok(query.get("/v1/installations", &parameters).await) })? {
        Ok(_) => {
            let kept = document["kept"].as_str().unwrap_or("kept");
            report.sound(ROUND_TRIP, format!("a test event was kept ({kept}) and folded"));
        }
        Err(error) => {
            let found = format!("the test event {id} was answered 200, but not folded within {FOLD_WAIT_MAX}: {error}");
            let remedy =
                "see that the processor of --query reads what this ingress writes (kafka, topic-prefix), and its lag";
            report.fault(ROUND_TRIP, found, remedy);
        }
    }
    Ok(())
}

fn document(answer: &mut Response<Body>) -> Value {
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
    body.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default()
}

fn date_of(answer: &Response<Body>) -> Option<SystemTime> {
    httpdate::parse_http_date(answer.headers().get("date")?.to_str().ok()?).ok()
}

/// A URL may hold a path key.
#[expect(clippy::wildcard_enum_match_arm, reason = "ureq adds errors")]
fn without_url(error: &ureq::Error) -> String {
    match error {
        ureq::Error::BadUri(_) => "the URL is not valid".to_owned(),
        ureq::Error::RequireHttpsOnly(_) => "it is no HTTPS".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_the_internet_does_not_reach_are_known() {
        for inner in ["10.1.2.3", "192.168.0.1", "172.16.0.1", "100.64.0.1", "169.254.1.1", "::1", "fd00::1", "fe80::1"]
        {
            assert!(!is_global(inner.parse().expect("an address")), "{inner}");
        }
        for inner in ["::ffff:10.0.0.1", "0.0.0.0", "::", "127.0.0.1"] {
            assert!(!is_global(inner.parse().expect("an address")), "{inner}");
        }
        for outer in ["8.8.8.8", "100.128.0.1", "172.32.0.1", "2001:4860:4860::8888"] {
            assert!(is_global(outer.parse().expect("an address")), "{outer}");
        }
    }

    #[test]
    fn a_url_has_a_scheme_and_no_secrets() {
        let parse = |url: &str| Public::parse(url, Trusted::read(None).expect("Mozilla's"));
        let public = parse("https://hooks.example.com/hookledger/").expect("a URL");
        assert_eq!((public.host.as_str(), public.port, public.is_tls), ("hooks.example.com", 443, true));
        assert_eq!(public.url, "https://hooks.example.com/hookledger");
        let here = parse("http://[::1]:8080").expect("a URL");
        assert!(here.is_on_this_machine() && here.host == "::1" && here.port == 8080);
        for wrong in ["hooks.example.com", "ftp://h", "https://", "https://u:p@h", "https://h/?a=1", "https://h h"] {
            assert!(parse(wrong).is_err_and(|error| error.is::<Usage>()), "{wrong}");
        }
    }
}
