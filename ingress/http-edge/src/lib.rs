//! A port: from a socket to a request, within limits. Knows no app and no Kafka.
//!
//! A connection is accepted (`connections` closes one when there are too many), passes the PROXY protocol and TLS where
//! enabled (`handshake`, `proxy`, `tls`), and then speaks HTTP/1. The `stream` lies between the socket and the HTTP/1
//! server and escapes what the server would refuse in a query (`request_line`), `connection` holds the state, and `watch`
//! enforces deadlines: the server itself has a time limit for the first head only, none for its output, and reads on
//! while it works.
//!
//! Every port of every program uses this crate to serve an app of actix-web. An answer to a request whose body was
//! not read to its end closes the connection.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive, Request, Response};
use actix_server::{GracefulShutdownSignal, Server};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, fn_factory, fn_service};
use actix_web::Error;
use actix_web::HttpMessage;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{AppConfig, Extensions, Payload};
use actix_web::http::{ConnectionType, Version};
use anyhow::Context;
use primitives::Shutdown;
use tokio::net::TcpStream;

use connection::Connection;
use connections::{Connections, Guard};
use graceful_shutdown::{GracefulShutdown, InFlight};
use handshake::Handshake;
use networks::Networks;
use request_line::BodyLength;
use streamed::told_of;
use throttled_stream::ThrottledStream;
use tls::Tls;
use watch::watch;

mod body;
mod connection;
mod connections;
mod expiry;
mod graceful_shutdown;
mod handshake;
mod limits;
pub mod listener;
pub mod networks;
mod observer;
mod pace;
pub mod proxied;
pub mod proxy;
mod request_line;
pub mod site;
mod streamed;
mod throttled_stream;
mod tls;
mod watch;

pub use body::{Body, BodyError, compression, receive, receive_compressed};
pub use handshake::{is_proxys_own, peer};
pub use limits::{Limits, fit_open_files};
pub use observer::{Ended, Observer};
pub use tls::TlsFiles;

/// How long a client may take to close its side of a connection.
const DISCONNECT_WAIT_MAX: Duration = Duration::from_secs(1);
/// The most output that is buffered for a client with pipelined requests.
const ANSWERS_BYTES_MAX: usize = 8 * 1024;

#[derive(Clone)]
pub struct Options {
    pub name: &'static str,
    pub workers: usize,
    pub limits: Limits,
    /// The longest body, which always has room in memory.
    pub body_bytes_max: usize,
    /// Proxies in front: each forwards many clients, so its number of connections does not count.
    pub trusted_proxies: Networks,
    /// Whether every connection must begin with the PROXY protocol, version 2, from one of these proxies.
    pub proxy_protocol: bool,
    pub tls: Option<TlsFiles>,
    /// Whether a connection may be used for more than one request.
    pub keep_alive: bool,
    /// Whether, at shutdown, idle connections may send one more request within their idle timeout. Then no client is
    /// refused, and shutdown takes as long.
    pub retire: bool,
    /// How long shutdown waits for requests in flight.
    pub answer_wait_max: Duration,
    pub observer: Arc<dyn Observer>,
}

