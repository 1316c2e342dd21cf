//! One HTTP/1.1 connection at a time, kept alive, that never sends a request twice.
//!
//! A request is repeated only where it certainly was not sent: the kept connection had been closed
//! before a byte was written. Whether a broken request reached the server is for the caller to judge,
//! as it is for Bitrix24. TLS is not supported: load tests and operators use their own machines, or a proxy.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A page of the query API has its own, lower limit.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// How many connections in a row may close before a request is sent.
const ATTEMPTS_MAX: usize = 3;

#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    #[error("{0:?} is not a URL such as http://127.0.0.1:8080")]
    Malformed(String),
    #[error("{0:?} asks for TLS, and no TLS client is built in: give the http:// address behind the proxy")]
    Tls(String),
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No server listens there, or does not accept in time. Nothing was sent.
    #[error("connect to {0}: {1}")]
    Connect(String, std::io::Error),
    /// No answer in time. The request may have been processed.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    TooSlow(Duration),
    /// The connection broke. The request may have been processed.
    #[error("the connection broke before the answer was complete: {0}")]
    Broken(String),
    #[error("the request cannot be sent: {0}")]
    Request(#[from] hyper::http::Error),
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

pub struct Client {
    origin: Origin,
    authorization: Option<HeaderValue>,
    answer_wait_max: Duration,
    sender: Option<SendRequest<Full<Bytes>>>,
}

struct Origin {
    host: String,
    port: u16,
    header: HeaderValue,
    prefix: String,
}

impl Client {
    /// Connects with the first request.
    pub fn new(url: &str) -> Result<Self, UrlError> {
        let origin = Origin::parse(url)?;
        Ok(Self { origin, authorization: None, answer_wait_max: ANSWER_WAIT_MAX, sender: None })
    }

    /// To another server, with the same token and patience.
    pub fn moved(self, url: &str) -> Result<Self, UrlError> {
        Ok(Self { origin: Origin::parse(url)?, sender: None, ..self })
    }

    /// Sent with every request.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        // A token that no header can carry cannot be right; the server will report it as missing.
        self.authorization = HeaderValue::from_str(&format!("Bearer {token}")).ok().map(|mut value| {
            value.set_sensitive(true);
            value
        });
        self
    }

    #[must_use]
    pub fn with_answer_wait_max(mut self, wait_max: Duration) -> Self {
        self.answer_wait_max = wait_max;
        self
    }

    /// Whether the server is on this machine, by its address or by the name `localhost`.
    pub fn is_loopback(&self) -> bool {
        let is_loopback = |address: IpAddr| address.is_loopback();
        self.origin.host.eq_ignore_ascii_case("localhost") || self.origin.host.parse().is_ok_and(is_loopback)
    }

    pub async fn connect(&mut self) -> Result<(), ClientError> {
        if self.sender.as_ref().is_none_or(SendRequest::is_closed) {
            self.sender = Some(self.origin.connect().await?);
        }
        Ok(())
    }

    pub async fn get(&mut self, path: &str) -> Result<Answer, ClientError> {
        let request = self.request(Method::GET, path)?;
        self.send(request).await
    }

    pub async fn post(&mut self, path: &str, content_type: &str, body: Bytes) -> Result<Answer, ClientError> {
        let mut request = self.request(Method::POST, path)?;
        let content_type = HeaderValue::from_str(content_type).map_err(hyper::http::Error::from)?;
        request.headers_mut().insert(CONTENT_TYPE, content_type);
        *request.body_mut() = Full::new(body);
        self.send(request).await
    }

    fn request(&self, method: Method, path: &str) -> Result<Request<Full<Bytes>>, ClientError> {
        let uri = if self.origin.prefix.is_empty() {
            Uri::try_from(path)
        } else {
            Uri::try_from(format!("{}{path}", self.origin.prefix))
        };
        let mut request = Request::new(Full::default());
        *request.method_mut() = method;
        *request.uri_mut() = uri.map_err(hyper::http::Error::from)?;
        request.headers_mut().insert(HOST, self.origin.header.clone());
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
        let wait_max = self.answer_wait_max;
        let answer = timeout(wait_max, self.exchange(request)).await;
        let answer = answer.unwrap_or(Err(ClientError::TooSlow(wait_max)));
        if answer.is_err() {
            self.sender = None;
        }
        answer
    }

    async fn exchange(&mut self, mut request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
        for _ in 0..ATTEMPTS_MAX {
            self.connect().await?;
            let mut sender = self.sender.take().expect("connected above");
            // A connection that closes between the two is noticed here, with the request in hand.
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => {
                    self.sender = Some(sender);
                    return read(response).await;
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(broken(&error.into_error())),
                },
            }
        }
        Err(ClientError::Broken("the server closes every connection at once".to_owned()))
    }
}

