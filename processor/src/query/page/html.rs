//! HTML as text: every value is escaped.

use std::fmt::{Display, Write};

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Hookledger</title>
<meta name="viewport" content="width=device-width, initial-scale=1">"#;
const RELOADING: &str = r#"<meta http-equiv="refresh" content="5">"#;

pub const STYLE: &str = "
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1d2430;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem}p.numbers b{font-size:1.3rem;margin-right:.3rem}p.numbers span{margin-right:2rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .8rem .35rem 0;border-bottom:1px solid #e3e6ea;
vertical-align:top}td{font-variant-numeric:tabular-nums}.rejected,.unverified,.warning{color:#a4341f}.muted{color:#68707c}
code{overflow-wrap:anywhere}a{color:inherit}
@media(prefers-color-scheme:dark){body{background:#14181e;color:#dde3ea}th,td{border-color:#2a313a}
.rejected,.unverified,.warning{color:#f0947f}}
";

const BODY: &str = "</style></head><body><h1><a href=\"/\">Hookledger</a></h1>\n";

/// A page on its way.
pub struct Html(String);

impl Html {
    pub fn begin() -> Self {
        Self([HEAD, "<style>", STYLE, BODY].concat())
    }

    /// Reloads itself, without a script.
    pub fn begin_reloading() -> Self {
        Self([HEAD, RELOADING, "<style>", STYLE, BODY].concat())
    }

    pub fn end(mut self) -> String {
        self.0.push_str("</body></html>\n");
        self.0
    }

    /// Of this program, not of a portal.
    pub fn raw(&mut self, html: &str) -> &mut Self {
        self.0.push_str(html);
        self
    }

    pub fn text(&mut self, value: impl Display) -> &mut Self {
        write!(Escaped(&mut self.0), "{value}").expect("a String takes everything");
        self
    }

    pub fn title(&mut self, title: &str) -> &mut Self {
        self.raw("<h2>").text(title).raw("</h2>\n")
    }

    pub fn paragraph(&mut self, class: &str, text: &str) -> &mut Self {
        self.raw("<p class=\"").text(class).raw("\">").text(text).raw("</p>\n")
    }

    pub fn link(&mut self, to: &str, text: impl Display) -> &mut Self {
        self.raw("<a href=\"").text(to).raw("\">").text(text).raw("</a>")
    }

    pub fn code(&mut self, text: impl Display) -> &mut Self {
        self.raw("<code>").text(text).raw("</code>")
    }

    /// A table's first row.
    pub fn heads(&mut self, heads: &[&str]) -> &mut Self {
        self.raw("<table><tr>");
        for head in heads {
            self.raw("<th>").text(head).raw("</th>");
        }
        self.raw("</tr>\n")
    }

    pub fn cell(&mut self, value: impl Display) -> &mut Self {
        self.raw("<td>").text(value).raw("</td>")
    }
}

struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for letter in text.chars() {
            match letter {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                _ => self.0.push(letter),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_becomes_markup() {
        let mut html = Html::begin();
        html.cell("<script>alert('x')</script>").link("/?a=1&b=\"", "&");
        let page = html.end();
        assert!(page.contains("<td>&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;</td>"), "{page}");
        assert!(page.contains("<a href=\"/?a=1&amp;b=&quot;\">&amp;</a>"), "{page}");
    }
}
