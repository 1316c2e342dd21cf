//! Which parts of a request are secret: by the names of fields, by the shape of values, and wherever a secret of the same
//! request is repeated.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::iter;
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use bitrix24::form::{Field, Form, Key, Request};

pub(super) const SECRET: &str = "[secret]";
/// A name with one of these words names a secret.
const SECRET_WORDS: [&str; 6] = ["token", "secret", "password", "passwd", "sessid", "phpsessid"];
/// A name that consists of these names a secret, with any separators or none.
const SECRET_NAMES: [&str; 10] = [
    "authid",
    "refreshid",
    "appsid",
    "apikey",
    "accesstoken",
    "refreshtoken",
    "applicationtoken",
    "apptoken",
    "eventtoken",
    "clientsecret",
];
/// The letters of each of them.
const SECRET_LETTERS: [u32; SECRET_WORDS.len() + SECRET_NAMES.len()] = {
    let mut all = [0; SECRET_WORDS.len() + SECRET_NAMES.len()];
    let mut nth = 0;
    while nth < all.len() {
        let is_word = nth < SECRET_WORDS.len();
        all[nth] = letters(if is_word { SECRET_WORDS[nth] } else { SECRET_NAMES[nth - SECRET_WORDS.len()] });
        nth += 1;
    }
    all
};
/// Beside the other fields of a request, a text of this name is an access token, as in calls of the REST API.
const AUTH: &str = "auth";
/// The harmless fields of an event's `auth`.
pub(super) const AUTH_SHOWN: [&str; 9] = [
    "domain",
    "client_endpoint",
    "server_endpoint",
    "scope",
    "status",
    "user_id",
    "member_id",
    "expires",
    "expires_in",
];
/// Shorter secrets are hidden in their own place only: elsewhere they would match by accident.
const SECRET_BYTES_MIN: usize = 16;
/// The hex digits of an access or refresh token.
const TOKEN_DIGITS: usize = 70;
/// The shortest code in the URL of an inbound webhook, `/rest/1/{code}/`.
const CODE_BYTES_MIN: usize = 8;
/// The shortest text that looks like a secret: `rest/1/` and a code.
const SHAPE_BYTES_MIN: usize = "rest/1/".len() + CODE_BYTES_MIN;
/// A text with more secrets in it is hidden as a whole, so that overlapping ones cost no more.
const SHOWN_SECRETS_MAX: usize = 1_000;

/// So many, none longer than this, are searched for one by one: an event of Bitrix24 has three or four, and to build an
/// automaton takes longer than to search all of its fields for them.
const FEW_SECRETS: usize = 8;
const SHORT_SECRET_BYTES: usize = 256;

/// The secrets of a request: values of secret names. They are hidden wherever they occur.
pub(super) enum Secrets {
    Few(Vec<Box<str>>),
    Many(AhoCorasick),
}

impl Secrets {
    pub fn of(request: &Request) -> Self {
        let mut found = BTreeSet::new();
        for form in [&request.body, &request.query] {
            collect_all(form, &mut found);
        }
        if found.len() <= FEW_SECRETS && found.iter().all(|secret| secret.len() <= SHORT_SECRET_BYTES) {
            return Self::Few(found.into_iter().map(Box::from).collect());
        }
        // Its size is that of the secrets; the other kinds would take many times as much.
        let automaton = AhoCorasick::builder().kind(Some(AhoCorasickKind::NoncontiguousNFA)).build(found);
        Self::Many(automaton.expect("a request is far smaller than the limit"))
    }

    pub fn are_in(&self, text: &str) -> bool {
        self.has_known(text) || !shapes(text).is_empty()
    }

