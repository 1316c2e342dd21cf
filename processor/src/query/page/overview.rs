//! `/`: what needs attention, what came in last, and what has to be decided.

use std::collections::BTreeMap;
use std::time::Duration;

use bitrix24::AppName;
use domain::{Decision, Reason, RecordStatus};
use primitives::time::Timestamp;

use super::html::{Html, bytes};
use super::installation::{path_of_trust, principal_rows};
use super::row::{HEADS, Row, why};
use super::surroundings::{Hints, Ingress, Surroundings};
use crate::query::access::Caller;
use crate::query::context::QueryContext;
use crate::query::problem::Problem;
use crate::state::{Counts, Store};

const EVERY_MS: u32 = 1_000;
/// Installations without a trusted principal.
const UNDECIDED: usize = 10;
const PRINCIPALS: usize = 3;
/// Rows of rejected events; the most of them come first.
const REJECTED_ROWS: usize = 20;
const UNKNOWN_APPS: usize = 10;
/// A backlog that is older is worth a word.
const BACKLOG_OLD: Duration = Duration::from_secs(60);
/// Refused webhooks from before are history.
const SHOUTED: Duration = Duration::from_secs(24 * 60 * 60);

/// A token that is limited to apps sees no numbers, which are of all apps, and nothing of the process.
pub async fn page(context: &QueryContext, caller: &Caller) -> Result<Html, Problem> {
    let store = context.store()?;
    let latest = context.latest.rows(context, caller).await;
    let (counts, surroundings) = (store.counts(), &context.surroundings);
    let mut html = Html::begin("Overview", "/", Some(EVERY_MS));
    html.raw("<section id=\"alerts\" aria-label=\"What needs attention\" data-live>\n");
    if latest.is_err() {
        alert(&mut html, "bad", |html| html.text("The logs cannot be read now, so the last events are not shown."));
    }
    if store.is_outdated() {
        alert(&mut html, "warn", |html| {
            html.text("Facts are read again after an upgrade. Until then, this is the state of the version before.")
        });
    }
    if !caller.is_limited() {
        process_alerts(&mut html, surroundings);
        trust_alerts(&mut html, &counts);
    }
    html.end_section();
    if !caller.is_limited() {
        numbers(&mut html, &counts, surroundings);
    }
    match &latest {
        Ok(rows) if rows.is_empty() => empty(&mut html, surroundings.hints.get().filter(|_| !caller.is_limited())),
        Ok(rows) => events(&mut html, &store, rows)?,
        Err(_) => {}
    }
    undecided(&mut html, &store, caller)?;
    let mut rejected = context.recent_events.rejected(Timestamp::now());
    rejected.retain(|(app, _), _| caller.sees_rejected(app.as_ref()));
    rejected_lately(&mut html, &rejected);
    Ok(html)
}

/// A sentence at the top, with what to do.
pub fn alert(html: &mut Html, kind: &str, content: impl FnOnce(&mut Html) -> &mut Html) {
    html.raw("<div class=\"alert ").raw(kind).raw("\">");
    content(html);
    html.raw("</div>\n");
}

fn process_alerts(html: &mut Html, surroundings: &Surroundings) {
    if let Some(ingress) = surroundings.ingress.as_ref().map(|ask| ask()) {
        unknown_apps(html, &ingress);
        if let Some(fault) = &ingress.log_fault {
            alert(html, "bad", |html| html.raw("<strong>The disk log takes no events.</strong> ").text(fault));
        }
    }
    if let Some(fault) = surroundings.fault.as_ref().and_then(|ask| ask()) {
        alert(html, "bad", |html| html.raw("<strong>Nothing is folded:</strong> ").text(fault).text("."));
    }
    let backlog = surroundings.backlog.as_ref().map(|ask| ask()).unwrap_or_default();
    if backlog.waiting >= BACKLOG_OLD {
        alert(html, "warn", |html| {
            html.text(backlog.events).raw(" events have not been folded yet; the oldest has waited for ");
            html.text(backlog.waiting.as_secs()).raw(" s.")
        });
    }
}

