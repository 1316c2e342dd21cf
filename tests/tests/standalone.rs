//! The main job, without a broker: a portal's life through the commands, and nothing lost by `kill -9`.

use std::collections::BTreeSet;
use std::time::Duration;

use portal_sim::player::Player;
use serde_json::Value;
use tests::cluster::Standalone;
use tests::load::{Amount, Load};
use tests::oracle::Oracle;
use tests::process::{Ended, Program, run};
use tests::verify::answer_agrees;

const PORTALS: u64 = 60;
const CONNECTIONS: usize = 6;
const KILLS: usize = 4;

#[test]
fn a_life_of_a_portal_is_seen_through_the_commands_and_survives_a_kill() {
    let mut standalone = Standalone::start();
    let url = |what: &str| format!("http://{}", standalone.process.address(what));
    let life = run(Program::Hookledger, &["send", "life", "--to", &url("webhooks"), "--query", &url("queries")]);
    assert_eq!(life.code, Some(0), "{life:?}");

    let before = seen(&standalone);
    standalone.process.kill9();
    standalone.process.restart();
    standalone.process.ready();
    assert_eq!(seen(&standalone), before, "the same answers after a kill");
}

#[test]
fn nothing_that_was_answered_200_is_lost_by_kills_under_load() {
    let mut standalone = Standalone::start();
    let portals = (0..PORTALS).map(|number| Player::new("crm-sync", number)).collect();
    let amount = Amount { each: usize::MAX, pause: Duration::from_millis(5) };
    let load = Load::start(standalone.process.address("webhooks"), portals, CONNECTIONS, amount);
    for _ in 0..KILLS {
        load.goes_on(200, Duration::from_secs(60));
        standalone.process.kill9();
        standalone.process.restart();
    }
    load.goes_on(200, Duration::from_secs(60));
    let outcome = load.stop();
    assert_eq!(outcome.refused, Vec::<String>::new());

    // What got no answer may have been kept or not: only the log knows.
    let body = |webhook: &portal_sim::player::Webhook| String::from_utf8_lossy(&webhook.body).into_owned();
    let unsure: Vec<_> = outcome.unanswered.iter().map(body).collect();
    let oracle = Oracle::of_acked(&outcome.acked);
    let mut queries = standalone.process.queries();
    let mut compared = BTreeSet::new();
    for key in oracle.portals.keys() {
        let (_, member_id) = key.split_once('/').expect("a key");
        if !unsure.iter().any(|body| body.contains(member_id)) {
            answer_agrees(&mut queries, &oracle, key);
            compared.insert(key);
        }
    }
    assert!(compared.len() > 20, "most portals are certain: {}", compared.len());
}

/// What the commands tell about the portal that was played: installed, granted a method, and uninstalled again.
fn seen(standalone: &Standalone) -> Vec<Value> {
    let url = format!("http://{}", standalone.process.address("queries"));
    let ask = |arguments: &[&str]| {
        let ended = run(Program::Hookledger, &[arguments, &["--query", &url, "--json"]].concat());
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        json(&ended)
    };
    let installations = ask(&["installations"]);
    let items = installations["items"].as_array().or(installations.as_array()).expect("a list").clone();
    assert_eq!(items.len(), 1, "{installations}");
    let text = |name: &str| items[0][name].as_str().expect("a text").to_owned();
    let (app, member_id) = (text("app"), text("member_id"));

    let shown = ask(&["show", &app, &member_id]);
    assert_eq!(shown["status"], "uninstalled", "{shown}");
    let history = ask(&["history", &app, &member_id]);
    let facts = history["items"].as_array().or(history.as_array()).expect("a list").clone();
    let types: Vec<_> = facts.iter().map(|fact| fact["type"].as_str().expect("a type")).collect();
    let place = |name: &str| types.iter().position(|found| *found == name);
    let (installed, granted) = (place("ONAPPINSTALL"), place("ONAPPMETHODCONFIRM"));
    assert!(installed.is_some() && installed < granted && granted < place("ONAPPUNINSTALL"), "{types:?}");
    vec![installations, shown, history]
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("not JSON: {error}: {}", ended.stdout))
}
