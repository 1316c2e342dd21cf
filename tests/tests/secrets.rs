//! No secret that was ever sent is found where it must not be, even when the programs log all that they can.

use std::cell::RefCell;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use aho_corasick::AhoCorasick;
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use portal_sim::player::{Player, Step, Webhook};
use tests::cluster::{Cluster, Standalone};
use tests::http::{Client, FORM, JSON};
use tests::kafka;
use tests::load::{Acked, send};
use tests::oracle::{Oracle, fingerprint};
use tests::process::{Process, Program, run};
use tests::topics::Isolation;
use tests::verify::{answers_agree, raw_of};
use tests::wait::eventually;

const PORTALS: u64 = 12;
const EACH: usize = 14;

/// A body that is not understood, or not taken, may hold secrets too.
const ODD_SECRET: &str = "5ecre7a5d0c4f1b2e3d4c5b6a7980fed";

/// Sent to with queries.
const QUERIED: &str = "0e000000000000000000000000000000";

/// Of a portal that sends tokens in events of every kind.
const CANARY: &str = "ca000000000000000000000000000000";

/// All is logged, and there is a vault.
fn everything(key: &str) -> Vec<(&'static str, &str)> {
    vec![("RUST_LOG", "trace"), ("HOOKLEDGER_VAULT_KEY_FILE", key)]
}

fn keygen(directory: &Path) -> String {
    let key = directory.join("key").display().to_string();
    assert_eq!(run(Program::Hookledger, &["vault", "keygen", &key]).code, Some(0));
    key
}

#[test]
fn no_secret_is_found_behind_the_raw_topic() {
    let Some(servers) = kafka::shared("no_secret_is_found_behind_the_raw_topic") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let key = keygen(directory.path());
    let mut cluster = Cluster::start_with(servers, 1, &everything(&key));
    let mut search = Search::default();
    let acked = send_all(&cluster.ingress, &mut search);
    let raw = raw_of(cluster.names(), &acked);
    let oracle = Oracle::of(&raw);
    answers_agree(&mut cluster.processors[0].queries(), &oracle);
    in_queries(&cluster.ingress, &mut cluster.processors[0].queries());
    in_every_kind(&cluster.ingress, &cluster.processors[0], &mut search);
    assert!(oracle.rejected.len() >= 4, "odd bodies were set aside, not lost");

    search.look_at_answers(&cluster.processors[0], &oracle);
    for process in [&cluster.ingress, &cluster.processors[0]] {
        search.look_at("metrics", &process.admin().get("/metrics").expect("metrics").body);
    }
    for topic in ["facts", "events", "unverified", "installations", "permissions", "rejected", "vault", "forward"] {
        for record in cluster.names().read(topic, Isolation::Uncommitted) {
            search.look_at(topic, format!("{:?}", record.headers).as_bytes());
            search.look_at(topic, record.key.unwrap_or_default().as_bytes());
            search.look_at(topic, &record.value.unwrap_or_default());
        }
    }
    let sealed = cluster.names().read("vault", Isolation::Committed);
    assert!(sealed.iter().filter(|record| record.value.is_some()).count() > 20, "tokens are in the vault, sealed");
    // What is in its memory only goes to the disk at the end.
    cluster.processors[0].terminate();
    search.look_at_files(&cluster.names().home("processor-1"));
    search.look_at("log of ingress", cluster.ingress.logs().as_bytes());
    search.look_at("log of processor", cluster.processors[0].logs().as_bytes());
    assert!(search.bytes > 100_000, "there was something to search: {} bytes", search.bytes);
    assert_eq!(search.found, Vec::<String>::new());

    let is_there = raw.iter().any(|record| search.finds(record.value.as_deref().unwrap_or_default()).is_some());
    assert!(is_there, "the search finds secrets where they are");
}

