//! What subscribers with the official SDKs of `CloudEvents` read from our topics.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use serde_json::{Value, json};

use crate::cache::{self, runs, succeeds};
use crate::cluster::Names;
use crate::topics::{Found, Isolation};
use crate::wait::{not_run, report};

pub const DERIVED: [&str; 6] = ["facts", "events", "unverified", "installations", "permissions", "rejected"];

const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>hookledger</groupId>
  <artifactId>test-cloudevents</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>io.cloudevents</groupId><artifactId>cloudevents-kafka</artifactId><version>4.0.1</version></dependency>
    <dependency><groupId>io.cloudevents</groupId><artifactId>cloudevents-json-jackson</artifactId><version>4.0.1</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-clients</artifactId><version>4.3.1</version></dependency>
  </dependencies>
</project>
"#;

/// An SDK, and the script that reads with it.
struct Sdk {
    /// The folder in the cache: a new version has another name.
    name: &'static str,
    needs: &'static str,
    can_run: fn() -> bool,
    can_fetch: fn() -> bool,
    fetch: fn(&Path) -> anyhow::Result<()>,
    /// The script's command, where the SDK lies in this folder.
    command: fn(&Path) -> Command,
}

const SDKS: [Sdk; 3] = [
    Sdk {
        name: "cloudevents-python-2.2.0",
        needs: "Python (3.10 or newer) with pip",
        can_run: || runs("python3", "--version"),
        can_fetch: || {
            Command::new("python3").args(["-m", "pip", "--version"]).output().is_ok_and(|ran| ran.status.success())
        },
        fetch: |folder| {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--no-cache-dir", "--target"]);
            succeeds(pip.arg(folder).args(["cloudevents==2.2.0", "python-dateutil==2.9.0.post0"]))
        },
        command: |folder| {
            let mut python = Command::new("python3");
            python.arg(script("read.py")).env("PYTHONPATH", folder);
            python
        },
    },
    Sdk {
        name: "cloudevents-javascript-8.0.3",
        needs: "Node.js (16 or newer) with npm",
        can_run: || runs("node", "--version"),
        can_fetch: || runs("npm", "--version"),
        fetch: |folder| {
            fs::write(folder.join("package.json"), r#"{"private":true}"#).context("write package.json")?;
            let mut npm = Command::new("npm");
            npm.args(["install", "--silent", "--ignore-scripts", "--no-fund", "--no-audit", "cloudevents@8.0.3"]);
            succeeds(npm.current_dir(folder))
        },
        command: |folder| {
            let mut node = Command::new("node");
            node.arg(script("read.cjs")).env("NODE_PATH", folder.join("node_modules"));
            node
        },
    },
    Sdk {
        name: "cloudevents-java-4.0.1",
        needs: "a JDK (17 or newer) with Maven",
        // The compiler runs the script; a bare runtime has none.
        can_run: || runs("javac", "-version"),
        can_fetch: || runs("mvn", "-version"),
        fetch: |folder| cache::maven(folder, POM),
        command: |folder| {
            let mut java = Command::new("java");
            java.args(["-XX:TieredStopAtLevel=1", "-cp"]).arg(folder.join("libs/*")).arg(script("Read.java"));
            java
        },
    },
];

/// What lies in all topics, with their names.
pub fn all(names: &Names) -> Vec<(&'static str, Found)> {
    let topics = DERIVED.into_iter().chain(["raw"]);
    topics
        .flat_map(|topic| names.read(topic, Isolation::Committed).into_iter().map(move |found| (topic, found)))
        .collect()
}

/// Each SDK reads every record that claims to be a `CloudEvent` as what its headers and its value say, and refuses all
/// others; source and id together are unique in each topic.
pub fn sdks_agree(test: &str, records: &[(&str, Found)]) {
    ids_are_unique(records);
    for sdk in &SDKS {
        if !((sdk.can_run)() && (cache::has(sdk.name) || (sdk.can_fetch)())) {
            not_run(&format!("{test}, {}", sdk.name), &format!("needs {}", sdk.needs));
            continue;
        }
        let folder = cache::folder(sdk.name, sdk.fetch).unwrap_or_else(|error| panic!("{}: {error:#}", sdk.name));
        let controls = controls();
        let lines: Vec<&Found> = records.iter().map(|(_, record)| record).chain(&controls).collect();
        let answers = answers((sdk.command)(&folder), &lines);
        assert_eq!(answers.len(), lines.len(), "{}: an answer for each record", sdk.name);
        let mut read = 0;
        for ((topic, record), answer) in records.iter().zip(&answers) {
            let expected = expected(record);
            read += usize::from(expected.is_some());
            match expected {
                Some(expected) => assert_eq!(*answer, expected, "{}: {topic}: {record:?}", sdk.name),
                None => assert!(answer["refused"].is_string(), "{}: {topic}: {record:?} is read as {answer}", sdk.name),
            }
        }
        for answer in &answers[records.len()..] {
            assert!(answer["refused"].is_string(), "{} refuses nothing: {answer}", sdk.name);
        }
        report(&format!("{}: {read} CloudEvents read, {} records are none", sdk.name, records.len() - read));
    }
}

/// Ids of second copies in `raw` are those of the first ones.
fn ids_are_unique(records: &[(&str, Found)]) {
    let mut seen = BTreeSet::new();
    for (topic, record) in records {
        let Some(id) = record.header("ce_id").filter(|_| record.header("hl_resent").is_none()) else { continue };
        let source = record.header("ce_source").expect("a CloudEvent has a source");
        assert!(seen.insert((topic, source, id)), "{topic}: {source} {id} is there twice: {record:?}");
    }
}

/// What a subscriber should read of a record; none if it does not claim to be a `CloudEvent`.
fn expected(record: &Found) -> Option<Value> {
    let claims = record.headers.iter().any(|(name, _)| name.starts_with("ce_"));
    if !claims {
        return None;
    }
    let header = |name: &str| record.header(name).unwrap_or_else(|| panic!("{name} is missing: {record:?}"));
    let at = humantime::parse_rfc3339(header("ce_time")).expect("RFC 3339");
    let at = at.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
    let is_json = record.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
    Some(json!({
        "specversion": "1.0",
        "id": header("ce_id"),
        "source": header("ce_source"),
        "type": header("ce_type"),
        "time_ms": u64::try_from(at).expect("before the year 9999"),
        "data": if is_json { record.json() } else { text(record).into() },
    }))
}

/// Records that claim to be what they are not: an SDK that reads these checks nothing.
fn controls() -> Vec<Found> {
    let whole = [("ce_specversion", "1.0"), ("ce_id", "1"), ("ce_source", "/a/b"), ("ce_type", "com.x")];
    let without = |missing: &str| {
        let headers = whole.iter().filter(|(name, _)| *name != missing);
        let headers = headers.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Found { partition: 0, offset: 0, key: None, value: Some(b"{}".to_vec()), headers }
    };
    ["ce_source", "ce_type"].map(without).into()
}

fn answers(mut command: Command, records: &[&Found]) -> Vec<Value> {
    let line = |record: &&Found| {
        let headers: serde_json::Map<String, Value> =
            record.headers.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        let value = record.value.as_ref().map(|_| text(record));
        format!("{}\n", json!({ "key": record.key, "value": value, "headers": headers }))
    };
    let lines: String = records.iter().map(line).collect();
    let mut script = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start the script");
    let mut stdin = script.stdin.take().expect("piped");
    // It answers while it reads.
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let ended = script.wait_with_output().expect("wait for the script");
    assert!(ended.status.success(), "{command:?} ended with {}", ended.status);
    writer.join().expect("no panic").expect("it reads all");
    let answers = String::from_utf8(ended.stdout).expect("UTF-8");
    answers.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn text(record: &Found) -> String {
    let value = record.value.clone().expect("no tombstone");
    String::from_utf8(value).unwrap_or_else(|_| panic!("no UTF-8: {record:?}"))
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cloudevents").join(name)
}
