//! The expiry of a certificate: the one field of X.509 that an operator has to watch.

/// The tags of a sequence, and of the two encodings of a time.
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// In seconds of Unix time; none if the certificate cannot be parsed.
pub(super) fn expires_at_s(der: &[u8]) -> Option<i64> {
    let (_, certificate, _) = element(der).filter(|(tag, _, _)| *tag == SEQUENCE)?;
    let (_, mut rest, _) = element(certificate).filter(|(tag, _, _)| *tag == SEQUENCE)?;
    if let (VERSION, _, behind) = element(rest)? {
        rest = behind;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest).filter(|(tag, _, _)| *tag == SEQUENCE)?;
    let (_, _, not_after) = element(validity)?;
    let (tag, text, _) = element(not_after)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            unix_s(if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            unix_s(year.parse().ok()?, rest)
        }
        _ => None,
    }
}

/// The tag of the first element, its content, and the rest.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f)).filter(|(bytes, _)| bytes.len() <= 4)?;
        (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
    };
    let (content, behind) = rest.split_at_checked(length)?;
    Some((tag, content, behind))
}

/// `rest` is month, day, hour, minute and second, two digits each.
fn unix_s(year: i64, rest: &str) -> Option<i64> {
    let two = |at: usize| -> Option<i64> { rest.get(at..at + 2)?.parse().ok() };
    let (month, day) = (two(0)?, two(2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970, with years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era_day = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let days = era_day - 719_468;
    Some(days * 86_400 + two(4)? * 3_600 + two(6)? * 60 + two(8)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_not_after(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(year, month, day);
        params.self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("a certificate").der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_spellings() {
        for ((year, month, day), wanted) in
            [((2026, 11, 22), 1_795_305_600), ((2028, 2, 29), 1_835_395_200), ((2051, 1, 1), 2_556_144_000)]
        {
            assert_eq!(expires_at_s(&with_not_after(year, month, day)), Some(wanted), "{year}-{month}-{day}");
        }
    }

    proptest! {
        #[test]
        fn a_damaged_certificate_is_no_panic(at in 0_usize..600, byte: u8, length in 0_usize..600) {
            let mut der = with_not_after(2030, 1, 1);
            let at = at % der.len();
            der[at] = byte;
            der.truncate(length);
            // Whatever it says, it says something.
            let _ = expires_at_s(&der);
        }
    }
}
