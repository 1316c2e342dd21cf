//! The tokens of a portal come back: after its install, a restart, a lost state and another processor, to who may have
//! them. And what happens where the key is not the right one.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use portal_sim::player::Webhook;
use serde_json::{Value, json};
use tests::cluster::{Cluster, Standalone};
use tests::http::{Answer, Client, FORM, JSON};
use tests::kafka;
use tests::load::send;
use tests::oracle::fingerprint;
use tests::process::{Process, Program, run};
use tests::topics::Isolation;
use tests::wait::{eventually, eventually_ok};

const READER: &str = "a-token-that-reads";
const HOLDER: &str = "a-token-that-gets-tokens";
const OPERATOR: &str = "a-token-that-operates";
const TOKENS: &str = "a-token-that-reads,a-token-that-gets-tokens tokens,a-token-that-operates read operate";
const MEMBER: &str = "a223c6b3710f85df22e9377d6c4f7553";
const APPLICATION_TOKEN: &str = "51856fefc120afa4b628cc82d3935cce";
const SOON: Duration = Duration::from_secs(60);

/// The environment of a program with a vault.
fn environment(key: Option<&str>) -> Vec<(&'static str, &str)> {
    let key = key.map(|file| ("HOOKLEDGER_VAULT_KEY_FILE", file));
    [("HOOKLEDGER_QUERY_TOKENS", TOKENS)].into_iter().chain(key).collect()
}

#[test]
fn tokens_come_back_without_a_broker() {
    let mut standalone = Standalone::start_with(&environment(None));
    let key = standalone.data().join("vault.key");
    assert_eq!(fs::metadata(&key).expect("made at the first start").permissions().mode() & 0o777, 0o600);
    let logs = standalone.process.logs();
    assert!(logs.contains("vault.key") && logs.contains("keep a copy"), "{logs}");
    assert_eq!(standalone.process.metric("hookledger_vault_enabled", ""), Some(1.0));

    let sent = sends_in_any_order(&standalone.process);
    newest_comes_back(&standalone.process, &sent);
    only_who_may_gets_them(&standalone.process);
    standalone.process.terminate();
    standalone.process.restart();
    newest_comes_back(&standalone.process, &sent);
    let before = fs::read(&key).expect("a key");
    standalone.process.kill9();
    fs::remove_dir_all(standalone.data().join("processor/state")).expect("the state");
    standalone.process.restart();
    newest_comes_back(&standalone.process, &sent);
    assert_eq!(fs::read(&key).expect("a key"), before, "it is made once");
    // What was replaced goes at the start.
    standalone.process.terminate();
    let bytes = used(&standalone.data().join("logs/vault"));
    assert!(bytes < 20_000, "{bytes} bytes of two entries");
    standalone.process.restart();
    newest_comes_back(&standalone.process, &sent);
    revoked_tokens_go(&standalone.process, &standalone.process);
}

#[test]
fn tokens_come_back_from_kafka() {
    let Some(servers) = kafka::shared("tokens_come_back_from_kafka") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let key = keygen(&directory.path().join("key"));
    let environment = environment(Some(&key.0));
    let mut cluster = Cluster::start_with(servers, 2, &environment);
    let sent = sends_in_any_order(&cluster.ingress);
    for processor in &cluster.processors {
        newest_comes_back(processor, &sent);
        only_who_may_gets_them(processor);
    }
    cluster.processors[0].kill9();
    let other = cluster.names().start_with(Program::Processor, "processor-3", &[], &environment);
    other.ready();
    newest_comes_back(&other, &sent);
    newest_comes_back(&cluster.processors[1], &sent);
    let shown = cluster.names().read("vault", Isolation::Committed);
    assert!(!shown.is_empty());
    for record in &shown {
        let key = record.key.as_deref().unwrap_or_default();
        let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
        assert!(key == "noop" || key.starts_with(&format!("crm-sync/{MEMBER}/")), "{key}");
        assert!(!value.contains("refresh-") && !value.contains(APPLICATION_TOKEN), "{value}");
    }
    is_sealed_again(&mut cluster, &mut [other], &directory.path().join("key"), &sent);
    revoked_tokens_go(&cluster.ingress, &cluster.processors[0]);
    let tombstones = || {
        let all = cluster.names().read("vault", Isolation::Committed);
        let gone = all.iter().filter(|record| record.value.is_none()).count();
        (gone >= 2).then_some(())
    };
    eventually(SOON, "both entries have tombstones", tombstones);
}

