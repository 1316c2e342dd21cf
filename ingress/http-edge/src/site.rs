//! Detects requests that a foreign web page makes a browser send.
//!
//! A page of any site can make its visitor's browser send a form to a server on the visitor's own machine, or resolve
//! a name of its own to 127.0.0.1 (DNS rebinding). Browsers reveal this in headers that a page cannot
//! change; other clients send none of them.

use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a browser reports that a page of another site sent this: one that is not on this machine.
pub fn is_cross_site(headers: &HeaderMap) -> bool {
    let is_foreign = |origin: &HeaderValue| {
        let authority =
            origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
        // `null` is the origin of a page that hides its own.
        !authority.is_some_and(is_loopback)
    };
    headers.get_all(SEC_FETCH_SITE).any(|site| site.as_bytes() == b"cross-site")
        || headers.get_all(ORIGIN).any(is_foreign)
}

/// Whether a request addresses this machine by a loopback name, such as `localhost:8081`: in `Host`, and in a
/// target in absolute form.
pub fn asks_for_loopback(request: &HttpRequest) -> bool {
    request.headers().contains_key(HOST) && !asks_for_another(request)
}

/// Whether a request addresses another machine than this one. Without `Host`, as in HTTP/1.0, it addresses none; every
/// browser sends one.
pub fn asks_for_another(request: &HttpRequest) -> bool {
    let is_another = |host: &HeaderValue| !host.to_str().is_ok_and(is_loopback);
    request.headers().get_all(HOST).any(is_another)
        || request.uri().authority().is_some_and(|authority| !is_loopback(authority.as_str()))
}

/// A loopback address or `localhost`, with a port or without.
fn is_loopback(authority: &str) -> bool {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, ""),
    };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse().is_ok_and(|address: IpAddr| address.is_ipv6() && address.to_canonical().is_loopback());
    }
    let address = host.parse().is_ok_and(|address: IpAddr| address.is_ipv4() && address.is_loopback());
    address || host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn names_of_this_machine_are_told_from_all_others() {
        for own in ["localhost", "LOCALHOST:8081", "localhost.:80", "127.0.0.1", "127.9.8.7:1", "[::1]", "[::1]:8081"] {
            assert!(is_loopback(own), "{own}");
        }
        for foreign in [
            "",
            ":80",
            "evil.example",
            "localhost.evil.example",
            "evil-localhost",
            "127.0.0.1.evil.example",
            "127.0.0.1:80:80",
            "127.0.0.1@evil.example",
            "localhost:80@evil.example",
            "0.0.0.0:8081",
            "10.0.0.1",
            "[::]",
            "[::2]:80",
            "::1",
            "[127.0.0.1]",
            "[::1",
            "2130706433",
            "localhost:x",
        ] {
            assert!(!is_loopback(foreign), "{foreign}");
        }
        assert!(is_loopback("[::ffff:127.0.0.1]:80"));
    }

    #[test]
    fn a_page_of_another_site_is_known_by_what_its_browser_says() {
        let is = |headers: &[(&str, &str)]| {
            let request = headers.iter().fold(TestRequest::post(), |request, header| request.append_header(*header));
            is_cross_site(request.to_http_request().headers())
        };
        for own in [
            &[][..],
            &[("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:8080")],
            &[("sec-fetch-site", "same-site"), ("origin", "http://localhost:3000")],
            &[("sec-fetch-site", "none")],
        ] {
            assert!(!is(own), "{own:?}");
        }
        for foreign in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("origin", "https://evil.example")],
            &[("origin", "null")],
            &[("origin", "http://127.0.0.1:80"), ("origin", "http://evil.example")],
            &[("sec-fetch-site", "same-origin"), ("origin", "http://evil.example:8080")],
        ] {
            assert!(is(foreign), "{foreign:?}");
        }
    }

    #[test]
    fn a_name_that_leads_here_is_not_one_of_ours() {
        let asks = |uri: &str, hosts: &[&str]| {
            let request = TestRequest::get().uri(uri);
            let request = hosts.iter().fold(request, |request, host| request.append_header(("host", *host)));
            asks_for_loopback(&request.to_http_request())
        };
        assert!(asks("/", &["127.0.0.1:8081"]));
        assert!(asks("http://localhost:8081/", &["localhost:8081"]));
        assert!(!asks("/", &["rebound.example:8081"]));
        assert!(!asks("/", &[]));
        assert!(!asks("http://rebound.example/", &["127.0.0.1:8081"]));
        assert!(!asks("http://127.0.0.1/", &["rebound.example"]));

        let asks_for_another = |uri: &str, host: Option<&str>| {
            let request = TestRequest::get().uri(uri);
            let request = host.into_iter().fold(request, |request, host| request.append_header(("host", host)));
            asks_for_another(&request.to_http_request())
        };
        assert!(!asks_for_another("/", None));
        assert!(!asks_for_another("/", Some("[::1]:9080")));
        assert!(asks_for_another("/", Some("rebound.example")));
        assert!(asks_for_another("http://rebound.example/", None));
    }
}