/// Serves an app until a shutdown is requested. Returns the bound address; the future must be polled.
pub fn serve<F, I, S, B, E>(
    listener: TcpListener,
    options: Options,
    app: F,
    shutdown: E,
) -> anyhow::Result<(SocketAddr, impl Future<Output = io::Result<()>> + Send + use<F, I, S, B, E>)>
where
    E: Shutdown,
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request> + 'static,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: std::fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Service: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let address = listener.local_addr().context("read the bound address")?;
    let limits = options.limits.share(options.workers, options.body_bytes_max);
    let tls = options.tls.clone().map(Tls::open).transpose()?;
    let acceptor = tls.as_ref().map(Tls::acceptor).transpose()?;
    let shutdown: Arc<dyn Shutdown> = Arc::new(shutdown);
    let retire_wait = options.retire.then_some(limits.idle_timeout);
    let graceful_shutdown = Arc::new(GracefulShutdown::new(Arc::clone(&shutdown), retire_wait));
    let observer = Arc::clone(&options.observer);

    let server = Server::build().workers(options.workers);
    let factory = WorkerFactory {
        limits,
        handshake: Handshake {
            named_by: options.proxy_protocol.then(|| options.trusted_proxies.clone()),
            tls: acceptor,
        },
        app,
        graceful_shutdown: Arc::clone(&graceful_shutdown),
        draining: server.graceful_shutdown_signal(),
        options,
    };
    let name = factory.options.name;
    let mut server = server
        // A few more, so that connections to be closed coexist with the new ones that replace them.
        .max_concurrent_connections(limits.accepted_max())
        .shutdown_timeout(factory.options.answer_wait_max.as_secs())
        .disable_signals()
        .listen(name, listener, move || factory.clone().worker())
        .with_context(|| format!("listen for {name}"))?
        .run();
    let handle = server.handle();
    Ok((address, async move {
        tokio::select! {
            ended = &mut server => ended,
            () = renew(tls.as_deref(), &*observer) => unreachable!("it looks for ever"),
            () = shutdown.wait() => {
                let ((), ended) = tokio::join!(graceful_shutdown.end(&handle), server);
                ended
            }
        }
    }))
}

/// Checks for ever for a newer certificate.
async fn renew(tls: Option<&Tls>, observer: &dyn Observer) {
    let Some(tls) = tls else { return std::future::pending().await };
    loop {
        if let Some(at_s) = tls.expires_at_s() {
            observer.certificate_expires(at_s);
        }
        tokio::time::sleep(tls::RELOAD_WAIT).await;
        tls.reload();
    }
}

#[derive(Clone)]
struct WorkerFactory<F> {
    limits: Limits,
    options: Options,
    handshake: Handshake,
    app: F,
    graceful_shutdown: Arc<GracefulShutdown>,
    draining: GracefulShutdownSignal,
}

impl<F, I> WorkerFactory<F>
where
    F: Fn() -> I + Send + Clone + 'static,
{
    fn worker<S, B>(self) -> impl ServiceFactory<TcpStream, Config = ()>
    where
        I: IntoServiceFactory<S, Request> + 'static,
        S: ServiceFactory<Request, Config = AppConfig> + 'static,
        S::Error: Into<Error> + 'static,
        S::InitError: std::fmt::Debug,
        S::Response: Into<Response<B>> + 'static,
        S::Service: 'static,
        <S::Service as Service<Request>>::Future: 'static,
        B: MessageBody + 'static,
    {
        fn_factory(move || {
            let factory = self.clone();
            async move {
                let http = Rc::new(factory.http().await?);
                let observer = Arc::clone(&factory.options.observer);
                let connections = Connections::new(factory.limits, factory.options.trusted_proxies.clone(), observer);
                let factory = Rc::new(factory);
                let attend =
                    move |socket| attend(socket, Rc::clone(&connections), Rc::clone(&http), Rc::clone(&factory));
                Ok::<_, ()>(fn_service::<_, _, _, _, _, ()>(attend))
            }
        })
    }

    /// With its own time limits disabled: they do not cover enough.
    async fn http<S, B>(
        &self,
    ) -> Result<
        impl Service<(ThrottledStream, Option<SocketAddr>), Response = (), Error = DispatchError> + use<F, I, S, B>,
        (),
    >
    where
        I: IntoServiceFactory<S, Request> + 'static,
        S: ServiceFactory<Request, Config = AppConfig> + 'static,
        S::Error: Into<Error> + 'static,
        S::InitError: std::fmt::Debug,
        S::Response: Into<Response<B>> + 'static,
        S::Service: 'static,
        <S::Service as Service<Request>>::Future: 'static,
        B: MessageBody + 'static,
    {
        let app = (self.app)().into_factory().new_service(AppConfig::default()).await;
        let app = Rc::new(app.map_err(|error| tracing::error!(?error, "the app of a port cannot be made"))?);
        let (graceful_shutdown, keep_alive) = (Arc::clone(&self.graceful_shutdown), self.options.keep_alive);
        let app = fn_factory(move || {
            let (app, graceful_shutdown) = (Rc::clone(&app), Arc::clone(&graceful_shutdown));
            let answer = move |request| answer(&*app, request, Arc::clone(&graceful_shutdown), keep_alive);
            std::future::ready(Ok::<_, ()>(fn_service(answer)))
        });
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
            .on_connect_ext(|stream: &ThrottledStream, data: &mut Extensions| {
                drop(data.insert(Rc::clone(stream.guard())));
            })
            .h1(app);
        http.new_service(()).await
    }
}

