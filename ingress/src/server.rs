//! The only port that faces the internet: from a socket to a request, within limits.
//!
//! A connection comes in (`crowd`: who has to go when there are too many), says perhaps through a proxy who it
//! is and perhaps speaks TLS (`entrance`, `proxy`, `tls`), and then HTTP/1. Between its socket and the HTTP/1
//! server stands the `wire`; what it is doing is known to the `connection`, and `watch` ends what takes too long.
//! For the server itself knows a time limit for the first head only, none for what it writes, and reads on
//! while it works.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive};
use actix_server::{GracefulShutdownSignal, Server};
use actix_service::{Service, ServiceFactory, fn_factory, fn_service, map_config};
use actix_web::dev::{AppConfig, Extensions};
use actix_web::http::Method;
use actix_web::web::{Data, Payload};
use actix_web::{App, HttpRequest, HttpResponse, web};
use anyhow::Context;
use common::lifecycle::Stop;
use tokio::net::TcpStream;

use crate::accept::Reception;
use crate::config::Webhooks;
use crate::door::{Door, Guest};
use crate::keep::{Hand, Keeper};
use crate::metrics::{Ended, Metrics};
use connection::Connection;
use crowd::Crowd;
use entrance::Entrance;
use tls::Tls;
use watch::watch;
use wire::Wire;

pub(crate) mod body;
mod connection;
mod crowd;
mod entrance;
mod expiry;
mod limits;
#[cfg(test)]
mod over_sockets;
pub mod proxy;
mod tls;
mod watch;
mod wire;

pub use entrance::peer;
pub use limits::Limits;
pub use tls::TlsFiles;

/// How long a client may take to end its side of a connection.
const DISCONNECT_WAIT_MAX: Duration = Duration::from_secs(1);
/// At the end: how long the server awaits those who are inside, which is longer than anything that they wait for.
const SHUTDOWN_S_MAX: u64 = 30;
/// Answers that are written at once, at most; for one who sends many requests ahead.
const ANSWERS_BYTES_MAX: usize = 8 * 1024;

/// Serves webhooks until stopped. Returns the address it listens on; the future must be polled.
pub fn serve(
    listener: TcpListener,
    webhooks: &Webhooks,
    reception: Arc<Reception>,
    keeper: Keeper,
    stop: Stop,
) -> anyhow::Result<(SocketAddr, impl Future<Output = io::Result<()>> + use<>)> {
    let address = listener.local_addr().context("look where it listens")?;
    let workers = thread::available_parallelism().map_or(2, NonZero::get);
    let mut limits = webhooks.limits;
    limits.fit_open_files();
    let limits = limits.share(workers, webhooks.body_bytes_max);
    let tls = webhooks.tls.clone().map(Tls::open).transpose()?;
    let acceptor = tls.as_ref().map(Tls::acceptor).transpose()?;
    let metrics = reception.metrics().clone();
    let door = Arc::new(Door::new(stop.clone(), webhooks.limits.idle_timeout));

    let server = Server::build().workers(workers);
    let house = House {
        limits,
        webhooks: webhooks.clone(),
        entrance: Entrance { told_by: webhooks.proxy_protocol.then(|| webhooks.proxies.clone()), tls: acceptor },
        reception,
        keeper,
        door: Arc::clone(&door),
        metrics: metrics.clone(),
        draining: server.graceful_shutdown_signal(),
    };
    let server = server
        // Twice as many: those who have to go are still there when those come for whom they go.
        .max_concurrent_connections(2 * limits.connections_max)
        .shutdown_timeout(SHUTDOWN_S_MAX)
        .disable_signals()
        .listen("webhooks", listener, move || house.clone().worker())
        .context("listen for webhooks")?;
    let mut server = server.run();
    let handle = server.handle();
    // Taken now, so that nobody finds the process idle between the request to stop and our hearing of it.
    let busy = stop.busy();
    Ok((address, async move {
        let ended = tokio::select! {
            ended = &mut server => ended,
            () = renew(tls.as_deref(), &metrics) => unreachable!("it looks for ever"),
            () = stop.wait() => {
                let ((), ended) = tokio::join!(door.end(&handle), server);
                ended
            }
        };
        drop(busy);
        ended
    }))
}

