//! As much of Kafka's protocol as it takes to make an answer to a produce request say that it failed.
//!
//! The broker has taken the records all the same, as it has when it waits in vain for a replica: a client must
//! send them again, and the broker must know them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

const PRODUCE: i16 = 0;

/// The broker says: the request timed out, and records may be there or not.
const REQUEST_TIMED_OUT: i16 = 7;

/// From this version on lengths are varints, and tagged fields stand between.
const FLEXIBLE_SINCE: i16 = 9;
/// From this version on topics have ids in place of names.
const TOPIC_IDS_SINCE: i16 = 13;

/// Produce requests that were not answered yet, by the number of the request; with their version.
#[derive(Debug, Default)]
pub struct Asked(Mutex<HashMap<i32, i16>>);

impl Asked {
    /// A whole request came by.
    pub fn note(&self, request: &[u8]) {
        if let (Some(PRODUCE), Some(version), Some(number)) =
            (i16_at(request, 4), i16_at(request, 6), i32_at(request, 8))
        {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number, version);
        }
    }

    /// A whole answer came by. If wanted, and if it is to a produce request and says that all is well, it says
    /// otherwise from now on. Whether it does.
    pub fn answered(&self, answer: &mut [u8], spoil: bool) -> bool {
        let number = i32_at(answer, 4);
        let version = number.and_then(|number| self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&number));
        let Some(at) = version.and_then(|version| error_at(answer, version)) else { return false };
        let spoilt = spoil && i16_at(answer, at) == Some(0);
        if spoilt {
            answer[at..at + 2].copy_from_slice(&REQUEST_TIMED_OUT.to_be_bytes());
        }
        spoilt
    }
}

/// Takes the first whole message out of what was read so far.
pub fn next_message(read: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::try_from(i32_at(read, 0)?).ok()? + 4;
    if read.len() < length {
        return None;
    }
    let rest = read.split_off(length);
    Some(std::mem::replace(read, rest))
}

/// Where the error of the first partition of the first topic stands.
fn error_at(answer: &[u8], version: i16) -> Option<usize> {
    // Behind the length and the number.
    let mut at = 8;
    if version >= FLEXIBLE_SINCE {
        let tagged_fields = varint(answer, &mut at)?;
        let topics = varint(answer, &mut at)?;
        if tagged_fields != 0 || topics < 2 {
            return None;
        }
        at += if version >= TOPIC_IDS_SINCE { 16 } else { varint(answer, &mut at)?.checked_sub(1)? };
        varint(answer, &mut at)?;
    } else {
        if i32_at(answer, at)? < 1 {
            return None;
        }
        at += 4;
        at += 2 + usize::try_from(i16_at(answer, at)?).ok()?;
        at += 4;
    }
    // Behind the partition.
    Some(at + 4)
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let mut value = 0;
    for shift in [0, 7, 14, 21] {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// A number, as Kafka writes it.
pub fn i16_at(bytes: &[u8], at: usize) -> Option<i16> {
    bytes.get(at..at + 2)?.try_into().ok().map(i16::from_be_bytes)
}

/// The same, of four bytes.
pub fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..at + 4)?.try_into().ok().map(i32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(parts: &[&[u8]]) -> Vec<u8> {
        let body = parts.concat();
        let length = i32::try_from(body.len()).expect("short").to_be_bytes();
        [&length[..], &body].concat()
    }

    fn request(key: i16, version: i16, number: i32) -> Vec<u8> {
        message(&[&key.to_be_bytes(), &version.to_be_bytes(), &number.to_be_bytes(), b"the rest"])
    }

    #[test]
    fn an_answer_to_a_produce_request_is_made_to_fail_and_no_other() {
        let number = 5_i32.to_be_bytes();
        let old = message(&[&number, &[0, 0, 0, 1, 0, 3], b"raw", &[0, 0, 0, 1, 0, 0, 0, 2], &[0, 0], &[9; 8]]);
        let new = message(&[&number, &[0, 2, 4], b"raw", &[2, 0, 0, 0, 2], &[0, 0], &[9; 8]]);
        for (version, answer) in [(7, old), (10, new)] {
            let asked = Asked::default();
            let mut spoilt = answer.clone();
            asked.note(&request(1, version, 5));
            assert!(!asked.answered(&mut spoilt, true), "it was no produce request");
            asked.note(&request(PRODUCE, version, 5));
            assert!(asked.answered(&mut spoilt, true));
            let changed: Vec<_> = (0..answer.len()).filter(|at| answer[*at] != spoilt[*at]).collect();
            assert_eq!(changed, [answer.len() - 9], "the error and nothing else");
            assert_eq!(spoilt[answer.len() - 9], 7);
            assert!(!asked.answered(&mut spoilt, true), "it is answered once");
            asked.note(&request(PRODUCE, version, 5));
            assert!(!asked.answered(&mut answer.clone(), false), "no request waits for it");
        }
    }

    #[test]
    fn messages_are_taken_out_when_they_are_whole() {
        let both = [request(0, 7, 1), request(3, 7, 2)].concat();
        let mut read = Vec::new();
        let mut found = Vec::new();
        for byte in &both {
            read.push(*byte);
            found.extend(next_message(&mut read));
        }
        assert_eq!(found.concat(), both);
        assert_eq!((found.len(), read.len()), (2, 0));
    }
}
