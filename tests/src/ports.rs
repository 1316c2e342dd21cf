//! Ports that stay ours while what listens on them is down.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::TcpListener;

/// Below what the system gives to outgoing connections: a client that tries a dead port of that range again and
/// again is connected to itself in the end, and what was there cannot come back.
const PORTS: std::ops::Range<u64> = 12_000..30_000;

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free() -> u16 {
    let mut tries = std::iter::repeat_with(|| RandomState::new().build_hasher().finish());
    let port = tries.by_ref().take(1_000).find_map(|random| {
        let port = u16::try_from(PORTS.start + random % (PORTS.end - PORTS.start)).expect("a port");
        TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
    });
    port.expect("one of a thousand ports is free")
}
