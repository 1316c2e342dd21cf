//! A set of networks with a fast lookup. An IPv4 address in IPv6 form (`::ffff:10.0.0.1`) counts as IPv4.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// Sorted, without overlaps.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// From addresses and networks such as `10.0.0.0/8`; the first text that is neither is the error.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        let networks: Vec<_> = texts.into_iter().map(|text| network(text).ok_or(text)).collect::<Result<_, _>>()?;
        // Sorted, and without those that lie in others.
        Ok(Self(IpNet::aggregate(&networks)))
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let behind = self.0.partition_point(|network| network.network() <= address);
        behind > 0 && self.0[behind - 1].contains(&address)
    }

    /// Adjacent networks count as one.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(ToString::to_string)).finish()
    }
}

fn network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse().ok()?,
    };
    Some(match network {
        IpNet::V6(mapped) if mapped.prefix_len() >= 96 && is_mapped(mapped.network()) => {
            let address = mapped.network().to_ipv4_mapped()?;
            IpNet::V4(Ipv4Net::new(address, mapped.prefix_len() - 96).ok()?.trunc())
        }
        IpNet::V4(_) | IpNet::V6(_) => network.trunc(),
    })
}

fn is_mapped(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(networks: &[&str], inside: &[&str], outside: &[&str]) {
        let networks = Networks::parse(networks.iter().copied()).expect("networks");
        let address = |text: &&str| text.parse::<IpAddr>().expect("an address");
        for text in inside {
            assert!(networks.contains(address(text)), "{text} is in {networks:?}");
        }
        for text in outside {
            assert!(!networks.contains(address(text)), "{text} is not in {networks:?}");
        }
    }

    #[test]
    fn an_address_is_in_its_network_and_in_no_other() {
        let networks = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7", "2001:db8::/32", "::1"];
        check(
            &networks,
            &["10.0.0.0", "10.1.2.3", "10.255.255.255", "192.0.2.7", "::ffff:10.0.0.1", "2001:db8:1::", "::1"],
            &["9.255.255.255", "11.0.0.0", "192.0.2.6", "192.0.2.8", "2001:db9::", "::2", "::a00:1", "0.0.0.0"],
        );
        check(&[], &[], &["10.0.0.1", "::1"]);
    }

    #[test]
    fn an_ipv4_network_that_is_written_as_ipv6_is_the_ipv4_network() {
        check(&["::ffff:10.0.0.0/104"], &["10.1.2.3", "::ffff:10.1.2.3"], &["11.0.0.1"]);
        check(&["::ffff:10.0.0.1"], &["10.0.0.1"], &["10.0.0.2"]);
        // Bits of the host do not matter.
        check(&["10.1.2.3/8"], &["10.9.9.9"], &["11.1.2.3"]);
    }

    #[test]
    fn everybody_is_in_the_networks_of_everybody() {
        check(&["0.0.0.0/0"], &["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"], &["::1"]);
        check(&["::/0", "0.0.0.0/0"], &["1.2.3.4", "::", "ffff::"], &[]);
    }

    #[test]
    fn what_is_no_network_is_told() {
        for wrong in ["", "10.0.0.0/33", "10.0.0", "example.org", "10.0.0.1:80", "10.0.0.0/8 ", "::/129", "1/1/1"] {
            assert_eq!(Networks::parse(["10.0.0.1", wrong]), Err(wrong));
        }
    }

    proptest! {
        #[test]
        fn a_set_contains_what_one_of_its_networks_contains(
            networks in prop::collection::vec((any::<[u8; 4]>(), 0_u8..=32), 0..20),
            address in any::<[u8; 4]>(),
        ) {
            // Few bits, so that networks overlap and addresses hit.
            let few = |address: [u8; 4]| address.map(|byte| byte & 0xc0);
            let bits = |address: [u8; 4]| u64::from(u32::from_be_bytes(few(address)));
            let texts: Vec<_> =
                networks.iter().map(|(at, long)| format!("{}/{long}", IpAddr::from(few(*at)))).collect();
            let set = Networks::parse(texts.iter().map(String::as_str)).expect("networks");
            let expected = networks.iter().any(|(at, long)| bits(*at) >> (32 - long) == bits(address) >> (32 - long));
            prop_assert_eq!(set.contains(few(address).into()), expected);
        }
    }
}
