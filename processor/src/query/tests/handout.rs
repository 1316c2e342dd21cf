//! The tokens of an installation: who gets them, and what is said where they cannot be opened.

use event_log::{RawEvent, Record};

use super::*;
use crate::query::feed::memory_log::MemoryLog;
use crate::query::handout::Handout;
use crate::vault::index::VaultIndex;
use crate::vault::{Vault, VaultKeys, new_key};
use domain::{VaultEntry, VaultKey, VaultKind};

struct World {
    log: MemoryLog,
    vault: Arc<Vault>,
    context: QueryContext,
    stop: Stop,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.request();
    }
}

impl World {
    /// The state knows both entries; the log has none.
    fn new(tokens: &[&str]) -> Self {
        let (log, stop) = (MemoryLog::new("log", 1), Stop::default());
        let vault = Arc::new(vault());
        let index = VaultIndex::start(Arc::new(log.clone()), &vault, stop.clone()).expect("a thread");
        let context = context(tokens);
        let handout = Handout::new(Some((Arc::clone(&vault), index)), &runtime::telemetry::registry());
        let context = QueryContext { handout: Arc::new(handout), ..context };
        let world = Self { log, vault, context, stop };
        world.knows(1);
        world
    }

    /// Entries of events of this second.
    fn knows(&self, at: u64) {
        let changes = VaultKind::ALL.map(|kind| Change::Vault(key(kind), Some(entry(at, &self.vault))));
        apply(&self.context.store().expect("open"), &changes, None, 10 + at);
    }

    fn seal(&self, with: &Vault, kind: VaultKind, at: u64) {
        let body = format!(
            "event=ONAPPINSTALL&ts={at}&auth[member_id]={MEMBER}&auth[application_token]=app-token\
             &auth[access_token]=access-{at}&auth[refresh_token]=refresh-{at}"
        );
        let app = bitrix24::AppName::parse("crm-sync").expect("a name");
        let head = bitrix24::form::Form::parse(body.as_bytes()).head();
        let raw = RawEvent::new(app, head, body.into(), Timestamp::from_s(at));
        let value = with.seal(&key(kind), &entry(at, with), &raw);
        assert!(value.is_some());
        self.log
            .add_record(0, Record { key: Some(key(kind).to_string()), value, headers: vec![], at: raw.received_at });
    }

    fn seal_both(&self, at: u64) {
        for kind in VaultKind::ALL {
            self.seal(&self.vault, kind, at);
        }
    }

    async fn asked(&self) -> (u16, Value) {
        let (status, answer) = ask(self.context.clone(), request("right")).await;
        (status.as_u16(), answer)
    }
}

fn vault() -> Vault {
    Vault::new(VaultKeys::parse(new_key().0.reveal()).expect("a key"))
}

fn key(kind: VaultKind) -> VaultKey {
    let installation = Installation::parse("crm-sync", MEMBER).expect("valid");
    VaultKey { installation, kind, principal: Fingerprint::of("application token") }
}

fn entry(at: u64, vault: &Vault) -> VaultEntry {
    let stamp = Stamp::new(None, Timestamp::from_s(at), EventId::from_u128(at.into()));
    VaultEntry { stamp, is_lifecycle: true, key: vault.keys().ids()[0].clone() }
}

fn request(token: &str) -> TestRequest {
    let path = format!("/v1/tokens/crm-sync/{MEMBER}");
    TestRequest::post().uri(&path).insert_header(("authorization", format!("Bearer {token}")))
}

#[actix_web::test]
async fn the_tokens_that_the_state_knows_are_handed_out_once_the_log_has_them() {
    let world = World::new(&["right tokens"]);
    world.seal_both(1);
    let (status, answer) = world.asked().await;
    assert_eq!((status, &answer["access_token"]), (200, &json!("access-1")), "{answer}");
    assert_eq!((&answer["application_token"], &answer["refresh_token"]), (&json!("app-token"), &json!("refresh-1")));
    assert_eq!((&answer["stale"], &answer["omitted"]), (&json!(true), &json!([])), "it has ended long ago");
    // The state is ahead of the index.
    world.knows(2);
    let (asked, ()) = tokio::join!(world.asked(), async { world.seal_both(2) });
    assert_eq!(asked.1["access_token"], "access-2", "{}", asked.1);
    // And behind it: the newer pair is the one that is there.
    world.seal_both(3);
    let newer = async || world.asked().await.1["access_token"] == "access-3";
    while !newer().await {}
}

