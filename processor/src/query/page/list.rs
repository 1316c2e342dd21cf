//! `/events`: what came in, with filters, newest first.

use bitrix24::{AppName, Installation, MemberId};
use event_log::contract::{Topic, partition_of_installation};

use super::html::Html;
use super::row::{Became, HEADS, Row, TOPICS};
use crate::query::access::Caller;
use crate::query::context::QueryContext;
use crate::query::log_reads::read_logs;
use crate::query::newest::{Cursor, Range, newest};
use crate::query::problem::Problem;

pub const PARAMETERS: [&str; 5] = ["app", "member_id", "event", "became", "cursor"];
const LISTED: usize = 50;
const EVERY_MS: u32 = 3_000;
const NAME_BYTES_MAX: usize = 128;

/// Which events are asked for.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub app: Option<AppName>,
    pub member_id: Option<MemberId>,
    /// Of the event, or the reason of a rejected one.
    pub name: Option<String>,
    pub became: Option<Became>,
}

pub fn parse_name(text: &str) -> Option<String> {
    let is_name = text.len() <= NAME_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_name.then(|| text.to_owned())
}

impl Selection {
    fn has(&self, row: &Row) -> bool {
        let is_named = |name: &String| row.name.as_ref().is_some_and(|known| known.eq_ignore_ascii_case(name));
        self.app.as_ref().is_none_or(|app| row.app.as_ref() == Some(app))
            && self.member_id.as_ref().is_none_or(|member_id| row.member_id.as_ref() == Some(member_id))
            && self.name.as_ref().is_none_or(is_named)
    }

    fn installation(&self) -> Option<Installation> {
        Some(Installation { app: self.app.clone()?, member_id: self.member_id.clone()? })
    }

    /// The parameters of the same list behind a cursor.
    fn link(&self, cursor: &str) -> String {
        let became = self.became.and_then(|became| Became::ALL.into_iter().find(|(one, _)| *one == became));
        let given = [
            ("app", self.app.as_ref().map(AppName::as_str)),
            ("member_id", self.member_id.as_ref().map(MemberId::as_str)),
            ("event", self.name.as_deref()),
            ("became", became.map(|(_, name)| name)),
            ("cursor", Some(cursor)),
        ];
        let given = given.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded(value?))));
        format!("/events?{}", given.collect::<Vec<_>>().join("&"))
    }
}

/// For a query string.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

/// The newest events that the caller sees, and the cursor behind them.
pub async fn rows(
    context: &QueryContext,
    caller: Caller,
    selection: Selection,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<(Vec<Row>, Option<String>), Problem> {
    let partitions = context.store()?.partitions();
    let partition = selection.installation().map(|installation| partition_of_installation(&installation, partitions));
    read_logs(context, move |logs| {
        let one: Option<[Topic; 1]> = selection.became.map(|became| [became.topic()]);
        let topics = one.as_ref().map_or(&TOPICS[..], |one| &one[..]);
        let range = Range { topics, partition, cursor, since: None, limit };
        newest(logs, &range, Row::of, |row| row.is_seen_by(&caller) && selection.has(row))
    })
    .await
}

pub async fn page(
    context: &QueryContext,
    caller: Caller,
    selection: Selection,
    cursor: Option<Cursor>,
) -> Result<Html, Problem> {
    let is_first = cursor.is_none();
    let (rows, next) = rows(context, caller, selection.clone(), cursor, LISTED).await?;
    let store = context.store()?;
    let mut html = Html::begin("Events", "/events", is_first.then_some(EVERY_MS));
    form(&mut html, &selection);
    let mut table = html.table(is_first.then_some("events"), "Events", HEADS);
    for row in &rows {
        row.show(&mut table, &store, true)?;
    }
    table.end();
    if rows.is_empty() {
        let text =
            if next.is_some() { "None of the events looked at so far is one of these." } else { "There are none." };
        html.paragraph("muted", text);
    }
    if let Some(next) = next {
        html.raw("<p>").link(&selection.link(&next), "Older events").raw("</p>\n");
    }
    Ok(html)
}

fn form(html: &mut Html, selection: &Selection) {
    html.raw("<form class=\"filters\" action=\"/events\" role=\"search\">");
    let value = |value: Option<&str>| value.unwrap_or_default().to_owned();
    field(html, "app", "App", &value(selection.app.as_ref().map(AppName::as_str)));
    field(html, "member_id", "Portal (member_id)", &value(selection.member_id.as_ref().map(MemberId::as_str)));
    field(html, "event", "Event, or reason", &value(selection.name.as_deref()));
    html.raw("<label>Became <select name=\"became\"><option value=\"\">anything</option>");
    for (became, name) in Became::ALL {
        option(html, name, &name.replace('-', " "), selection.became == Some(became));
    }
    html.raw("</select></label><button type=\"submit\">Filter</button> ").link("/events", "All").raw("</form>\n");
}

pub fn field(html: &mut Html, name: &str, label: &str, value: &str) {
    html.raw("<label>").text(label).raw(" <input name=\"").raw(name).raw("\" value=\"").text(value);
    html.raw("\" autocomplete=\"off\" spellcheck=\"false\"></label>");
}

pub fn option(html: &mut Html, value: &str, text: &str, is_selected: bool) {
    let selected = if is_selected { " selected" } else { "" };
    html.raw("<option value=\"").text(value).raw("\"").raw(selected).raw(">").text(text).raw("</option>");
}