    /// The text with each secret replaced.
    pub fn hidden<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut places = shapes(text);
        match self {
            Self::Few(known) => {
                places.extend(known.iter().flat_map(|secret| overlapping(text, secret)).take(SHOWN_SECRETS_MAX + 1));
            }
            Self::Many(known) => {
                places.extend(known.find_overlapping_iter(text).take(SHOWN_SECRETS_MAX + 1).map(|found| found.range()));
            }
        }
        if places.is_empty() {
            return Cow::Borrowed(text);
        }
        if places.len() > SHOWN_SECRETS_MAX {
            return Cow::Borrowed(SECRET);
        }
        places.sort_unstable_by_key(|place| place.start);
        let (mut shown, mut until, mut hidden_until) = (String::new(), 0, 0);
        for Range { start, end } in places {
            if start >= hidden_until {
                shown.push_str(&text[until..start]);
                shown.push_str(SECRET);
            }
            hidden_until = end.max(hidden_until);
            until = hidden_until;
        }
        shown.push_str(&text[until..]);
        // What is left must not be a secret together with what replaces one.
        Cow::Owned(if self.has_known(&shown) { SECRET.to_owned() } else { shown })
    }

    fn has_known(&self, text: &str) -> bool {
        match self {
            Self::Few(known) => known.iter().any(|secret| has(text, secret)),
            Self::Many(known) => known.is_match(text),
        }
    }
}

/// Most texts are shorter than any secret.
fn has(text: &str, secret: &str) -> bool {
    text.len() >= secret.len() && text.contains(secret)
}

/// The places of one text in another, also where they overlap.
fn overlapping<'t>(text: &'t str, secret: &'t str) -> impl Iterator<Item = Range<usize>> + 't {
    let mut from = 0;
    iter::from_fn(move || {
        let rest = Some(&text[from..]).filter(|rest| rest.len() >= secret.len())?;
        let start = from + rest.find(secret)?;
        from = start + secret.chars().next().map_or(1, char::len_utf8);
        Some(start..start + secret.len())
    })
}

fn collect_all<'a>(form: &'a Form, found: &mut BTreeSet<&'a str>) {
    for (name, field) in form.variables() {
        let is_auth = *name == Key::Name(AUTH.as_bytes().into());
        collect(field, is_secret_variable(name, field), is_auth, found);
    }
}

fn collect<'a>(field: Field<'a>, is_hidden: bool, is_auth: bool, found: &mut BTreeSet<&'a str>) {
    if let Some(text) = field.text().filter(|text| is_hidden && text.len() >= SECRET_BYTES_MIN) {
        found.insert(text);
    }
    for (name, below) in field.below() {
        let is_hidden = is_secret(name, is_hidden) || is_auth && !is_shown_of_auth(name);
        collect(below, is_hidden, false, found);
    }
}

/// Whether the value of a field is a secret, or everything below it.
pub(super) fn is_secret(name: &Key, is_secret_above: bool) -> bool {
    let Key::Name(name) = name else { return is_secret_above };
    is_secret_above || is_secret_name(&String::from_utf8_lossy(name))
}

/// The same for a field of the request itself.
pub(super) fn is_secret_variable(name: &Key, field: Field<'_>) -> bool {
    is_secret(name, false) || field.text().is_some() && *name.bytes() == *AUTH.as_bytes()
}

/// Whether a field of an event's `auth` may be shown.
pub(super) fn is_shown_of_auth(name: &Key) -> bool {
    AUTH_SHOWN.iter().any(|shown| *name.bytes() == *shown.as_bytes())
}

