//! Bodies: forms as PHP reads them, and JSON.

use std::fmt::Write;

use bitrix24::form::Form;

/// What a scan looks at.
const HEAD: [&str; 4] = ["event", "ts", "auth[member_id]", "member_id"];
/// A form's field takes no more than its share of the body: U+FFFD has three bytes, `[]` becomes an index.
const FORM_BYTES_MAX: usize = 16;
/// JSON's share is larger: names are repeated, up to 128 bytes, for items of two bytes.
const JSON_BYTES_MAX: usize = 400;

/// A body is read within bounds, a scan finds what a whole reading finds, and what was read is read again from a
/// form that was made of it.
pub fn form(body: &[u8]) {
    let (whole, scanned) = (Form::parse(body), Form::scan(body));
    let flat = whole.flat();
    if whole.has_too_many_fields() {
        assert!(flat.is_empty(), "a part looks like the whole");
        return;
    }
    assert_eq!(scanned.head(), whole.head());
    for name in HEAD {
        assert_eq!(scanned.text(name), whole.text(name), "{name}");
    }

    let is_json = body.trim_ascii_start().starts_with(b"{");
    let share = if is_json { JSON_BYTES_MAX } else { FORM_BYTES_MAX };
    let taken: usize = flat.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(taken <= share * body.len(), "{taken} bytes of {}", body.len());
    let fields = body.split(|byte| matches!(byte, b'&' | b',')).count();
    assert!(flat.len() <= fields, "more fields than were sent");

    // Two names that are not UTF-8 may look alike.
    let is_text = flat.keys().all(|name| !name.contains(char::REPLACEMENT_CHARACTER));
    if !is_json && is_text {
        let again = encoded(&whole);
        assert_eq!(Form::parse(again.as_bytes()), whole, "{again}");
    }
}

/// The form of these fields, every byte of them escaped.
fn encoded(form: &Form) -> String {
    let mut body = String::new();
    let mut escape = |text: &str, end: char| {
        text.bytes().for_each(|byte| write!(body, "%{byte:02X}").expect("a string takes everything"));
        body.push(end);
    };
    for (name, value) in &form.flat() {
        escape(name, '=');
        escape(value, '&');
    }
    body
}
