//! Queries as they come over real sockets: kept with the event, also with bytes that a URL must not have.

use primitives::time::Timestamp;

use super::*;

fn post_to(query: &str, fields: &str) -> Vec<u8> {
    let head =
        format!("POST /v1/events/a{query} HTTP/1.1\r\nhost: h\r\n{fields}content-length: {}\r\n\r\n", BODY.len());
    [head.as_bytes(), BODY.as_bytes()].concat()
}

/// The queries of all events, in their order.
fn queries(server: &Running) -> Vec<Option<String>> {
    server.events().into_iter().map(|event| event.query).collect()
}

#[test]
fn a_query_is_kept_as_it_was_sent() {
    let server = Running::start(&[]);
    for query in ["", "?", "?deal_id=42&title=Acme%20%D0%AF+x", "?a[b]={\\}|^`~'"] {
        assert_eq!(statuses(&server.say(post_to(query, "connection: close\r\n"))), ["200"], "{query}");
    }
    let kept = [None, None, Some("deal_id=42&title=Acme%20%D0%AF+x"), Some("a[b]={\\}|^`~'")];
    assert_eq!(queries(&server), kept.map(|query| query.map(str::to_owned)));
}

#[test]
fn bytes_that_a_url_must_not_have_are_taken_in_a_query_wherever_the_head_is_cut() {
    let server = Running::start(&[]);
    let request = post_to("?t=Я\"<b>#x", "x: \"Я<\r\n");
    let kept = "t=%D0%AF%22%3Cb%3E%23x";
    // Each on the same connection, so that every request line but the first follows a body.
    let mut socket = server.connect();
    socket.set_nodelay(true).expect("small packets");
    for cut in 0..=request.len() {
        socket.write_all(&request[..cut]).expect("a part");
        thread::yield_now();
        socket.write_all(&request[cut..]).expect("the rest");
        assert_eq!(statuses(&one_answer(&mut socket)), ["200"], "cut at {cut}");
    }
    let events = server.events();
    assert_eq!(events.len(), request.len() + 1);
    assert!(events.iter().all(|event| event.query.as_deref() == Some(kept) && event.body == BODY));
}

#[test]
fn bytes_of_another_encoding_are_taken_too() {
    let server = Running::start(&[]);
    let request = post_to("?t=@", "connection: close\r\n");
    let request: Vec<u8> = request.into_iter().map(|byte| if byte == b'@' { 0xdf } else { byte }).collect();
    assert_eq!(statuses(&server.say(request)), ["200"]);
    assert_eq!(queries(&server), [Some("t=%DF".to_owned())]);
}

#[test]
fn what_is_sent_ahead_is_never_changed() {
    let server = Running::start(&[]);
    // A body that looks like the head of a request stays the body that it is.
    let inner = "event=x&auth[member_id]=a&y=\r\n\r\nPOST /v1/events/a?\"Я HTTP/1.1\r\n\r\n";
    let requests = [post(inner), post(inner), last_post(inner)].concat();
    assert_eq!(statuses(&server.say(&requests)), ["200", "200", "200"]);
    let bodies = server.events();
    assert!(bodies.iter().all(|event| event.body == inner.as_bytes() && event.query.is_none()));

    // The second one cannot be told from a body for sure: it is refused, as any such line was.
    let ahead = [post_to("?a=\"", ""), post_to("?b=\"", "")].concat();
    assert_eq!(statuses(&server.say(ahead)), ["200", "400"]);
    let chunked = "POST /v1/events/a?c=\" HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunked = format!("{chunked}{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len());
    let mut socket = server.connect();
    socket.write_all(chunked.as_bytes()).expect("a request");
    assert_eq!(statuses(&one_answer(&mut socket)), ["200"]);
    socket.write_all(&post_to("?d", "")).expect("another");
    assert_eq!(statuses(&one_answer(&mut socket)), ["200"]);
    socket.write_all(&post_to("?e=\"", "")).expect("a third");
    assert_eq!(statuses(&until_closed(&mut socket)), ["400"]);
    let kept = ["a=%22", "c=%22", "d"].map(|query| Some(query.to_owned()));
    assert_eq!(queries(&server)[3..], kept);
}

#[test]
fn a_query_has_the_limit_of_a_head() {
    let server = Running::start(&[]);
    let query = |count: usize| post_to(&format!("?t={}", "\"".repeat(count)), "connection: close\r\n");
    assert_eq!(statuses(&server.say(query(5_000))), ["200"]);
    assert_eq!(statuses(&server.say(query(20_000))), ["431"]);
    assert_eq!(queries(&server), [Some(format!("t={}", "%22".repeat(5_000)))]);
}

#[test]
fn a_control_character_or_a_space_in_a_query_is_refused_as_before() {
    let server = Running::start(&[]);
    for query in ["?a\u{1}", "?a\0b", "?a b", "?a\tb", "?a\rb", "?a\u{7f}"] {
        assert_eq!(statuses(&server.say(post_to(query, ""))), ["400"], "{query:?}");
    }
    assert_eq!(server.events(), []);
}

#[test]
fn an_event_in_a_get_is_refused_and_a_probe_is_not() {
    let server = Running::start(&[]);
    let get = |method: &str, query: &str| {
        server.say(format!("{method} /v1/events/a{query} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"))
    };
    for query in ["?event=ONAPPINSTALL", "?auth[member_id]=a", "?auth%5Bdomain%5D=x", "?member_id=a&x=1"] {
        for method in ["GET", "HEAD"] {
            let answer = get(method, query);
            assert_eq!(statuses(&answer), ["405"], "{method} {query}");
            assert!(answer.contains("allow: POST\r\n"), "{answer}");
        }
    }
    for query in ["", "?", "?DOMAIN=x.bitrix24.com", "?event=", "?events=x"] {
        assert_eq!(statuses(&get("GET", query)), ["200"], "{query}");
        assert_eq!(statuses(&get("HEAD", query)), ["200"], "{query}");
    }
    assert_eq!(server.events(), []);
}

#[test]
fn an_event_may_be_split_between_query_and_body() {
    let server = Running::start(&[]);
    let body = "data[x]=1&ts=5";
    let request = |query: &str| {
        let length = body.len();
        format!(
            "POST /v1/events/a?{query} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    assert_eq!(statuses(&server.say(request("event=ONX&ts=6&auth[member_id]=a223"))), ["200"]);
    assert_eq!(statuses(&server.say(request("x=1"))), ["400"]);
    let event = server.events().remove(0);
    assert_eq!((event.kind.as_deref(), event.occurred_at.map(Timestamp::s)), (Some("onx"), Some(5)));
    assert_eq!(event.key().as_deref(), Some("a/a223"));
}
