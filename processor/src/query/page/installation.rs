//! One portal's page: its record, its principals with the commands that decide, and what happened to its events.

use std::slice;
use std::sync::Arc;

use bitrix24::Installation;
use domain::{InstallationState, PrincipalRecord, RecordStatus};
use event_log::contract::partition_of_installation;

use super::html::Html;
use super::installations::status;
use super::list::{Selection, rows};
use super::overview::alert;
use super::row::{Became, HEADS_OF_PORTAL, decision_name, fact, json_name, path, short};
use crate::query::access::Caller;
use crate::query::context::QueryContext;
use crate::query::history;
use crate::query::log_reads::read_logs;
use crate::query::problem::Problem;
use crate::state::Store;

const EVERY_MS: u32 = 5_000;
/// An installation has fewer.
const PRINCIPALS: usize = 200;
const EVENTS: usize = 20;
const PERMISSIONS: usize = 50;
const PRINCIPAL_HEADS: &[&str] = &["installation", "principal", "trusted", "since", "last heard", "held", "to decide"];

pub fn path_of_trust() -> &'static str {
    "/installations?status=untrusted"
}

pub async fn page(
    context: &QueryContext,
    caller: Caller,
    store: Arc<Store>,
    installation: Installation,
    state: Arc<InstallationState>,
) -> Result<Html, Problem> {
    let Installation { app, member_id } = &installation;
    let partition = partition_of_installation(&installation, store.partitions());
    let record = state.record(&installation, partition, store.rules(app));
    let name = record.profile.domain.as_deref().unwrap_or(member_id.as_str());
    let mut html = Html::begin(&format!("{name} · {app}"), "/installations", Some(EVERY_MS));
    html.raw("<section id=\"verdict\" data-live>");
    verdict(&mut html, record.status, record.contested);
    html.raw("</section>\n");
    html.raw("<section aria-label=\"Record\"><dl id=\"record\" class=\"record\" data-live>\n");
    pair(&mut html, "status", |html| status(html, record.status, record.contested));
    pair(&mut html, "since", |html| html.optional_time(record.since));
    pair(&mut html, "last heard", |html| html.optional_time(record.last_heard_at));
    let profile = &record.profile;
    for (name, value) in [
        ("domain", &profile.domain),
        ("client endpoint", &profile.client_endpoint),
        ("version", &profile.version),
        ("licence", &profile.licence),
        ("language", &profile.language),
        ("scope", &profile.scope.as_ref().map(|scope| scope.join(", "))),
    ] {
        pair(&mut html, name, |html| html.text(value.as_deref().unwrap_or("–")));
    }
    if !profile.omitted.is_empty() {
        let omitted: Vec<String> = profile.omitted.iter().map(json_name).collect();
        pair(&mut html, "not shown", |html| html.text(omitted.join(", ")));
    }
    pair(&mut html, "member_id", |html| html.code(member_id));
    html.raw("</dl></section>\n");

    html.section("principals", "Principals");
    principal_rows(&mut html, &store, slice::from_ref(&installation), true, PRINCIPALS)?;
    html.end_section();
    permissions(&mut html, &store, &installation, &state);
    events(&mut html, context, &caller, &store, &installation).await?;
    facts(&mut html, context, store, &installation).await?;
    Ok(html)
}

fn verdict(html: &mut Html, status: RecordStatus, is_contested: bool) {
    if is_contested {
        alert(html, "warn", |html| {
            html.raw(
                "<strong>More than one principal claims this installation, and no operator decided.</strong> The first one may \
                 be a stranger. Compare with the token that the portal sends your app: <code>hookledger verify-token</code>.",
            )
        });
    } else if status == RecordStatus::Untrusted {
        alert(html, "warn", |html| {
            html.raw("<strong>No principal is trusted.</strong> Events are held until their principal is.")
        });
    }
}

fn pair(html: &mut Html, name: &str, value: impl FnOnce(&mut Html) -> &mut Html) {
    html.raw("<div id=\"record-").text(name.replace(' ', "-")).raw("\"><dt>").text(name).raw("</dt><dd>");
    value(html);
    html.raw("</dd></div>\n");
}

/// The principals of installations, up to `most` of each. On an installation's own page it is not named in each row.
pub fn principal_rows(
    html: &mut Html,
    store: &Store,
    installations: &[Installation],
    is_own: bool,
    most: usize,
) -> Result<(), Problem> {
    let heads = if is_own { &PRINCIPAL_HEADS[1..] } else { PRINCIPAL_HEADS };
    let mut table = html.table(None, "Principals", heads);
    for installation in installations {
        let Installation { app, member_id } = installation;
        let (state, trust) = (store.installation(installation)?, store.trust(app));
        let records = state.principal_records(trust, None);
        let trusted = records.iter().filter(|record| record.trusted);
        let trusted_first = trusted.filter_map(|record| record.first_heard_at).min();
        let is_contested = state.verdict(trust).contested;
        let name = state.record(installation, 0, store.rules(app)).profile.domain;
        for record in records.iter().take(most) {
            let spoke_first = !record.trusted
                && record.first_heard_at.zip(trusted_first).is_some_and(|(first, trusted)| first < trusted);
            table.row(&format!("{app}-{member_id}-{}", record.principal));
            if !is_own {
                table.with(|html| {
                    html.link(&path(installation), name.as_deref().unwrap_or(member_id.as_str()));
                    html.raw(" <span class=\"why\">").text(app).raw("</span>")
                });
            }
            table.with(|html| html.code(short(record.principal)));
            table.with(|html| trusted_as(html, record, is_contested, spoke_first));
            table.with(|html| html.optional_time(record.since));
            table.with(|html| html.optional_time(record.last_heard_at));
            table.cell(record.held_events).with(|html| {
                let revoke = if record.trusted { " --revoke" } else { "" };
                let principal = record.principal;
                html.command(format_args!("hookledger trust {app} {member_id} --principal {principal}{revoke}"))
            });
        }
        if records.len() > most {
            table.row(&format!("{app}-{member_id}-more"));
            table.with(|html| html.link(&path(installation), format_args!("{} more", records.len() - most)));
        }
    }
    table.end();
    Ok(())
}

