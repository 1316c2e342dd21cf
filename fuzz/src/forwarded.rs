//! `X-Forwarded-For`: the clients that proxies name, and what strangers write into it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;

use ingress::admission::proxies::Proxies;
use runtime::settings::read;

use crate::input::Input;

/// A stranger is itself, whatever it says. Behind a proxy it is the client that the last of them names; what stands before
/// that in the list changes nothing, and how it is spread over lines does not either.
pub fn forwarded(data: &[u8]) {
    let mut input = Input(data);
    let (peer, prefix) = (peer(&mut input), usize::from(input.byte()));
    let before = input.take(prefix);
    let lines: Vec<&[u8]> = input.0.split(|byte| *byte == b'\n').collect();
    let proxies = proxies();
    let client = proxies.client(peer, &lines);

    assert_eq!(client, client.to_canonical());
    assert!(proxies.trusts(peer.to_canonical()) || client == peer.to_canonical(), "a stranger was trusted");
    assert_eq!(client, proxies.client(peer, &[&lines.join(&b',')]), "as one line");
    if !proxies.trusts(client) {
        let forged: Vec<&[u8]> = [before].into_iter().chain(lines.iter().copied()).collect();
        assert_eq!(client, proxies.client(peer, &forged), "what a stranger wrote was trusted");
    }
    let text = String::from_utf8_lossy(input.0);
    let named = text.split([',', '\n']).filter_map(|entry| address(entry.trim_ascii()));
    assert!(client == peer.to_canonical() || named.into_iter().any(|named| named == client), "{client} was not named");
}

/// `10.0.0.0/8` and `fd00::/8`.
fn proxies() -> &'static Proxies {
    static PROXIES: OnceLock<Proxies> = OnceLock::new();
    PROXIES.get_or_init(|| {
        let args = ["ingress", "--trusted-proxies", "10.0.0.0/8,fd00::/8"].map(Into::into);
        let settings = read("ingress", "", &ingress::config::table(), args, &|_| None, []).expect("settings");
        Proxies::read(&settings).expect("networks")
    })
}

fn peer(input: &mut Input<'_>) -> IpAddr {
    let (kind, number) = (input.byte(), input.number().to_le_bytes());
    let [a, b, c, d, ..] = number;
    let four = Ipv4Addr::new(a, b, c, d);
    match kind % 4 {
        0 => Ipv4Addr::new(10, b, c, d).into(),
        1 => four.into(),
        2 => four.to_ipv6_mapped().into(),
        _ => Ipv6Addr::from(u128::from(u64::from_le_bytes(number)) | 0xfd << 120).into(),
    }
}

/// As a person would read it: an address, perhaps in brackets with a zone, perhaps with a port.
fn address(entry: &str) -> Option<IpAddr> {
    let without_port = entry.rsplit_once(':').map_or(entry, |(address, _)| address);
    let candidates = [entry, without_port];
    let bare = candidates.iter().map(|text| text.trim_start_matches('[').trim_end_matches(']'));
    let bare = bare.map(|text| text.split_once('%').map_or(text, |(address, _)| address));
    bare.filter_map(|text| text.parse::<IpAddr>().ok()).map(|address| address.to_canonical()).next()
}
