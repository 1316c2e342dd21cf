use std::pin::Pin;
use std::task::Poll;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::ServiceResponse;

use super::*;
use crate::query::feed::memory_log::MemoryLog;

struct World {
    log: MemoryLog,
    context: QueryContext,
    registry: Registry,
}

impl World {
    fn with(tokens: &[&str]) -> Self {
        let (log, registry) = (MemoryLog::new("log", 2), runtime::telemetry::registry());
        let logs: Arc<dyn LogQuery> = Arc::new(log.clone());
        let feed = feed(Arc::clone(&logs), &registry);
        let context = QueryContext { logs, feed, ..context(tokens) };
        Self { log, context, registry }
    }

    fn add(&self, events: u64) {
        for number in 0..events {
            self.log.add(usize::from(number % 2 == 1), if number % 3 == 0 { "crm-sync" } else { "other" });
        }
    }

    async fn asks(&self, path: &str) -> (StatusCode, Value) {
        ask(self.context.clone(), get(path)).await
    }

    /// The whole answer, whose body may have no end.
    async fn requests(&self, request: TestRequest) -> ServiceResponse<BoxBody> {
        let app = App::new().app_data(web::Data::new(self.context.clone())).configure(routes);
        let app = init_service(app.wrap(from_fn(access::guard))).await;
        call_service(&app, request.to_request()).await.map_into_boxed_body()
    }

    async fn stream(&self, path: &str) -> Stream {
        let response = self.requests(get(path)).await;
        assert_eq!(response.status(), StatusCode::OK);
        Stream { body: response.into_body(), text: String::new() }
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == format!("hookledger_{name}")).expect("a metric");
        family.get_metric()[0].get_gauge().get_value()
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..1_000 {
            if is_so(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it never became so");
    }
}

fn numbers(answer: &Value) -> Vec<u64> {
    let events = answer["events"].as_array().expect("a list").iter();
    events.map(|event| event["data"].as_u64().expect("a number")).collect()
}

/// What came of a stream.
struct Stream {
    body: BoxBody,
    text: String,
}

impl Stream {
    /// Until there are so many events, as id and number.
    async fn events(&mut self, count: usize) -> Vec<(String, u64)> {
        loop {
            let events = self.seen();
            if events.len() >= count {
                return events;
            }
            let next = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_next(cx));
            let chunk = tokio::time::timeout(Duration::from_secs(20), next).await.expect("in time");
            self.text.push_str(std::str::from_utf8(&chunk.expect("no end").expect("a chunk")).expect("text"));
        }
    }

    fn seen(&self) -> Vec<(String, u64)> {
        let event = |block: &str| {
            let (id, data) = block.strip_prefix("id: ")?.split_once("\ndata: ")?;
            let data: Value = serde_json::from_str(data).expect("JSON in one line");
            Some((id.to_owned(), data["data"].as_u64()?))
        };
        self.text.split("\n\n").filter_map(event).collect()
    }
}

#[actix_web::test]
async fn the_feed_goes_on_behind_its_cursor() {
    let world = World::with(&[]);
    world.add(9);
    let (status, first) = world.asks("/v1/feed?limit=4").await;
    assert_eq!((status, numbers(&first)), (StatusCode::OK, vec![0, 1, 2, 3]), "{first}");
    let event = json!({ "event": "ONCRMLEADADD", "app": "crm-sync", "member_id": "a0", "data": 0 });
    assert_eq!((&first["events"][0], &first["reaches_back_to"]), (&event, &json!(MemoryLog::at(0))));
    let next = first["next"].as_str().expect("a cursor");
    let (_, rest) = world.asks(&format!("/v1/feed?after={next}")).await;
    assert_eq!(numbers(&rest), [4, 5, 6, 7, 8]);
    let next = rest["next"].as_str().expect("a cursor");
    let (_, none) = world.asks(&format!("/v1/feed?after={next}")).await;
    assert_eq!((&none["events"], none["next"].is_string()), (&json!([]), true), "{none}");

    let (_, latest) = world.asks("/v1/feed?since=0s").await;
    assert_eq!(latest["events"], json!([]), "it begins now");
    let (_, since) = world.asks(&format!("/v1/feed?since={}", MemoryLog::at(7))).await;
    assert_eq!(numbers(&since), [7, 8]);
    let (_, empty) = World::with(&[]).asks("/v1/feed").await;
    assert_eq!((&empty["events"], &empty["reaches_back_to"]), (&json!([]), &Value::Null));
}

