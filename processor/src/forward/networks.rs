//! Which addresses a handler may have: public ones with TLS, and those that the settings name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http_edge::networks::Networks;

/// Names for the networks of this machine, and for those behind a router or of Docker.
const NAMED: [(&str, &[&str]); 2] = [
    ("loopback", &["127.0.0.0/8", "::1"]),
    ("private", &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]),
];

#[derive(Clone, Debug, Default)]
pub struct Reachable(Networks);

impl Reachable {
    /// `loopback`, `private`, and networks, separated by commas; the first text that is none of them is the error.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        let texts = texts.into_iter().flat_map(|text| text.split(',')).map(str::trim).filter(|text| !text.is_empty());
        let named = |text: &'a str| NAMED.iter().find(|(name, _)| *name == text).map(|(_, networks)| *networks);
        let networks = texts.flat_map(|text| named(text).map_or_else(|| vec![text], <[_]>::to_vec));
        Networks::parse(networks).map(Self)
    }

    /// Without TLS only addresses that the settings name: requests carry tokens.
    pub fn takes(&self, address: IpAddr, is_tls: bool) -> bool {
        let address = address.to_canonical();
        self.0.contains(address) || is_tls && is_public(address)
    }

    pub fn remedy(address: IpAddr) -> String {
        let named = NAMED.iter().find(|(_, networks)| {
            Networks::parse(networks.iter().copied()).is_ok_and(|networks| networks.contains(address))
        });
        match named {
            Some((name, _)) => format!("set forward-networks to `{name}` if events may go there"),
            None if is_public(address) => {
                "use https, or set forward-networks to the address if events may go there without TLS".to_owned()
            }
            None => "set forward-networks to the address if events may go there".to_owned(),
        }
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let is_special = match address.octets() {
        [0 | 127 | 240..=255, ..] | [192, 0, 0, _] => true,
        // Shared by providers, and for benchmarks.
        [100, second, ..] => (64..128).contains(&second),
        [198, second, ..] => (18..20).contains(&second),
        _ => false,
    };
    !(is_special
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Global unicast, without documentation and what leads to IPv4 addresses.
    match address.segments() {
        [0x2001, 0 | 0xdb8, ..] | [0x2002, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_public_addresses_are_reached_unless_a_setting_says_more() {
        let none = Reachable::parse([""]).expect("networks");
        for text in ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"] {
            assert!(none.takes(address(text), true) && !none.takes(address(text), false), "{text}");
        }
        for text in [
            "127.0.0.1",
            "10.0.0.1",
            "172.17.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "2001:db8::1",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
        ] {
            assert!(!none.takes(address(text), true), "{text}");
        }
    }

    #[test]
    fn networks_are_named_or_written() {
        let some = Reachable::parse(["loopback, private", "169.254.1.0/24"]).expect("networks");
        for text in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.1.2.3", "172.18.0.2", "fd00::2", "169.254.1.7"] {
            assert!(some.takes(address(text), false), "{text}");
        }
        assert!(!some.takes(address("169.254.169.254"), true));
        assert_eq!(Reachable::parse(["loopback,Private"]).expect_err("wrong"), "Private");
    }

    #[test]
    fn the_remedy_names_the_setting() {
        assert!(Reachable::remedy(address("127.0.0.1")).contains("`loopback`"));
        assert!(Reachable::remedy(address("172.17.0.1")).contains("`private`"));
        assert!(Reachable::remedy(address("169.254.169.254")).contains("to the address"));
        assert!(Reachable::remedy(address("93.184.216.34")).contains("https"));
    }
}
