//! HTML as text: every value is escaped.

use std::fmt::Display;

use primitives::plain;
use primitives::time::Timestamp;

/// Pages that others link to.
const PLACES: [(&str, &str); 3] = [("/", "Overview"), ("/events", "Events"), ("/installations", "Installations")];

/// A page on its way.
pub struct Html(String);

impl Html {
    /// `path` is that of the page, or of the list that it belongs to. A page with a time is kept up to date by the
    /// script, at most that often.
    pub fn begin(title: &str, path: &str, every_ms: Option<u32>) -> Self {
        let mut html = Self(String::with_capacity(32 * 1024));
        html.raw(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n",
        );
        html.raw("<title>").text(title).raw(" · Hookledger</title>\n");
        html.raw(
            "<link rel=\"icon\" href=\"/page.svg\" type=\"image/svg+xml\">\n<link rel=\"stylesheet\" href=\"/page.css\">\n\
             <script src=\"/page.js\" defer></script>\n</head>",
        );
        match every_ms {
            Some(every_ms) => html.raw("<body data-every=\"").text(every_ms).raw("\">\n"),
            None => html.raw("<body>\n"),
        };
        html.raw(
            "<a class=\"skip\" href=\"#main\">Skip to the content</a>\n<header><a class=\"brand\" href=\"/\">Hookledger</a>\
             <nav aria-label=\"Pages\">",
        );
        for (to, name) in PLACES {
            let current = if to == path { " aria-current=\"page\"" } else { "" };
            html.raw("<a href=\"").raw(to).raw("\"").raw(current).raw(">").raw(name).raw("</a>");
        }
        html.raw(
            "</nav><div class=\"live\"><span id=\"status\" role=\"status\"></span>\
             <button type=\"button\" id=\"pause\" hidden>Pause</button></div></header>\n<main id=\"main\" tabindex=\"-1\">\n",
        );
        html.raw("<h1>").text(title).raw("</h1>\n");
        html
    }

    pub fn end(mut self) -> String {
        self.raw("</main></body></html>\n");
        self.0
    }

    /// Of this program, not of a portal.
    pub fn raw(&mut self, html: &str) -> &mut Self {
        self.0.push_str(html);
        self
    }

    pub fn text(&mut self, value: impl Display) -> &mut Self {
        escape(&plain::line(&value.to_string()), &mut self.0);
        self
    }

    /// Begins a part of the page. The script replaces its children when they have changed.
    pub fn section(&mut self, id: &str, title: &str) -> &mut Self {
        self.raw("<section id=\"").raw(id).raw("\" data-live>\n<h2 id=\"").raw(id).raw("-title\">");
        self.text(title).raw("</h2>\n")
    }

    pub fn end_section(&mut self) -> &mut Self {
        self.raw("</section>\n")
    }

    pub fn paragraph(&mut self, class: &str, text: &str) -> &mut Self {
        self.raw("<p class=\"").raw(class).raw("\">").text(text).raw("</p>\n")
    }

    pub fn link(&mut self, to: &str, text: impl Display) -> &mut Self {
        self.raw("<a href=\"").text(to).raw("\">").text(text).raw("</a>")
    }

    pub fn code(&mut self, text: impl Display) -> &mut Self {
        self.raw("<code>").text(text).raw("</code>")
    }

    /// Something to run in a terminal; the script lets it be copied.
    pub fn command(&mut self, text: impl Display) -> &mut Self {
        self.raw("<code class=\"command\">").text(text).raw("</code>")
    }

    /// A word that says what became of something. `kind` is a class of the style.
    pub fn badge(&mut self, kind: &str, text: impl Display) -> &mut Self {
        self.raw("<span class=\"badge ").raw(kind).raw("\">").text(text).raw("</span>")
    }