#[actix_web::test]
async fn the_feed_is_filtered() {
    let world = World::with(&[]);
    world.add(7);
    world.log.add_named(0, "OnAppInstall");
    for (filter, expected) in [
        ("app=crm-sync", vec![0, 3, 6]),
        ("member_id=a1", vec![1, 3, 5]),
        ("app=crm-sync&member_id=a1", vec![3]),
        ("type=onappinstall", vec![7]),
        ("type=com.bitrix24.oncrmleadadd&member_id=a0&app=other", vec![2, 4]),
        ("app=unknown", vec![]),
    ] {
        let (_, answer) = world.asks(&format!("/v1/feed?{filter}")).await;
        assert_eq!(numbers(&answer), expected, "{filter}");
    }
}

#[actix_web::test]
async fn a_mistake_in_a_question_for_events_is_named() {
    let world = World::with(&[]);
    world.add(1);
    let cursor = world.asks("/v1/feed").await.1["next"].as_str().expect("a cursor").to_owned();
    for (path, named) in [
        ("/v1/feed?cursor=x", "cursor is not known here".to_owned()),
        ("/v1/feed?after=nonsense", "after takes".to_owned()),
        (&format!("/v1/feed?after={}", &cursor[..cursor.len() - 4]), "after takes".to_owned()),
        (&format!("/v1/feed?after={cursor}&since=2h"), "after and since exclude".to_owned()),
        ("/v1/feed?since=yesterday", "since takes".to_owned()),
        ("/v1/feed?wait=31s", "wait takes".to_owned()),
        ("/v1/feed?limit=1001", "limit takes".to_owned()),
        ("/v1/feed?type=a%20b", "type takes".to_owned()),
        ("/v1/stream?limit=5", "limit is not known here".to_owned()),
        ("/v1/stream?after=nonsense", "after takes".to_owned()),
    ] {
        let (status, problem) = world.asks(path).await;
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(status == StatusCode::BAD_REQUEST && detail.starts_with(&named), "{path}: {status} {problem}");
    }
    let (status, problem) = ask(world.context.clone(), get("/v1/stream").insert_header(("last-event-id", "7"))).await;
    assert_eq!(
        (status, problem["detail"].as_str().expect("a text").starts_with("Last-Event-ID takes")),
        (StatusCode::BAD_REQUEST, true)
    );
}

#[actix_web::test]
async fn a_cursor_that_cannot_be_gone_on_with_is_told_why() {
    let world = World::with(&[]);
    world.add(8);
    let cursor = |answer: &Value| answer["next"].as_str().expect("a cursor").to_owned();
    let (first, all) = (cursor(&world.asks("/v1/feed?limit=2").await.1), cursor(&world.asks("/v1/feed").await.1));
    world.log.delete_before(0, 3);
    let mut again = World::with(&[]);
    again.log = world.log.made_again();
    let logs: Arc<dyn LogQuery> = Arc::new(again.log.clone());
    again.context =
        QueryContext { feed: super::feed(Arc::clone(&logs), &runtime::telemetry::registry()), logs, ..again.context };
    for (world, cursor, name) in [
        (&world, &first, "cursor-too-old"),
        (&again, &all, "cursor-of-another-log"),
        (&World::with(&[]), &all, "cursor-ahead"),
    ] {
        for path in ["feed", "stream"] {
            let (status, problem) = world.asks(&format!("/v1/{path}?after={cursor}")).await;
            assert_eq!(
                (status, &problem["type"]),
                (StatusCode::GONE, &json!(format!("/docs/problems#{name}"))),
                "{path}"
            );
        }
    }
}

#[actix_web::test]
async fn a_question_that_waits_is_answered_by_the_next_event() {
    let world = World::with(&[]);
    world.add(3);
    let next = world.asks("/v1/feed").await.1["next"].as_str().expect("a cursor").to_owned();
    let path = format!("/v1/feed?app=other&wait=20s&after={next}");
    let ((status, answer), ()) = tokio::join!(world.asks(&path), async {
        world.until(|world| world.metric("feed_readers") > 0.0).await;
        world.log.add(0, "crm-sync");
        world.log.add(1, "other");
    });
    assert_eq!((status, numbers(&answer)), (StatusCode::OK, vec![4]));
    assert!(world.metric("feed_readers").abs() < f64::EPSILON);
    let next = answer["next"].as_str().expect("a cursor");
    let (_, none) = world.asks(&format!("/v1/feed?wait=50ms&after={next}")).await;
    assert_eq!(none["events"], json!([]), "and after its time without one");
}

#[actix_web::test]
async fn a_token_of_one_app_gets_the_events_of_that_app_alone() {
    let world = World::with(&["right read app=crm-sync", "operator operate"]);
    world.add(9);
    let asked = |path: &str, token: &str| {
        ask(world.context.clone(), get(path).insert_header(("authorization", format!("Bearer {token}"))))
    };
    assert_eq!(numbers(&asked("/v1/feed", "right").await.1), [0, 3, 6]);
    assert_eq!(numbers(&asked("/v1/feed?app=crm-sync", "right").await.1), [0, 3, 6]);
    assert_eq!(asked("/v1/feed?app=other", "right").await.0, StatusCode::FORBIDDEN);
    assert_eq!(asked("/v1/stream?app=other", "right").await.0, StatusCode::FORBIDDEN);
    assert_eq!(asked("/v1/feed", "operator").await.0, StatusCode::FORBIDDEN);
    let request = get("/v1/stream").insert_header(("authorization", "Bearer right"));
    let mut stream = Stream { body: world.requests(request).await.into_body(), text: String::new() };
    let shown: Vec<u64> = stream.events(3).await.into_iter().map(|(_, number)| number).collect();
    assert_eq!(shown, [0, 3, 6]);
}

