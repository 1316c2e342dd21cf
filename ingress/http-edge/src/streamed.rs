//! The body of an answer: while one without a length is sent, the connection is not idle.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use bytes::Bytes;

use crate::connection::Connection;

/// Tells the connection when a body was handed over: one without a length at its end, any other one at once. `last` ends
/// the connection.
pub(super) fn told_of<B: MessageBody + 'static>(body: B, connection: Rc<Connection>, last: bool) -> BoxBody {
    if body.size() == BodySize::Stream {
        return BoxBody::new(Streamed { body: body.boxed(), connection, last });
    }
    connection.answered(last);
    body.boxed()
}

struct Streamed {
    body: BoxBody,
    connection: Rc<Connection>,
    last: bool,
}

impl MessageBody for Streamed {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        self.connection.answered(self.last);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use tokio::time::Instant;

    use super::*;
    use crate::connection::Phase;
    use crate::limits::Limits;
    use crate::observer;
    use crate::pace::Pace;
    use crate::request_line::BodyLength;

    /// Has no length, and never ends by itself.
    struct Endless;

    impl MessageBody for Endless {
        type Error = Infallible;

        fn size(&self) -> BodySize {
            BodySize::Stream
        }

        fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
            Poll::Pending
        }
    }

    #[test]
    fn a_connection_is_not_idle_while_a_body_without_a_length_is_sent() {
        let pace = Rc::new(Pace::new(None, 1, Instant::now()));
        let connection =
            Rc::new(Connection::new(Limits::default(), pace, Arc::clone(&observer::ignored()), Instant::now()));
        connection.begin(BodyLength::Bytes(0));
        let body = told_of(Endless, Rc::clone(&connection), false);
        assert_eq!((connection.doing().0, connection.deadline()), (Phase::Work, None));
        drop(body);
        assert_eq!(connection.doing().0, Phase::Idle);

        connection.begin(BodyLength::Bytes(0));
        let _sent = told_of("with a length", Rc::clone(&connection), true);
        assert_eq!(connection.doing().0, Phase::Closing);
    }
}
