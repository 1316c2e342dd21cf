//! Rejected events, listed and redriven.

use serde_json::{Value, json};

use super::server::{Answer, Server};
use super::{ID, run};

#[test]
fn rejected_events_are_redriven_page_by_page_and_what_is_gone_is_told() {
    let server = Server::start_with(0, |asked, request| {
        assert_eq!(request.line, "POST /v1/rejected/redrive HTTP/1.1");
        *asked += 1;
        let outcome = if *asked == 1 { "gone" } else { "redriven" };
        let item = json!({"id": ID, "place": "0-15", "outcome": outcome, "redrive_id": ID});
        let next = if *asked == 1 { json!("7.5") } else { Value::Null };
        Answer::new(200, &json!({"items": [item], "redriven": 1, "last": ID, "next": next}))
    });
    let ended = run(&["rejected", "redrive", "--query", &server.url, "--member", "a223", "--since", "2h"]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stdout.contains("gone") && ended.stderr.contains("redriven: 1 of 2"), "{ended:?}");
    let sent = |nth: usize| serde_json::from_slice::<Value>(&server.requests()[nth].body).expect("JSON");
    assert_eq!(sent(0), json!({"member_id": "a223", "since": "2h", "limit": 100}));
    assert_eq!(sent(1), json!({"member_id": "a223", "since": "2h", "limit": 100, "cursor": "7.5"}));

    let ended = run(&["rejected", "redrive", "--query", &server.url, "--json", "0-15", ID]);
    assert_eq!((ended.code, sent(2)), (0, json!({"ids": ["0-15", ID]})), "{ended:?}");
    for wrong in
        [&["redrive"][..], &["redrive", "a/b"], &["redrive", ID, "--app", "a"], &["list", "--reason", "x"], &["show"]]
    {
        assert_eq!(run(&[&["rejected"], wrong].concat()).code, 2, "{wrong:?}");
    }
}
