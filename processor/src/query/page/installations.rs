//! `/installations`: search and filters.

use bitrix24::{AppName, Installation};
use domain::RecordStatus;

use super::html::Html;
use super::installation::principal_rows;
use super::list::{encoded, field, option};
use super::row::path;
use crate::query::access::Caller;
use crate::query::context::QueryContext;
use crate::query::filter::{Filter, SEARCH};
use crate::query::installations::page as records;
use crate::query::parameters::Parameters;
use crate::query::problem::Problem;
use crate::query::request::block;

pub const PARAMETERS: [&str; 7] = ["app", SEARCH, "status", "silent_for", "unfinished", "contested", "cursor"];
/// Installations on one page.
const LISTED: usize = 50;
/// Principals of one installation among others.
const PRINCIPALS: usize = 5;
const HEADS: &[&str] = &["portal", "app", "status", "since", "last heard", "version", "member_id"];
/// Lists that are asked for most.
const QUICK: [(&str, &str); 6] = [
    ("", "All"),
    ("status=untrusted", "Untrusted"),
    ("contested=true", "Contested"),
    ("unfinished=true", "Unfinished"),
    ("status=installed&silent_for=30d", "Silent for 30 days"),
    ("status=uninstalled", "Uninstalled"),
];

pub async fn page(
    context: &QueryContext,
    caller: Caller,
    parameters: Parameters,
    cursor: Option<Installation>,
) -> Result<Html, Problem> {
    let filter = Filter::read(&parameters)?.searching(&parameters)?;
    filter.app.as_ref().map_or(Ok(()), |app| caller.must_see(app))?;
    let store = context.store()?;
    let given = |name: &str| parameters.text(name).unwrap_or_default();
    let query: Vec<String> = PARAMETERS
        .iter()
        .filter(|name| **name != "cursor" && !given(name).is_empty())
        .map(|name| format!("{name}={}", encoded(given(name))))
        .collect();
    let query = query.join("&");
    // Each of these is to be decided, so its principals and commands are shown.
    let needs_decision = given("status") == RecordStatus::Untrusted.label() || given("contested") == "true";
    let mut html = Html::begin("Installations", "/installations", None);
    quick(&mut html, &query);
    form(&mut html, given);
    let listed = block(
        &context.scans,
        || Problem::NotOpen,
        move || {
            let (records, next) = records(&store, &caller, &filter, cursor, LISTED)?;
            if needs_decision {
                let installations: Vec<Installation> =
                    records.iter().map(|record| record.installation.clone()).collect();
                principal_rows(&mut html, &store, &installations, false, PRINCIPALS)?;
            } else {
                let mut table = html.table(None, "Installations", HEADS);
                for record in &records {
                    let Installation { app, member_id } = &record.installation;
                    table.row(&format!("{app}-{member_id}"));
                    table.with(|html| {
                        let name = record.profile.domain.as_deref().unwrap_or(member_id.as_str());
                        html.link(&path(&record.installation), name)
                    });
                    table.cell(app).with(|html| status(html, record.status, record.contested));
                    table.with(|html| html.optional_time(record.since));
                    table.with(|html| html.optional_time(record.last_heard_at));
                    table.cell(record.profile.version.as_deref().unwrap_or("–")).with(|html| html.code(member_id));
                }
                table.end();
            }
            if records.is_empty() {
                let text = if next.is_some() { "None among those looked at so far." } else { "There are none." };
                html.paragraph("muted", text);
            }
            if let Some(next) = next {
                let to = format!("/installations?{query}{}cursor={next}", if query.is_empty() { "" } else { "&" });
                html.raw("<p>").link(&to, "More").raw("</p>\n");
            }
            Ok(html)
        },
    );
    listed.await?
}

pub fn status(html: &mut Html, status: RecordStatus, is_contested: bool) -> &mut Html {
    let kind = match status {
        RecordStatus::Installed | RecordStatus::Trusted => "good",
        RecordStatus::Uninstalled => "none",
        RecordStatus::Untrusted => "warn",
    };
    html.badge(kind, status.label());
    if is_contested {
        html.raw(" ").badge("warn", "contested");
    }
    html
}

fn quick(html: &mut Html, query: &str) {
    html.raw("<nav class=\"quick\" aria-label=\"Lists\">");
    for (parameters, name) in QUICK {
        let current = if parameters == query { " aria-current=\"page\"" } else { "" };
        html.raw("<a href=\"/installations?").text(parameters).raw("\"").raw(current).raw(">").raw(name).raw("</a>");
    }
    html.raw("</nav>\n");
}

fn form<'a>(html: &mut Html, given: impl Fn(&str) -> &'a str) {
    html.raw("<form class=\"filters\" action=\"/installations\" role=\"search\">");
    field(html, SEARCH, "Address or member_id", given(SEARCH));
    field(html, "app", "App", AppName::parse(given("app")).as_ref().map_or("", AppName::as_str));
    html.raw("<label>Status <select name=\"status\"><option value=\"\">any</option>");
    for status in RecordStatus::ALL {
        option(html, status.label(), status.label(), given("status") == status.label());
    }
    html.raw("</select></label>");
    field(html, "silent_for", "Silent for, such as 30d", given("silent_for"));
    html.raw("<button type=\"submit\">Search</button></form>\n");
}
