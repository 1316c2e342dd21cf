use super::*;
use std::os::unix::fs::symlink;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
}

fn dir_of(dir: &Path, mode: u32) {
    fs::create_dir(dir).expect("made");
    set_mode(dir, mode);
}

#[test]
fn what_is_made_is_its_owners_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let deep = dir.path().join("a/b");
    make_dir(&deep).expect("made");
    write(&deep.join("file"), "secret").expect("written");
    lock_file(&deep.join("lock")).expect("made");
    assert_eq!([deep.parent().expect("a"), &deep].map(mode), [0o700; 2]);
    assert_eq!([deep.join("file"), deep.join("lock")].map(|file| mode(&file)), [0o600; 2]);
}

#[test]
fn a_link_in_the_place_of_a_lock_is_refused_and_its_target_stays_as_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let (target, lock) = (dir.path().join("target"), dir.path().join("lock"));
    fs::write(&target, "theirs").expect("written");
    symlink(&target, &lock).expect("a link");
    assert!(lock_file(&lock).is_err() && open_no_follow(&lock).is_err() && write(&lock, "ours").is_err());
    assert_eq!(fs::read(&target).expect("read"), b"theirs");
    // Nor is one made where a link points.
    fs::remove_file(&target).expect("removed");
    assert!(lock_file(&lock).is_err() && !target.exists());
}

#[test]
fn directories_that_others_could_read_are_tightened_and_what_is_not_ours_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    dir_of(&data, 0o755);
    dir_of(&data.join("ingress"), 0o2775);
    dir_of(&data.join("processor"), 0o700);
    tighten(&data);
    assert_eq!(
        [data.clone(), data.join("ingress"), data.join("processor")].map(|dir| mode(&dir)),
        [0o700, 0o2700, 0o700]
    );

    // One that is shared with others stays open, what is ours in it does not.
    set_mode(&data, 0o755);
    set_mode(&data.join("ingress"), 0o755);
    dir_of(&data.join("other"), 0o755);
    symlink(data.join("other"), data.join("logs")).expect("a link");
    tighten(&data);
    assert_eq!([data.clone(), data.join("ingress"), data.join("other")].map(|dir| mode(&dir)), [0o755, 0o700, 0o755]);
    tighten(&dir.path().join("nothing"));
}

#[test]
fn files_below_our_directories_are_tightened_and_links_are_not_followed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, theirs) = (dir.path().join("data"), dir.path().join("theirs"));
    let (log, state) = (data.join("logs/raw"), data.join("processor/state"));
    for open in [&data, &data.join("logs"), &log, &data.join("processor"), &state, &theirs] {
        dir_of(open, 0o755);
    }
    let files = [log.join("0.log"), log.join("lock"), state.join("db"), theirs.join("file")];
    for file in &files {
        fs::write(file, "secret").expect("written");
        set_mode(file, 0o644);
    }
    symlink(&theirs, state.join("link")).expect("a link");
    symlink(theirs.join("file"), log.join("link")).expect("a link");
    tighten(&data);
    assert_eq!([&log, &state, &theirs].map(|dir| mode(dir)), [0o700, 0o700, 0o755]);
    assert_eq!(files.map(|file| mode(&file)), [0o600, 0o600, 0o600, 0o644]);
}

#[test]
fn a_secret_that_others_may_read_is_told_with_the_remedy() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("tokens");
    write(&file, "secret").expect("written");
    assert_eq!(exposed(&file), None);
    for open in [0o644, 0o640, 0o604] {
        set_mode(&file, open);
        let why = exposed(&file).expect("others may read it");
        assert!(why.contains(&format!("chmod 600 {}", file.display())) && !why.contains("secret\n"), "{why}");
    }
    assert_eq!(exposed(&dir.path().join("nothing")), None);
}