#[test]
fn no_secret_is_found_in_what_a_standalone_process_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let key = keygen(directory.path());
    let mut standalone = Standalone::start_with(&everything(&key));
    let mut search = Search::default();
    let acked = send_all(&standalone.process, &mut search);
    let oracle = Oracle::of_acked(&acked);
    answers_agree(&mut standalone.process.queries(), &oracle);
    in_queries(&standalone.process, &mut standalone.process.queries());
    in_every_kind(&standalone.process, &standalone.process, &mut search);
    search.look_at_answers(&standalone.process, &oracle);
    search.look_at("metrics", &standalone.process.admin().get("/metrics").expect("metrics").body);
    standalone.process.terminate();
    search.look_at("log", standalone.process.logs().as_bytes());
    search.look_at_files(&standalone.data().join("processor"));
    let mut logs = Vec::new();
    for log in fs::read_dir(standalone.data().join("logs")).expect("the logs") {
        logs.push(log.expect("a log").path());
    }
    let (raw, derived): (Vec<_>, Vec<_>) = logs.into_iter().partition(|log| log.ends_with("raw"));
    assert!(raw.len() == 1 && derived.len() >= 5, "raw {raw:?} and derived {derived:?}");
    for log in derived {
        search.look_at_files(&log);
    }
    assert_eq!(search.found, Vec::<String>::new());
}

/// Sends lives of portals and bodies that are odd, and remembers all secrets in them.
fn send_all(process: &Process, search: &mut Search) -> Vec<Acked> {
    let mut webhooks = process.webhooks();
    let mut acked = Vec::new();
    for number in 0..PORTALS {
        let mut portal = Player::new("crm-sync", number);
        acked.extend((0..EACH).map(|_| send(&mut webhooks, portal.next_webhook())));
        search.secrets.extend(portal.secrets().iter().cloned());
    }
    search.secrets.push("0f".repeat(35));
    search.secrets.push(ODD_SECRET.to_owned());
    acked.extend(odd().into_iter().map(|webhook| send(&mut webhooks, webhook)));
    refuse(&mut webhooks, search);
    acked
}

/// Taken because they name a portal, but not understood.
fn odd() -> Vec<Webhook> {
    let member = "auth[member_id]=0dd00000000000000000000000000000";
    let form = |body: String| Webhook { app: "crm-sync".to_owned(), content_type: FORM, body: body.into_bytes() };
    vec![
        form(format!("{member}&AUTH_ID={ODD_SECRET}&REFRESH_ID={ODD_SECRET}&APPLICATION_TOKEN={ODD_SECRET}")),
        form(format!(
            "event=ONAPPMETHODCONFIRM&data[TOKEN]={ODD_SECRET}&{member}&auth[application_token]={ODD_SECRET}"
        )),
        form(format!(
            "event=ONAPPMETHODCONFIRM&data[TOKEN]=a&data[METHOD]={ODD_SECRET}%00&data[CONFIRMED]=1&{member}&auth[application_token]={ODD_SECRET}"
        )),
        form(format!("event=ONAPPINSTALL&{member}&auth[access_token]={ODD_SECRET}")),
        form(format!("event=ONAPPINSTALL&{member}&auth[application_token][x]={ODD_SECRET}")),
    ]
}

/// Secrets in the query: of an event, of calls, of a page, and repeated in what is no secret.
fn in_queries(process: &Process, queries: &mut Client) {
    let mut webhooks = process.webhooks();
    let auth = format!("auth[member_id]={QUERIED}&auth[application_token]=a-token-of-another-kind");
    let page = format!("AUTH_ID={ODD_SECRET}&member_id={QUERIED}&PLACEMENT=DEFAULT");
    for (query, body) in [
        (format!("APP_SID={ODD_SECRET}&note=see+{ODD_SECRET}"), format!("event=ONX&data[x]={ODD_SECRET}&{auth}")),
        (format!("event=ONX&auth[access_token]={ODD_SECRET}&auth[unknown]={ODD_SECRET}&{auth}"), "x=1".to_owned()),
        (format!("token={ODD_SECRET}&x[{ODD_SECRET}]=1"), format!("document_id[0]=crm&auth[member_id]={QUERIED}")),
        (format!("auth={ODD_SECRET}"), format!("document_id[0]={ODD_SECRET}&{auth}")),
        (format!("DOMAIN=x.bitrix24.com&APP_SID={ODD_SECRET}"), page),
        (format!("hook=https://x/rest/1/{ODD_SECRET}/&Я=\"{}\"", "0f".repeat(35)), format!("event=ONX&{auth}")),
    ] {
        let answer = webhooks.post(&format!("/v1/events/queried?{query}"), FORM, body.as_bytes()).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let id = answer.json()["id"].as_str().expect("an id").to_owned();
        let path = format!("/v1/installations/queried/{QUERIED}?after={id}&wait=30s");
        assert_ne!(queries.get(&path).expect("an answer").status, 504, "it is folded");
    }
    // Answered before it is looked at.
    let answer =
        webhooks.get(&format!("/v1/events/queried?event=ONX&auth[access_token]={ODD_SECRET}")).expect("an answer");
    assert_eq!(answer.status, 405);
    assert!(!answer.text().contains(ODD_SECRET));
}

