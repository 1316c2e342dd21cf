//! Compares what the programs keep, publish and answer with what they promised.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;

use crate::cluster::Names;
use crate::http::Client;
use crate::load::Acked;
use crate::oracle::Oracle;
use crate::topics::{Found, Isolation};
use crate::wait::eventually_ok;

/// By when everything has caught up after the last fault.
pub const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(180);

/// Every webhook that was answered 200 is in `raw`, byte for byte; what is there twice is marked. Returns how many are.
pub fn nothing_acked_is_missing(acked: &[Acked], raw: &[Found]) -> usize {
    let mut by_id: HashMap<&str, Vec<&Found>> = HashMap::new();
    for record in raw {
        by_id.entry(record.header("ce_id").expect("an id")).or_default().push(record);
    }
    for Acked { id, kept, webhook } in acked {
        let found =
            by_id.get(id.as_str()).unwrap_or_else(|| panic!("{id} was answered 200 by {kept} and is not in raw"));
        for record in found {
            assert_eq!(record.value.as_deref(), Some(&*webhook.body), "the bytes of {id}");
            assert_eq!(record.header("content-type"), Some(webhook.content_type), "the content type of {id}");
        }
    }
    let doubled = by_id.values().filter(|found| found.len() > 1);
    doubled
        .map(|found| {
            for second in &found[1..] {
                assert_eq!(second.header("hl_resent"), Some("1"), "a second copy that is not marked: {second:?}");
            }
        })
        .count()
}

/// All of `raw`, once everything that was answered 200 is there: disk entries may still be on their way.
pub fn raw_of(names: &Names, acked: &[Acked]) -> Vec<Found> {
    eventually_ok(CAUGHT_UP_WITHIN, "raw holds what was answered 200", || {
        let raw = names.read("raw", Isolation::Uncommitted);
        let there: HashSet<_> = raw.iter().filter_map(|record| record.header("ce_id")).collect();
        let missing = acked.iter().filter(|acked| !there.contains(acked.id.as_str())).count();
        ensure!(missing == 0, "{missing} of {} are missing", acked.len());
        Ok(raw)
    })
}

/// Each portal's webhooks lie in `raw` in the order in which they were sent, counting first copies.
pub fn order_per_portal_is_kept(acked: &[Acked], raw: &[Found]) {
    let mut places = HashMap::new();
    for record in raw {
        let place = (record.partition, record.offset);
        places.entry(record.header("ce_id").expect("an id")).or_insert((record.key.as_deref(), place));
    }
    let mut last: HashMap<Option<&str>, (i32, i64)> = HashMap::new();
    for Acked { id, .. } in acked {
        let (key, place) = places[id.as_str()];
        if let Some(before) = last.insert(key, place) {
            assert!(before < place, "{id} of {key:?} lies before what was sent and answered earlier");
        }
    }
}

/// Every installation and every permission is answered as the oracle has it, by when all has caught up.
pub fn answers_agree(queries: &mut Client, oracle: &Oracle) {
    for key in oracle.portals.keys() {
        answer_agrees(queries, oracle, key);
    }
}

/// As [`answers_agree`], about one installation.
pub fn answer_agrees(queries: &mut Client, oracle: &Oracle, key: &str) {
    let installation = oracle.installation(key);
    let mut permissions = oracle.permissions(key);
    sort(&mut permissions);
    eventually_ok(CAUGHT_UP_WITHIN, &format!("the records of {key}"), || {
        let answer = queries.get(&format!("/v1/installations/{key}"))?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        holds(&installation, &answer.json())?;
        let mut answered = methods(queries, key)?;
        sort(&mut answered);
        ensure!(permissions.len() == answered.len(), "expected {permissions:?}, answered {answered:?}");
        permissions.iter().zip(&answered).try_for_each(|(expected, answered)| holds(expected, answered))
    });
}

/// All decisions about methods, page by page.
fn methods(queries: &mut Client, key: &str) -> anyhow::Result<Vec<Value>> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = queries.get(&format!("/v1/installations/{key}/methods?limit=300{cursor}"))?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        all.extend(items(&answer.json()));
        let Some(next) = answer.json()["next"].as_str().map(str::to_owned) else { return Ok(all) };
        cursor = format!("&cursor={next}");
    }
}

/// The list in an answer, which may be all of it.
pub fn items(answer: &Value) -> Vec<Value> {
    answer.as_array().or(answer["items"].as_array()).cloned().unwrap_or_default()
}

