//! Every process has the metrics that were promised, in a form that Prometheus takes without complaint.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use portal_sim::player::Player;
use serde_json::json;
use tests::cluster::{Cluster, Standalone};
use tests::guard::Guard;
use tests::http::Client;
use tests::load::send;
use tests::process::Process;
use tests::wait::{eventually, eventually_ok, report};
use tests::{kafka, ports};

const EVERY: [&str; 2] = ["hookledger_build_info", "process_cpu_seconds_total"];

const INGRESS: [&str; 4] = [
    "hookledger_ingress_events_total",
    "hookledger_ingress_request_duration_seconds",
    "hookledger_ingress_kept_duration_seconds",
    "hookledger_disk_log_fsync_duration_seconds",
];

const PROCESSOR: [&str; 13] = [
    "hookledger_processor_events_total",
    "hookledger_processor_app_events_total",
    "hookledger_processor_rejected_total",
    "hookledger_processor_lag_events",
    "hookledger_processor_lag_seconds",
    "hookledger_processor_batch_duration_seconds",
    "hookledger_installations",
    "hookledger_contested_installations",
    "hookledger_principals",
    "hookledger_permissions",
    "hookledger_state_bytes",
    "hookledger_feed_readers",
    "hookledger_feed_lag_events",
];

/// Only where there is a Kafka, and events on the disk are those that wait for it.
const WITH_KAFKA: [&str; 4] = [
    "hookledger_kafka_up",
    "hookledger_disk_log_events",
    "hookledger_disk_log_bytes",
    "hookledger_disk_log_oldest_age_seconds",
];
const IN_A_GROUP: [&str; 1] = ["hookledger_processor_unowned_partitions"];

#[test]
fn the_standalone_process_has_all_metrics_but_those_of_kafka() {
    let standalone = Standalone::start();
    let mut portal = Player::new("crm-sync", 0);
    let mut webhooks = standalone.process.webhooks();
    (0..10).for_each(|_| drop(send(&mut webhooks, portal.next_webhook())));
    let process = &standalone.process;
    has(process, &[&EVERY[..], &INGRESS, &PROCESSOR].concat());
    // A life of ten: the portal was uninstalled at its end.
    counts(process, "hookledger_processor_events_total", "", 10.0);
    counts(process, "hookledger_installations", "status=\"uninstalled\"", 1.0);
    counts(process, "hookledger_processor_lag_events", "", 0.0);
}

#[test]
fn ingress_and_processor_have_their_metrics_and_prometheus_scrapes_both() {
    let test = "ingress_and_processor_have_their_metrics_and_prometheus_scrapes_both";
    let Some(servers) = kafka::shared(test) else { return };
    let cluster = Cluster::start(servers, 1);
    let (ingress, processor) = (&cluster.ingress, &cluster.processors[0]);
    let mut portal = Player::new("crm-sync", 1);
    let mut webhooks = ingress.webhooks();
    (0..10).for_each(|_| drop(send(&mut webhooks, portal.next_webhook())));
    has(ingress, &[&EVERY[..], &INGRESS, &WITH_KAFKA].concat());
    has(processor, &[&EVERY[..], &PROCESSOR, &IN_A_GROUP].concat());
    counts(ingress, "hookledger_ingress_events_total", "", 10.0);
    counts(ingress, "hookledger_kafka_up", "", 1.0);
    counts(processor, "hookledger_processor_events_total", "", 10.0);
    counts(processor, "hookledger_installations", "status=\"installed\"", 1.0);
    counts(processor, "hookledger_processor_lag_events", "", 0.0);
    counts(processor, "hookledger_processor_unowned_partitions", "", 0.0);

    let addresses = [ingress.address("admin"), processor.address("admin")].map(|address| address.to_string());
    scraped(&addresses);
}