/// Tokens in events and calls of every kind, of a portal that is trusted.
fn in_every_kind(ingress: &Process, queries: &Process, search: &mut Search) {
    let mut webhooks = ingress.webhooks();
    let mut secret = |what: &str| {
        let secret = fingerprint(&format!("canary {what}"))[..40].to_owned();
        search.secrets.push(secret.clone());
        secret
    };
    let token = secret("application_token");
    let auth = format!("auth[member_id]={CANARY}&auth[application_token]={token}&auth[domain]=canary.bitrix24.com");
    let kinds = [
        "ONAPPINSTALL",
        "ONAPPUPDATE",
        "ONAPPPAYMENT",
        "ONAPPMETHODCONFIRM",
        "ONAPPUSERREADY",
        "ONAPPTEST",
        "ONOFFLINEEVENT",
        "ONSUBSCRIPTIONRENEW",
        "ONUSERADD",
        "ONCRMCONTACTADD",
        "ONAPPUNINSTALL",
    ];
    let mut bodies = Vec::new();
    for kind in kinds {
        let [access, refresh, shown, system, other] = ["access", "refresh", "shown", "system access", "system refresh"]
            .map(|what| secret(&format!("{what} of {kind}")));
        bodies.push(format!(
            "event={kind}&data[METHOD]=user.get&data[CONFIRMED]=1&data[TOKEN]={shown}&data[access_token]={system}\
             &data[refresh_token]={other}&auth[access_token]={access}&auth[refresh_token]={refresh}&{auth}"
        ));
    }
    let [access, refresh] = ["access", "refresh"].map(|what| secret(&format!("{what} of a robot")));
    bodies.push(format!("document_id[0]=crm&auth[access_token]={access}&auth[refresh_token]={refresh}&{auth}"));
    let [access, refresh] = ["access", "refresh"].map(|what| secret(&format!("{what} of a page")));
    let page = format!("member_id={CANARY}&PLACEMENT=DEFAULT&AUTH_ID={access}&REFRESH_ID={refresh}");
    bodies.push(format!("{page}&APPLICATION_TOKEN={token}"));
    bodies.push(page);
    let sent = bodies.into_iter().map(|body| {
        let answer = webhooks.post("/v1/events/canaries", FORM, body.as_bytes()).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["id"].as_str().expect("an id").to_owned()
    });
    let last = sent.last().expect("some were sent");
    // Without query tokens the port hands out nothing.
    let path = format!("/v1/tokens/canaries/{CANARY}?after={last}&wait=30s");
    let answer = queries.queries().post(&path, JSON, b"").expect("an answer");
    assert_eq!((answer.status, &answer.json()["type"]), (403, &"/docs/problems#tokens-needed".into()));
    search.look_at("/v1/tokens", &answer.body);
    let path = format!("/v1/installations/canaries/{CANARY}?after={last}&wait=30s");
    let answer = queries.queries().get(&path).expect("an answer");
    assert_eq!(answer.json()["status"], "uninstalled", "all is folded: {}", answer.text());
    search.look_at("record", &answer.body);
}