/// Most often a typing error in the handler's URL, which costs every event of the app until it is found.
fn unknown_apps(html: &mut Html, ingress: &Ingress) {
    let since = Timestamp::now().minus(SHOUTED);
    let lately: Vec<_> = ingress.unknown_apps.iter().filter(|unknown| unknown.last >= since).collect();
    if lately.is_empty() {
        return;
    }
    alert(html, "bad", |html| {
        let count: u64 = lately.iter().map(|unknown| unknown.count).sum();
        html.raw("<p><strong>").text(count).raw(if count == 1 { " webhook was" } else { " webhooks were" });
        html.raw(" refused: no such app.</strong> Bitrix24 does not send them again. Is there a typing error in a handler's URL?</p>\n<ul>");
        for unknown in lately.iter().take(UNKNOWN_APPS) {
            html.raw("<li>").text(&unknown.what).raw(": ").text(unknown.count).raw(" times, last at ");
            html.time(unknown.last).raw("</li>");
        }
        html.raw("</ul>\n");
        if lately.len() > UNKNOWN_APPS {
            html.raw("<p>And ").text(lately.len() - UNKNOWN_APPS).raw(" more names.</p>");
        }
        html.raw("<p>");
        if ingress.apps.is_empty() {
            html.raw("A name has small letters, digits and <code>-</code>, and nothing follows it.");
        } else {
            html.raw("Known apps: ").text(ingress.apps.join(", ")).raw(".");
        }
        html.raw("</p>")
    });
}

fn trust_alerts(html: &mut Html, counts: &Counts) {
    if counts.contested > 0 {
        alert(html, "warn", |html| {
            html.raw("<strong>More than one principal claims ").text(counted(counts.contested, "installation"));
            html.raw("</strong>: a stranger may have been first. ");
            html.link("/installations?contested=true", "Decide")
        });
    }
    let untrusted = number_of(counts, RecordStatus::Untrusted);
    if untrusted > 0 {
        alert(html, "warn", |html| {
            html.raw("<strong>").text(counted(untrusted, "installation"));
            html.raw(" without a trusted principal.</strong> Their events are held until you decide. ");
            html.link("/installations?status=untrusted", "Show")
        });
    }
}

