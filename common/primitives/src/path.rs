//! One form for each path of a URL: equivalent paths are the same text.

use std::borrow::Cow;
use std::fmt::Write;

/// The canonical form of a path.
///
/// An escape such as `%2D` of a character that may stand in a path by itself is that character; every other byte that
/// may not is an escape. Empty segments are dropped, so that neither a trailing slash nor a doubled one makes another
/// path. An escaped slash separates nothing. Dots are segments like others.
pub fn canonical(path: &str) -> Cow<'_, str> {
    if is_canonical(path) {
        return Cow::Borrowed(path);
    }
    let mut canonical = String::with_capacity(path.len() + 1);
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        canonical.push('/');
        let mut rest = segment.as_bytes();
        while let Some((first, behind)) = rest.split_first() {
            let (byte, behind) = unescaped(rest).unwrap_or((*first, behind));
            if stands_by_itself(byte) {
                canonical.push(char::from(byte));
            } else {
                write!(canonical, "%{byte:02X}").expect("a String takes all");
            }
            rest = behind;
        }
    }
    if canonical.is_empty() { Cow::Borrowed("/") } else { Cow::Owned(canonical) }
}

/// Checked first, without allocating.
fn is_canonical(path: &str) -> bool {
    let plain = path.bytes().all(|byte| byte == b'/' || stands_by_itself(byte));
    path == "/" || plain && path.starts_with('/') && !path.ends_with('/') && !path.contains("//")
}

/// The unescaped characters of a segment, by RFC 3986.
fn stands_by_itself(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

/// The byte of the escape at the start of the text, and the rest.
fn unescaped(text: &[u8]) -> Option<(u8, &[u8])> {
    let [b'%', high, low, behind @ ..] = text else { return None };
    let digit = |digit: &u8| char::from(*digit).to_digit(16);
    let byte = digit(high)? * 16 + digit(low)?;
    Some((u8::try_from(byte).expect("two hex digits are a byte"), behind))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_that_mean_the_same_are_the_same_text() {
        for (path, expected) in [
            ("/v1/events/crm-sync", "/v1/events/crm-sync"),
            ("/v1/events/crm-sync/", "/v1/events/crm-sync"),
            ("//v1//events///crm-sync//", "/v1/events/crm-sync"),
            ("/v1/%65vents/crm%2Dsync", "/v1/events/crm-sync"),
            ("/b24/%28a%29+b", "/b24/(a)+b"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%252Fb", "/a%252Fb"),
            ("/ключ", "/%D0%BA%D0%BB%D1%8E%D1%87"),
            ("/%d0%ba", "/%D0%BA"),
            ("/a b", "/a%20b"),
            ("/%", "/%25"),
            ("/%4", "/%254"),
            ("/%zz", "/%25zz"),
            ("/%%41", "/%25A"),
            ("/%+1", "/%25+1"),
            ("/%00", "/%00"),
            ("/..", "/.."),
            ("", "/"),
            ("///", "/"),
            ("*", "/*"),
        ] {
            assert_eq!(canonical(path), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_one_form_stays_as_it_is(path in "[/%0-9a-fA-F.é ?]{0,40}") {
            let once = canonical(&path).into_owned();
            prop_assert!(is_canonical(&once.replace('%', "")), "{}", once);
            prop_assert_eq!(canonical(&once), once.as_str());
        }

        #[test]
        fn an_escape_instead_of_a_sign_changes_nothing(path in "(/[a-z0-9.-]{1,8}){1,4}") {
            let escape = |byte: u8| if byte == b'/' { "/".to_owned() } else { format!("%{byte:02x}") };
            let escaped: String = path.bytes().map(escape).collect();
            prop_assert_eq!(canonical(&escaped), path);
        }
    }
}
