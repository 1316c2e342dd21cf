//! Enforces a connection's deadline: one timer for its life, reset only when it fires.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::time::{Instant, sleep_until};

use crate::connection::Connection;

/// Runs `inner` to its end; none if the connection was ended before that.
pub(super) async fn watch<F: Future>(connection: &Connection, inner: F) -> Option<F::Output> {
    let mut inner = pin!(inner);
    let mut timer = pin!(sleep_until(Instant::now() + connection.limits().head_timeout));
    poll_fn(|cx| {
        connection.attend(cx.waker());
        loop {
            if connection.is_over() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(output) = inner.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            let now = loop {
                let Some(deadline) = connection.deadline() else { return Poll::Pending };
                // A later deadline is checked when the timer fires.
                if deadline < timer.deadline() {
                    timer.as_mut().reset(deadline);
                }
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                let now = Instant::now();
                if deadline <= now {
                    break now;
                }
                timer.as_mut().reset(deadline);
            };
            connection.expire(now);
        }
    })
    .await
}
