//! `processor --check-config`, as an operator runs it.

use std::fs;
use std::process::Command;

use processor::run::identity::Identity;

#[test]
fn settings_are_checked_beside_a_running_processor_and_nothing_is_made() {
    let data = tempfile::tempdir().expect("a directory");
    let checked = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_processor"));
        command.args(["--check-config", "--kafka", "127.0.0.1:1", "--data-dir"]).arg(data.path()).args(more);
        let ended = command.output().expect("run the processor");
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    assert_eq!(checked(&[]), (Some(0), String::new()));
    assert_eq!(fs::read_dir(data.path()).expect("the directory").count(), 0);
    let _running = Identity::take(&data.path().join("processor"), None).expect("taken");
    assert_eq!(checked(&[]), (Some(0), String::new()));
    let (code, said) = checked(&["--query-tokens", "short"]);
    assert!(code == Some(2) && said.contains("query-tokens: token 1"), "{code:?}: {said}");
}
