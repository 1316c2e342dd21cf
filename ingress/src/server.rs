//! The port for webhooks, the only one that faces the internet.
//!
//! Sockets, limits and graceful shutdown are in `http_edge`; paths, sources and bodies in [`crate::webhook`].

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::web::{Data, Payload};
use actix_web::{App, HttpRequest, HttpResponse, web};
use anyhow::Context;
use http_edge::Options;
use http_edge::listener::listener;
use http_edge::site::is_cross_site;
use prometheus::Registry;
use runtime::lifecycle::Stop;

use crate::config::Webhooks;
use crate::delivery::handle::{Delivery, DeliveryHandle};
use crate::metrics::Metrics;
use crate::problem::Refusal;
use crate::webhook::WebhookHandler;

#[cfg(test)]
mod over_sockets;

/// How long shutdown waits for requests in flight, which is longer than any of their own waits.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

/// Takes webhooks at the address of the settings, or on the socket that was handed over.
pub fn take_webhooks(
    webhooks: &Webhooks,
    registry: &Registry,
    metrics: Metrics,
    delivery: Delivery,
    stop: Stop,
) -> anyhow::Result<(SocketAddr, impl Future<Output = io::Result<()>> + use<>)> {
    let handler = WebhookHandler::start(webhooks, registry, metrics).context("start the source check")?;
    let listener = listener(webhooks.listen).with_context(|| format!("listen on {} for webhooks", webhooks.listen))?;
    let bound = listener.local_addr().context("ask the socket where it listens")?;
    webhooks.check_address(bound)?;
    webhooks.warn_of_open_apps(bound);
    let serving = serve(listener, webhooks, Arc::new(handler), delivery, stop).context("take webhooks")?;
    tracing::info!(what = "webhooks", address = %serving.0, "listening");
    Ok(serving)
}

/// Serves webhooks until stopped. Returns the bound address; the future must be polled.
pub fn serve(
    listener: TcpListener,
    webhooks: &Webhooks,
    handler: Arc<WebhookHandler>,
    delivery: Delivery,
    stop: Stop,
) -> anyhow::Result<(SocketAddr, impl Future<Output = io::Result<()>> + use<>)> {
    let options = Options {
        name: "webhooks",
        workers: thread::available_parallelism().map_or(2, NonZero::get),
        limits: webhooks.limits,
        body_bytes_max: webhooks.body_bytes_max,
        trusted_proxies: webhooks.proxies.networks().clone(),
        proxy_protocol: webhooks.proxy_protocol,
        tls: webhooks.tls.clone(),
        keep_alive: true,
        retire: true,
        answer_wait_max: ANSWER_WAIT_MAX,
        observer: Arc::new(handler.metrics().clone()),
    };
    let refuses_pages = webhooks.refuses_pages_at(listener.local_addr().context("read the bound address")?);
    let app = move || {
        let state = WorkerState { handler: Arc::clone(&handler), delivery: delivery.for_worker(), refuses_pages };
        App::new().app_data(Data::new(state)).default_service(web::to(answer))
    };
    // Taken now, so that the process is not idle between the stop request and its handling.
    let busy = stop.busy();
    let (address, serving) = http_edge::serve(listener, options, app, stop).context("serve webhooks")?;
    Ok((address, async move {
        let ended = serving.await;
        drop(busy);
        ended
    }))
}

async fn answer(request: HttpRequest, payload: Payload, state: Data<WorkerState>) -> HttpResponse {
    let answer = if request.method() != Method::POST {
        state.handler.probe(&request)
    } else if state.refuses_pages && is_cross_site(request.headers()) {
        state.handler.refuse(Refusal::CrossSite)
    } else {
        state.handler.accept(&request, payload, &state.delivery).await
    };
    answer.respond()
}

struct WorkerState {
    handler: Arc<WebhookHandler>,
    delivery: DeliveryHandle,
    refuses_pages: bool,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use actix_web::body::MessageBody;
    use actix_web::dev::ServiceResponse;
    use actix_web::http::StatusCode;
    use actix_web::http::header::ALLOW;
    use actix_web::test::{TestRequest, call_service, init_service, read_body};
    use bitrix24::AppName;
    use disk_log::{DiskLog, Options};
    use event_log::RawEvent;
    use event_log::Record;
    use runtime::settings;
    use serde_json::Value;
    use tempfile::TempDir;

    use super::*;

