//! Limits of connections, which bound memory and descriptors under any load.

use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Files that the process needs besides connections: logs, brokers, event loops.
const OTHER_FILES: u64 = 256;
/// Beyond the limit a worker accepts a quarter more connections, and its share of this number: connections to be closed
/// coexist with the new ones that replace them.
const ARRIVING_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The time for a head, with everything before it.
    pub head_timeout: Duration,
    pub body_timeout: Duration,
    /// The time between two requests.
    pub idle_timeout: Duration,
    pub connections_max: usize,
    /// The memory of all bodies, beyond the part that each connection includes.
    pub request_bytes_max: usize,
    /// The rate of reading large requests, in total; none is unlimited.
    pub large_bytes_per_second: Option<u64>,
}

impl Limits {
    /// A worker's share. Each share has room for one body.
    pub(crate) fn share(&self, workers: usize, body_bytes_max: usize) -> Self {
        Self {
            connections_max: self.connections_max.div_ceil(workers),
            request_bytes_max: (self.request_bytes_max / workers).max(body_bytes_max),
            large_bytes_per_second: self.large_bytes_per_second.map(|rate| rate.div_ceil(workers as u64)),
            ..*self
        }
    }

    /// The most connections that are accepted at a time.
    pub(crate) fn accepted_max(&self) -> usize {
        self.connections_max + self.connections_max / 4 + ARRIVING_MAX
    }
}

/// Raises the limit of open files for the connections of all ports, or lowers the limits of connections: a connection
/// beyond the system's limit would hang instead of replacing an idle one, and one port would take what another needs.
///
/// The first port matters most: where there are too few files for all, each of the others gets a quarter of
/// the rest at most.
pub fn fit_open_files(ports: &mut [&mut Limits]) {
    let wanted: Vec<u64> = ports.iter().map(|limits| limits.accepted_max() as u64).collect();
    let all = wanted.iter().sum::<u64>() + OTHER_FILES;
    let mut files = getrlimit(Resource::Nofile);
    let hard = files.maximum.unwrap_or(u64::MAX);
    if files.current.is_some_and(|current| current < all) {
        files.current = Some(all.min(hard));
        // If this is refused, the present limit counts.
        let _ = setrlimit(Resource::Nofile, files);
    }
    let open_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if open_max >= all {
        return;
    }
    let left = open_max.saturating_sub(OTHER_FILES).max(open_max / 2);
    for (limits, share) in ports.iter_mut().zip(shares(&wanted, left)) {
        limits.connections_max = limits.connections_max.min(connections(share));
    }
    let fewer: Vec<usize> = ports.iter().map(|limits| limits.connections_max).collect();
    tracing::warn!(
        open_max,
        wanted = all,
        "the system lets this process open {open_max} files, so fewer connections are accepted than set: {fewer:?}; \
         raise the limit of open files (LimitNOFILE, ulimit -n) to {all}"
    );
}

fn shares(wanted: &[u64], mut left: u64) -> Vec<u64> {
    let mut shares = vec![0; wanted.len()];
    for (number, (share, wanted)) in shares.iter_mut().zip(wanted).enumerate().rev() {
        *share = if number == 0 { left } else { (left / 4).min(*wanted) };
        left -= *share;
    }
    shares
}

/// The most connections with this many files.
fn connections(files: u64) -> usize {
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    (files.saturating_sub(ARRIVING_MAX) / 5 * 4).max(1)
}

#[cfg(test)]
impl Default for Limits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(5),
            connections_max: 64,
            request_bytes_max: 1024 * 1024,
            large_bytes_per_second: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn where_there_are_too_few_files_the_first_port_gets_most_and_the_last_keeps_some() {
        assert_eq!(shares(&[2_576, 336, 96], 800), [528, 176, 96]);
        assert_eq!(shares(&[2_576, 336, 96], 100), [57, 18, 25]);
        assert_eq!(shares(&[336, 96], 200), [150, 50]);
        assert_eq!(shares(&[2_576, 100_000, 96], 4_000), [2_928, 976, 96], "a port that wants much does not take it");
    }

    proptest! {
        #[test]
        fn ports_never_open_more_files_than_they_were_given(wanted in prop::collection::vec(1_u64..1_000_000, 1..4), left in 128_u64..2_000_000) {
            let shares = shares(&wanted, left);
            prop_assert_eq!(shares.iter().sum::<u64>(), left);
            for share in shares {
                let limits = Limits { connections_max: connections(share), ..Limits::default() };
                prop_assert!(limits.connections_max == 1 || limits.accepted_max() as u64 <= share);
            }
        }
    }
}