fn counted(count: i64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn number_of(counts: &Counts, status: RecordStatus) -> i64 {
    counts.installations.get(&status).copied().unwrap_or(0)
}

fn numbers(html: &mut Html, counts: &Counts, surroundings: &Surroundings) {
    html.raw("<dl id=\"numbers\" class=\"numbers\" data-live>");
    for status in RecordStatus::ALL {
        let label = status.label();
        number(html, label, number_of(counts, status), Some(&format!("/installations?status={label}")));
    }
    number(html, "contested", counts.contested, Some("/installations?contested=true"));
    let methods = counts.permissions.get(&Decision::Granted).copied().unwrap_or(0);
    number(html, "methods granted", methods, None);
    if let Some(backlog) = surroundings.backlog.as_ref().map(|ask| ask()) {
        number(html, "not folded yet", backlog.events, None);
    }
    if let Some(ingress) = surroundings.ingress.as_ref().map(|ask| ask()) {
        number(html, "disk log", bytes(ingress.log_bytes), None);
        if let Some(room) = ingress.log_room {
            number(html, "room on disk", bytes(room), None);
        }
    }
    html.raw("</dl>\n");
}

fn number(html: &mut Html, name: &str, number: impl std::fmt::Display, link: Option<&str>) {
    html.raw("<div id=\"number-").text(name.replace(' ', "-")).raw("\"><dt>").text(name).raw("</dt><dd>");
    match link {
        Some(link) => html.link(link, number),
        None => html.text(number),
    };
    html.raw("</dd></div>");
}

fn events(html: &mut Html, store: &Store, rows: &[Row]) -> Result<(), Problem> {
    html.raw("<section aria-labelledby=\"latest-title\"><h2 id=\"latest-title\">The last events</h2>\n");
    let mut table = html.table(Some("latest"), "The last events", HEADS);
    for row in rows {
        row.show(&mut table, store, true)?;
    }
    table.end();
    html.raw("<p>").link("/events", "All events").raw("</p></section>\n");
    Ok(())
}

/// What to do next.
fn empty(html: &mut Html, hints: Option<&Hints>) {
    html.raw("<section class=\"empty\" aria-labelledby=\"empty-title\">");
    html.raw("<h2 id=\"empty-title\">Nothing has come in yet</h2>\n");
    let hints = hints.cloned().unwrap_or_default();
    if let Some(command) = &hints.command {
        html.raw("<p>Play the life of a portal, from install to uninstall, in a terminal:</p><p>");
        html.command(command).raw("</p>\n");
    }
    if hints.urls.is_empty() {
        html.raw("<p>Send webhooks to <code>/v1/events/{app}</code> of ingress. They appear here as they come.</p>\n");
    } else {
        html.raw("<p>This is where Bitrix24 sends the events of your app, through a proxy with TLS:</p><ul>");
        for url in &hints.urls {
            html.raw("<li>").command(url).raw("</li>");
        }
        html.raw("</ul>\n<p>They appear here as they come.</p>\n");
    }
    html.raw("<p>Portals that have your app already never send their install again. Import them:</p><p>");
    html.command("hookledger import portals.csv --app APP").raw("</p></section>\n");
}

fn undecided(html: &mut Html, store: &Store, caller: &Caller) -> Result<(), Problem> {
    let newest = store.newest_untrusted(UNDECIDED, |installation| caller.sees(&installation.app));
    html.raw("<div id=\"undecided-part\" data-live>");
    if !newest.is_empty() {
        html.raw("<section id=\"undecided\" aria-labelledby=\"undecided-title\">");
        html.raw("<h2 id=\"undecided-title\">To decide</h2>\n");
        html.paragraph(
            "muted",
            "Events came, but no install of the app. They are held until their principal is trusted.",
        );
        principal_rows(html, store, &newest, false, PRINCIPALS)?;
        html.raw("<p>").link(path_of_trust(), "All of them").raw("</p></section>\n");
    }
    html.raw("</div>\n");
    Ok(())
}

/// Of the last day.
fn rejected_lately(html: &mut Html, counts: &BTreeMap<(Option<AppName>, Reason), u64>) {
    html.raw("<div id=\"rejected-part\" data-live>");
    if !counts.is_empty() {
        html.raw("<section id=\"rejected\" aria-labelledby=\"rejected-title\">");
        html.raw("<h2 id=\"rejected-title\">Rejected in the last 24 hours, by this process</h2>\n");
        let mut rows: Vec<_> = counts.iter().collect();
        rows.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let mut table = html.table(None, "Rejected events", &["app", "reason", "events", "to see them"]);
        for ((app, reason), count) in rows.into_iter().take(REJECTED_ROWS) {
            let (name, of_app) = match app {
                Some(app) => (app.as_str(), format!(" --app {app}")),
                None => ("other apps", String::new()),
            };
            let label = reason.label();
            table.row(&format!("rejected-{name}-{label}")).cell(name);
            table.with(|html| {
                html.badge("bad", label.replace('_', " ")).raw(" <span class=\"why\">").text(why(label)).raw("</span>")
            });
            table.cell(count).with(|html| {
                html.command(format_args!("hookledger rejected list{of_app} --reason {label} --since 1d"))
            });
        }
        table.end();
        html.raw("<p>").link("/events?became=rejected", "All rejected events").raw("</p></section>\n");
    }
    html.raw("</div>\n");
}