/// Looks for ever whether there is a newer certificate.
async fn renew(tls: Option<&Tls>, metrics: &Metrics) {
    let Some(tls) = tls else { return std::future::pending().await };
    loop {
        metrics.certificate_expires(tls.expires_at_s());
        tokio::time::sleep(tls::LOOK).await;
        tls.look();
    }
}

/// All that a worker thread is made of.
#[derive(Clone)]
struct House {
    limits: Limits,
    webhooks: Webhooks,
    entrance: Entrance,
    reception: Arc<Reception>,
    keeper: Keeper,
    door: Arc<Door>,
    metrics: Metrics,
    draining: GracefulShutdownSignal,
}

impl House {
    /// What a worker thread does with the sockets that it gets.
    fn worker(self) -> impl ServiceFactory<TcpStream, Config = ()> {
        fn_factory(move || {
            let house = self.clone();
            async move {
                let http = Rc::new(house.http().await?);
                let crowd = Crowd::new(house.limits, house.webhooks.proxies.clone());
                let house = Rc::new(house);
                let attend = move |socket| attend(socket, Rc::clone(&crowd), Rc::clone(&http), Rc::clone(&house));
                Ok::<_, ()>(fn_service::<_, _, _, _, _, ()>(attend))
            }
        })
    }

    /// HTTP/1 on wires. Its own time limits are off: they do not cover enough.
    async fn http(
        &self,
    ) -> Result<impl Service<(Wire, Option<SocketAddr>), Response = (), Error = DispatchError> + use<>, ()> {
        let room = Room {
            reception: Arc::clone(&self.reception),
            hand: self.keeper.for_worker(),
            door: Arc::clone(&self.door),
        };
        let app = App::new().app_data(Data::new(room)).default_service(web::to(answer));
        let draining = self.draining.clone();
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let draining = draining.clone();
                async move { draining.notified().await }
            })
            .keep_alive(KeepAlive::Os)
            .client_request_timeout(Duration::ZERO)
            .client_disconnect_timeout(DISCONNECT_WAIT_MAX)
            .h1_write_buffer_size(ANSWERS_BYTES_MAX)
            .on_connect_ext(|wire: &Wire, data: &mut Extensions| drop(data.insert(Rc::clone(wire.connection()))))
            .h1(map_config(app, |()| AppConfig::default()));
        http.new_service(()).await
    }
}

/// Goes along with a connection from the moment that it is accepted to its end.
async fn attend<H>(socket: TcpStream, crowd: Rc<Crowd>, http: Rc<H>, house: Rc<House>) -> Result<(), ()>
where
    H: Service<(Wire, Option<SocketAddr>), Response = (), Error = DispatchError>,
{
    let Ok(peer) = socket.peer_addr() else { return Err(()) };
    let _guest = Guest::new(&house.door);
    let _open = house.metrics.connection();
    let member = crowd.enter(peer.ip());
    let connection = Rc::clone(&member.connection);
    let inside = async {
        let (line, peer) = house.entrance.greet(socket, &member).await?;
        connection.greeted();
        let served = http.call((Wire::new(line, Rc::clone(&connection)), Some(peer))).await;
        served.map_err(|error| if matches!(error, DispatchError::Parse(_)) { Ended::Malformed } else { Ended::Gone })
    };
    let ended = match watch(&connection, inside).await {
        Some(Err(ended)) => Some(ended),
        Some(Ok(())) | None => connection.ended(),
    };
    if let Some(ended) = ended {
        house.metrics.connection_ended(ended);
    }
    Ok(())
}

/// Every request comes here: which path belongs to whom is the reception's to say.
async fn answer(request: HttpRequest, payload: Payload, room: Data<Room>) -> HttpResponse {
    let connection = request.conn_data::<Rc<Connection>>();
    if let Some(connection) = connection {
        connection.begin();
    }
    let answer = if request.method() == Method::POST {
        room.reception.accept(&request, payload, &room.hand).await
    } else {
        room.reception.look(&request)
    };
    // What is left of a body is not awaited.
    let last = room.door.is_closing() || answer.leaves_body() && body::has_body(request.headers());
    let response = answer.respond(last);
    if let Some(connection) = connection {
        connection.answered(response.head().connection_type() == actix_web::http::ConnectionType::Close);
    }
    response
}

