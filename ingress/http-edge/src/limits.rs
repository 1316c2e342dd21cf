//! What connections may do, all together and each: with these, memory and descriptors are bounded whoever comes.

use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Files that the process needs besides connections: logs, brokers, what threads wait with.
const OTHER_FILES: u64 = 256;
/// Beyond the limit a worker accepts a quarter more connections, and its part of so many: those that have to go are still there
/// when those come for which they go.
const ARRIVING_MAX: usize = 16;

/// What the connections of a port may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a head may take, with all that comes before it.
    pub head_timeout: Duration,
    /// How long a body may take.
    pub body_timeout: Duration,
    /// How long a connection may idle between two requests.
    pub idle_timeout: Duration,
    /// How many there may be at a time.
    pub connections_max: usize,
    /// What bodies may take of memory in all, beyond the beginning of each that has its place anyway.
    pub request_bytes_max: usize,
    /// How fast large requests are read, all together; none: as fast as they come.
    pub large_bytes_per_second: Option<u64>,
}

impl Limits {
    /// A share of what is for all. One body has its place in every share.
    pub(crate) fn share(&self, workers: usize, body_bytes_max: usize) -> Self {
        Self {
            connections_max: self.connections_max.div_ceil(workers),
            request_bytes_max: (self.request_bytes_max / workers).max(body_bytes_max),
            large_bytes_per_second: self.large_bytes_per_second.map(|rate| rate.div_ceil(workers as u64)),
            ..*self
        }
    }

    /// How many connections are accepted at a time.
    pub(crate) fn accepted_max(&self) -> usize {
        self.connections_max + self.connections_max / 4 + ARRIVING_MAX
    }
}

/// Makes room for as many open files as the connections of all ports of this process need together, or takes fewer
/// connections: a connection beyond what the system lets us open would hang instead of pushing aside one that idles, and
/// one port would take what another needs.
///
/// The first port is the one that matters most: where there is too little for all, each of the others gets a quarter of
/// what is left at most.
pub fn fit_open_files(ports: &mut [&mut Limits]) {
    let wanted: Vec<u64> = ports.iter().map(|limits| limits.accepted_max() as u64).collect();
    let all = wanted.iter().sum::<u64>() + OTHER_FILES;
    let mut files = getrlimit(Resource::Nofile);
    let hard = files.maximum.unwrap_or(u64::MAX);
    if files.current.is_some_and(|current| current < all) {
        files.current = Some(all.min(hard));
        // Where this is refused, what is there is counted.
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
        "the system lets this process open {open_max} files, so fewer connections are taken at a time than the \
         settings say: {fewer:?}; raise the limit of open files (LimitNOFILE, ulimit -n) to {all}"
    );
}

/// What each port gets of so many files.
fn shares(wanted: &[u64], mut left: u64) -> Vec<u64> {
    let mut shares = vec![0; wanted.len()];
    for (number, (share, wanted)) in shares.iter_mut().zip(wanted).enumerate().rev() {
        *share = if number == 0 { left } else { (left / 4).min(*wanted) };
        left -= *share;
    }
    shares
}

/// How many connections a port may have with so many files.
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