/// A rotation while webhooks are taken.
fn is_sealed_again(cluster: &mut Cluster, others: &mut [Process], file: &Path, sent: &Sent) {
    let old = fs::read_to_string(file).expect("a key");
    fs::remove_file(file).expect("ours");
    let (path, id) = keygen(file);
    let new = fs::read_to_string(file).expect("a key");
    fs::write(file, format!("{new}{old}")).expect("written");
    for process in cluster.processors[1..].iter_mut().chain(others) {
        process.terminate();
    }
    let mut arguments = cluster.names().arguments("rekey");
    let group = format!("{}processor", cluster.names().prefix);
    arguments.extend(["--group", &group, "--vault-key-file", &path, "--json"].map(str::to_owned));
    let arguments: Vec<&str> = ["vault", "rekey"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
    let ended = run(Program::Hookledger, &arguments);
    let told: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
    assert_eq!((ended.code, &told["key"], &told["sealed"]), (Some(0), &json!(id), &json!(2)), "{ended:?}");
    fs::write(file, &new).expect("written");
    cluster.processors[0].restart();
    newest_comes_back(&cluster.processors[0], sent);
}

#[test]
fn without_a_key_the_vault_is_off_and_says_so() {
    let Some(servers) = kafka::shared("without_a_key_the_vault_is_off_and_says_so") else { return };
    let cluster = Cluster::start_with(servers, 1, &environment(None));
    let id = send(&mut cluster.ingress.webhooks(), webhook("ONAPPINSTALL", now(), Some("1"), APPLICATION_TOKEN)).id;
    let processor = &cluster.processors[0];
    let answer = ask(processor, HOLDER, &format!("?after={id}&wait=30s"));
    assert_eq!((answer.status, &answer.json()["type"]), (503, &json!("/docs/problems#vault-off")), "{}", answer.text());
    assert!(processor.logs().contains("the vault is off"));
    assert_eq!(processor.metric("hookledger_vault_enabled", ""), Some(0.0));
    assert_eq!(processor.metric("hookledger_tokens_total", "vault_off"), Some(1.0));
    assert!(
        cluster.names().read("vault", Isolation::Committed).iter().all(|record| record.key.as_deref() == Some("noop"))
    );
}

#[test]
fn a_key_that_is_lost_swapped_rotated_or_garbage_is_told_and_nothing_is_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("key");
    let (path, first) = keygen(&file);
    let first_line = fs::read_to_string(&file).expect("a key");
    let mut standalone = Standalone::start_with(&environment(Some(&path)));
    let sent = sends_in_any_order(&standalone.process);
    newest_comes_back(&standalone.process, &sent);
    standalone.process.terminate();

    // Swapped: the answer and the log name the key that is missing.
    fs::remove_file(&file).expect("ours");
    let (_, second) = keygen(&file);
    let second_line = fs::read_to_string(&file).expect("a key");
    standalone.process.restart();
    standalone.process.ready();
    let answer = ask(&standalone.process, HOLDER, "");
    assert_eq!((answer.status, &answer.json()["type"]), (503, &json!("/docs/problems#vault-key-missing")));
    assert!(answer.text().contains(&first), "{}", answer.text());
    eventually(SOON, "the log names the key", || {
        standalone.process.logs().contains("2 entries of the vault are sealed to the key").then_some(())
    });
    standalone.process.terminate();

    // Rotated: both open, and all is sealed to the new one.
    fs::write(&file, format!("{second_line}{first_line}")).expect("written");
    standalone.process.restart();
    newest_comes_back(&standalone.process, &sent);
    let data = standalone.data().display().to_string();
    let rekey =
        || run(Program::Hookledger, &["vault", "rekey", "--data-dir", &data, "--vault-key-file", &path, "--json"]);
    assert_eq!(rekey().code, Some(2), "the process runs");
    standalone.process.terminate();
    let ended = rekey();
    let told: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
    assert_eq!((ended.code, &told["key"], &told["sealed"]), (Some(0), &json!(second), &json!(2)), "{ended:?}");
    let told: Value = serde_json::from_str(&rekey().stdout).unwrap_or_default();
    assert_eq!((&told["sealed"], &told["unchanged"]), (&json!(0), &json!(2)));
    fs::write(&file, &second_line).expect("written");
    standalone.process.restart();
    newest_comes_back(&standalone.process, &sent);

    // Readable by others: told, with the remedy.
    standalone.process.terminate();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("ours");
    standalone.process.restart();
    assert!(standalone.process.logs().contains(&format!("chmod 600 {path}")));
    newest_comes_back(&standalone.process, &sent);

    // Garbage, damaged, or gone: it does not start, and repeats nothing of the key.
    standalone.process.terminate();
    let cut = second_line.trim_end().strip_suffix('=').expect("base64 of 32 bytes");
    let mixed = second_line.replace(&second, &first);
    let secret = second_line.split_whitespace().last().expect("a key").to_owned();
    for (text, told) in
        [("garbage", "is no key"), (cut, "is no key"), (&mixed, "is damaged"), ("# none\n", "holds no key")]
    {
        fs::write(&file, text).expect("written");
        does_not_start(&mut standalone.process, told, &secret);
    }
    fs::remove_file(&file).expect("ours");
    does_not_start(&mut standalone.process, "No such file", &secret);
    fs::write(&file, &second_line).expect("written");
    standalone.process.restart();
    newest_comes_back(&standalone.process, &sent);
}

