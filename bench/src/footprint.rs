//! The memory and the disk that a program takes.

use std::fs;
use std::io;
use std::path::Path;

/// The most memory that a process has had at one time; none where the system has no `/proc`, or the process is gone.
pub fn peak_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(peak.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The bytes that a folder takes on the disk, as `du` counts them.
pub fn disk_bytes(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { allocated(&metadata) };
    }
    Ok(bytes)
}

#[cfg(unix)]
fn allocated(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(not(unix))]
fn allocated(metadata: &fs::Metadata) -> u64 {
    metadata.len()
}

/// Megabytes, for a table.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_of_memory_grows_with_what_is_held() {
        let before = peak_bytes(std::process::id()).expect("Linux has /proc");
        let held = std::hint::black_box(vec![1_u8; 64 * 1024 * 1024]);
        let after = peak_bytes(std::process::id()).expect("Linux has /proc");
        assert!(after >= before + 32 * 1024 * 1024, "{before}, then {after} with {} more", held.len());
    }

    #[test]
    fn a_folder_takes_what_its_files_take_however_deep() {
        let folder = tempfile::tempdir().expect("a directory");
        let deep = folder.path().join("a/b");
        fs::create_dir_all(&deep).expect("folders");
        assert_eq!(disk_bytes(folder.path()).expect("readable"), 0);
        let file = fs::File::create(deep.join("file")).expect("a file");
        io::Write::write_all(&mut &file, &vec![1; 100_000]).expect("written");
        file.sync_all().expect("synced");
        assert!(disk_bytes(folder.path()).expect("readable") >= 100_000);
    }
}
