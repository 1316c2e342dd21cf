//! The PROXY protocol, version 2: what stands before a connection's own bytes.

use http_edge::proxy::{FIXED_BYTES, parse, whole_bytes};

use crate::input::Input;

/// More of the header is asked for, until it is there as a whole; then it is the same however much follows. What is
/// none is none from its first wrong byte on.
pub fn proxy(data: &[u8]) {
    check(data);
    check(&made(&mut Input(data)));
}

fn check(bytes: &[u8]) {
    let whole = parse(bytes);
    if let Ok(Some(header)) = whole {
        assert!((FIXED_BYTES..=bytes.len()).contains(&header.length), "{header:?} of {} bytes", bytes.len());
        assert_eq!(header.length, whole_bytes(bytes));
        assert!(header.source.is_none_or(|source| source.ip() == source.ip().to_canonical()));
        assert_eq!(parse(&[&bytes[..header.length], b"POST"].concat()), whole);
    }
    let mut was_wrong = false;
    // Bytes behind the header are the client's.
    let end = whole.ok().flatten().map_or(bytes.len(), |header| header.length).min(FIXED_BYTES + 64);
    for length in 0..end {
        let begun = parse(&bytes[..length]);
        was_wrong |= begun.is_err();
        assert_eq!(begun.is_err(), was_wrong, "wrong at first, good with more");
        assert!(!was_wrong || whole.is_err(), "wrong at first, good with more");
        assert!(!matches!(begun, Ok(Some(_))), "a header is whole before its end");
    }
}

/// A header whose parts the input decides.
fn made(input: &mut Input<'_>) -> Vec<u8> {
    let (command, family) = (input.byte(), input.byte());
    let command = [0x20, 0x21, 0x21, 0x21, command][usize::from(command) % 5];
    let family = [0x00, 0x11, 0x21, family][usize::from(family) % 4];
    let announced = u16::from(input.byte()) << 8 | u16::from(input.byte());
    let rest = input.0;
    let length = if announced > 4_096 { u16::try_from(rest.len()).unwrap_or(u16::MAX) } else { announced };
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length.to_be_bytes(), rest].concat()
}
