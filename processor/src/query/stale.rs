//! Marks responses from a state of an older version, while facts are read again.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, web};

use super::context::QueryContext;

/// `1` in responses that may lack events since the upgrade, and what only the new version understands.
const STALE: HeaderName = HeaderName::from_static("hl-stale");

pub async fn mark(
    context: web::Data<QueryContext>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let is_stale = context.shared.get().is_some_and(|store| store.is_outdated());
    let mut response = next.call(request).await?;
    if is_stale {
        response.headers_mut().insert(STALE, HeaderValue::from_static("1"));
    }
    Ok(response)
}
