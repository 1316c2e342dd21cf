//! Apache Kafka's jars, fetched once with Maven and kept in the user's cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use fs4::fs_std::FileExt;

const VERSION: &str = "4.3.1";

/// Within the cache's folder.
const JARS: &str = "libs";

const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>hookledger</groupId>
  <artifactId>test-kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>VERSION</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>VERSION</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"#;

/// The folder with all jars; fetches them if nobody has. Processes that ask at the same time wait for each other.
pub fn fetch() -> anyhow::Result<PathBuf> {
    let folder = folder()?;
    let parent = folder.parent().context("the cache has a parent")?;
    fs::create_dir_all(parent).context("make the cache")?;
    let lock = File::create(parent.join(format!("kafka-{VERSION}.lock"))).context("open the cache's lock")?;
    lock.lock_exclusive().context("lock the cache")?;
    let jars = folder.join(JARS);
    if !jars.is_dir() {
        let fresh = tempfile::tempdir_in(parent).context("make a folder for jars")?;
        download(fresh.path())?;
        // All of it or nothing: a rename cannot be interrupted.
        fs::rename(fresh.keep(), &folder).context("put the jars into the cache")?;
    }
    Ok(jars)
}

/// Whether nothing needs to be fetched.
pub fn cached() -> bool {
    folder().is_ok_and(|folder| folder.join(JARS).is_dir())
}

/// Whether a command is there.
pub fn runs(command: &str, argument: &str) -> bool {
    let quiet = Command::new(command).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

fn folder() -> anyhow::Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(cache.join("hookledger-test").join(format!("kafka-{VERSION}")))
}

fn download(folder: &Path) -> anyhow::Result<()> {
    fs::write(folder.join("pom.xml"), POM.replace("VERSION", VERSION)).context("write pom.xml")?;
    let maven = Command::new("mvn")
        .args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={JARS}"))
        .current_dir(folder)
        .output()
        .context("start mvn")?;
    let said = String::from_utf8_lossy(&maven.stdout);
    ensure!(maven.status.success(), "mvn could not fetch Kafka {VERSION}: {said}");
    Ok(())
}
