//! Who may ask: everyone on loopback, else whoever shows a token. Through a proxy nobody is on loopback.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::Next;
use actix_web::{Error, web};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::proxied::is_proxied;
use common::secret::Fingerprint;

use super::Asked;
use super::problem::Problem;

/// Lets a request pass if no tokens are set, or if it shows one of them.
pub async fn guard(
    asked: web::Data<Asked>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    if asked.tokens.is_empty() && is_proxied(request.headers()) {
        return Err(Problem::TokensNeeded.into());
    }
    if asked.tokens.is_empty() || shown(&request).is_some_and(|shown| asked.tokens.contains(&shown)) {
        return next.call(request).await;
    }
    Err(Problem::Unauthorised.into())
}

/// The fingerprint of the token in `Authorization: Bearer …`, or of the password in `Basic …`, which is how a browser
/// shows one. Comparing fingerprints tells nothing through timing.
fn shown(request: &ServiceRequest) -> Option<Fingerprint> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, shown) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Fingerprint::of(shown.trim()));
    }
    let basic = scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(shown.trim()))?.ok()?;
    let (_, password) = std::str::from_utf8(&basic).ok()?.split_once(':')?;
    Some(Fingerprint::of(password))
}
