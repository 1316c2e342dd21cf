//! Escapes the bytes of a query that the HTTP/1 server's parser refuses, before it sees them.
//!
//! Older versions of Bitrix24 send letters, quotes and angle brackets in a query as they are. Each such byte becomes its
//! percent escape, which means the same to every reader of a query. A space or a control character ends or breaks the
//! request line as before.
//!
//! Only a request line is changed, never a body: a length that differs from the announced one would let a client smuggle
//! a request past a proxy. So the first request line of a connection is one, and a later one only where the bytes of the
//! request before it were all counted: the parser's own reading of its head gives the length of its body. After a body
//! of unknown length, or bytes sent ahead of an answer, nothing is changed any more.

use bytes::BytesMut;
use memchr::memchr;

/// Where the next byte lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the request line: the parser skips empty lines there.
    Before,
    Method,
    Path,
    Query,
    /// In the rest of the head.
    Head {
        is_line_empty: bool,
    },
    /// Behind the head, after so many bytes.
    Behind(usize),
    /// No request line is recognised for sure any more.
    Lost,
}

/// The length of a body, as the server reads the head before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    Bytes(usize),
    /// The body itself says where it ends.
    Unknown,
}

pub(super) struct RequestLine(Place);

impl RequestLine {
    pub(super) fn new() -> Self {
        Self(Place::Before)
    }

    /// The request is answered, and its body had this length.
    pub(super) fn answered(&mut self, body: BodyLength) {
        self.0 = match (self.0, body) {
            (Place::Behind(passed), BodyLength::Bytes(bytes)) if passed == bytes => Place::Before,
            _ => Place::Lost,
        };
    }

    /// Follows the next bytes of the connection. Returns them with their escapes if there are any to make.
    pub(super) fn escape(&mut self, bytes: &[u8]) -> Option<BytesMut> {
        let mut escaped: Option<BytesMut> = None;
        let mut at = 0;
        while let Some(byte) = bytes.get(at).copied() {
            let rest = &bytes[at..];
            let passed = match self.0 {
                Place::Behind(passed) => {
                    self.0 = Place::Behind(passed.saturating_add(rest.len()));
                    rest.len()
                }
                Place::Lost => return None,
                Place::Query if is_refused(byte) => {
                    let escaped = escaped.get_or_insert_with(|| BytesMut::from(&bytes[..at]));
                    escaped.extend_from_slice(format!("%{byte:02X}").as_bytes());
                    at += 1;
                    continue;
                }
                // Most of a head, a line at a time.
                Place::Head { is_line_empty } => {
                    let end = memchr(b'\n', rest);
                    let line = &rest[..end.unwrap_or(rest.len())];
                    let is_line_empty = is_line_empty && line.iter().all(|byte| *byte == b'\r');
                    self.0 = match end {
                        Some(_) if is_line_empty => Place::Behind(0),
                        Some(_) => Place::Head { is_line_empty: true },
                        None => Place::Head { is_line_empty },
                    };
                    line.len() + usize::from(end.is_some())
                }
                place @ (Place::Before | Place::Method | Place::Path | Place::Query) => {
                    self.0 = after(place, byte);
                    1
                }
            };
            if let Some(escaped) = &mut escaped {
                escaped.extend_from_slice(&rest[..passed]);
            }
            at += passed;
        }
        escaped
    }
}

/// The place behind a byte of a request line.
fn after(place: Place, byte: u8) -> Place {
    match (place, byte) {
        (Place::Before, b'\r' | b'\n') => Place::Before,
        (Place::Before, _) => Place::Method,
        (Place::Method | Place::Path | Place::Query, b'\n') => Place::Head { is_line_empty: true },
        (Place::Method, b' ') => Place::Path,
        (Place::Path, b'?') => Place::Query,
        (Place::Path | Place::Query, b' ') => Place::Head { is_line_empty: false },
        (Place::Method | Place::Path | Place::Query | Place::Head { .. } | Place::Behind(_) | Place::Lost, _) => place,
    }
}

/// Bytes of a query that the parser refuses, and `#`, behind which it drops all.
fn is_refused(byte: u8) -> bool {
    matches!(byte, b'"' | b'#' | b'<' | b'>' | 0x80..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(line: &mut RequestLine, bytes: &[u8]) -> Vec<u8> {
        line.escape(bytes).map_or_else(|| bytes.to_vec(), |escaped| escaped.to_vec())
    }

    fn check(sent: &[u8], seen: &[u8]) {
        for cut in 0..=sent.len() {
            let mut line = RequestLine::new();
            let parts = [escaped(&mut line, &sent[..cut]), escaped(&mut line, &sent[cut..])].concat();
            assert_eq!(parts.escape_ascii().to_string(), seen.escape_ascii().to_string(), "cut at {cut}");
        }
    }

    #[test]
    fn only_the_query_of_the_request_line_is_escaped() {
        check(
            "\r\nPOST /x?title=Я \"<\">#1 HTTP/1.1\r\n".as_bytes(),
            "\r\nPOST /x?title=%D0%AF \"<\">#1 HTTP/1.1\r\n".as_bytes(),
        );
        check(
            "POST /x?a=\"Я<b>\"#c?d HTTP/1.1\r\nx: y?\"<\r\n\r\nPOST /?\" HTTP/1.1\r\n\r\n".as_bytes(),
            "POST /x?a=%22%D0%AF%3Cb%3E%22%23c?d HTTP/1.1\r\nx: y?\"<\r\n\r\nPOST /?\" HTTP/1.1\r\n\r\n".as_bytes(),
        );
        check(b"POST /\"\xd0 HTTP/1.1\r\n\r\n", b"POST /\"\xd0 HTTP/1.1\r\n\r\n");
        check(b"GET /?\xff\nx?\xff: y\n\n?\xff", b"GET /?%FF\nx?\xff: y\n\n?\xff");
    }

    #[test]
    fn a_later_request_line_is_one_only_where_every_byte_before_it_was_counted() {
        let request = b"POST /?\" HTTP/1.1\r\n\r\nbody";
        let seen = b"POST /?%22 HTTP/1.1\r\n\r\nbody";
        let bytes = BodyLength::Bytes;
        let unknown = BodyLength::Unknown;
        for (length, is_escaped) in [(bytes(4), true), (bytes(3), false), (bytes(5), false), (unknown, false)] {
            let mut line = RequestLine::new();
            assert_eq!(escaped(&mut line, request), seen);
            line.answered(length);
            assert_eq!(escaped(&mut line, request), if is_escaped { &seen[..] } else { request }, "{length:?}");
        }
        let mut early = RequestLine::new();
        early.escape(b"POST /?a HTTP/1.1\r\nhost:");
        early.answered(bytes(0));
        assert_eq!(escaped(&mut early, request), request);
    }

    proptest! {
        #[test]
        fn a_body_is_never_changed(head in "(GET|POST) /[a-z\"<]{0,3}(\\?[a-zя\"<>#]{0,9})? HTTP/1.1\r\n(x: [?\"я ]{0,5}\r\n){0,3}\r\n", body in "[\r\n ?\"яA-Z/]{0,60}", cut in any::<prop::sample::Index>()) {
            let sent = [head.as_bytes(), body.as_bytes()].concat();
            let cut = cut.index(sent.len());
            let mut line = RequestLine::new();
            let seen = [escaped(&mut line, &sent[..cut]), escaped(&mut line, &sent[cut..])].concat();
            prop_assert!(seen.ends_with(body.as_bytes()));
            prop_assert_eq!(line.0, Place::Behind(body.len()));
        }
    }
}
