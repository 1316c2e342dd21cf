//! The proxies that are trusted with the address of a client.

use std::net::{IpAddr, SocketAddr};

use runtime::settings::{Settings, SettingsError};

use http_edge::networks::Networks;

#[derive(Clone, Debug, Default)]
pub struct Proxies(Networks);

impl Proxies {
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let given = settings.all("trusted-proxies");
        let texts = given.iter().flat_map(|texts| texts.split(',')).map(str::trim).filter(|text| !text.is_empty());
        let wrong = |text: &str| {
            let what = "an address, or a network such as `10.0.0.0/8`";
            SettingsError(format!("trusted-proxies has `{text}`, but it takes {what}, separated by commas"))
        };
        Networks::parse(texts).map(Self::new).map_err(wrong)
    }

    pub fn new(networks: Networks) -> Self {
        Self(networks)
    }

    pub fn networks(&self) -> &Networks {
        &self.0
    }

    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.0.contains(peer)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sender of a request: the peer, unless it is a trusted proxy; then the last address in `X-Forwarded-For`
    /// that is not a trusted proxy.
    ///
    /// Each proxy appends to the list that it received, so the list is read from its end, and everything before the
    /// first untrusted address is unverified. An unreadable entry ends the list too: then its proxy is the sender.
    /// Several lines are one list.
    pub fn client(&self, peer: IpAddr, forwarded: &[&[u8]]) -> IpAddr {
        let mut client = peer.to_canonical();
        let entries = forwarded.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
        for entry in entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()) {
            if !self.trusts(client) {
                break;
            }
            let Some(before) = address(entry) else { break };
            client = before;
        }
        client
    }
}

/// As proxies write it: alone, in brackets, with a port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let alone = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match alone {
        Some(inside) => IpAddr::V6(inside.parse().ok()?),
        None => text.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip())).ok()?,
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROXY: [u8; 4] = [10, 0, 0, 1];

    fn proxies(texts: &[&str]) -> Proxies {
        Proxies::new(Networks::parse(texts.iter().copied()).expect("networks"))
    }

    /// Who it is behind proxies in `10.0.0.0/8` and `fd00::/8`.
    fn check(peer: &str, forwarded: &[&str], expected: &str) {
        let lines: Vec<_> = forwarded.iter().map(|line| line.as_bytes()).collect();
        let client = proxies(&["10.0.0.0/8", "fd00::/8"]).client(peer.parse().expect("an address"), &lines);
        assert_eq!(client.to_string(), expected, "{peer} says {forwarded:?}");
    }

    #[test]
    fn a_stranger_is_not_trusted() {
        check("203.0.113.9", &[], "203.0.113.9");
        check("203.0.113.9", &["3.217.33.54"], "203.0.113.9");
        check("::ffff:203.0.113.9", &["10.0.0.1"], "203.0.113.9");
        check("2001:db8::1", &["10.0.0.1, 10.0.0.2"], "2001:db8::1");
    }

    #[test]
    fn a_proxy_is_trusted_with_who_connected_to_it_and_about_nothing_that_it_was_told() {
        check("10.0.0.1", &["3.217.33.54"], "3.217.33.54");
        check("::ffff:10.0.0.1", &["3.217.33.54"], "3.217.33.54");
        check("10.0.0.1", &["1.1.1.1, 3.217.33.54"], "3.217.33.54");
        check("10.0.0.1", &["10.0.0.9, 3.217.33.54"], "3.217.33.54");
        check("10.0.0.1", &["1.1.1.1, 3.217.33.54, 10.0.0.2,fd00::7"], "3.217.33.54");
    }

    #[test]
    fn several_lines_are_one_list_and_empty_entries_are_none() {
        check("10.0.0.1", &["3.217.33.54", "10.0.0.3", "10.0.0.2"], "3.217.33.54");
        check("10.0.0.1", &["1.1.1.1", " , 3.217.33.54 ,, ", ""], "3.217.33.54");
        check("10.0.0.1", &[""], "10.0.0.1");
    }

    #[test]
    fn where_all_are_proxies_it_is_the_farthest() {
        check("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3");
        check("10.0.0.1", &[], "10.0.0.1");
    }

    #[test]
    fn what_cannot_be_read_ends_the_list() {
        for odd in [
            "unknown",
            "_hidden",
            "300.1.1.1",
            "1.1.1.1:x",
            "[1.1.1.1]",
            "[::1",
            "fe80::1%eth0",
            "\"1.1.1.1\"",
            "1.1.1.1 2.2.2.2",
        ] {
            check("10.0.0.1", &[&format!("3.217.33.54, {odd}")], "10.0.0.1");
            check("10.0.0.1", &[&format!("3.217.33.54, {odd}, 10.0.0.2")], "10.0.0.2");
            check("10.0.0.1", &[&format!("{odd}, 3.217.33.54")], "3.217.33.54");
        }
        let client = proxies(&["10.0.0.0/8"]).client(PROXY.into(), &[b"3.217.33.54, \xff"]);
        assert_eq!(client, IpAddr::from(PROXY));
    }

    #[test]
    fn addresses_are_read_as_proxies_write_them() {
        check("10.0.0.1", &["3.217.33.54:41000"], "3.217.33.54");
        check("10.0.0.1", &["2001:DB8::1"], "2001:db8::1");
        check("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1");
        check("10.0.0.1", &["[2001:db8::1]:443"], "2001:db8::1");
        check("10.0.0.1", &["::ffff:3.217.33.54"], "3.217.33.54");
        check("10.0.0.1", &["3.217.33.54, [::ffff:10.0.0.7]:80"], "3.217.33.54");
    }

    proptest! {
        #[test]
        fn any_bytes_name_somebody_and_a_stranger_names_nobody(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..4),
            peer in any::<[u8; 4]>(),
        ) {
            let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
            let proxies = proxies(&["10.0.0.0/8"]);
            proxies.client(PROXY.into(), &lines);
            if !proxies.trusts(peer.into()) {
                prop_assert_eq!(proxies.client(peer.into(), &lines), IpAddr::from(peer));
            }
        }

        #[test]
        fn whatever_a_client_sends_it_is_known_by_where_it_connected(
            given in "[0-9a-f:., \\[\\]]{0,60}", client in any::<[u8; 4]>(), hops in 0_u8..4,
        ) {
            let proxies = proxies(&["10.0.0.0/8"]);
            prop_assume!(!proxies.trusts(client.into()));
            // The first proxy writes the client behind the given list, each further one the proxy before it.
            let mut list = format!("{given}, {}", IpAddr::from(client));
            for hop in 0..hops {
                list = format!("{list}, 10.0.1.{hop}");
            }
            prop_assert_eq!(proxies.client(PROXY.into(), &[list.as_bytes()]), IpAddr::from(client));
        }
    }
}