#[actix_web::test]
async fn what_cannot_be_opened_is_named_and_the_rest_is_handed_out() {
    let (world, other) = (World::new(&["right tokens"]), vault());
    world.seal(&world.vault, VaultKind::ApplicationToken, 1);
    world.seal(&other, VaultKind::Tokens, 1);
    let (status, answer) = world.asked().await;
    assert_eq!((status, &answer["application_token"]), (200, &json!("app-token")), "{answer}");
    assert_eq!((&answer["access_token"], &answer["omitted"]), (&Value::Null, &json!(["tokens"])));
    assert_eq!((&answer["stale"], &answer["occurred_at"]), (&Value::Null, &Value::Null));

    let world = World::new(&["right tokens"]);
    for kind in VaultKind::ALL {
        world.seal(&other, kind, 1);
    }
    let (status, problem) = world.asked().await;
    assert_eq!((status, &problem["type"]), (503, &json!("/docs/problems#vault-key-missing")));
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(&other.keys().ids()[0])), "{problem}");

    let world = World::new(&["right tokens"]);
    for kind in VaultKind::ALL {
        let value = Some("{\"sealed\":1}".into());
        world.log.add_record(
            0,
            Record { key: Some(key(kind).to_string()), value, headers: vec![], at: Timestamp::from_s(1) },
        );
    }
    let (status, problem) = world.asked().await;
    assert_ne!(status, 200, "{problem}");
}

#[actix_web::test]
async fn tokens_are_for_query_tokens_of_their_scope_and_app() {
    let tokens = ["reads", "right tokens", "operates operate", "limited tokens app=other"];
    let world = World::new(&tokens);
    world.seal_both(1);
    for (token, status, kind) in [
        ("wrong", 401, "unauthorised"),
        ("reads", 403, "missing-scope"),
        ("operates", 403, "missing-scope"),
        ("limited", 403, "other-app"),
    ] {
        let (found, problem) = ask(world.context.clone(), request(token)).await;
        assert_eq!((found.as_u16(), &problem["type"]), (status, &json!(format!("/docs/problems#{kind}"))), "{token}");
    }
    assert_eq!(world.asked().await.0, 200);
    let open = World::new(&[]);
    open.seal_both(1);
    let path = format!("/v1/tokens/crm-sync/{MEMBER}");
    let local = TestRequest::post().uri(&path).insert_header(("host", "localhost"));
    let (status, problem) = ask(open.context.clone(), local).await;
    assert_eq!(
        (status.as_u16(), &problem["type"]),
        (403, &json!("/docs/problems#tokens-needed")),
        "any user could ask"
    );
}

#[actix_web::test]
async fn without_tokens_or_a_vault_the_answer_says_so() {
    let off = ask(context(&["right tokens"]), request("right")).await;
    assert_eq!((off.0.as_u16(), &off.1["type"]), (503, &json!("/docs/problems#vault-off")));
    let world = World::new(&["right tokens"]);
    let gone = VaultKind::ALL.map(|kind| Change::Vault(key(kind), None));
    apply(&world.context.store().expect("open"), &gone, None, 20);
    let (status, problem) = world.asked().await;
    assert_eq!((status, &problem["type"]), (404, &json!("/docs/problems#no-tokens")));
    let path = "/v1/tokens/crm-sync/unknown";
    let unknown = TestRequest::post().uri(path).insert_header(("authorization", "Bearer right"));
    assert_eq!(ask(world.context.clone(), unknown).await.0, StatusCode::NOT_FOUND);
}
