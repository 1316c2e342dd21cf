//! Endpoints of a portal. An app sends its tokens to the endpoints of a record, so a record shows only those that
//! belong to the portal or to Bitrix24, and those that an operator listed.

use core::net::IpAddr;

use crate::{Profile, ProfileField};

/// The token servers of Bitrix24: worldwide, and for Russia.
const AUTHORISATION_SERVERS: [&str; 2] = ["oauth.bitrix.info", "oauth.bitrix24.tech"];

/// The domains under which Bitrix24 itself runs portals. One portal may appear under two of them.
const CLOUD: [&str; 2] = [".bitrix24.com", ".bitrix24.ru"];

/// Hosts that endpoints may have besides the portal's own and Bitrix24's: a setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointHosts(Vec<String>);

impl EndpointHosts {
    pub(crate) const NONE: &'static Self = &Self(Vec::new());

    /// Parses a host name, or `*.` and a domain for all hosts below it.
    pub fn host(text: &str) -> Option<String> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let is_name = !name.contains(':') && !name.starts_with('.') && !name.contains('*');
        (is_name && self::is_address(name)).then(|| text.to_lowercase())
    }

    /// `hosts` must come from [`host`](Self::host).
    pub fn new(hosts: Vec<String>) -> Self {
        Self(hosts)
    }

    /// Removes endpoints that must not receive tokens, and adds them to `omitted`.
    pub(crate) fn judge(&self, profile: &mut Profile) {
        let domain = profile.domain.as_deref().map(name);
        let fits_portal = |host: &str| domain.as_deref().is_some_and(|domain| is_same_portal(host, domain));
        // Facts of an older interpretation hold endpoints as received.
        let fitting = |url: &str, fits: &dyn Fn(&str) -> bool| {
            cut(url).filter(|url| host(url).map(name).is_some_and(|host| fits(&host) || self.has(&host)))
        };
        if let Some(url) = profile.client_endpoint.take() {
            profile.client_endpoint = fitting(&url, &fits_portal);
            if profile.client_endpoint.is_none() {
                profile.omitted.insert(ProfileField::ClientEndpoint);
            }
        }
        if let Some(url) = profile.server_endpoint.take() {
            profile.server_endpoint = fitting(&url, &is_authorisation_server);
            if profile.server_endpoint.is_none() {
                profile.omitted.insert(ProfileField::ServerEndpoint);
            }
        }
    }

    fn has(&self, host: &str) -> bool {
        self.0.iter().any(|known| match known.strip_prefix('*') {
            Some(below) => host.ends_with(below),
            None => host == known,
        })
    }
}

/// An endpoint without user, password, query and fragment, which may hold secrets. `None` if it is not an HTTP URL.
pub(crate) fn cut(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once(':')?;
    let rest = rest.strip_prefix("//")?;
    if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    let end = rest.bytes().position(|byte| matches!(byte, b'?' | b'#'));
    let rest = &rest[..end.unwrap_or(rest.len())];
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    // Some clients read a backslash as a slash, which would change the host.
    (is_address(address) && !rest.contains('\\')).then(|| [scheme, "://", address, path].concat())
}

/// The host of an endpoint, including the port.
pub(crate) fn host(url: &str) -> Option<&str> {
    url.split_once("://")?.1.split('/').next().filter(|host| !host.is_empty())
}

/// Whether a text is a host name with an optional port.
pub(crate) fn is_address(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
    let is_bad = |sign: char| {
        matches!(sign, '/' | '\\' | '?' | '#' | '@' | '&' | '=' | '%' | '"' | '\'' | '<' | '>')
            || sign.is_whitespace()
            || sign.is_control()
    };
    !text.is_empty() && (text.bytes().all(is_plain) || !text.chars().any(is_bad))
}

pub(crate) fn is_authorisation_server(address: &str) -> bool {
    AUTHORISATION_SERVERS.contains(&name(address).as_str())
}

/// Whether an address is reached from its own network only.
pub(crate) fn is_private(address: &str) -> bool {
    let name = name(address);
    match name.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified(),
        Ok(IpAddr::V6(ip)) => {
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified()
        }
        Err(_) => {
            name == "localhost" || [".localhost", ".local", ".internal", ".lan"].iter().any(|end| name.ends_with(end))
        }
    }
}

/// The host name of an address in lower case, without the port.
fn name(address: &str) -> String {
    let name = match address.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => address,
    };
    name.to_lowercase()
}

/// Whether two addresses belong to one portal.
pub(crate) fn is_of_portal(one: &str, other: &str) -> bool {
    is_same_portal(&name(one), &name(other))
}