    const BODY: &str = "event=ONAPPINSTALL&auth%5Bmember_id%5D=a223";

    /// The standalone form: a server without Kafka, and the log behind it.
    struct Standalone {
        log: DiskLog,
        handler: Arc<WebhookHandler>,
        _dir: TempDir,
    }

    impl Standalone {
        fn new(apps: &[(&str, settings::App)]) -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let log = DiskLog::open(dir.path(), Options::log()).expect("a log");
            let name = |name| AppName::parse(name).expect("a name");
            let apps: BTreeMap<_, _> = apps.iter().map(|(app, set)| (name(app), set.clone())).collect();
            let webhooks = Webhooks { apps, body_bytes_max: 1_000, ..Webhooks::by_default() };
            let registry = runtime::telemetry::registry();
            let handler = WebhookHandler::start(&webhooks, &registry, Metrics::new(&registry)).expect("a handler");
            Self { log, handler: Arc::new(handler), _dir: dir }
        }

        /// Sends one request; the status and the document.
        async fn send(&self, request: TestRequest) -> (StatusCode, Value) {
            let response = self.call(request).await;
            (response.status(), serde_json::from_slice(&read_body(response).await).unwrap_or(Value::Null))
        }

        async fn call(&self, request: TestRequest) -> ServiceResponse<impl MessageBody> {
            let delivery = Delivery::Disk(self.log.clone()).for_worker();
            let state = WorkerState { handler: Arc::clone(&self.handler), delivery, refuses_pages: true };
            let app = init_service(App::new().app_data(Data::new(state)).default_service(web::to(answer))).await;
            call_service(&app, request.to_request()).await
        }

