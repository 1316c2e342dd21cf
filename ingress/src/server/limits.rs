//! What connections may do, all together and each: with these, memory is bounded whoever comes.

use std::time::Duration;

use common::settings::{Settings, SettingsError};
use rustix::process::{Resource, getrlimit, setrlimit};

/// A restart waits for as long as a connection may idle.
const IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// Longer than this nobody sends a head or a body, whatever the line.
const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// More connections than this are a slip of the pen.
const CONNECTIONS_MAX: u32 = 1_000_000;
/// Files that the process needs besides connections: logs, brokers, the admin server.
const OTHER_FILES: u64 = 256;

/// What a connection may do.
#[derive(Clone, Copy, Debug)]
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
}

impl Limits {
    /// Reads what the settings say.
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let wait = |name: &str, most: Duration, shown: &str| match settings.duration(name)? {
            wait if wait.is_zero() || wait > most => {
                Err(SettingsError(format!("{name} is more than nothing and at most {shown}")))
            }
            wait => Ok(wait),
        };
        let connections = settings.number("connections-limit")?.unwrap_or_default();
        if connections == 0 || connections > CONNECTIONS_MAX {
            return Err(SettingsError("connections-limit is a number from 1 to 1000000".into()));
        }
        let request_memory = settings.size("request-memory-limit")?;
        let too_much = || SettingsError("request-memory-limit is more than this machine can address".into());
        Ok(Self {
            head_timeout: wait("head-timeout", REQUEST_TIMEOUT_MAX, "10m")?,
            body_timeout: wait("body-timeout", REQUEST_TIMEOUT_MAX, "10m")?,
            idle_timeout: wait("idle-timeout", IDLE_TIMEOUT_MAX, "10m")?,
            connections_max: usize::try_from(connections).map_err(|_| too_much())?,
            request_bytes_max: usize::try_from(request_memory).map_err(|_| too_much())?,
        })
    }

    /// A share of what is for all. One body has its place in every share.
    pub(super) fn share(&self, workers: usize, body_bytes_max: usize) -> Self {
        Self {
            connections_max: self.connections_max.div_ceil(workers),
            request_bytes_max: (self.request_bytes_max / workers).max(body_bytes_max),
            ..*self
        }
    }

    /// Makes room for as many open files as the connections need, or takes fewer connections: who came
    /// beyond what the system lets us open would hang instead of pushing aside who idles.
    pub(super) fn fit_open_files(&mut self) {
        let wanted = self.connections_max as u64 + OTHER_FILES;
        let mut files = getrlimit(Resource::Nofile);
        let hard = files.maximum.unwrap_or(u64::MAX);
        if files.current.is_some_and(|current| current < wanted) {
            files.current = Some(wanted.min(hard));
            // Where this is refused, what is there is counted.
            let _ = setrlimit(Resource::Nofile, files);
        }
        let open_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        if open_max < wanted {
            let fewer = open_max.saturating_sub(OTHER_FILES).max(open_max / 2).max(1);
            self.connections_max = usize::try_from(fewer).unwrap_or(self.connections_max);
            tracing::warn!(
                open_max,
                wanted,
                "the system lets this process open {open_max} files, so only {fewer} connections are taken at a time \
                 instead of connections-limit; raise the limit of open files (LimitNOFILE, ulimit -n) to {wanted}"
            );
        }
    }
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
        }
    }
}
