//! Names of settings: every one that any program knows, and the nearest to one that none does.

use super::SettingsError;

pub(super) const PREFIX: &str = "HOOKLEDGER_";

/// Every name that some program reads from the environment or a file. Programs of one machine share
/// both, so a name of another program is no error.
pub(super) const ANYWHERE: &[&str] = &[
    "admin-listen",
    "adopt-after",
    "adopt-dirs",
    "apps",
    "body-limit",
    "body-timeout",
    "config",
    "connections-limit",
    "data-dir",
    "disk-log-limit",
    "endpoint-hosts",
    "events-retention",
    "feed-answer-limit",
    "feed-readers-limit",
    "feed-stream-timeout",
    "forward-networks",
    "forward-parallel",
    "forward-park-after",
    "forward-since",
    "forward-timeout",
    "forward-to",
    "forward-to-file",
    "group",
    "head-timeout",
    "hold",
    "idle-timeout",
    "ingress-listen",
    "instance-id",
    "junk-bytes-per-minute",
    "junk-bytes-per-minute-per-source",
    "junk-per-minute",
    "junk-per-minute-per-source",
    "kafka",
    "kafka-deadline",
    "kafka-set",
    "kafka-set-file",
    "keep",
    "large-request-bytes-per-second",
    "log-format",
    "partitions",
    "path-keys-dir",
    "proxy-protocol",
    "query",
    "query-connections-limit",
    "query-idle-timeout",
    "query-listen",
    "query-token",
    "query-token-file",
    "query-tokens",
    "query-tokens-file",
    "raw-retention",
    "replication",
    "request-memory-limit",
    "seal-key-file",
    "source-check",
    "source-list",
    "source-refresh",
    "stop-notice",
    "tls-cert-file",
    "tls-key-file",
    "topic-prefix",
    "trusted-proxies",
    "untrusted-installations-limit",
    "unverified-limit",
    "vault-key",
    "vault-key-file",
    "vouch-budget",
    "vouch-servers",
];

/// An error for an unknown name, with the nearest known one.
pub(super) fn unknown<S: AsRef<str>>(place: &str, name: &str, known: &[S]) -> SettingsError {
    let letters = name.strip_prefix(PREFIX).unwrap_or(name).len();
    let nearest = known.iter().map(|known| (distance(name, known.as_ref()), known.as_ref())).min();
    match nearest {
        Some((steps, nearest)) if steps * 3 <= letters => {
            SettingsError(format!("unknown setting {place}: {name}; did you mean {nearest}?"))
        }
        _ => SettingsError(format!("unknown setting {place}: {name}")),
    }
}

/// The number of letters to add, remove or change.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, a) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (index, b) in other.bytes().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[index + 1];
            row[index + 1] = changed.min(diagonal + 1).min(row[index] + 1);
        }
    }
    row[other.len()]
}
