//! The table of settings.

use runtime::settings::{KAFKA, PROCESS, Setting, TRUSTED_PROXIES, admin_listen};

/// Settings of webhooks, in every form of Hookledger.
pub const WEBHOOKS: &[Setting] = &[
    Setting::new("ingress-listen", "The address for webhooks, the only port that faces the internet.")
        .default("127.0.0.1:8080"),
    Setting::new(
        "hold",
        "A small parent holds the socket for webhooks: SIGHUP to it restarts the server without refusing a \
               connection.",
    )
    .switch(),
    Setting::new("idle-timeout", "The idle timeout between two requests; longer than that of a proxy in front.")
        .default("5s"),
    Setting::new(
        "stop-notice",
        "At shutdown, how long `/readyz` fails before connections are closed; for proxies that check it.",
    )
    .default("0s"),
    Setting::new("head-timeout", "The timeout of a request's head, with everything before it.").default("5s"),
    Setting::new("body-timeout", "The timeout of a request's body.").default("10s"),
    Setting::new("body-limit", "Larger bodies are refused.").default("512KiB"),
    Setting::new("connections-limit", "The most connections at a time; beyond it, the longest idle one is closed.")
        .default("2048"),
    Setting::new(
        "request-memory-limit",
        "The memory of all bodies, beyond 8KiB for each; beyond it, the slowest body is refused.",
    )
    .default("64MiB"),
    Setting::new(
        "large-request-bytes-per-second",
        "The rate of reading requests beyond 4KiB of each, in total; small ones never wait. Or `off`.",
    )
    .default("8MiB"),
    Setting::new(
        "proxy-protocol",
        "`v2`: every connection begins with the PROXY protocol, from trusted-proxies only; or `off`.",
    )
    .default("off"),
    Setting::new(
        "tls-cert-file",
        "The certificate chain as PEM, for TLS on ingress-listen; read again when it changes.",
    ),
    Setting::new("tls-key-file", "The certificate's private key as PEM."),
    TRUSTED_PROXIES,
    Setting::new(
        "path-keys-dir",
        "A directory with a file for each app, by its name, that holds the secret last segment of its URL.",
    ),
    Setting::new(
        "source-check",
        "What happens to senders that are not in the source list: `off`, `observe` (counted) or `enforce` \
               (refused).",
    )
    .default("off"),
    Setting::new(
        "source-list",
        "Files and URLs with the addresses that Bitrix24 sends from: its JSON, or an address or network a line.",
    )
    .repeated()
    .default("https://dl.bitrix24.com/webhook/app-world.json"),
    Setting::new("source-refresh", "How often the source list is read again; a file also when it changes.")
        .default("5m"),
    Setting::new(
        "junk-per-minute",
        "The number of refused bodies that are kept in a minute; further ones are only counted.",
    )
    .default("600"),
    Setting::new("junk-per-minute-per-source", "The same from one address, with IPv6 from one /64.").default("60"),
    Setting::new("junk-bytes-per-minute", "The bytes of refused bodies that are kept in a minute.").default("1MiB"),
    Setting::new("junk-bytes-per-minute-per-source", "The same from one address, with IPv6 from one /64.")
        .default("256KiB"),
];

/// Settings of the cluster form only.
const KEEPING: &[Setting] = &[
    Setting::new(
        "keep",
        "`kafka`: acknowledged by Kafka, or by the disk log after the deadline; `disk`: by the disk log first, always.",
    )
    .default("kafka"),
    Setting::new("kafka-deadline", "How long Kafka's acknowledgement is awaited before the disk log takes the event.")
        .default("300ms"),
    Setting::new("disk-log-limit", "The size of the disk log; beyond it, and with Kafka down, webhooks are refused.")
        .default("8GiB"),
    Setting::new(
        "adopt-dirs",
        "Data directories of other ingresses, to send their events to Kafka when they stay away. The own one \
               may be among them.",
    )
    .repeated(),
    Setting::new("adopt-after", "How long such a directory must be without an owner before it is adopted.")
        .default("2m"),
];

pub fn table() -> Vec<Setting> {
    [&[admin_listen("127.0.0.1:9080")][..], WEBHOOKS, KEEPING, KAFKA, PROCESS].concat()
}