/// A `read_committed` reader sees what follows from `raw`, all of it, each record once, in its raw record's partition.
pub fn derived_topics_agree(names: &Names, oracle: &Oracle) {
    let read = |topic: &str| names.read(topic, Isolation::Committed);
    for (topic, expected) in [("events", &oracle.events), ("unverified", &oracle.unverified)] {
        // Records are answered by then, but events that are only passed on may still be on their way.
        let found = eventually_ok(CAUGHT_UP_WITHIN, topic, || {
            let found = read(topic);
            ensure!(found.len() >= expected.len(), "{} of {}", found.len(), expected.len());
            Ok(found)
        });
        each_once(topic, &found, expected, |record| record.header("ce_id").expect("an id").to_owned());
    }
    let rejected = oracle.rejected.iter().map(|(partition, offset)| format!("{partition}/{offset}")).collect();
    each_once("rejected", &read("rejected"), &rejected, raw_place);

    let facts: Vec<_> = read("facts").into_iter().filter(is_fact).collect();
    each_once("facts", &facts, &oracle.facts, |record| record.header("ce_id").expect("an id").to_owned());

    let newest = newest("installations", read("installations"));
    assert!(newest.keys().eq(oracle.portals.keys()), "installations: a record for each portal");
    for (key, record) in newest {
        let record = record.unwrap_or_else(|| panic!("installations: {key} is gone"));
        holds(&oracle.installation(&key), &record).unwrap_or_else(|error| panic!("installations: {key}: {error:#}"));
    }
    permissions_agree(read("permissions"), oracle);
}

fn permissions_agree(found: Vec<Found>, oracle: &Oracle) {
    let mut expected = BTreeMap::new();
    for key in oracle.portals.keys() {
        for record in oracle.permissions(key) {
            let text = |name: &str| record[name].as_str().expect("a text").to_owned();
            expected.insert(format!("{key}/{}/{}", text("method"), text("token")), record);
        }
    }
    let newest = newest("permissions", found);
    let alive: BTreeMap<_, _> = newest.into_iter().filter_map(|(key, record)| Some((key, record?))).collect();
    assert!(alive.keys().eq(expected.keys()), "permissions: {} of {}", alive.len(), expected.len());
    for (key, record) in alive {
        holds(&expected[&key], &record).unwrap_or_else(|error| panic!("permissions: {key}: {error:#}"));
    }
}

/// Exactly these, no two alike.
fn each_once(topic: &str, found: &[Found], expected: &BTreeSet<String>, name: impl Fn(&Found) -> String) {
    let mut seen = BTreeSet::new();
    for record in found {
        let name = name(record);
        assert!(expected.contains(&name), "{topic}: {name} should not be there: {record:?}");
        assert!(seen.insert(name), "{topic}: twice: {record:?}");
        let partition = record.header("hl_raw_partition").expect("the raw record's partition");
        assert_eq!(partition, record.partition.to_string(), "{topic}: {record:?}");
    }
    let missing: Vec<_> = expected.difference(&seen).take(5).collect();
    assert!(missing.is_empty(), "{topic}: {} of {}, missing: {missing:?} …", seen.len(), expected.len());
}

/// What compaction would leave; no raw record may have made two records of one key.
fn newest(topic: &str, found: Vec<Found>) -> BTreeMap<String, Option<Value>> {
    let mut newest = BTreeMap::new();
    let mut made = BTreeSet::new();
    for record in found {
        let key = record.key.clone().expect("a key");
        assert!(made.insert((key.clone(), raw_place(&record))), "{topic}: twice: {record:?}");
        newest.insert(key, record.value.is_some().then(|| record.json()));
    }
    newest
}

fn raw_place(record: &Found) -> String {
    let part = |name: &str| record.header(name).unwrap_or_else(|| panic!("{name} is missing: {record:?}"));
    format!("{}/{}", part("hl_raw_partition"), part("hl_raw_offset"))
}

/// Whether a record of `facts` is a fact, and neither progress nor a note about what waits.
fn is_fact(record: &Found) -> bool {
    record.key.as_ref().is_some_and(|key| key.split('/').count() == 3 && !key.ends_with("/heard"))
}

/// Everything that is expected is there; more may be.
fn holds(expected: &Value, actual: &Value) -> anyhow::Result<()> {
    for (name, value) in expected.as_object().into_iter().flatten() {
        ensure!(actual[name] == *value, "{name} is {} and should be {value}, in {actual}", actual[name]);
    }
    Ok(())
}

fn sort(permissions: &mut [Value]) {
    permissions.sort_by_key(|record| (record["method"].to_string(), record["token"].to_string()));
}