fn is_secret_name(name: &str) -> bool {
    // Most names lack a letter of each.
    let known = letters(name);
    if name.is_ascii() && !SECRET_LETTERS.iter().any(|letters| known & letters == *letters) {
        return false;
    }
    // Words end at separators, at digits, and where the case changes.
    let (mut word, mut all) = (Word::default(), Word::default());
    let mut signs = name.chars().peekable();
    let mut before: Option<char> = None;
    while let Some(sign) = signs.next() {
        let is_next_lower = signs.peek().is_some_and(|next| next.is_lowercase());
        let begins = |before: char| sign.is_uppercase() && (before.is_lowercase() || is_next_lower);
        if !sign.is_alphabetic() || before.is_some_and(begins) {
            if word.is_one_of(&SECRET_WORDS) {
                return true;
            }
            word = Word::default();
        }
        before = Some(sign).filter(|sign| sign.is_alphabetic());
        if sign.is_ascii_alphabetic() {
            word.push(sign.to_ascii_lowercase());
            all.push(sign.to_ascii_lowercase());
            continue;
        }
        for lower in before.into_iter().flat_map(char::to_lowercase) {
            word.push(lower);
            all.push(lower);
        }
    }
    word.is_one_of(&SECRET_WORDS) || all.is_one_of(&SECRET_NAMES)
}

/// A bit for each ASCII letter of a name, in any case.
const fn letters(name: &str) -> u32 {
    let (bytes, mut found, mut at) = (name.as_bytes(), 0, 0);
    while at < bytes.len() {
        if bytes[at].is_ascii_alphabetic() {
            found |= 1 << (bytes[at] & 31);
        }
        at += 1;
    }
    found
}

/// A word in lower case, up to the length of the longest name of a secret.
#[derive(Default)]
struct Word {
    text: [u8; 16],
    /// Of the whole word.
    length: usize,
}

impl Word {
    #[inline]
    fn push(&mut self, sign: char) {
        let mut bytes = [0; 4];
        for byte in sign.encode_utf8(&mut bytes).bytes() {
            if let Some(place) = self.text.get_mut(self.length) {
                *place = byte;
            }
            self.length += 1;
        }
    }

    fn is_one_of(&self, words: &[&str]) -> bool {
        self.text.get(..self.length).is_some_and(|text| words.iter().any(|word| word.as_bytes() == text))
    }
}

/// The places of what looks like a secret of Bitrix24, whatever its field is called.
fn shapes(text: &str) -> Vec<Range<usize>> {
    let mut places = Vec::new();
    if text.len() < SHAPE_BYTES_MIN {
        return places;
    }
    if text.contains('/') {
        places.extend(text.match_indices("rest").filter_map(|(at, rest)| webhook_code(text, at + rest.len())));
    }
    if text.len() < TOKEN_DIGITS {
        return places;
    }
    let mut at = 0;
    for run in text.split(|sign: char| !sign.is_ascii_alphanumeric()) {
        let is_hex = || run.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if run.len() == TOKEN_DIGITS && is_hex() {
            places.push(at..at + run.len());
        }
        at += run.len();
        at += text[at..].chars().next().map_or(0, char::len_utf8);
    }
    places
}

