//! What a rejected event says, for an operator: without secrets, as far as it can be read, and short.

use bitrix24::form::Request;
use event_log::RawEvent;
use serde::Serialize;

use super::redact::{Redacted, redact_within};
use super::secrets::Secrets;
use super::{Subject, names_a_secret, subject};
use crate::event::{Call, Json, Part};

/// Of all parts together.
const PREVIEW_BYTES_MAX: usize = 16 * 1024;

/// The parts have the names and the redaction of [`Public`](crate::Public).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Preview {
    pub event: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<Call>,
    pub data: Json,
    pub auth: Json,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<Json>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub omitted: Vec<Part>,
}

/// None for what is neither an event nor a call: a secret may be anywhere in it. None, too, where a name is a
/// secret.
pub fn preview(raw: &RawEvent) -> Option<Preview> {
    if raw.is_command || raw.compression.is_some() {
        return None;
    }
    let request = Request::parse(&raw.body, raw.query.as_deref());
    if request.has_too_many_fields() {
        return None;
    }
    let secrets = Secrets::of(&request);
    if names_a_secret(&request, &secrets) {
        return None;
    }
    let (event, call) = match subject(&request)? {
        Subject::Event(name) => (Some(name.to_ascii_uppercase()), None),
        Subject::Call(call) => (None, Some(call)),
    };
    let Redacted { data, auth, fields, query, omitted, .. } = redact_within(&request, &secrets, PREVIEW_BYTES_MAX);
    Some(Preview { event, call, data, auth, fields, query, omitted })
}

#[cfg(test)]
mod tests {
    use bitrix24::AppName;
    use bytes::Bytes;
    use primitives::time::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    fn shown(body: &str) -> Option<Value> {
        let request = Request::parse(body.as_bytes(), None);
        let app = AppName::parse("crm-sync").expect("a name");
        let raw = RawEvent::new(app, request.head(), Bytes::from(body.to_owned()), Timestamp::from_s(5));
        preview(&raw).map(|preview| serde_json::to_value(preview).expect("JSON"))
    }

    #[test]
    fn an_event_is_shown_as_subscribers_see_it() {
        let preview =
            shown("event=onX&auth[member_id]=a223&auth[access_token]=s3cret&data[PASSWORD]=s3cret2&data[ID]=7");
        let preview = preview.expect("it is an event");
        assert_eq!((&preview["event"], &preview["data"]["ID"]), (&json!("ONX"), &json!("7")));
        assert!(!preview.to_string().contains("s3cret"), "{preview}");
    }

    #[test]
    fn nothing_is_shown_of_what_cannot_be_read() {
        // Cut off, so that its first half is a field's name.
        for body in [r#"{"auth":{"application_token":"s3cret"#, "s3cret", "event=a b&x=s3cret", ""] {
            assert_eq!(shown(body), None, "{body}");
        }
        assert_eq!(shown("event=onx&auth[member_id]=s3cret&auth[application_token]=s3cret"), None);
    }

    #[test]
    fn a_preview_is_short() {
        let preview = shown(&format!("event=onx&auth[member_id]=a223&data={}", "x".repeat(PREVIEW_BYTES_MAX)));
        let preview = preview.expect("it is an event");
        assert_eq!((&preview["data"], &preview["omitted"]), (&Value::Null, &json!(["data"])));
        assert_eq!(preview["auth"]["member_id"], "a223");
    }
}