/// What a worker thread works with.
struct Room {
    reception: Arc<Reception>,
    hand: Hand,
    door: Arc<Door>,
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
    use common::event::{AppName, RawEvent};
    use common::log::Record;
    use common::log::disk::{DiskLog, Options};
    use common::settings;
    use serde_json::Value;
    use tempfile::TempDir;

    use super::*;
    use crate::listener::listener;
    use crate::metrics::Metrics;

    const BODY: &str = "event=ONAPPINSTALL&auth%5Bmember_id%5D=a223";

    /// The standalone form: a server without Kafka, and the log behind it.
    struct Standalone {
        log: DiskLog,
        reception: Arc<Reception>,
        _dir: TempDir,
    }

    impl Standalone {
        fn new(apps: &[(&str, settings::App)]) -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let log = DiskLog::open(dir.path(), Options::log()).expect("a log");
            let name = |name| AppName::parse(name).expect("a name");
            let apps: BTreeMap<_, _> = apps.iter().map(|(app, set)| (name(app), set.clone())).collect();
            let webhooks = Webhooks { apps, body_bytes_max: 1_000, ..Webhooks::by_default() };
            let registry = common::telemetry::registry();
            let reception = Reception::start(&webhooks, &registry, Metrics::new(&registry)).expect("a reception");
            Self { log, reception: Arc::new(reception), _dir: dir }
        }

        /// Sends one request; the status and the document.
        async fn send(&self, request: TestRequest) -> (StatusCode, Value) {
            let response = self.call(request, false).await;
            (response.status(), serde_json::from_slice(&read_body(response).await).unwrap_or(Value::Null))
        }

        async fn call(&self, request: TestRequest, closing: bool) -> ServiceResponse<impl MessageBody> {
            let stop = Stop::default();
            if closing {
                stop.request();
            }
            let door = Arc::new(Door::new(stop, Duration::from_secs(5)));
            let hand = Keeper::Disk(self.log.clone()).for_worker();
            let room = Room { reception: Arc::clone(&self.reception), hand, door };
            let app = init_service(App::new().app_data(Data::new(room)).default_service(web::to(answer))).await;
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
        assert_eq!(event.traceparent.as_deref(), Some("00-1-2-00"));
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
        let path_key = Some(common::secret::Secret::new("k3y"));
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
    async fn who_looks_whether_there_is_a_handler_finds_one() {
        let server = Standalone::new(&[]);
        for request in [TestRequest::get(), TestRequest::default().method(Method::HEAD)] {
            assert_eq!(server.send(request.uri("/v1/events/crm-sync")).await.0, StatusCode::OK);
        }
        let response = server.call(TestRequest::delete().uri("/v1/events/crm-sync"), false).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert!(response.headers().contains_key(ALLOW));
    }

    #[actix_web::test]
    async fn at_the_end_every_answer_ends_its_connection() {
        let server = Standalone::new(&[]);
        for (closing, ended) in [(false, false), (true, true)] {
            let response = server.call(post("/v1/events/crm-sync", BODY), closing).await;
            assert_eq!(response.response().head().connection_type() == actix_web::http::ConnectionType::Close, ended);
        }
    }

    #[test]
    fn a_stop_answers_who_is_connected_and_then_ends() {
        let standalone = Standalone::new(&[]);
        let stop = Stop::default();
        let (told, address) = std::sync::mpsc::channel();
        let keeper = Keeper::Disk(standalone.log.clone());
        let serving = std::thread::spawn({
            let (stop, reception) = (stop.clone(), Arc::clone(&standalone.reception));
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    let listener = listener(([127, 0, 0, 1], 0).into())?;
                    let (address, serving) = serve(listener, &Webhooks::by_default(), reception, keeper, stop)?;
                    told.send(address).expect("the test listens");
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
