//! What came in lately, and what was rejected.

use std::collections::BTreeMap;

use bitrix24::AppName;
use domain::fold::Outcome;
use domain::{Decision, Reason, RecordStatus};

use super::html::Html;
use crate::run::recent_events::Recent;
use crate::state::Counts;

/// Rows of rejected events; the most of them come first.
const REJECTED_ROWS: usize = 50;

pub fn numbers(html: &mut Html, counts: &Counts) {
    html.raw(r#"<p class="numbers">"#);
    for status in RecordStatus::ALL {
        number(html, counts.installations.get(&status), status.label());
    }
    number(html, Some(&counts.contested), "contested");
    number(html, counts.permissions.get(&Decision::Granted), "methods granted");
    number(html, counts.permissions.get(&Decision::Denied), "methods denied");
    html.raw("</p>\n");
    if counts.contested > 0 {
        html.raw(r#"<p class="warning">More than one principal claims "#).text(counts.contested);
        html.raw(" installations: a stranger may have been first. ").link("/?list=contested", "Decide");
        html.raw("</p>\n");
    }
}

fn number(html: &mut Html, number: Option<&i64>, name: &str) {
    html.raw("<span><b>").text(number.copied().unwrap_or(0)).raw("</b>").text(name).raw("</span>");
}

/// Of the last day.
pub fn rejected(html: &mut Html, counts: &BTreeMap<(Option<AppName>, Reason), u64>) {
    if counts.is_empty() {
        return;
    }
    html.title("Rejected in the last 24 hours, by this process");
    html.heads(&["app", "reason", "events", "what they are"]);
    let mut rows: Vec<_> = counts.iter().collect();
    rows.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for ((app, reason), count) in rows.into_iter().take(REJECTED_ROWS) {
        let (name, of_app) = match app {
            Some(app) => (app.as_str(), format!(" --app {app}")),
            None => ("other apps", String::new()),
        };
        html.raw(r#"<tr class="rejected">"#).cell(name).cell(reason.label().replace('_', " ")).cell(count).raw("<td>");
        html.code(format!("hookledger rejected list{of_app} --reason {} --since 1d", reason.label()));
        html.raw("</td></tr>\n");
    }
    html.raw("</table>\n");
}

/// The last events, newest first.
pub fn recent(html: &mut Html, recent: &[Recent]) {
    html.title("The last events");
    html.heads(&["received", "app", "portal", "event", "became"]);
    for event in recent {
        let became = match event.outcome {
            Outcome::Rejected(reason) => format!("rejected: {}", reason.label().replace('_', " ")),
            outcome @ (Outcome::Fact | Outcome::PassedOn | Outcome::Unverified | Outcome::Repeated) => {
                outcome.label().to_owned()
            }
        };
        html.raw("<tr class=\"").text(event.outcome.label()).raw("\">");
        html.cell(event.received_at).cell(&event.app);
        match &event.installation {
            Some(about) => html.cell(&about.member_id),
            None => html.cell("unknown"),
        };
        html.cell(event.event.as_deref().unwrap_or("none")).cell(became).raw("</tr>\n");
    }
    html.raw("</table>\n");
    if recent.is_empty() {
        html.raw(r#"<p class="muted">Nothing came in since this process started. Send something: "#);
        html.code("hookledger send life").raw("</p>\n");
    }
}
