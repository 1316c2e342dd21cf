//! A request's fields: those of its body and of its query.

use super::{Field, Form, Head, head};

/// Bitrix24 puts some fields into the URL, such as `DOMAIN`, and users put their own there. The body wins where both
/// have a field.
#[derive(Clone, Default)]
pub struct Request {
    pub body: Form,
    pub query: Form,
}

impl Request {
    pub fn parse(body: &[u8], query: Option<&str>) -> Self {
        Self { body: Form::parse(body), query: Form::parse_query(query.unwrap_or_default().as_bytes()) }
    }

    pub fn has_too_many_fields(&self) -> bool {
        self.body.has_too_many_fields() || self.query.has_too_many_fields()
    }

    /// By the field's full name.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.body.text(name).or_else(|| self.query.text(name))
    }

    pub fn variable(&self, name: &str) -> Option<Field<'_>> {
        self.body.variable(name).or_else(|| self.query.variable(name))
    }

    pub fn head(&self) -> Head {
        head(|name| self.text(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_wins_where_both_have_a_field() {
        let query = "event=ONX&auth[member_id]=b&auth[domain]=x.bitrix24.com&data=1&DOMAIN=x.bitrix24.com";
        let request = Request::parse(b"event=ONY&auth[member_id]=a&ts=5", Some(query));
        assert_eq!(request.text("event"), Some("ONY"));
        assert_eq!(request.text("auth[member_id]"), Some("a"));
        assert_eq!(request.text("auth[domain]"), Some("x.bitrix24.com"));
        assert_eq!(request.variable("data").and_then(Field::text), Some("1"));
        let scan = Form::scan(b"event=ONY&auth[member_id]=a&ts=5").or(Form::scan_query(query.as_bytes()));
        assert_eq!(scan.head(), request.head());
    }
}
