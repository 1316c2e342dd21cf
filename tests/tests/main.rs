//! All that is tested from outside, in one program: a file for each thing that can happen to the system.

mod answers;
mod broker;
mod clients;
mod cloudevents;
mod cluster_of_brokers;
mod crashes;
mod disk;
mod doctor;
mod drain;
mod every_port;
mod feed;
mod fleet;
mod forward;
mod full;
mod histories;
mod inconsistency;
mod kafka_faults;
mod kept;
mod kills;
mod metrics;
mod page;
mod pair;
mod path_keys;
mod payloads;
mod processor_faults;
mod proxied;
mod rebuilt;
mod rejected;
mod reports;
mod restarts;
mod room;
mod secrets;
mod senders;
mod sizes;
mod standalone;
mod start;
mod systemd;
mod topics;
mod trust;
mod truth;
mod vault;
mod vouch;

/// Programs of their own: see Cargo.toml.
const ALONE: [&str; 3] = ["attacks", "stranger", "tls"];

#[test]
fn every_file_here_is_run() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for entry in std::fs::read_dir(here).expect("this folder") {
        let name = entry.expect("a file").file_name().into_string().expect("UTF-8");
        let name = name.strip_suffix(".rs").expect("nothing but Rust");
        let is_run = include_str!("main.rs").lines().any(|line| line == format!("mod {name};"));
        assert!(is_run || name == "main" || ALONE.contains(&name), "{name}.rs is in no program");
    }
}