        fn records(&self) -> Vec<Record> {
            let mut reader = self.log.reader(0).expect("a reader");
            std::iter::from_fn(|| reader.next().expect("a readable log")).map(|(_, record)| record).collect()
        }
    }

    fn post(path: &str, body: &'static str) -> TestRequest {
        TestRequest::post().uri(path).set_payload(body)
    }

    #[actix_web::test]
    async fn a_webhook_is_answered_once_it_lies_in_the_log_byte_for_byte() {
        let server = Standalone::new(&[]);
        let request = post("/v1/events/crm-sync", BODY)
            .insert_header(("content-type", "application/x-www-form-urlencoded"))
            .insert_header(("traceparent", "00-1-2-00"))
            .append_header(("tracestate", "a=1"))
            .append_header(("tracestate", "b=2"))
            .peer_addr(([10, 0, 0, 1], 1).into());
        let (status, answer) = server.send(request).await;
        assert_eq!((status, answer["kept"].as_str()), (StatusCode::OK, Some("disk")));

        let [record] = &server.records()[..] else { panic!("one record") };
        assert_eq!(record.key.as_deref(), Some("crm-sync/a223"));
        let event = RawEvent::from_record(record).expect("a raw event");
        assert_eq!(answer["id"], event.id.to_string());
        assert_eq!(event.body, BODY);
        assert_eq!(event.kind.as_deref(), Some("onappinstall"));
        assert_eq!(event.content_type.as_deref(), Some("application/x-www-form-urlencoded"));
        assert_eq!((event.traceparent.as_deref(), event.tracestate.as_deref()), (Some("00-1-2-00"), Some("a=1,b=2")));
        assert_eq!(event.source, Some([10, 0, 0, 1].into()));
    }

    #[actix_web::test]
    async fn a_body_that_is_no_event_is_refused_and_kept_all_the_same() {
        let server = Standalone::new(&[]);
        let (status, problem) = server.send(post("/v1/events/crm-sync", "hello=world")).await;
        assert_eq!((status, &problem["type"]), (StatusCode::BAD_REQUEST, &"/docs/problems#not-an-event".into()));
        let event = RawEvent::from_record(&server.records()[0]).expect("a raw event");
        assert_eq!(
            (problem["id"].as_str(), &event.body[..]),
            (Some(event.id.to_string().as_str()), &b"hello=world"[..])
        );
    }

    #[actix_web::test]
    async fn a_flood_of_bodies_that_are_no_events_is_not_kept() {
        let server = Standalone::new(&[]);
        let mut kept = 0;
        for _ in 0..700 {
            let (_, problem) = server.send(post("/v1/events/crm-sync", "x")).await;
            kept += usize::from(problem["id"].is_string());
        }
        assert_eq!((kept, server.records().len()), (60, 60), "so many from one source");
    }

    #[actix_web::test]
    async fn a_portal_alone_or_an_event_alone_is_enough() {
        let server = Standalone::new(&[]);
        for body in ["member_id=a223", "event=ONAPPTEST", r#"{"auth":{"member_id":"a223"}}"#] {
            assert_eq!(server.send(post("/v1/events/crm-sync", body)).await.0, StatusCode::OK, "{body}");
        }
    }

    #[actix_web::test]
    async fn only_known_apps_are_taken() {
        let server = Standalone::new(&[("crm-sync", settings::App::default())]);
        for path in ["/v1/events/other", "/v1/events/CRM", "/v1/events/", "/v1/events/crm-sync/key"] {
            let (status, problem) = server.send(post(path, BODY)).await;
            assert_eq!((status, &problem["type"]), (StatusCode::NOT_FOUND, &"/docs/problems#unknown-app".into()));
        }
        assert_eq!(server.send(post("/v2", BODY)).await.1["type"], "/docs/problems#unknown-path");
        assert_eq!(server.send(post("/v1/events/crm-sync?x=1", BODY)).await.0, StatusCode::OK);
        assert_eq!(server.records().len(), 1);
    }

    #[actix_web::test]
    async fn an_older_path_and_a_path_with_a_key_lead_to_their_app() {
        let path_key = Some(primitives::secret::Secret::new("k3y"));
        let server = Standalone::new(&[
            ("old", settings::App { paths: vec!["/handler.php".into()], ..settings::App::default() }),
            ("shut", settings::App { path_key, ..settings::App::default() }),
        ]);
        let status = async |path| server.send(post(path, BODY)).await.0;
        assert_eq!(status("/handler.php").await, StatusCode::OK);
        assert_eq!(status("/v1/events/shut/k3y").await, StatusCode::OK);
        assert_eq!(status("/v1/events/shut").await, StatusCode::NOT_FOUND);
        assert_eq!(status("/v1/events/shut/other").await, StatusCode::NOT_FOUND);
        assert_eq!(server.records()[0].key.as_deref(), Some("old/a223"));
    }

    #[actix_web::test]
    async fn a_body_beyond_the_limit_is_refused_announced_or_not() {
        let server = Standalone::new(&[]);
        let long = TestRequest::post().uri("/v1/events/crm-sync").set_payload("x".repeat(1_001));
        assert_eq!(server.send(long).await.0, StatusCode::PAYLOAD_TOO_LARGE);
        let announced = post("/v1/events/crm-sync", "").insert_header(("content-length", "1001"));
        assert_eq!(server.send(announced).await.0, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(server.records().is_empty());
    }

    #[actix_web::test]
    async fn a_probe_finds_the_handler() {
        let server = Standalone::new(&[]);
        for request in [TestRequest::get(), TestRequest::default().method(Method::HEAD)] {
            assert_eq!(server.send(request.uri("/v1/events/crm-sync")).await.0, StatusCode::OK);
        }
        let response = server.call(TestRequest::delete().uri("/v1/events/crm-sync")).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert!(response.headers().contains_key(ALLOW));
    }

    #[test]
    fn a_stop_answers_who_is_connected_and_then_ends() {
        let standalone = Standalone::new(&[]);
        let stop = Stop::default();
        let (sender, address) = std::sync::mpsc::channel();
        let delivery = Delivery::Disk(standalone.log.clone());
        let serving = std::thread::spawn({
            let (stop, handler) = (stop.clone(), Arc::clone(&standalone.handler));
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    let listener = listener(([127, 0, 0, 1], 0).into())?;
                    let (address, serving) = serve(listener, &Webhooks::by_default(), handler, delivery, stop)?;
                    sender.send(address).expect("the test listens");
                    serving.await?;
                    anyhow::Ok(())
                })
            }
        });
        let mut client = TcpStream::connect(address.recv().expect("an address")).expect("a connection");
        let request = format!("POST /v1/events/a HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len());
        client.write_all(request.as_bytes()).expect("a request");
        let mut answer = [0; 12];
        client.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");

        stop.request();
        client.write_all(request.as_bytes()).expect("another request");
        let mut rest = String::new();
        client.read_to_string(&mut rest).expect("answers until the end");
        assert!(rest.contains("connection: close"), "{rest}");
        serving.join().expect("no panic").expect("an orderly end");
        assert_eq!(standalone.records().len(), 2);
    }
}
