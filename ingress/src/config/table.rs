//! The table of settings.

use runtime::settings::{KAFKA, PROCESS, Setting, TRUSTED_PROXIES, admin_listen};

/// Settings of webhooks, in every form of Hookledger.
pub const WEBHOOKS: &[Setting] = &[
    Setting::new("ingress-listen")
        .default("127.0.0.1:8080")
        .help("The address for webhooks, the only port that faces the internet."),
    Setting::new("hold").switch().help(
        "A small parent holds the socket for webhooks: SIGHUP to it restarts the server without refusing a \
               connection.",
    ),
    Setting::new("idle-timeout")
        .default("5s")
        .help("The idle timeout between two requests; longer than that of a proxy in front."),
    Setting::new("stop-notice")
        .default("0s")
        .help("At shutdown, how long `/readyz` fails before connections are closed; for proxies that check it."),
    Setting::new("head-timeout").default("5s").help("The timeout of a request's head, with everything before it."),
    Setting::new("body-timeout").default("10s").help("The timeout of a request's body."),
    Setting::new("body-limit").default("512KiB").help("Larger bodies are refused."),
    Setting::new("connections-limit")
        .default("2048")
        .help("The most connections at a time; beyond it, the longest idle one is closed."),
    Setting::new("request-memory-limit")
        .default("64MiB")
        .help("The memory of all bodies, beyond 8KiB for each; beyond it, the slowest body is refused."),
    Setting::new("large-request-bytes-per-second")
        .default("8MiB")
        .help("The rate of reading requests beyond 4KiB of each, in total; small ones never wait. Or `off`."),
    Setting::new("proxy-protocol")
        .default("off")
        .help("`v2`: every connection begins with the PROXY protocol, from trusted-proxies only; or `off`."),
    Setting::new("tls-cert-file")
        .help("The certificate chain as PEM, for TLS on ingress-listen; read again when it changes."),
    Setting::new("tls-key-file").help("The certificate's private key as PEM."),
    TRUSTED_PROXIES,
    Setting::new("path-keys-dir")
        .help("A directory with a file for each app, by its name, that holds the secret last segment of its URL."),
    Setting::new("source-check").default("off").help(
        "What happens to senders that are not in the source list: `off`, `observe` (counted) or `enforce` \
               (refused).",
    ),
    Setting::new("source-list")
        .repeated()
        .default("https://dl.bitrix24.com/webhook/app-world.json")
        .help("Files and URLs with the addresses that Bitrix24 sends from: its JSON, or an address or network a line."),
    Setting::new("source-refresh")
        .default("5m")
        .help("How often the source list is read again; a file also when it changes."),
    Setting::new("junk-per-minute")
        .default("600")
        .help("The number of refused bodies that are kept in a minute; further ones are only counted."),
    Setting::new("junk-per-minute-per-source").default("60").help("The same from one address, with IPv6 from one /64."),
    Setting::new("junk-bytes-per-minute")
        .default("1MiB")
        .help("The bytes of refused bodies that are kept in a minute."),
    Setting::new("junk-bytes-per-minute-per-source")
        .default("256KiB")
        .help("The same from one address, with IPv6 from one /64."),
];

/// Settings of the cluster form only.
const KEEPING: &[Setting] = &[
    Setting::new("keep").default("kafka").help(
        "`kafka`: acknowledged by Kafka, or by the disk log after the deadline; `disk`: by the disk log first, always.",
    ),
    Setting::new("kafka-deadline")
        .default("300ms")
        .help("How long Kafka's acknowledgement is awaited before the disk log takes the event."),
    Setting::new("disk-log-limit")
        .default("8GiB")
        .help("The size of the disk log; beyond it, and with Kafka down, webhooks are refused."),
    Setting::new("adopt-dirs").repeated().help(
        "Data directories of other ingresses, to send their events to Kafka when they stay away. The own one \
               may be among them.",
    ),
    Setting::new("adopt-after")
        .default("2m")
        .help("How long such a directory must be without an owner before it is adopted."),
];

pub fn table() -> Vec<Setting> {
    [&[admin_listen("127.0.0.1:9080")][..], WEBHOOKS, KEEPING, KAFKA, PROCESS].concat()
}