/// Answered with a problem, which must not repeat what it is about.
fn refuse(webhooks: &mut Client, search: &mut Search) {
    let long = format!("event=ONAPPTEST&auth[application_token]={ODD_SECRET}&x={}", "a".repeat(600_000));
    let cases: [(&str, &str, &str); 5] = [
        ("/v1/events/crm-sync", FORM, &long),
        ("/v1/events/crm-sync", FORM, &format!("auth[application_token]={ODD_SECRET}")),
        ("/v1/events/crm-sync", JSON, &format!("{{\"auth\":{{\"access_token\":\"{ODD_SECRET}\"")),
        ("/v1/events/NO-SUCH", FORM, &format!("event=ONAPPTEST&auth[access_token]={ODD_SECRET}")),
        ("/v1/nothing-here", FORM, &format!("event=ONAPPTEST&auth[access_token]={ODD_SECRET}")),
    ];
    for (path, content_type, body) in cases {
        let answer = webhooks.post(path, content_type, body.as_bytes()).expect("an answer");
        assert!(answer.status >= 400, "{path} was answered {}", answer.status);
        search.look_at("problem", &answer.body);
    }
}

/// Secrets, where they were looked for, and where they were found.
#[derive(Default)]
struct Search {
    secrets: Vec<String>,
    bytes: usize,
    found: Vec<String>,
    /// Made of so many secrets.
    automaton: RefCell<Option<(usize, Rc<AhoCorasick>)>>,
}

/// A telling half of a secret, in clear, base64 at any place, hexadecimal digits and percent-encoded.
fn forms(half: &str) -> Vec<String> {
    let bytes = half.as_bytes();
    let mut forms = vec![half.to_owned()];
    for shift in 0..3 {
        let text = BASE64_STANDARD_NO_PAD.encode([&vec![0; shift][..], bytes].concat());
        // The characters that no neighbour changes.
        let whole = text[(shift * 8).div_ceil(6)..(shift + bytes.len()) * 8 / 6].to_owned();
        forms.extend([whole.replace('+', "-").replace('/', "_"), whole]);
    }
    let each = |form: &dyn Fn(&u8) -> String| bytes.iter().map(form).collect::<String>();
    forms.push(each(&|byte| format!("{byte:02x}")));
    forms.push(each(&|byte| format!("{byte:02X}")));
    forms.push(each(&|byte| format!("%{byte:02x}")));
    forms.push(each(&|byte| format!("%{byte:02X}")));
    forms
}

#[test]
fn the_search_finds_a_secret_in_every_form_and_nothing_else() {
    let secret = "canary-0123456789-of-many-letters";
    let search = Search { secrets: vec![secret.to_owned()], ..Search::default() };
    assert_eq!(search.finds(b"a line without it, and canary-0123 alone"), None);
    let each = |form: &dyn Fn(u8) -> String| secret.bytes().map(form).collect::<String>();
    let mut leaks = vec![
        secret.to_owned(),
        each(&|byte| format!("{byte:02x}")),
        each(&|byte| format!("{byte:02X}")),
        each(&|byte| format!("%{byte:02X}")),
        format!("cut to {}", &secret[..16]),
    ];
    for before in ["", "x", "xy", "xyz"] {
        leaks.push(BASE64_STANDARD_NO_PAD.encode(format!("{before}{secret}behind it")));
    }
    for leak in leaks {
        assert!(search.finds(format!("a line\n{{\"x\":\"{leak}\"}}").as_bytes()).is_some(), "{leak}");
    }
}

impl Search {
    fn look_at(&mut self, what: &str, bytes: &[u8]) {
        self.bytes += bytes.len();
        if let Some(around) = self.finds(bytes) {
            self.found.push(format!("{what}: {around}"));
        }
    }

    /// What stands around the first secret, or a telling half of one.
    fn finds(&self, bytes: &[u8]) -> Option<String> {
        let at = self.automaton().find(bytes)?.start();
        let text = String::from_utf8_lossy(&bytes[..at]);
        let line = text.rfind('\n').map_or(0, |end| end + 1);
        let around = text[line..].to_owned() + &String::from_utf8_lossy(&bytes[at..]);
        Some(around.chars().take(400).collect())
    }

    fn automaton(&self) -> Rc<AhoCorasick> {
        let mut known = self.automaton.borrow_mut();
        if known.as_ref().is_none_or(|(secrets, _)| *secrets != self.secrets.len()) {
            let halves = self.secrets.iter().flat_map(|secret| [&secret[..16], &secret[secret.len() - 16..]]);
            let forms: Vec<String> = halves.flat_map(forms).collect();
            *known = Some((self.secrets.len(), Rc::new(AhoCorasick::new(forms).expect("few patterns"))));
        }
        Rc::clone(&known.as_ref().expect("made above").1)
    }