/// All of these are there, with a help text, and Prometheus' own tool has no complaint about any.
fn has(process: &Process, names: &[&str]) {
    // Those of a partition come with its first events.
    let metrics = eventually_ok(Duration::from_secs(30), "all metrics", || {
        let answer = process.admin().get("/metrics")?;
        let text = answer.text();
        let missing: Vec<_> = names.iter().filter(|name| !helped(&text).contains(*name)).collect();
        anyhow::ensure!(missing.is_empty(), "missing: {missing:?} in:\n{text}");
        Ok(answer)
    });
    assert_eq!(metrics.status, 200);
    let text = metrics.text();
    let helped = helped(&text);
    let foreign = helped.iter().filter(|name| !name.starts_with("hookledger_") && !name.starts_with("process_"));
    assert_eq!(foreign.collect::<Vec<_>>(), Vec::<&&str>::new(), "all but the process collector's have our prefix");
    complains_not(&metrics.body);
}

/// Outcomes of events, those of rejected ones with the reason, and how many there are.
type Minute = &'static [(&'static str, u32)];

/// What comes in each minute, and for which reasons `HookledgerEventsRejected` then fires.
const REJECTED: [(&str, Minute, &[&str]); 6] = [
    ("a stranger's one request among many", &[("fact", 100), ("rejected no_event", 1)], &[]),
    ("nothing but a stranger's requests, now and then", &[("rejected no_event", 1)], &[]),
    ("a flood that is small beside all else", &[("fact", 2000), ("rejected no_event", 60)], &[]),
    ("a tenth of all", &[("passed_on", 90), ("rejected no_event", 1), ("rejected bad_value", 9)], &["bad_value"]),
    ("nothing else", &[("rejected no_event", 5), ("rejected missing_field", 5)], &["no_event", "missing_field"]),
    ("another program writes to raw", &[("fact", 1000), ("rejected not_a_raw_event", 1)], &["not_a_raw_event"]),
];

/// What comes in each minute of an app with so many events besides, and whether `HookledgerAppEventsRejected` fires.
const REJECTED_OF_APP: [(&str, u32, u32, bool); 4] = [
    ("a stranger's one request an hour beside nothing else", 0, 0, false),
    ("a flood that is small beside the app's events", 100, 10, false),
    ("a third of the app's events", 2, 1, true),
    ("everything", 0, 5, true),
];

#[test]
fn the_alert_of_an_app_is_about_the_share_of_its_own_events() {
    let mut cases = Vec::new();
    for (what, others, rejected, fires) in REJECTED_OF_APP {
        let rejected_now = if rejected == 0 { "0x50 1x40".to_owned() } else { format!("0+{rejected}x90") };
        let all = if rejected == 0 { "0x50 1x40".to_owned() } else { format!("0+{}x90", rejected + others) };
        let series = json!([
            {"series": "hookledger_processor_rejected_total{app='crm-sync',reason='bad_value'}", "values": rejected_now},
            {"series": "hookledger_processor_rejected_total{app='_other',reason='bad_value'}", "values": "0+99x90"},
            {"series": "hookledger_processor_app_events_total{app='crm-sync'}", "values": all},
            {"series": "hookledger_processor_app_events_total{app='_other'}", "values": "0+99x90"},
        ]);
        let alert = json!({
            "exp_labels": {"app": "crm-sync", "reason": "bad_value", "severity": "ticket"},
            "exp_annotations": {
                "summary": "A fifth of the events of crm-sync were rejected: bad_value",
                "description": "`hookledger rejected list --app crm-sync --reason bad_value` lists them; \
                    docs/operations.md, \"Rejected events\".",
            },
        });
        let alerts: Vec<_> = fires.then_some(alert).into_iter().collect();
        let asked = json!([{"eval_time": "80m", "alertname": "HookledgerAppEventsRejected", "exp_alerts": alerts}]);
        cases.push(json!({"name": what, "interval": "1m", "input_series": series, "alert_rule_test": asked}));
    }
    rules_agree(&cases);
}

