//! What systemd says to our units, and our listener to systemd's own way of handing over a socket.

use std::fs::{self, DirEntry};
use std::io;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use tests::cluster::Names;
use tests::http::{Client, FORM};
use tests::kafka;
use tests::process::{Program, UP_WITHIN, path};
use tests::wait::{eventually, not_run};

/// Systemd would wait for longer.
const HEARD_WITHIN: Duration = Duration::from_secs(30);

/// Of what `systemd-analyze security` finds a service to be exposed to, in tenths: what needs the network comes to 12.
const EXPOSURE_MAX: &str = "15";

#[test]
fn systemd_finds_no_fault_in_our_units() {
    let test = "systemd_finds_no_fault_in_our_units";
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return not_run(test, "needs systemd-analyze, of the Debian package systemd");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let files = units(directory.path());
    let services: Vec<_> = files.iter().filter(|file| file.extension().is_some_and(|kind| kind == "service")).collect();
    assert_eq!((files.len(), services.len()), (5, 3), "{files:?}");

    let said = Command::new("systemd-analyze").arg("verify").args(&files).output().expect("start systemd-analyze");
    let complaints = String::from_utf8_lossy(&said.stderr);
    let ours: Vec<_> = complaints.lines().filter(|line| line.contains("hookledger")).collect();
    assert!(said.status.success() && ours.is_empty(), "{complaints}");

    for service in services {
        let threshold = format!("--threshold={EXPOSURE_MAX}");
        let mut analyze = Command::new("systemd-analyze");
        let said = analyze.args(["security", "--offline=true", &threshold]).arg(service).output();
        let said = said.expect("start systemd-analyze");
        let table = String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success(), "{} may do more than it must:\n{table}", service.display());
    }
}

/// Copies of our units that start what was built here.
fn units(directory: &Path) -> Vec<PathBuf> {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    let copy = |entry: io::Result<DirEntry>| {
        let entry = entry.expect("a unit");
        let mut unit = fs::read_to_string(entry.path()).expect("a unit");
        for (name, program) in
            [("ingress", Program::Ingress), ("processor", Program::Processor), ("hookledger", Program::Hookledger)]
        {
            unit = unit.replace(&format!("/usr/local/bin/{name} "), &format!("{} ", path(program).display()));
        }
        assert!(!unit.contains("/usr/local/bin"), "{unit}");
        let file = directory.join(entry.file_name());
        fs::write(&file, unit).expect("a copy");
        file
    };
    fs::read_dir(units).expect("our units").map(copy).collect()
}

#[test]
fn a_socket_that_systemd_itself_hands_over_is_taken_and_systemd_hears_of_it() {
    let test = "a_socket_that_systemd_itself_hands_over_is_taken_and_systemd_hears_of_it";
    if Command::new("systemd-socket-activate").arg("--version").output().is_err() {
        return not_run(test, "needs systemd-socket-activate, of the Debian package systemd");
    }
    let Some(servers) = kafka::shared(test) else { return };
    let names = Names::new(servers);
    let mut ingress = names.start(Program::Ingress, "ingress", &[]);
    ingress.terminate();
    let address = ingress.address("webhooks");

    let notify = names.directory.path().join("notify");
    let systemd = UnixDatagram::bind(&notify).expect("a socket");
    systemd.set_read_timeout(Some(HEARD_WITHIN)).expect("a time-out");
    let activated = names.directory.path().join("activated");
    let script = format!(
        "#!/bin/sh\nNOTIFY_SOCKET={} exec systemd-socket-activate --listen={address} --setenv=NOTIFY_SOCKET {} \"$@\"\n",
        notify.display(),
        path(Program::Ingress).display(),
    );
    fs::write(&activated, script).expect("a script");
    fs::set_permissions(&activated, fs::Permissions::from_mode(0o755)).expect("make it a program");
    ingress.run_from(&activated);

    // The program is started by the first who connects, and this one is answered by it.
    let first = thread::spawn(move || {
        eventually(UP_WITHIN, "systemd listens", || TcpStream::connect(address).ok());
        Client::new(address).post("/v1/events/one", FORM, b"event=ONAPPTEST&member_id=m").expect("an answer").status
    });
    ingress.restart();
    assert_eq!(first.join().expect("no panic"), 200);
    let mut heard = [0; 32];
    let length = systemd.recv(&mut heard).expect("systemd is told");
    assert_eq!(&heard[..length], b"READY=1");
}

#[test]
fn what_a_port_may_be_used_for_is_decided_by_the_socket_that_is_handed_over() {
    let Some(servers) = kafka::shared("what_a_port_may_be_used_for_is_decided_by_the_socket_that_is_handed_over")
    else {
        return;
    };
    let names = Names::new(servers);
    let mut ingress = names.start(Program::Ingress, "ingress", &[]);
    ingress.terminate();
    // The settings say loopback, where any app is taken. On all addresses they have to be named.
    ingress.hold(std::net::TcpListener::bind("0.0.0.0:0").expect("a socket"));
    ingress.restart_without_waiting();
    let ended = eventually(UP_WITHIN, "ingress ends", || ingress.ended());
    assert_eq!(ended.code(), Some(1));
    assert!(ingress.logs().contains("so the apps must be named"), "{}", ingress.logs());
}
