//! Copies the sources of `domain`, and puts each deliberate bug beside the code that it replaces.

use std::fs;
use std::path::Path;

use table::MUTATIONS;

#[path = "src/table.rs"]
mod table;

fn main() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-changed=src/table.rs");
    let out = std::env::var("OUT_DIR").expect("Cargo sets it");
    copy(&sources, Path::new(&out), "");
}

/// `within` is the folder below the sources, with a slash behind it.
fn copy(from: &Path, to: &Path, within: &str) {
    fs::create_dir_all(to).expect("make a folder");
    for entry in fs::read_dir(from).expect("the sources") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("UTF-8");
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &to.join(&name), &format!("{within}{name}/"));
            continue;
        }
        let source = fs::read_to_string(entry.path()).expect("UTF-8");
        fs::write(to.join(&name), mutated(&format!("{within}{name}"), source)).expect("write a source");
    }
}

fn mutated(file: &str, mut source: String) -> String {
    // An included file has no documentation of its own.
    source = source.lines().filter(|line| !line.starts_with("//!")).map(|line| format!("{line}\n")).collect();
    // Its unit tests run in `domain`.
    source = source.replace("#[cfg(test)]", "#[cfg(any())]");
    for mutation in MUTATIONS {
        for (_, code, bug) in mutation.changes.iter().filter(|(of, ..)| *of == file) {
            assert_eq!(source.matches(code).count(), 1, "{}: once in {file}: {code}", mutation.name);
            let bug = bug.replace("BUG", &format!("crate::mutation::is({:?})", mutation.name));
            source = source.replacen(code, &bug, 1);
        }
    }
    source
}
