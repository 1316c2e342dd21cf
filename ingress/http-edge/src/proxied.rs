//! Whether a request came through a proxy: evidence that more than this machine reaches a port on loopback.

use actix_web::http::header::{FORWARDED, HeaderMap, HeaderName, VIA, X_FORWARDED_FOR};

/// Headers of forwarded requests. Every proxy adds one of these by default.
const HEADERS: [HeaderName; 4] = [FORWARDED, X_FORWARDED_FOR, HeaderName::from_static("x-real-ip"), VIA];

/// A client can add them itself, and harms only itself.
pub fn is_proxied(headers: &HeaderMap) -> bool {
    HEADERS.iter().any(|name| headers.contains_key(name))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn each_header_of_a_proxy_is_evidence_and_a_clients_own_are_none() {
        let headers = |name: &str| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            HeaderMap::from_iter([(name, HeaderValue::from_static("x"))])
        };
        for name in ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"] {
            assert!(is_proxied(&headers(name)), "{name}");
        }
        for name in ["Host", "User-Agent", "X-Forwarded-Proto-Version", "Traceparent"] {
            assert!(!is_proxied(&headers(name)), "{name}");
        }
    }
}