/// Serves a connection from its acceptance to its end.
async fn attend<H, F>(
    socket: TcpStream,
    connections: Rc<Connections>,
    http: Rc<H>,
    factory: Rc<WorkerFactory<F>>,
) -> Result<(), ()>
where
    H: Service<(ThrottledStream, Option<SocketAddr>), Response = (), Error = DispatchError>,
{
    let Ok(peer) = socket.peer_addr() else { return Err(()) };
    let _in_flight = InFlight::new(&factory.graceful_shutdown);
    let mut open = Open::new(&factory.options.observer);
    let guard = Rc::new(connections.enter(peer.ip()));
    let connection = Rc::clone(&guard.connection);
    let inside = async {
        let (line, peer) = factory.handshake.perform(socket, &guard).await?;
        connection.handshake_done();
        let served = http.call((ThrottledStream::new(line, Rc::clone(&guard)), Some(peer))).await;
        served.map_err(|error| if matches!(error, DispatchError::Parse(_)) { Ended::Malformed } else { Ended::Gone })
    };
    open.ended = match watch(&connection, inside).await {
        Some(Err(ended)) => Some(ended),
        Some(Ok(())) | None => connection.ended(),
    };
    Ok(())
}

/// A connection, counted for as long as it is open.
struct Open<'a> {
    observer: &'a dyn Observer,
    ended: Option<Ended>,
}

impl<'a> Open<'a> {
    fn new(observer: &'a Arc<dyn Observer>) -> Self {
        observer.opened();
        Self { observer: &**observer, ended: None }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.observer.closed(self.ended);
    }
}

/// The client of a request, for a handler that waits: it finds it in the request's extensions.
#[derive(Clone)]
pub struct Peer(Rc<Connection>);

impl Peer {
    /// Returns once the client has closed its side: it is gone, or it waits for the answer and sends nothing more.
    pub async fn closed(&self) {
        self.0.wait_for_peer_closed().await;
    }
}

/// Wraps every request of every port.
fn answer<A, B>(
    app: &A,
    mut request: Request,
    graceful_shutdown: Arc<GracefulShutdown>,
    keep_alive: bool,
) -> impl Future<Output = Result<Response<BoxBody>, Response<BoxBody>>> + use<A, B>
where
    A: Service<Request>,
    A::Response: Into<Response<B>>,
    A::Error: Into<Error>,
    B: MessageBody + 'static,
{
    let connection = request.conn_data::<Rc<Guard>>().map(|guard| Rc::clone(&guard.connection));
    if let Some(connection) = &connection {
        let has_body = !matches!(request.payload(), Payload::None);
        connection.begin(if has_body { body::length(request.head().headers()) } else { BodyLength::Bytes(0) });
        request.extensions_mut().insert(Peer(Rc::clone(connection)));
    }
    let version = request.head().version;
    let answering = app.call(request);
    async move {
        let answer: Result<Response<B>, _> = answering.await.map(Into::into);
        let mut answer = match answer {
            Ok(answer) => Ok(answer.map_into_boxed_body()),
            Err(error) => Err(Response::from(error.into().error_response())),
        };
        let (Ok(response) | Err(response)) = &mut answer;
        if version < Version::HTTP_11 && response.body().size() == BodySize::Stream {
            // Its end is that of the connection: before HTTP/1.1 there are no chunks.
            response.head_mut().no_chunking(true);
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        let Some(connection) = connection else { return answer };
        // The rest of a body is not awaited.
        if !keep_alive || connection.has_body_left() || graceful_shutdown.is_closing() {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        let last = response.head().connection_type() == ConnectionType::Close;
        let told = |response: Response<BoxBody>| response.map_body(|_, body| told_of(body, connection, last));
        match answer {
            Ok(response) => Ok(told(response)),
            Err(refusal) => Err(told(refusal)),
        }
    }
}
