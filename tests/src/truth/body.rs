//! Bodies that follow from a portal and a number: a reader that finds one makes it again and compares.

use std::io::Write;

use crate::random::Rng;

/// In the URL, and in every key.
pub const APP: &str = "truth";

/// What a body begins with, up to the portal, the number and the rest.
const HEAD: &[u8] = b"event=ONCRMDEALUPDATE&auth[member_id]=";
const NUMBER: &[u8] = b"&data[FIELDS][ID]=";
const REST: &[u8] = b"&rest=";

/// Of a portal's id; the first eight are its number.
const MEMBER_DIGITS: usize = 32;
const NUMBER_DIGITS: usize = 10;

/// How long the rest mostly is, and one in how many is how long instead.
const REST_BYTES_MAX: u64 = 64;
const ONE_IN: u64 = 4_096;
const LONG_REST_BYTES_MAX: u64 = 60_000;

/// Makes a body in place of what `body` held.
pub fn write(portal: u32, number: u32, body: &mut Vec<u8>) {
    body.clear();
    body.extend_from_slice(HEAD);
    write_member_id(portal, body);
    body.extend_from_slice(NUMBER);
    write!(body, "{number:0NUMBER_DIGITS$}").expect("a Vec takes all");
    body.extend_from_slice(REST);
    write_rest(portal, number, body);
}

/// Which body this claims to be; none if it is none of ours, not even by its beginning.
pub fn read(body: &[u8]) -> Option<(u32, u32)> {
    let (member, rest) = body.strip_prefix(HEAD)?.split_at_checked(MEMBER_DIGITS)?;
    let number = rest.strip_prefix(NUMBER)?.get(..NUMBER_DIGITS)?;
    let portal = u32::from_str_radix(std::str::from_utf8(&member[..8]).ok()?, 16).ok()?;
    Some((portal, std::str::from_utf8(number).ok()?.parse().ok()?))
}

/// The key of a portal's records, in place of what `key` held.
pub fn write_key(portal: u32, key: &mut Vec<u8>) {
    key.clear();
    key.extend_from_slice(APP.as_bytes());
    key.push(b'/');
    write_member_id(portal, key);
}

fn write_member_id(portal: u32, out: &mut Vec<u8>) {
    let mixed = Rng::with_seed(u64::from(portal)).u64(..);
    write!(out, "{portal:08x}{mixed:016x}{:08x}", !portal).expect("a Vec takes all");
}

/// Any bytes but the one that would end the field.
fn write_rest(portal: u32, number: u32, body: &mut Vec<u8>) {
    let mut random = Rng::with_seed((u64::from(portal) << 32) | u64::from(number));
    let longest = if random.u64(..ONE_IN) == 0 { LONG_REST_BYTES_MAX } else { REST_BYTES_MAX };
    let end = body.len() + usize::try_from(random.u64(..longest)).expect("fits");
    while body.len() < end {
        let eight = random.u64(..).to_le_bytes();
        let some = eight.len().min(end - body.len());
        body.extend(eight[..some].iter().map(|byte| if *byte == b'&' { b'+' } else { *byte }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(portal: u32, number: u32) -> Vec<u8> {
        let mut body = Vec::new();
        write(portal, number, &mut body);
        body
    }

    #[test]
    fn a_body_says_which_it_is_and_is_the_same_each_time() {
        for (portal, number) in [(0, 0), (7, 1), (6_399, 3_124), (u32::MAX, u32::MAX)] {
            assert_eq!(read(&body(portal, number)), Some((portal, number)));
            assert_eq!(body(portal, number), body(portal, number));
        }
        assert_ne!(body(1, 2), body(2, 1));
    }

    #[test]
    fn some_bodies_are_long_and_none_is_too_long_for_ingress() {
        let lengths: Vec<_> = (0..20_000).map(|number| body(1, number).len()).collect();
        assert!(lengths.iter().any(|length| *length > 10_000));
        assert!(lengths.iter().all(|length| *length < 64 * 1024));
        assert!(lengths.iter().filter(|length| **length < 200).count() > 19_900);
    }

    #[test]
    fn what_is_no_body_of_ours_is_none() {
        let whole = body(3, 4);
        for other in [&b""[..], b"event=ONCRMDEALUPDATE", &whole[1..], &whole[..HEAD.len() + 40]] {
            assert_eq!(read(other), None);
        }
    }
}
