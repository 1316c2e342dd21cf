//! URL encoding as PHP's `urlencode` does it.

/// A space is `+`, and only letters, digits, `-`, `_` and `.` stand for themselves.
pub fn append(encoded: &mut String, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => encoded.push(char::from(byte)),
            b' ' => encoded.push('+'),
            _ => {
                encoded.push('%');
                encoded.push(char::from(DIGITS[usize::from(byte >> 4)]));
                encoded.push(char::from(DIGITS[usize::from(byte & 15)]));
            }
        }
    }
}

pub fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    append(&mut encoded, text);
    encoded
}