#[test]
fn the_alert_of_rejected_events_is_about_a_share_of_them() {
    let mut cases = Vec::new();
    for (what, minute, fires) in REJECTED {
        let mut all = BTreeMap::<String, u32>::new();
        for (outcome, count) in minute {
            let (outcome, reason) = outcome.split_once(' ').unwrap_or((outcome, ""));
            *all.entry(format!("hookledger_processor_events_total{{outcome='{outcome}'}}")).or_default() += count;
            if !reason.is_empty() {
                all.insert(format!("hookledger_processor_rejected_total{{app='_other',reason='{reason}'}}"), *count);
            }
        }
        let series: Vec<_> =
            all.iter().map(|(name, step)| json!({"series": name, "values": format!("0+{step}x30")})).collect();
        let alerts: Vec<_> = fires
            .iter()
            .map(|reason| {
                json!({
                    "exp_labels": {"reason": reason, "severity": "ticket"},
                    "exp_annotations": {
                        "summary": format!("Many events were rejected: {reason}"),
                        "description": "The topic `rejected` says which, and where in `raw` their bodies are.",
                    },
                })
            })
            .collect();
        let asked = json!([{"eval_time": "20m", "alertname": "HookledgerEventsRejected", "exp_alerts": alerts}]);
        cases.push(json!({"name": what, "interval": "1m", "input_series": series, "alert_rule_test": asked}));
    }
    rules_agree(&cases);
}

/// Prometheus' own tool finds that the rules do what these cases say.
fn rules_agree(cases: &[serde_json::Value]) {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/prometheus/alerts.yml");
    let directory = tempfile::tempdir().expect("a directory");
    let tests = json!({"rule_files": [rules], "evaluation_interval": "1m", "tests": cases});
    // JSON is YAML.
    let file = directory.path().join("tests.yml");
    fs::write(&file, tests.to_string()).expect("write the tests");
    let Ok(ended) = Command::new("promtool").args(["test", "rules"]).arg(&file).output() else {
        report("NOT RUN: promtool test rules: promtool is not installed");
        return;
    };
    let said = [ended.stdout, ended.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(ended.status.success(), "{said}");
}

fn helped(metrics: &str) -> BTreeSet<&str> {
    metrics.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect()
}

fn complains_not(metrics: &[u8]) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        report("NOT RUN: promtool check metrics: promtool is not installed");
        return;
    };
    promtool.stdin.take().expect("a pipe").write_all(metrics).expect("write to promtool");
    let ended = promtool.wait_with_output().expect("promtool ends");
    let said = [ended.stdout, ended.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(ended.status.success() && said.is_empty(), "promtool complains: {said}");
}

fn counts(process: &Process, name: &str, label: &str, value: f64) {
    let mut last = None;
    eventually(Duration::from_secs(30), &format!("{name}{{{label}}} is {value}"), || {
        last = process.metric(name, label);
        last.is_some_and(|found| (found - value).abs() < 0.5).then_some(())
    });
}

/// A real Prometheus sees all targets up.
fn scraped(addresses: &[String]) {
    let directory = tempfile::tempdir().expect("a directory");
    let targets = addresses.join("','");
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: hookledger, static_configs: [{{targets: ['{targets}']}}]}}]\n"
    );
    fs::write(directory.path().join("prometheus.yml"), config).expect("write its settings");
    let listen: std::net::SocketAddr = ([127, 0, 0, 1], ports::free()).into();
    let prometheus = Command::new("prometheus")
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", &format!("--web.listen-address={listen}")])
        .current_dir(directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut prometheus) = prometheus else {
        report("NOT RUN: a real Prometheus scrapes the processes: prometheus is not installed");
        return;
    };
    let guard = Guard::watch(prometheus.id(), None).expect("watch it");
    let mut client = Client::new(listen);
    eventually(Duration::from_secs(60), "Prometheus sees all targets up", || {
        let answer = client.get("/api/v1/targets").ok()?.json();
        let targets = answer["data"]["activeTargets"].as_array()?;
        let up = targets.iter().filter(|target| target["health"] == "up").count();
        (up == addresses.len()).then_some(())
    });
    prometheus.kill().expect("end Prometheus");
    prometheus.wait().expect("wait for its end");
    drop(guard);
}