    fn look_at_files(&mut self, folder: &Path) {
        for file in fs::read_dir(folder).expect("a directory") {
            let path = file.expect("a file").path();
            if path.is_dir() {
                self.look_at_files(&path);
            } else {
                self.look_at(&path.display().to_string(), &fs::read(&path).expect("a file"));
            }
        }
    }

    fn look_at_answers(&mut self, process: &Process, oracle: &Oracle) {
        let mut queries = process.queries();
        let pages = ["/", "/events", "/installations", "/installations?status=untrusted"];
        let mut paths: Vec<String> = pages.map(str::to_owned).into();
        paths.extend(["/v1/installations", "/v1/installations?cursor=x"].map(str::to_owned));
        for key in oracle.portals.keys() {
            paths.extend(["", "/history", "/methods"].map(|part| format!("/v1/installations/{key}{part}")));
            paths.push(format!("/installations/{key}"));
        }
        for path in paths {
            let answer = queries.get(&path).expect("an answer");
            self.look_at(&path, &answer.body);
        }
        // A question holds a token, and its answer must not.
        for body in [
            format!("{{\"app\":\"crm-sync\",\"member_id\":\"x\",\"method\":\"a.b\",\"token\":\"{ODD_SECRET}\"}}"),
            format!("{{\"app\":\"crm-sync\",\"token\":\"{ODD_SECRET}\""),
            format!(
                "{{\"app\":\"crm-sync\",\"member_id\":\"x\",\"method\":\"a.b\",\"token_fingerprint\":\"{ODD_SECRET}\"}}"
            ),
        ] {
            let answer = queries.post("/v1/check", JSON, body.as_bytes()).expect("an answer");
            self.look_at("/v1/check", &answer.body);
        }
    }
}

#[test]
fn all_that_is_made_is_its_owners_alone_whatever_the_umask_and_no_lock_is_behind_a_link() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let mode_of = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    for open in [data.clone(), data.join("logs")] {
        fs::create_dir(&open).expect("made");
        fs::set_permissions(&open, Permissions::from_mode(0o755)).expect("ours");
    }
    let tokens = home.path().join("tokens");
    fs::write(&tokens, "a-token-of-sixteen-bytes").expect("written");
    fs::set_permissions(&tokens, Permissions::from_mode(0o644)).expect("ours");
    let entrance = ["sh", "-c", "umask 000; exec \"$0\" \"$@\""].map(str::to_owned);
    let (data_dir, tokens) = (data.display().to_string(), tokens.display().to_string());
    let arguments = ["standalone", "--data-dir", &data_dir, "--query-tokens-file", &tokens];
    let mut standalone =
        Process::start_inside(&entrance, Program::Hookledger, &arguments, &[], &home.path().join("log"));
    standalone.ready();
    send(&mut standalone.webhooks(), Player::new("crm-sync", 1).webhook(Step::Install));

    let (mut left, mut files) = (vec![data.clone()], 0);
    while let Some(path) = left.pop() {
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode_of(&path), wanted, "{}", path.display());
        if path.is_dir() {
            left.extend(path.read_dir().expect("ours").map(|entry| entry.expect("a name").path()));
        } else {
            files += 1;
        }
    }
    assert!(files > 10, "{files}");
    let logs = standalone.logs();
    assert!(logs.contains(&format!("{data_dir} was open to others")), "tightened, and told");
    assert!(logs.contains(&format!("chmod 600 {tokens}")), "warned about, with the remedy");

    assert!(standalone.terminate().success());
    for lock in [data.join("processor/lock"), data.join("logs/raw/lock")] {
        let target = home.path().join("theirs");
        fs::write(&target, "theirs").expect("written");
        fs::remove_file(&lock).expect("it was there");
        symlink(&target, &lock).expect("a link");
        standalone.restart_without_waiting();
        let status = eventually(Duration::from_secs(60), "it does not start", || standalone.ended());
        assert!(!status.success());
        standalone.kill9();
        assert_eq!(fs::read(&target).expect("read"), b"theirs");
        fs::remove_file(&lock).expect("the link");
    }
}
