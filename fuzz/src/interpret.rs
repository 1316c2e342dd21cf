//! What a body means: `domain`.

use bitrix24::AppName;
use bitrix24::form::Form;
use bytes::Bytes;
use domain::interpret as read;
use event_log::{Position, RawEvent};
use primitives::time::Timestamp;
use serde_json::Value;

/// Shorter values are not looked for: they would be found everywhere.
const SECRET_BYTES_MIN: usize = 16;
/// Kafka's default limit of a record, without room for a key and headers.
const RECORD_BYTES_MAX: usize = 1_040_000;
/// A fact is small, whatever it was made of.
const FACT_BYTES_MAX: usize = 512 * 1024;
/// What stands in a secret's place. A secret that is a part of it cannot be looked for.
const HIDDEN: &str = "[secret]";
/// The fields that hold secrets, whatever else does.
const SECRETS: [&str; 5] =
    ["auth[application_token]", "auth[access_token]", "auth[refresh_token]", "data[TOKEN]", "auth[client_secret]"];

/// Every body is an event or set aside, the same one each time, and nothing that may be shown holds a secret.
pub fn interpret(body: &[u8]) {
    let form = Form::parse(body);
    let app = AppName::parse("crm").expect("an app's name");
    let raw = RawEvent::new(app, form.head(), Bytes::copy_from_slice(body), Timestamp::from_s(1_700_000_000));
    let place = Position { partition: 0, offset: 7 };
    let event = read(&raw, place);
    assert_eq!(event, read(&raw, place));
    let Ok(event) = event else { return };

    assert_eq!(Some(&event.installation.member_id), raw.member_id.as_ref());
    // The keys of `auth` are names of ours, and a secret may be a part of one.
    let (auth, data) = (event.public.auth.value(), event.public.data.value());
    let auth = auth.as_object().into_iter().flatten().map(|(_, value)| value);
    let shown: Vec<&Value> = auth.chain([&data]).collect();
    let is_telling = |secret: &&str| secret.len() >= SECRET_BYTES_MIN && !HIDDEN.contains(*secret);
    for secret in SECRETS.iter().filter_map(|name| form.text(name)).filter(is_telling) {
        assert!(!shown.iter().any(|value| holds(value, secret)), "{secret} is shown");
    }
    let fact = values(&format!("{:?}", event.kind));
    for name in ["data[TOKEN]", "auth[application_token]"] {
        if let Some(text) = form.text(name).filter(|text| text.len() >= SECRET_BYTES_MIN) {
            let secret = format!("{text:?}");
            let secret = &secret[1..secret.len() - 1];
            assert!(!fact.iter().any(|value| value.contains(secret)), "a fact tells {name}");
        }
    }
    let written = serde_json::to_string(&*event.public).expect("it can be written");
    assert!(written.len() < RECORD_BYTES_MAX, "{} bytes", written.len());
    let fact = serde_json::to_string(&event.kind).expect("it can be written");
    assert!(fact.len() < FACT_BYTES_MAX, "{} bytes", fact.len());
}

/// What stands in quotes, as it is escaped there: the rest are names of ours, and a secret may be a part of one.
fn values(debug: &str) -> Vec<String> {
    let (mut values, mut value, mut is_escaped) = (Vec::new(), None::<String>, false);
    for sign in debug.chars() {
        match value.as_mut() {
            Some(_) if sign == '"' && !is_escaped => values.extend(value.take()),
            Some(text) => {
                text.push(sign);
                is_escaped = sign == '\\' && !is_escaped;
            }
            None if sign == '"' => value = Some(String::new()),
            None => {}
        }
    }
    values
}

fn holds(value: &Value, secret: &str) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => text.contains(secret),
        Value::Array(items) => items.iter().any(|item| holds(item, secret)),
        Value::Object(fields) => fields.iter().any(|(key, value)| key.contains(secret) || holds(value, secret)),
    }
}