    /// In UTC; the script shows it as it is here.
    pub fn time(&mut self, at: Timestamp) -> &mut Self {
        let text = at.to_string();
        let (day, rest) = text.split_once('T').unwrap_or((&text, ""));
        let second = rest.get(..8).unwrap_or(rest);
        self.raw("<time datetime=\"").text(&text).raw("\">").text(day).raw(" ").text(second).raw("</time>")
    }

    pub fn optional_time(&mut self, at: Option<Timestamp>) -> &mut Self {
        match at {
            Some(at) => self.time(at),
            None => self.raw("–"),
        }
    }

    /// Begins a table. Its rows are kept up to date one by one if it has an `id`.
    pub fn table(&mut self, id: Option<&str>, label: &str, heads: &'static [&'static str]) -> Table<'_> {
        self.raw("<table role=\"table\" aria-label=\"")
            .text(label)
            .raw("\"><thead role=\"rowgroup\"><tr role=\"row\">");
        for head in heads {
            let class = if is_number(head) { " class=\"number\"" } else { "" };
            self.raw("<th scope=\"col\" role=\"columnheader\"").raw(class).raw(">").text(head).raw("</th>");
        }
        self.raw("</tr></thead>\n<tbody role=\"rowgroup\"");
        if let Some(id) = id {
            self.raw(" id=\"").raw(id).raw("\" data-live");
        }
        self.raw(">\n");
        Table { html: self, heads, column: 0, is_open: false }
    }
}

/// Columns of numbers, which stand one above the other.
fn is_number(head: &str) -> bool {
    matches!(head, "events" | "held")
}

/// On small screens each row is a card, and each cell has its head beside it.
pub struct Table<'a> {
    html: &'a mut Html,
    heads: &'static [&'static str],
    column: usize,
    is_open: bool,
}

impl Table<'_> {
    pub fn row(&mut self, id: &str) -> &mut Self {
        self.end_row();
        self.html.raw("<tr role=\"row\" id=\"").text(id).raw("\">");
        (self.column, self.is_open) = (0, true);
        self
    }

    fn end_row(&mut self) {
        if self.is_open {
            self.html.raw("</tr>\n");
        }
    }

    pub fn cell(&mut self, value: impl Display) -> &mut Self {
        self.with(|html| html.text(value))
    }

    pub fn with(&mut self, content: impl FnOnce(&mut Html) -> &mut Html) -> &mut Self {
        let head = self.heads.get(self.column).copied().unwrap_or_default();
        let class = if is_number(head) { " class=\"number\"" } else { "" };
        self.html.raw("<td role=\"cell\" data-label=\"").text(head).raw("\"").raw(class).raw(">");
        content(self.html);
        self.html.raw("</td>");
        self.column += 1;
        self
    }

    pub fn end(mut self) {
        self.end_row();
        self.html.raw("</tbody></table>\n");
    }
}

/// `42 KB`, in units of 1000.
pub fn bytes(bytes: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "KB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

fn escape(text: &str, html: &mut String) {
    for letter in text.chars() {
        match letter {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            _ => html.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_becomes_markup() {
        let mut html = Html::begin("a<b", "/", None);
        let mut table = html.table(None, "\"", &["x"]);
        table.row("'").cell("<script>alert('x')</script>");
        table.end();
        html.link("/?a=1&b=\"", "&").text("a\u{202e}b\u{7}");
        let page = html.end();
        for escaped in [
            "<title>a&lt;b ·",
            "aria-label=\"&quot;\"",
            "<tr role=\"row\" id=\"&#39;\">",
            ">&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;</td></tr>",
            "<a href=\"/?a=1&amp;b=&quot;\">&amp;</a>",
            "a\\u{202e}b\\u{7}",
        ] {
            assert!(page.contains(escaped), "{escaped} in {page}");
        }
    }

    #[test]
    fn sizes_are_short() {
        let shown = [999, 1_000, 1_250_000, 42_000_000_000].map(bytes);
        assert_eq!(shown, ["999 B", "1.0 KB", "1.2 MB", "42.0 GB"]);
    }
}