fn does_not_start(process: &mut Process, told: &str, secret: &str) {
    let before = process.logs().len();
    process.restart_without_waiting();
    let status = eventually(SOON, "it ends", || process.ended());
    process.kill9();
    let logs = process.logs()[before..].to_owned();
    assert_eq!(status.code(), Some(2), "{logs}");
    assert!(logs.contains("vault-key") && logs.contains(told), "{told}: {logs}");
    assert!(!logs.contains(&secret[..12]), "{logs}");
}

/// The file and the id of a new key.
fn keygen(file: &Path) -> (String, String) {
    let path = file.display().to_string();
    let ended = run(Program::Hookledger, &["vault", "keygen", &path, "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let told: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(fs::metadata(file).expect("made").permissions().mode() & 0o777, 0o600);
    assert_eq!(run(Program::Hookledger, &["vault", "keygen", &path]).code, Some(1), "none is overwritten");
    (path, told["id"].as_str().expect("an id").to_owned())
}

/// The id of the last event, and the mark of the newest pair.
struct Sent {
    id: String,
    newest: &'static str,
    at: u64,
}

/// Events out of order and twice; the newest pair is of the second update.
fn sends_in_any_order(process: &Process) -> Sent {
    let mut webhooks = process.webhooks();
    let at = now() - 60;
    let events = [
        webhook("ONAPPINSTALL", at - 30, Some("install"), APPLICATION_TOKEN),
        webhook("ONAPPUPDATE", at, Some("second"), APPLICATION_TOKEN),
        webhook("ONAPPUPDATE", at - 10, Some("first"), APPLICATION_TOKEN),
        webhook("ONAPPUPDATE", at - 5, None, APPLICATION_TOKEN),
        webhook("ONAPPINSTALL", at - 30, Some("install"), APPLICATION_TOKEN),
        webhook("ONCRMCONTACTADD", at, None, APPLICATION_TOKEN),
        // Held: its tokens count for nothing.
        webhook("ONAPPUPDATE", at + 30, Some("forged"), "of-a-forger-0123456789"),
        webhook("ONCRMCONTACTADD", at, None, APPLICATION_TOKEN),
    ];
    let ids: Vec<String> = events.into_iter().map(|event| send(&mut webhooks, event).id).collect();
    Sent { id: ids.last().expect("sent").clone(), newest: "second", at }
}

fn webhook(event: &str, at: u64, pair: Option<&str>, application_token: &str) -> Webhook {
    let pair = pair.map(|mark| {
        format!(
            "&auth[access_token]=access-{mark}-0123456789&auth[refresh_token]=refresh-{mark}-0123456789\
             &auth[expires_in]=3600&auth[user_id]=7&auth[scope]=crm,user"
        )
    });
    let body = format!(
        "event={event}&data[VERSION]=1&ts={at}&auth[member_id]={MEMBER}&auth[domain]=some.bitrix24.com\
         &auth[client_endpoint]=https://some.bitrix24.com/rest/&auth[server_endpoint]=https://oauth.bitrix.info/rest/\
         &auth[application_token]={application_token}{}",
        pair.unwrap_or_default()
    );
    Webhook { app: "crm-sync".to_owned(), content_type: FORM, body: body.into_bytes() }
}

fn ask(process: &Process, token: &str, query: &str) -> Answer {
    let mut queries = client(process, token);
    queries.post(&format!("/v1/tokens/crm-sync/{MEMBER}{query}"), JSON, b"").expect("an answer")
}

fn client(process: &Process, token: &str) -> Client {
    process.queries().with("authorization", &format!("Bearer {token}"))
}

fn newest_comes_back(process: &Process, sent: &Sent) {
    process.ready();
    let mut answer = None;
    // Directly behind a restart it is not known which events were folded lately.
    eventually_ok(SOON, "the tokens come back", || {
        let asked = ask(process, HOLDER, "");
        anyhow::ensure!(asked.status == 200, "{}", asked.text());
        let tokens = asked.json();
        anyhow::ensure!(tokens["access_token"] == format!("access-{}-0123456789", sent.newest), "not yet: {tokens}");
        answer = Some(asked);
        Ok(())
    });
    let answer = answer.expect("asked above");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let tokens = answer.json();
    for (field, expected) in [
        ("refresh_token", json!(format!("refresh-{}-0123456789", sent.newest))),
        ("application_token", json!(APPLICATION_TOKEN)),
        ("principal", json!(fingerprint(APPLICATION_TOKEN))),
        ("client_endpoint", json!("https://some.bitrix24.com/rest/")),
        ("server_endpoint", json!("https://oauth.bitrix.info/rest/")),
        ("user_id", json!("7")),
        ("scope", json!(["crm", "user"])),
        ("status", json!("installed")),
        ("stale", json!(false)),
        ("omitted", json!([])),
    ] {
        assert_eq!(tokens[field], expected, "{field}: {tokens}");
    }
    let time = |at: u64| humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_secs(at)).to_string();
    assert_eq!(tokens["occurred_at"], time(sent.at));
    assert_eq!(tokens["expires_at"], time(sent.at + 3600));
    let line = process.logs().lines().rev().find(|line| line.contains("handed_out")).map(str::to_owned);
    let line = line.expect("it is audited");
    assert!(line.contains(&fingerprint(HOLDER)[..8]) && line.contains(MEMBER), "{line}");
    assert!(!process.logs().contains("refresh-"), "no token is logged");

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    fs::write(&file, HOLDER).expect("written");
    let (url, file) = (format!("http://{}", process.address("queries")), file.display().to_string());
    let ended = run(
        Program::Hookledger,
        &["tokens", "crm-sync", MEMBER, "--json", "--query", &url, "--query-token-file", &file],
    );
    assert_eq!(serde_json::from_str::<Value>(&ended.stdout).unwrap_or_default(), tokens, "{ended:?}");
    let _ = &sent.id;
}

fn only_who_may_gets_them(process: &Process) {
    for (token, status) in [("a-token-of-no-caller", 401), (READER, 403), (OPERATOR, 403)] {
        let answer = ask(process, token, "");
        assert_eq!(answer.status, status, "{token}");
        assert!(!answer.text().contains("0123456789"), "{}", answer.text());
    }
    let path = "/v1/tokens/crm-sync/0000000000000000000000000000dead";
    let unknown = client(process, HOLDER).post(path, JSON, b"").expect("an answer");
    assert_eq!(unknown.status, 404);
    let wrong = client(process, HOLDER).get(&format!("/v1/tokens/crm-sync/{MEMBER}")).expect("an answer");
    assert_eq!(wrong.status, 405);
}

fn revoked_tokens_go(ingress: &Process, processor: &Process) {
    let command = json!({ "command": "trust", "app": "crm-sync", "member_id": MEMBER,
        "principal": fingerprint(APPLICATION_TOKEN), "revoke": true });
    let answer = client(processor, OPERATOR)
        .post("/v1/commands", "application/x-ndjson", format!("{command}\n").as_bytes())
        .expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    eventually_ok(SOON, "the tokens are gone", || {
        let answer = ask(processor, HOLDER, "");
        anyhow::ensure!(answer.status == 404 && answer.text().contains("no-tokens"), "{}", answer.text());
        Ok(())
    });
    // Its events bring none.
    let id = send(&mut ingress.webhooks(), webhook("ONAPPUPDATE", now(), Some("late"), APPLICATION_TOKEN)).id;
    let answer = ask(processor, HOLDER, &format!("?after={id}&wait=30s"));
    assert_eq!(answer.status, 404, "{}", answer.text());
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Bytes of records, without the room that files have beyond.
fn used(log: &Path) -> usize {
    let files = fs::read_dir(log).expect("a log").map(|file| file.expect("a file").path());
    let used = |path: &Path| {
        fs::read(path).map_or(0, |bytes| bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1))
    };
    files.map(|path| used(&path)).sum()
}