fn trusted_as<'a>(html: &'a mut Html, record: &PrincipalRecord, is_contested: bool, spoke_first: bool) -> &'a mut Html {
    match record.basis {
        Some(basis) => html.badge("good", json_name(&basis)),
        None => html.badge("warn", "no"),
    };
    if is_contested {
        html.raw(" ").badge("warn", "contested");
    } else if spoke_first {
        html.raw(" <span class=\"why\">but spoke first</span>");
    }
    html
}

fn permissions(html: &mut Html, store: &Store, installation: &Installation, state: &InstallationState) {
    let verdict = state.verdict(store.trust(&installation.app));
    let decisions = state.decisions_by(&verdict, None, PERMISSIONS);
    html.raw("<div id=\"permissions-part\" data-live>");
    if !decisions.is_empty() {
        html.raw("<section id=\"permissions\" aria-labelledby=\"permissions-title\">");
        html.raw("<h2 id=\"permissions-title\">Methods that administrators decided about</h2>\n");
        let mut table = html.table(None, "Permissions", &["method", "decision", "decided", "expires", "token"]);
        for decision in &decisions {
            table.row(&format!("{}-{}", decision.method, decision.token)).with(|html| html.code(&decision.method));
            table.cell(decision_name(decision.decision));
            table.with(|html| html.time(decision.decided_at));
            table.with(|html| html.time(decision.expires_at));
            table.with(|html| html.code(short(decision.token)));
        }
        table.end();
        if decisions.len() == PERMISSIONS {
            html.paragraph("muted", "There may be more: GET /v1/installations/{app}/{member_id}/methods lists all.");
        }
        html.raw("</section>\n");
    }
    html.raw("</div>\n");
}

async fn events(
    html: &mut Html,
    context: &QueryContext,
    caller: &Caller,
    store: &Store,
    installation: &Installation,
) -> Result<(), Problem> {
    let Installation { app, member_id } = installation;
    for (id, title, became) in [
        ("held", "Events of untrusted principals", Some(Became::Unverified)),
        ("rejected", "Rejected events", Some(Became::Rejected)),
        ("events", "The last events", Some(Became::PassedOn)),
    ] {
        let selection = Selection { app: Some(app.clone()), member_id: Some(member_id.clone()), name: None, became };
        let (rows, next) = match rows(context, caller.clone(), selection, None, EVENTS).await {
            Ok(found) => found,
            // The state is known all the same.
            Err(Problem::NotReadable) => {
                html.paragraph("muted", "The logs cannot be read now, so events and history are not shown.");
                return Ok(());
            }
            Err(problem) => return Err(problem),
        };
        html.raw("<section aria-labelledby=\"").raw(id).raw("-title\"><h2 id=\"").raw(id).raw("-title\">");
        html.raw(title).raw("</h2>\n");
        let mut table = html.table(Some(id), title, HEADS_OF_PORTAL);
        for row in &rows {
            row.show(&mut table, store, false)?;
        }
        table.end();
        if next.is_some() && !rows.is_empty() {
            let became = Became::ALL.into_iter().find(|(one, _)| Some(*one) == became).map_or("", |(_, name)| name);
            html.raw("<p>");
            html.link(&format!("/events?app={app}&member_id={member_id}&became={became}"), "All of them").raw("</p>\n");
        }
        html.raw("</section>\n");
    }
    Ok(())
}

async fn facts(
    html: &mut Html,
    context: &QueryContext,
    store: Arc<Store>,
    installation: &Installation,
) -> Result<(), Problem> {
    if store.is_outdated() {
        return Ok(());
    }
    let one = installation.clone();
    let Ok(facts) = read_logs(context, move |logs| history::newest(logs, &store, &one)).await else { return Ok(()) };
    html.raw("<section aria-labelledby=\"history-title\"><h2 id=\"history-title\">History</h2>\n");
    let mut table = html.table(Some("history"), "History", &["occurred", "what", "event", "principal"]);
    for known in &facts {
        table.row(&format!("fact-{}", known.stamp.id)).with(|html| html.time(known.stamp.occurred_at));
        table.cell(fact(known)).with(|html| html.code(known.kind.name()));
        table.with(|html| html.code(short(known.principal)));
    }
    table.end();
    let Installation { app, member_id } = installation;
    html.raw("<p class=\"muted\">All of it: ").command(format_args!("hookledger history {app} {member_id}"));
    html.raw("</p></section>\n");
    Ok(())
}