/// The place of the code in the URL of an inbound webhook, `/rest/1/{code}/` or `/rest/api/1/{code}/`, from behind `rest`.
/// In JSON within a text, slashes may have a backslash before them.
fn webhook_code(text: &str, mut at: usize) -> Option<Range<usize>> {
    let mut next = |is_part: fn(u8) -> bool| {
        let rest = text.get(at..)?;
        let inside = rest.strip_prefix("\\/").or_else(|| rest.strip_prefix('/'))?;
        let start = at + rest.len() - inside.len();
        let length = inside.bytes().take_while(|byte| is_part(*byte)).count();
        at = start + length;
        (length > 0).then_some(start..start + length)
    };
    let first = next(|byte| byte.is_ascii_alphanumeric())?;
    let user = if &text[first.clone()] == "api" { next(|byte| byte.is_ascii_digit())? } else { first };
    let is_user = text[user].bytes().all(|byte| byte.is_ascii_digit());
    next(|byte| byte.is_ascii_alphanumeric()).filter(|code| is_user && code.len() >= CODE_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(query: &str) -> Secrets {
        Secrets::of(&Request::parse(query.as_bytes(), None))
    }

    #[test]
    fn names_of_secrets_are_whole_words() {
        for name in [
            "access_token",
            "refresh_token",
            "application_token",
            "APPLICATION_TOKEN",
            "accessToken",
            "accesstoken",
            "AUTH_ID",
            "authId",
            "auth-id",
            "AUTHID",
            "REFRESH_ID",
            "refreshId",
            "APP_SID",
            "appSid",
            "sessid",
            "bitrix_sessid",
            "PHPSESSID",
            "password",
            "USER_PASSWORD",
            "newPassword",
            "client_secret",
            "clientSecret",
            "CLIENT_SECRET",
            "TOKEN",
            "token",
            "event_token",
            "X-Token",
            "token2",
            "csrfToken",
            "HTTPToken",
            "CONFIRM_PASSWORD",
            "api_key",
            "secret",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "externalAuthId",
            "EXTERNAL_AUTH_ID",
            "UF_SECRETARY",
            "SIGNATURE",
            "TOKENS_LEFT",
            "AUTHOR",
            "AUTHOR_ID",
            "auth_idle",
            "tokenizer",
            "passwordless",
            "secretary",
            "SESSION",
            "sid",
            "ID",
            "AUTH",
            "REFRESH",
            "key",
            "keyword",
            "PASS_NUMBER",
            "Токен",
            "authorization_id",
            "app_sidebar",
            "unauth_id",
            "",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn what_looks_like_a_secret_of_bitrix24_is_one() {
        let secrets = secrets("");
        let token = "be45f066".repeat(9)[..70].to_owned();
        for (text, shown) in [
            (token.clone(), "[secret]".to_owned()),
            (format!("see я{token}, and {token}."), "see я[secret], and [secret].".to_owned()),
            (format!("{token}0"), format!("{token}0")),
            (token.to_uppercase(), token.to_uppercase()),
            (
                "https://x.bitrix24.ru/rest/1/abcdef0123456789/crm.deal.list".to_owned(),
                "https://x.bitrix24.ru/rest/1/[secret]/crm.deal.list".to_owned(),
            ),
            ("x/rest/api/27/abcdef0123456789/".to_owned(), "x/rest/api/27/[secret]/".to_owned()),
            (r"https:\/\/x\/rest\/1\/abcdef0123456789\/".to_owned(), r"https:\/\/x\/rest\/1\/[secret]\/".to_owned()),
        ] {
            assert_eq!(secrets.hidden(&text), shown);
            assert_eq!(secrets.are_in(&text), text != shown);
        }
        for text in [
            "https://x/rest/",
            "/rest/1/",
            "/rest/1/short/",
            "/rest/crm.deal.list",
            "rest",
            "/rest/x1/abcdef0123456789/",
        ] {
            assert_eq!(secrets.hidden(text), text);
        }
    }

    #[test]
    fn a_secret_is_hidden_wherever_it_is_repeated_if_it_is_long_enough() {
        let secrets = secrets(
            "token=0123456789abcdef&a[TOKEN]=cdef0123456789ab0&password=short-secret&auth[other]=of-the-envelope!",
        );
        for (text, shown) in [
            ("0123456789abcdef", "[secret]"),
            ("x0123456789abcdefx0123456789abcde", "x[secret]x0123456789abcde"),
            ("<0123456789abcdef0123456789ab0>", "<[secret]>"),
            ("a short-secret of-the-envelope!", "a short-secret [secret]"),
            ("our token is AUTH_ID", "our token is AUTH_ID"),
        ] {
            assert_eq!(secrets.hidden(text), shown);
        }
    }

    #[test]
    fn a_text_with_more_secrets_than_are_counted_is_hidden_as_a_whole() {
        // Each secret is the end of the next: every position of the text ends hundreds of them.
        let secrets: Vec<String> =
            (SECRET_BYTES_MIN..700).map(|length| format!("token[]={}", "a".repeat(length))).collect();
        let secrets = self::secrets(&secrets.join("&"));
        assert_eq!(secrets.hidden(&"a".repeat(250_000)), SECRET);
    }
}
