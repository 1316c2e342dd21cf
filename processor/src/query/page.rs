//! `GET /`: a status page of recent events.

use std::fmt::Write;
use std::sync::LazyLock;

use actix_web::http::header::CONTENT_SECURITY_POLICY;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use super::QueryContext;
use super::access::Caller;
use super::parameters::Parameters;
use super::problem::Problem;
use crate::state::Counts;
use domain::fold::Outcome;
use domain::{Decision, RecordStatus};

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Hookledger</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta http-equiv="refresh" content="5">
<style>"#;

const STYLE: &str = "
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1d2430;background:#fff}
h1{font-size:1.4rem}p.numbers b{font-size:1.3rem;margin-right:.3rem}p.numbers span{margin-right:2rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .8rem .35rem 0;border-bottom:1px solid #e3e6ea;
vertical-align:top}td{font-variant-numeric:tabular-nums}.rejected,.unverified{color:#a4341f}.muted{color:#68707c}
@media(prefers-color-scheme:dark){body{background:#14181e;color:#dde3ea}th,td{border-color:#2a313a}.rejected,.unverified{color:#f0947f}}
";

const BODY: &str = "</style></head><body><h1>Hookledger</h1>\n";

/// Allows only the page's own style: no scripts, files, forms or frames.
static CONTENT_POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// Shows the newest events and the number of installations. Reloads itself without a script.
/// A token that is limited to apps sees their events only, and no numbers, which are of all apps.
pub async fn show(
    context: web::Data<QueryContext>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    Parameters::read(&request, &[])?;
    let counts = context.store()?.counts();
    let mut page = [HEAD, STYLE, BODY].concat();
    page.push_str(r#"<p class="numbers">"#);
    if !caller.is_limited() {
        numbers(&mut page, &counts);
    }
    page.push_str("</p>\n<table><tr><th>received</th><th>app</th><th>portal</th><th>event</th><th>became</th></tr>\n");
    let mut recent = context.recent_events.recent();
    if caller.is_limited() {
        recent.retain(|event| event.installation.as_ref().is_some_and(|about| caller.sees(&about.app)));
    }
    for event in &recent {
        let (app, member_id) = match &event.installation {
            Some(installation) => (installation.app.as_str(), installation.member_id.as_str()),
            None => ("", "unknown"),
        };
        let became = match event.outcome {
            Outcome::Rejected(reason) => format!("rejected: {}", reason.label().replace('_', " ")),
            outcome @ (Outcome::Fact | Outcome::PassedOn | Outcome::Unverified | Outcome::Repeated) => {
                outcome.label().to_owned()
            }
        };
        let class = event.outcome.label();
        // Each value is an identifier without HTML characters, as a test verifies: nothing needs escaping.
        let (received_at, kind) = (event.received_at, event.event.as_deref().unwrap_or("none"));
        let row = writeln!(
            page,
            r#"<tr class="{class}"><td>{received_at}</td><td>{app}</td><td>{member_id}</td><td>{kind}</td><td>{became}</td></tr>"#
        );
        row.expect("a String takes everything");
    }
    page.push_str("</table>");
    if recent.is_empty() {
        page.push_str(r#"<p class="muted">Nothing came in since this process started. Send something: <code>hookledger send life</code></p>"#);
    }
    page.push_str("</body></html>\n");
    let mut answer = HttpResponse::Ok();
    answer.content_type("text/html; charset=utf-8").insert_header((CONTENT_SECURITY_POLICY, CONTENT_POLICY.as_str()));
    Ok(answer.body(page))
}

fn numbers(page: &mut String, counts: &Counts) {
    for status in RecordStatus::ALL {
        number(page, counts.installations.get(&status), status.label());
    }
    number(page, Some(&counts.contested), "contested");
    number(page, counts.permissions.get(&Decision::Granted), "methods granted");
    number(page, counts.permissions.get(&Decision::Denied), "methods denied");
}

fn number(page: &mut String, number: Option<&i64>, name: &str) {
    let number = number.copied().unwrap_or(0);
    write!(page, "<span><b>{number}</b>{name}</span>").expect("a String takes everything");
}