/// Whether two names belong to one portal: equal, or the same subdomain under two of Bitrix24's domains.
fn is_same_portal(one: &str, other: &str) -> bool {
    let portal = |name: &str| CLOUD.iter().find_map(|cloud| name.strip_suffix(cloud)).map(str::to_owned);
    one == other || portal(one).is_some_and(|one| portal(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(domain: &str, client: &str, server: &str, hosts: &[&str]) -> (bool, bool) {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut profile = Profile {
            domain: some(domain),
            client_endpoint: some(client),
            server_endpoint: some(server),
            ..Profile::default()
        };
        let hosts = hosts.iter().map(|host| EndpointHosts::host(host).expect("a host")).collect();
        EndpointHosts::new(hosts).judge(&mut profile);
        assert_eq!(profile.client_endpoint.is_none(), profile.omitted.contains(&ProfileField::ClientEndpoint));
        assert_eq!(
            profile.server_endpoint.is_none() && !server.is_empty(),
            profile.omitted.contains(&ProfileField::ServerEndpoint)
        );
        let shown = [&profile.client_endpoint, &profile.server_endpoint];
        assert!(shown.into_iter().flatten().all(|url| !url.contains(['?', '@'])));
        (profile.client_endpoint.is_some(), profile.server_endpoint.is_some())
    }

    #[test]
    fn user_password_query_and_fragment_are_cut() {
        for (url, kept) in [
            ("https://some.bitrix24.com/rest/", Some("https://some.bitrix24.com/rest/")),
            ("https://u:p@some.bitrix24.com/rest/?auth=t#x", Some("https://some.bitrix24.com/rest/")),
            ("https://a@b@some.bitrix24.com", Some("https://some.bitrix24.com")),
            ("https://box.example:8443/rest/?x", Some("https://box.example:8443/rest/")),
            ("https://some.bitrix24.com?auth=t@evil.example/", Some("https://some.bitrix24.com")),
            ("HTTPS://Some.bitrix24.com/rest/", Some("HTTPS://Some.bitrix24.com/rest/")),
            ("https://some.bitrix24.com\\@evil.example/", None),
            ("https://evil.example\\.bitrix24.com/", None),
            ("https://some.bitrix24.com/\\x", None),
            ("https:///rest/", None),
            ("https://u:p@/rest/", None),
            ("ftp://some.bitrix24.com/", None),
            ("//u:p@some.bitrix24.com/", None),
            ("some.bitrix24.com", None),
        ] {
            assert_eq!(cut(url).as_deref(), kept, "{url}");
        }
    }

    #[test]
    fn endpoints_are_shown_where_they_are_the_portals_or_bitrix24s() {
        let (own, server) = ("https://some.bitrix24.com/rest/", "https://oauth.bitrix.info/rest/");
        assert_eq!(judged("some.bitrix24.com", own, server, &[]), (true, true));
        assert_eq!(judged("Some.Bitrix24.com", own, "https://oauth.bitrix24.tech/rest/", &[]), (true, true));
        assert_eq!(judged("some.bitrix24.com", "https://u:p@some.bitrix24.com/rest/?auth=t", "", &[]), (true, false));
        assert_eq!(judged("some.bitrix24.ru", own, server, &[]), (true, true));
        assert_eq!(judged("box.example:8443", "https://box.example/rest/", server, &[]), (true, true));
        for other in ["https://evil.example/", "https://some.bitrix24.com.evil.example/", "https://x.bitrix24.com/"] {
            assert_eq!(judged("some.bitrix24.com", other, other, &[]), (false, false), "{other}");
        }
        // The token server receives the app's secret: the portal's own value is not enough.
        assert_eq!(judged("evil.example", "https://evil.example/", "https://evil.example/", &[]), (true, false));
        assert_eq!(judged("", own, server, &[]), (false, true));
    }

    #[test]
    fn an_operator_names_others() {
        let (api, renews) = ("https://api.box.example/rest/", "https://oauth.box.example/rest/");
        assert_eq!(judged("box.example", api, renews, &[]), (false, false));
        assert_eq!(judged("box.example", api, renews, &["API.box.example"]), (true, false));
        assert_eq!(judged("box.example", api, renews, &["*.box.example"]), (true, true));
        assert_eq!(judged("x", "https://evilbox.example/", "https://box.example/", &["*.box.example"]), (false, false));
        for wrong in ["", "*", "*.", "https://box.example", "box.example:8443", "a b", "*.*.example", ".example"] {
            assert_eq!(EndpointHosts::host(wrong), None, "{wrong}");
        }
    }
}
