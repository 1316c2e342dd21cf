//! Receives a body, within limits of length and time, and the memory that all bodies share.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING, UPGRADE};
use actix_web::web::Payload;
use bytes::Bytes;
use futures_core::Stream;

use crate::connections::{BODY_BYTES_FREE, Guard};
use crate::request_line::BodyLength;

/// A body with its reserved memory, which is to be held as long.
#[derive(Debug)]
pub struct Body {
    pub bytes: Bytes,
    /// Releases the memory.
    _held: Option<Held>,
}

/// Why a body was not received. The unread rest ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the body is longer than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
    #[error("the body is compressed")]
    Encoded,
    /// It ended early, or was not encoded as its headers say.
    #[error("the body cannot be read")]
    Unreadable,
    /// It did not arrive in time, or lost its memory to faster ones.
    #[error("the body was not there within {wait:?}")]
    TooSlow { wait: Duration },
    /// There is no memory for it, and no slower body to take it from.
    #[error("there is no room in memory for the body")]
    Overloaded,
}

/// Content codings that change the bytes of a body: those of IANA's registry, and some that are none of it.
const COMPRESSIONS: [&str; 16] = [
    "aes128gcm",
    "br",
    "brotli",
    "bzip2",
    "compress",
    "dcb",
    "dcz",
    "deflate",
    "exi",
    "gzip",
    "lzma",
    "pack200-gzip",
    "x-compress",
    "x-gzip",
    "xz",
    "zstd",
];

/// The compression that `Content-Encoding` names. Other words there, such as `utf-8`, change no byte of the body.
pub fn compression(headers: &HeaderMap) -> Option<&'static str> {
    let codings = headers.get_all(CONTENT_ENCODING).flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let known = |coding: &[u8]| {
        COMPRESSIONS.into_iter().find(|known| coding.trim_ascii().eq_ignore_ascii_case(known.as_bytes()))
    };
    codings.into_iter().find_map(known)
}

/// Receives a body that is not compressed.
pub async fn receive(request: &HttpRequest, payload: Payload, bytes_max: usize) -> Result<Body, BodyError> {
    if compression(request.headers()).is_some() {
        return Err(BodyError::Encoded);
    }
    receive_compressed(request, payload, bytes_max).await
}

/// Receives a body as it was sent, compressed or not.
pub async fn receive_compressed(request: &HttpRequest, payload: Payload, bytes_max: usize) -> Result<Body, BodyError> {
    let too_large = BodyError::TooLarge { limit: bytes_max };
    let headers = request.headers();
    if is_websocket(headers) {
        return Err(BodyError::Unreadable);
    }
    let announced = announced(headers);
    if announced.is_some_and(|length| length > bytes_max) {
        return Err(too_large);
    }
    let most = announced.unwrap_or(bytes_max);
    let mut coming = Coming { payload, held: Held::of(request) };
    let mut body = Vec::new();
    while let Some(chunk) = coming.next().await? {
        let length = body.len() + chunk.len();
        if length > bytes_max {
            return Err(too_large);
        }
        if length > body.capacity() {
            let room = length.max((2 * body.capacity()).min(most));
            coming.hold(body.capacity(), room).await?;
            body.reserve_exact(room - body.len());
        }
        body.extend_from_slice(&chunk);
    }
    if let Some(Held(guard)) = &coming.held {
        guard.connection.work();
    }
    body.shrink_to_fit();
    Ok(Body { bytes: body.into(), _held: coming.held })
}

/// For actix-web everything that follows is the body then, whatever length was announced.
fn is_websocket(headers: &HeaderMap) -> bool {
    headers.get_all(UPGRADE).any(|protocol| protocol.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket"))
}

/// The length of a body that there is.
pub(crate) fn length(headers: &HeaderMap) -> BodyLength {
    match announced(headers) {
        Some(bytes) if !is_websocket(headers) && !headers.contains_key(TRANSFER_ENCODING) => BodyLength::Bytes(bytes),
        _ => BodyLength::Unknown,
    }
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse().ok())
}

/// A body that is being received.
struct Coming {
    payload: Payload,
    /// None where a request did not come through a connection, as in some tests.
    held: Option<Held>,
}

impl Coming {
    /// None when the body is complete.
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        if self.is_lost() {
            return Poll::Ready(Err(self.too_slow()));
        }
        Poll::Ready(match ready!(Pin::new(&mut self.payload).poll_next(cx)) {
            Some(Ok(chunk)) => Ok(Some(chunk)),
            Some(Err(_)) => Err(BodyError::Unreadable),
            None => Ok(None),
        })
    }

    /// Reserves memory for a body that grows from `old` bytes to `new` bytes.
    async fn hold(&self, old: usize, new: usize) -> Result<(), BodyError> {
        let more = new.saturating_sub(old.max(BODY_BYTES_FREE));
        let Some(Held(guard)) = self.held.as_ref().filter(|_| more > 0) else { return Ok(()) };
        poll_fn(|cx| {
            if guard.connection.body_is_lost() {
                return Poll::Ready(Err(BodyError::Overloaded));
            }
            guard.hold(more, cx).map(Ok)
        })
        .await?;
        if self.is_lost() { Err(self.too_slow()) } else { Ok(()) }
    }

    fn is_lost(&self) -> bool {
        self.held.as_ref().is_some_and(|Held(guard)| guard.connection.body_is_lost())
    }

    fn too_slow(&self) -> BodyError {
        let wait = self.held.as_ref().map_or(Duration::ZERO, |Held(guard)| guard.connection.limits().body_timeout);
        BodyError::TooSlow { wait }
    }
}

/// A body's share of the memory for bodies, from its first byte until it is dropped.
struct Held(Rc<Guard>);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held(..)")
    }
}

impl Held {
    fn of(request: &HttpRequest) -> Option<Self> {
        let guard = request.conn_data::<Rc<Guard>>()?;
        guard.connection.await_body();
        Some(Self(Rc::clone(guard)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.release();
    }
}
