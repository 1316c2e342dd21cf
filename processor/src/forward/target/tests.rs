use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use bitrix24::Installation;
use bytes::Bytes;
use event_log::EventId;

use super::*;
use crate::forward::progress::Head;
use crate::forward::request::Request;
use crate::forward::schedule::LaneKey;

fn reachable(text: &str) -> Reachable {
    Reachable::parse([text]).expect("networks")
}

#[test]
fn the_query_comes_behind_that_of_the_target_as_it_came() {
    let url = "http://127.0.0.1/handler.php";
    assert_eq!(with_query(url, None), url);
    assert_eq!(with_query(url, Some("a=%20&b[]=1")), format!("{url}?a=%20&b[]=1"));
    assert_eq!(with_query(&format!("{url}?key=1"), Some("a=2")), format!("{url}?key=1&a=2"));
}

#[test]
fn a_pause_is_seconds_or_a_time() {
    let now = Timestamp::parse("1994-11-06T08:49:07Z").expect("a time");
    assert_eq!(pause("120", now), Some(Duration::from_secs(120)));
    assert_eq!(pause("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(30)));
    assert_eq!(pause("Sun, 06 Nov 1994 08:48:37 GMT", now), Some(Duration::ZERO), "it is over");
    for wrong in ["", "soon", "-1", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06"] {
        assert_eq!(pause(wrong, now), None, "{wrong}");
    }
}

#[test]
fn a_target_is_a_url_whose_address_may_be_reached() {
    for (url, why) in [
        ("ftp://example.org/", "https://"),
        ("example.org/x", "https://"),
        ("/handler", "https://"),
        ("https://user:hidden@example.org/", "user name"),
        ("https://example.org/#x", "`#`"),
        ("https://127.0.0.1/?key=hidden", "forward-networks"),
        ("http://localhost:8000/", "forward-networks"),
        ("http://[::1]:8000/", "forward-networks"),
        ("https://169.254.169.254/", "forward-networks"),
        ("http://93.184.216.34/", "https"),
    ] {
        let error = check_url(url, &reachable("")).expect_err(url);
        assert!(error.contains(why) && !error.contains("hidden"), "{url}: {error}");
    }
    for url in ["https://example.org/x?key=1", "http://handler:8080/", "https://93.184.216.34/"] {
        assert_eq!(check_url(url, &reachable("")), Ok(()), "{url}");
    }
    assert_eq!(check_url("http://127.0.0.1:8000/", &reachable("loopback")), Ok(()));
}

fn delivery(query: Option<&str>, content_type: Option<&str>) -> Delivery {
    let lane = LaneKey { source: Source::Unverified, partition: 0 };
    let head =
        Head { offset: 7, id: EventId::from_u128(7), kind: "onapptest".into(), received_at: Timestamp::from_s(5) };
    let request = Request {
        received_at: Timestamp::from_s(5),
        body: Bytes::from_static(b"a=\xff\x00"),
        content_type: content_type.map(str::to_owned),
        query: query.map(str::to_owned),
        compression: None,
    };
    Delivery::of(lane, Installation::parse("crm-sync", "a223").expect("valid"), head, request)
}

/// Answers one connection with these bytes, or with nothing for a while, and returns what came.
fn server(answer: Option<&'static str>) -> (String, thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://localhost:{}/handler?key=1", listener.local_addr().expect("an address").port());
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let (mut received, mut buffer) = (Vec::new(), [0; 4_096]);
        while !received.ends_with(b"a=\xff\x00") {
            let count = stream.read(&mut buffer).expect("a request");
            received.extend(&buffer[..count]);
        }
        match answer {
            Some(answer) => stream.write_all(answer.as_bytes()).expect("written"),
            // Until the client gives up.
            None => drop(stream.read(&mut buffer)),
        }
        received
    });
    (url, thread)
}

fn target(url: &str, networks: &str) -> Target {
    Target::new(Secret::new(url), Arc::new(reachable(networks)), Duration::from_millis(500), 1)
}

#[test]
fn the_request_is_the_one_that_came_with_a_few_headers() {
    let (url, server) = server(Some("HTTP/1.1 204 No Content\r\n\r\n"));
    let outcome = target(&url, "loopback").deliver(&delivery(Some("b=%zz&c[]="), Some("text/x; y")));
    assert_eq!(outcome, Outcome::Delivered);
    let received = String::from_utf8_lossy(&server.join().expect("a request")).to_ascii_lowercase();
    assert!(received.starts_with("post /handler?key=1&b=%zz&c[]= http/1.1\r\n"), "{received}");
    for header in [
        "content-type: text/x; y",
        "content-length: 4",
        "hl-id: 00000000-0000-0000-0000-000000000007",
        "hl-received-at: 1970-01-01t00:00:05.000z",
        "hl-attempt: 1",
        "hl-verified: false",
    ] {
        assert!(received.contains(&format!("\r\n{header}\r\n")), "{header}: {received}");
    }
}

#[test]
fn a_request_without_a_content_type_gets_none() {
    let (url, server) = server(Some("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
    assert_eq!(target(&url, "loopback").deliver(&delivery(None, None)), Outcome::Delivered);
    let received = String::from_utf8_lossy(&server.join().expect("a request")).to_ascii_lowercase();
    assert!(!received.contains("content-type"), "{received}");
}

#[test]
fn what_the_handler_answers_is_judged_by_its_status_alone() {
    let pause = |seconds| Some(Duration::from_secs(seconds));
    for (answer, outcome) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\ncut off", Outcome::Delivered),
        ("HTTP/1.1 302 Found\r\nlocation: http://localhost:1/\r\n\r\n", Outcome::Failed(Failure::Status(302), None)),
        ("HTTP/1.1 429 Later\r\nretry-after: 7\r\n\r\n", Outcome::Failed(Failure::Status(429), pause(7))),
        ("HTTP/1.1 500 No\r\n\r\n", Outcome::Failed(Failure::Status(500), None)),
        ("", Outcome::Failed(Failure::Disconnected, None)),
        ("junk\r\n\r\n", Outcome::Failed(Failure::Disconnected, None)),
    ] {
        let (url, server) = server(Some(answer));
        assert_eq!(target(&url, "loopback").deliver(&delivery(None, None)), outcome, "{answer}");
        server.join().expect("a request");
    }
}

#[test]
fn a_handler_that_does_not_answer_is_told_from_one_that_is_not_there() {
    let (url, server) = server(None);
    let outcome = |url: &str, networks: &str| match target(url, networks).deliver(&delivery(None, None)) {
        Outcome::Failed(failure, None) => failure,
        other @ (Outcome::Delivered | Outcome::Failed(..)) => panic!("{other:?}"),
    };
    assert_eq!(outcome(&url, "loopback"), Failure::Timeout);
    server.join().expect("a request");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://localhost:{}/", listener.local_addr().expect("an address").port());
    assert_eq!(outcome(&url, ""), Failure::AddressRefused, "what the name leads to is checked");
    assert_eq!(outcome(&url, "private"), Failure::AddressRefused);
    drop(listener);
    assert_eq!(outcome(&url, "loopback"), Failure::Unreachable);
    assert!(Failure::Timeout.is_of_the_event() && !Failure::Unreachable.is_of_the_event());
}