impl Origin {
    fn parse(url: &str) -> Result<Self, UrlError> {
        let malformed = || UrlError::Malformed(url.to_owned());
        let uri = Uri::try_from(url).map_err(|_| malformed())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(UrlError::Tls(url.to_owned())),
            _ => return Err(malformed()),
        }
        let authority = uri.authority().ok_or_else(malformed)?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(malformed());
        }
        Ok(Self {
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(80),
            header: HeaderValue::from_str(authority.as_str()).map_err(|_| malformed())?,
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let fail = |error| ClientError::Connect(format!("{}:{}", self.host, self.port), error);
        let connecting = timeout(CONNECT_WAIT_MAX, TcpStream::connect((self.host.as_str(), self.port)));
        let stream = connecting.await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(fail)?;
        stream.set_nodelay(true).map_err(fail)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        // Its errors are reported by the failed request.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }
}

async fn read(response: hyper::Response<hyper::body::Incoming>) -> Result<Answer, ClientError> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| ClientError::Broken(error.to_string()))?.to_bytes();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

/// hyper's errors hide their cause in the source.
fn broken(error: &hyper::Error) -> ClientError {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    ClientError::Broken(format!("{error}{cause}"))
}

pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn only_plain_http_is_taken() {
        for url in ["", "127.0.0.1:8080", "ftp://x", "http://", "http://user:pass@x", "http://x/?a=b"] {
            assert!(matches!(Client::new(url), Err(UrlError::Malformed(_))), "{url}");
        }
        assert!(matches!(Client::new("https://x"), Err(UrlError::Tls(_))));
        for url in ["http://x", "http://[::1]:8080", "http://x:1/below/"] {
            assert!(Client::new(url).is_ok(), "{url}");
        }
    }

    /// Answers `answers` requests on each of `connections` connections, then closes without a word.
    async fn serve(listener: TcpListener, connections: usize, answers: usize) -> Vec<String> {
        let mut heads = Vec::new();
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().await.expect("accept");
            for _ in 0..answers {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a request"));
                }
                heads.push(String::from_utf8_lossy(&head).into_owned());
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.expect("answer");
            }
        }
        heads
    }

    #[tokio::test]
    async fn a_kept_connection_that_the_server_closed_is_replaced() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}/below", listener.local_addr().expect("address"));
        let server = tokio::spawn(serve(listener, 3, 2));
        let mut client = Client::new(&url).expect("a URL").with_token("s3cret");
        for sent in 1..=6 {
            let answer = client.get("/v1/x?y=1").await.expect("an answer");
            assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
            while sent % 2 == 0 && client.sender.as_ref().is_some_and(|sender| !sender.is_closed()) {
                tokio::task::yield_now().await;
            }
        }
        let heads = server.await.expect("the server");
        assert_eq!(heads.len(), 6);
        assert!(heads.iter().all(|head| head.starts_with("GET /below/v1/x?y=1 HTTP/1.1\r\n")), "{heads:?}");
        assert!(heads.iter().all(|head| head.contains("authorization: Bearer s3cret\r\n")), "{heads:?}");
    }

    #[tokio::test]
    async fn a_request_that_may_have_arrived_is_not_sent_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accept");
            stream.read_u8().await.expect("a request");
            listener
        });
        let mut client = Client::new(&url).expect("a URL");
        let answer = client.post("/", "text/plain", Bytes::from_static(b"x")).await;
        assert!(matches!(answer, Err(ClientError::Broken(_))), "{answer:?}");
        let listener = server.await.expect("the server").into_std().expect("a listener");
        let second = listener.accept();
        assert!(second.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "a second connection came");
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_not_awaited_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let mut client = Client::new(&url).expect("a URL").with_answer_wait_max(Duration::from_millis(20));
        assert!(matches!(client.get("/").await, Err(ClientError::TooSlow(_))));
    }
}
