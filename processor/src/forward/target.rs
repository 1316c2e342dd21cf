//! The handler of an app: one POST with the request as it came, to an address that may be reached.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use primitives::secret::Secret;
use primitives::time::Timestamp;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error, Timeout};

use super::failure::Failure;
use super::networks::Reachable;
use super::progress::Source;
use super::schedule::{Delivery, Outcome};

const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
const ANSWER_HEAD_BYTES_MAX: usize = 16 * 1024;

pub struct Target {
    url: Secret,
    agent: Agent,
}

impl Target {
    /// `url` was checked by [`check_url`].
    pub fn new(url: Secret, reachable: Arc<Reachable>, timeout: Duration, parallel: usize) -> Self {
        // No proxy from the environment: it would connect to any address.
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .timeout_connect(Some(CONNECT_WAIT_MAX.min(timeout)))
            .timeout_resolve(Some(CONNECT_WAIT_MAX.min(timeout)))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_response_header_size(ANSWER_HEAD_BYTES_MAX)
            .max_idle_connections(parallel)
            .max_idle_connections_per_host(parallel)
            .max_idle_age(Duration::from_secs(4))
            .proxy(None)
            .user_agent(concat!("hookledger/", env!("CARGO_PKG_VERSION")))
            .accept("")
            .accept_encoding("")
            .build();
        let resolver = CheckedResolver { resolver: DefaultResolver::default(), reachable };
        Self { url, agent: Agent::with_parts(config, DefaultConnector::default(), resolver) }
    }

    pub fn deliver(&self, delivery: &Delivery) -> Outcome {
        let request = &delivery.request;
        let url = with_query(self.url.reveal(), request.query.as_deref());
        let mut post = self
            .agent
            .post(url)
            .header("hl-id", delivery.head.id.to_string())
            .header("hl-received-at", request.received_at.to_string())
            .header("hl-attempt", delivery.attempt.to_string())
            .header("hl-verified", (delivery.lane.source == Source::Events).to_string());
        if let Some(content_type) = &request.content_type {
            post = post.header("content-type", content_type);
        }
        if let Some(compression) = &request.compression {
            post = post.header("content-encoding", compression);
        }
        let mut answer = match post.send(&request.body[..]) {
            Ok(answer) => answer,
            Err(error) => return Outcome::Failed(failure(&error), None),
        };
        let status = answer.status();
        let pause = answer.headers().get("retry-after").and_then(|value| pause(value.to_str().ok()?, Timestamp::now()));
        // Read so that the connection can be used again; what it says does not matter.
        let _ = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        if status.is_success() { Outcome::Delivered } else { Outcome::Failed(Failure::Status(status.as_u16()), pause) }
    }
}

/// The target's own query, and then the request's as it came.
fn with_query(url: &str, query: Option<&str>) -> String {
    match query {
        None | Some("") => url.to_owned(),
        Some(query) if url.contains('?') => format!("{url}&{query}"),
        Some(query) => format!("{url}?{query}"),
    }
}

/// `Retry-After`, in seconds or as a time.
fn pause(value: &str, now: Timestamp) -> Option<Duration> {
    match value.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => http_date(value.trim()).map(|at| at.since(now)),
    }
}

/// Such as `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that is still written.
fn http_date(text: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_once(", ")?.1.split(' ');
    let (day, month, year, time) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let month = (1..).zip(MONTHS).find(|(_, name)| *name == month)?.0;
    Timestamp::parse(&format!("{year}-{month:02}-{day}T{time}Z"))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "errors of libraries, which grow")]
fn failure(error: &Error) -> Failure {
    match error {
        Error::Timeout(Timeout::Resolve | Timeout::Connect) | Error::HostNotFound | Error::ConnectionFailed => {
            Failure::Unreachable
        }
        Error::Timeout(_) => Failure::Timeout,
        Error::Tls(_) | Error::Rustls(_) | Error::Pem(_) | Error::TlsRequired => Failure::Tls,
        Error::Other(error) if error.is::<AddressRefused>() => Failure::AddressRefused,
        Error::Http(_) | Error::BadUri(_) => Failure::Unsendable,
        Error::Io(error) => match error.kind() {
            ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::AddrNotAvailable
            | ErrorKind::NotFound => Failure::Unreachable,
            // rustls tells of a certificate that is not valid in an error of I/O.
            ErrorKind::InvalidData => Failure::Tls,
            _ => Failure::Disconnected,
        },
        _ => Failure::Disconnected,
    }
}

/// Lets only addresses through that may be reached: those that are connected to.
#[derive(Debug)]
struct CheckedResolver {
    resolver: DefaultResolver,
    reachable: Arc<Reachable>,
}

#[derive(Debug, thiserror::Error)]
#[error("the address may not be reached")]
struct AddressRefused;

impl Resolver for CheckedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let is_tls = uri.scheme_str() == Some("https");
        let found = self.resolver.resolve(uri, config, timeout)?;
        let mut allowed = self.empty();
        for address in found.iter().filter(|address| self.reachable.takes(address.ip(), is_tls)) {
            allowed.push(*address);
        }
        if allowed.is_empty() { Err(Error::Other(Box::new(AddressRefused))) } else { Ok(allowed) }
    }
}

/// Why a URL cannot be a target; it is not repeated, since its query may hold a key.
pub fn check_url(url: &str, reachable: &Reachable) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|_| "takes a URL that begins with https:// or http://".to_owned())?;
    let is_tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err("takes a URL that begins with https:// or http://".to_owned()),
    };
    let authority = uri.authority().ok_or("names no host")?;
    if authority.as_str().contains('@') {
        return Err("has a user name, which no handler gets: put a key into the path or the query".to_owned());
    }
    if url.contains('#') {
        return Err("has a `#`, which is no part of a request".to_owned());
    }
    let host = authority.host().trim_matches(['[', ']']);
    let address = if host == "localhost" { Some(IpAddr::from([127, 0, 0, 1])) } else { host.parse().ok() };
    match address {
        Some(address) if !reachable.takes(address, is_tls) => {
            Err(format!("names {host}: {}", Reachable::remedy(address)))
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
