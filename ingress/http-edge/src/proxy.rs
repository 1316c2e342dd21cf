//! The PROXY protocol, version 2: a header with the client's address, before anything else.
//!
//! <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>, section 2.2. Version 1, which is text, is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family, and the length of the rest.
pub const FIXED_BYTES: usize = 16;
/// Addresses and optional fields; proxies add some hundred bytes about TLS.
const REST_BYTES_MAX: usize = 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the client's own bytes begin.
    pub length: usize,
    /// None where the proxy speaks for itself, as its health checks do.
    pub source: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no header of the PROXY protocol, version 2, for TCP")]
pub struct Malformed;

/// The header at the beginning of these bytes; `None` if more bytes are needed.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let begun = bytes.len().min(SIGNATURE.len());
    if bytes[..begun] != SIGNATURE[..begun] {
        return Err(Malformed);
    }
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let rest_bytes = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if rest_bytes > REST_BYTES_MAX {
        return Err(Malformed);
    }
    let (command, family) = (fixed[12], fixed[13]);
    let speaks_for_another = match command {
        0x20 => false,
        0x21 => true,
        _ => return Err(Malformed),
    };
    let Some(rest) = rest.get(..rest_bytes) else { return Ok(None) };
    let source = match (speaks_for_another, family) {
        // The addresses must be ignored then.
        (false, _) | (true, 0x00) => None,
        (true, 0x11) => Some(ipv4(rest).ok_or(Malformed)?),
        (true, 0x21) => Some(ipv6(rest).ok_or(Malformed)?),
        (true, _) => return Err(Malformed),
    };
    Ok(Some(Header { length: FIXED_BYTES + rest_bytes, source }))
}

/// The length of the whole header, from its fixed part, up to the limit of [`parse`].
pub fn whole_bytes(fixed: &[u8]) -> usize {
    let rest_bytes =
        fixed.get(14..FIXED_BYTES).map_or(0, |length| usize::from(length[0]) << 8 | usize::from(length[1]));
    FIXED_BYTES + rest_bytes.min(REST_BYTES_MAX)
}

/// Source address, destination address, source port, destination port.
fn ipv4(rest: &[u8]) -> Option<SocketAddr> {
    let (address, rest) = rest.split_first_chunk::<4>()?;
    Some(SocketAddr::new(Ipv4Addr::from(*address).into(), port(rest, 4)?))
}

fn ipv6(rest: &[u8]) -> Option<SocketAddr> {
    let (address, rest) = rest.split_first_chunk::<16>()?;
    Some(SocketAddr::new(IpAddr::from(Ipv6Addr::from(*address)).to_canonical(), port(rest, 16)?))
}

/// The first of two ports behind the destination address; both must be present.
fn port(rest: &[u8], address_bytes: usize) -> Option<u16> {
    let (source, rest) = rest.get(address_bytes..)?.split_first_chunk::<2>()?;
    (rest.len() >= 2).then(|| u16::from_be_bytes(*source))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FOR_ANOTHER: u8 = 0x21;

    /// A header as a proxy sends it.
    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    fn source(bytes: &[u8]) -> Result<Option<SocketAddr>, Malformed> {
        parse(bytes).map(|header| header.expect("a whole header").source)
    }

    const TCP4: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 1, 0x30, 0x39, 0, 80];

    #[test]
    fn the_client_is_who_the_proxy_speaks_for() {
        assert_eq!(source(&header(FOR_ANOTHER, 0x11, &TCP4)), Ok(Some(([203, 0, 113, 7], 12_345).into())));
        let six = [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9][..], &[0; 16], &[0, 80, 0, 81]].concat();
        assert_eq!(source(&header(FOR_ANOTHER, 0x21, &six)), Ok(Some("[2001:db8::9]:80".parse().expect("an address"))));
    }

    #[test]
    fn what_stands_behind_the_addresses_is_skipped() {
        let longer = [&TCP4[..], &[0x04, 0, 2, 1, 2]].concat();
        let bytes = [header(FOR_ANOTHER, 0x11, &longer), b"POST".to_vec()].concat();
        let parsed = parse(&bytes).expect("a header").expect("the whole of it");
        assert_eq!((&bytes[parsed.length..], parsed.source.is_some()), (&b"POST"[..], true));
    }

    #[test]
    fn a_proxy_may_speak_for_itself() {
        for (command, family) in [(0x20, 0x00), (0x20, 0x11), (FOR_ANOTHER, 0x00)] {
            assert_eq!(source(&header(command, family, &[])), Ok(None), "{command:#x} {family:#x}");
        }
    }

    #[test]
    fn what_is_no_header_is_refused_at_its_first_wrong_byte() {
        for bytes in [
            &b"G"[..],
            b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 80\r\n",
            b"\r\n\r\n\0\r\nQUIT\r",
            &header(0x11, 0x11, &TCP4),
            &header(FOR_ANOTHER, 0x12, &TCP4),
            &header(FOR_ANOTHER, 0x31, &[0; 216]),
            &header(FOR_ANOTHER, 0x11, &TCP4[..11]),
            &header(FOR_ANOTHER, 0x21, &TCP4),
            &header(FOR_ANOTHER, 0x11, &[0; REST_BYTES_MAX + 1]),
        ] {
            assert_eq!(parse(bytes), Err(Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn a_beginning_of_a_header_asks_for_more() {
        let whole = header(FOR_ANOTHER, 0x11, &TCP4);
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), Ok(None), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_behind_the_signature_mean_something(rest in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = [&SIGNATURE[..], &rest].concat();
            if let Ok(Some(header)) = parse(&bytes) {
                prop_assert!(header.length <= bytes.len());
            }
        }
    }
}