#[actix_web::test]
async fn no_more_read_at_once_than_there_are_places() {
    let world = World::with(&[]);
    let (first, _second) = (world.stream("/v1/stream").await, world.stream("/v1/stream").await);
    for path in ["/v1/stream", "/v1/feed?wait=1s"] {
        let (status, problem) = world.asks(path).await;
        assert_eq!(
            (status, &problem["title"]),
            (StatusCode::SERVICE_UNAVAILABLE, &json!("too many readers")),
            "{path}"
        );
    }
    assert_eq!(world.asks("/v1/feed").await.0, StatusCode::OK, "who does not wait needs no place");
    assert!((world.metric("feed_readers") - 2.0).abs() < f64::EPSILON);
    drop(first);
    world.until(|world| world.metric("feed_readers") < 2.0).await;
    world.stream("/v1/stream").await.events(0).await;
}

#[actix_web::test]
async fn a_stream_sends_what_comes_and_goes_on_behind_the_last_id() {
    let world = World::with(&[]);
    world.add(3);
    let mut stream = world.stream("/v1/stream").await;
    assert_eq!(stream.events(3).await.len(), 3);
    assert!(stream.text.starts_with("retry: 1000\nid: "), "a cursor comes before the first event: {}", stream.text);
    world.log.add(1, "other");
    let events = stream.events(4).await;
    assert_eq!(events.iter().map(|(_, number)| *number).collect::<Vec<_>>(), [0, 1, 2, 3]);
    for (number, (id, _)) in events.iter().enumerate() {
        let request = get("/v1/stream?since=2h").insert_header(("last-event-id", id.as_str()));
        let mut again = Stream { body: world.requests(request).await.into_body(), text: String::new() };
        let mut rest: Vec<_> = again.events(3 - number).await.into_iter().map(|(_, number)| number).collect();
        // The order of two partitions is not promised.
        rest.sort_unstable();
        assert_eq!(rest, (number as u64 + 1..4).collect::<Vec<_>>(), "behind event {number}");
        drop(again);
        world.until(|world| world.metric("feed_readers") < 2.0).await;
    }
    let first = stream.text.lines().find_map(|line| line.strip_prefix("id: ")).expect("the first id").to_owned();
    let request = get(&format!("/v1/feed?after={first}"));
    let mut all = numbers(&ask(world.context.clone(), request).await.1);
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3], "one cursor for both");
}

#[actix_web::test]
async fn a_stream_outlives_the_absence_of_the_log() {
    let world = World::with(&[]);
    world.add(1);
    let mut stream = world.stream("/v1/stream").await;
    stream.events(1).await;
    world.until(|world| world.metric("feed_lag_events").abs() < f64::EPSILON).await;
    world.log.set_away(true);
    assert_eq!(world.asks("/v1/feed").await.0, StatusCode::SERVICE_UNAVAILABLE);
    world.log.add(0, "other");
    world.log.set_away(false);
    assert_eq!(stream.events(2).await.len(), 2);
}

#[actix_web::test]
async fn a_reader_that_takes_nothing_is_behind_and_holds_one_answer() {
    let world = World::with(&[]);
    let stream = world.stream("/v1/stream").await;
    for _ in 0..20_000 {
        world.log.add(0, "other");
    }
    world.until(|world| world.metric("feed_lag_events") > 10_000.0).await;
    drop(stream);
    world.until(|world| world.metric("feed_lag_events").abs() < f64::EPSILON).await;
}

#[actix_web::test]
async fn a_head_of_a_stream_takes_no_place() {
    let world = World::with(&[]);
    for _ in 0..3 {
        let head = TestRequest::default()
            .method(actix_web::http::Method::HEAD)
            .uri("/v1/stream")
            .insert_header(("host", "localhost"));
        let response = world.requests(head).await;
        assert_eq!(response.headers().get("content-type").expect("a type"), "text/event-stream");
        let mut body = response.into_body();
        let over = std::future::poll_fn(|cx| match Pin::new(&mut body).poll_next(cx) {
            Poll::Ready(chunk) => Poll::Ready(chunk.is_none()),
            Poll::Pending => Poll::Ready(false),
        });
        assert!(over.await, "it has no body");
    }
    assert!(world.metric("feed_readers").abs() < f64::EPSILON);
}
