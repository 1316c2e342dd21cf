//! The settings, the files they name, and the disk.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use runtime::private;
use runtime::settings::Settings;
use rustix::fs::{statfs, statvfs};

use super::SetUp;
use super::public::Public;
use super::report::Report;

const SETTINGS: &str = "settings";
const DATA_DIR: &str = "data-dir";
const DISK: &str = "disk";
/// `/usr/include/linux/magic.h`.
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;
const NETWORK: [(i64, &str); 4] = [(0x6969, "NFS"), (0xff53_4d42, "CIFS"), (0xfe53_4d42, "SMB"), (0x0102_1997, "9p")];
const OVERLAY: i64 = 0x794c_7630;
/// Less than this is used up within hours.
const ROOM_MIN: u64 = 256 * 1024 * 1024;

pub fn check_settings(settings: &Settings, set_up: &SetUp, public: Option<&Public>, report: &mut Report) {
    let before = report.faults();
    for warning in settings.warnings() {
        report.fault(SETTINGS, warning, "see docs/settings.md");
    }
    if let Err(error) = set_up.webhooks.check() {
        report.fault(SETTINGS, format!("{error:#}"), "a start would refuse this");
    }
    let apps = &set_up.webhooks.apps;
    if public.is_some_and(|public| !public.is_on_this_machine()) {
        if apps.is_empty() {
            let found = "no app is named, so that any name is taken, also a mistyped one";
            report.fault(SETTINGS, found, "set apps, for example `--apps crm-sync`");
        }
        let open: Vec<_> =
            apps.iter().filter(|(_, app)| app.path_key.is_none()).map(|(name, _)| name.as_str()).collect();
        if !open.is_empty() {
            let found = format!("{} can be called with no secret in the URL", open.join(", "));
            report.fault(SETTINGS, found, "set path-key in the app's table, or path-keys-dir");
        }
    }
    if report.faults() == before {
        let apps = match apps.len() {
            0 => "any app on this machine".to_owned(),
            1 => "1 app".to_owned(),
            more => format!("{more} apps"),
        };
        let form = if set_up.kafka.is_some() { "the cluster form" } else { "the standalone form" };
        report.sound(SETTINGS, format!("of {form}, {apps}"));
    }
}

pub fn check_data_dir(set_up: &SetUp, report: &mut Report) {
    let dir = &set_up.data_dir;
    let shown = dir.display();
    let found = match fs::metadata(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            report.note(DATA_DIR, format!("{shown} is not there yet; the first start makes it"));
            return;
        }
        Err(error) => {
            report.fault(DATA_DIR, format!("{shown} cannot be read: {error}"), "let the user of the programs own it");
            return;
        }
        Ok(found) => found,
    };
    if !found.is_dir() {
        report.fault(DATA_DIR, format!("{shown} is no directory"), "set data-dir");
        return;
    }
    match open_to_others(dir) {
        Some(open) => {
            report.fault(
                DATA_DIR,
                format!("others may read or change {open}, where tokens lie"),
                format!("chmod -R go= {open}"),
            );
        }
        None => match write_and_sync(dir) {
            Err(error) => {
                report.fault(DATA_DIR, format!("{shown} cannot be written: {error}"), "see its owner, mode and mount");
            }
            Ok(()) => report.sound(DATA_DIR, format!("{shown} can be written, by its owner alone")),
        },
    }
    check_disk(dir, set_up, report);
}

/// `data-dir` itself may be read by others, but what lies in it is ours.
fn open_to_others(dir: &Path) -> Option<String> {
    let is_open = |path: &Path, mode: u32| fs::metadata(path).is_ok_and(|found| found.mode() & mode != 0);
    let ours = ["ingress", "logs", "processor", "vault.key"].map(|name| dir.join(name));
    let open = ours.iter().find(|path| is_open(path, 0o077));
    let open = open.map(PathBuf::as_path).or_else(|| is_open(dir, 0o022).then_some(dir));
    open.map(|path| path.display().to_string())
}

fn write_and_sync(dir: &Path) -> std::io::Result<()> {
    let path = dir.join(format!(".doctor-{}", std::process::id()));
    let written = private::file().create_new(true).open(&path).and_then(|mut file| {
        file.write_all(b"hookledger doctor")?;
        file.sync_all()
    });
    // What could not be made is not there.
    let _ = fs::remove_file(&path);
    written
}

fn check_disk(dir: &Path, set_up: &SetUp, report: &mut Report) {
    let (Ok(kind), Ok(room)) = (statfs(dir).map(|found| found.f_type), statvfs(dir)) else {
        report.skipped(DISK, "the file system does not say how large it is");
        return;
    };
    let network = NETWORK.iter().find(|(magic, _)| *magic == kind);
    if kind == TMPFS || kind == RAMFS {
        report.fault(DISK, "data-dir lies in memory: a restart of the machine loses it", "take a directory on a disk");
    }
    if let Some((_, name)) = network {
        let found = format!("data-dir lies on {name}, which does not keep the promises of a local disk");
        report.fault(DISK, found, "take a local disk; its block device may be remote");
    }
    if kind == OVERLAY {
        report
            .note(DISK, "data-dir lies in the layer of a container: it goes with the container unless it is a volume");
    }
    let free = room.f_bavail * room.f_frsize;
    let shown = ByteSize::b(free).display().iec();
    // A standalone stops at what its disk has room for; its limit is the disk.
    if set_up.kafka.is_some() && free < set_up.disk_log_bytes_max.min(room.f_blocks * room.f_frsize / 4) {
        let limit = ByteSize::b(set_up.disk_log_bytes_max).display().iec();
        let found = format!("{shown} are free where disk-log-limit is {limit}");
        report.fault(DISK, found, "make room, or lower disk-log-limit: it is what an outage of Kafka has");
    } else if free < ROOM_MIN {
        report.fault(DISK, format!("only {shown} are free"), "make room: without it webhooks are refused");
    } else if network.is_none() && kind != TMPFS && kind != RAMFS {
        report.sound(DISK, format!("{shown} are free"));
    }
}
