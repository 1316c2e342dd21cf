//! Points in time, in one format for every log, record and response: RFC 3339, UTC.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The last millisecond of the year 9999, the last that RFC 3339 can write.
const MS_MAX: u64 = 253_402_300_799_999;
const MS_PER_DAY: u64 = 86_400_000;

/// Milliseconds since 1970-01-01T00:00:00Z, no later than the year 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_ms(u64::try_from(since.as_millis()).unwrap_or(MS_MAX))
    }

    /// Later than the year 9999 becomes its end.
    pub fn from_ms(ms: u64) -> Self {
        Self(ms.min(MS_MAX))
    }

    pub fn from_s(seconds: u64) -> Self {
        Self::from_ms(seconds.saturating_mul(1_000))
    }

    pub fn ms(self) -> u64 {
        self.0
    }

    pub fn s(self) -> u64 {
        self.0 / 1_000
    }

    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self::from_ms(self.0.saturating_add(u64::try_from(later.as_millis()).unwrap_or(MS_MAX)))
    }

    /// 1970 at the earliest.
    #[must_use]
    pub fn minus(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(earlier.as_millis()).unwrap_or(MS_MAX)))
    }

    /// Zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// RFC 3339 in UTC, always with milliseconds, so that texts sort as times do.
    pub fn text(self) -> [u8; 24] {
        let (days, ms) = (self.0 / MS_PER_DAY, self.0 % MS_PER_DAY);
        let (year, month, day) = date(days);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let fields = [
            (0..4, year),
            (5..7, month),
            (8..10, day),
            (11..13, ms / 3_600_000),
            (14..16, ms / 60_000 % 60),
            (17..19, ms / 1_000 % 60),
            (20..23, ms % 1_000),
        ];
        for (place, mut number) in fields {
            for digit in text[place].iter_mut().rev() {
                *digit += u8::try_from(number % 10).expect("a digit");
                number /= 10;
            }
        }
        text
    }

    /// RFC 3339 in UTC.
    pub fn parse(text: &str) -> Option<Self> {
        let at = humantime::parse_rfc3339(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(at.as_millis()).ok().map(Self::from_ms)
    }
}

/// Year, month and day of a day since 1970, by Howard Hinnant's `civil_from_days`: years begin in March there, so that a
/// leap day is the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let is_next_year = month >= 10;
    (era * 400 + year + u64::from(is_next_year), if is_next_year { month - 9 } else { month + 3 }, day)
}

/// The time of day for retention: it never runs faster than time passes.
///
/// A clock that is set ahead makes nothing older. One that is set back is followed, so that records are kept longer.
/// While the machine sleeps, it stands still.
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    began: Timestamp,
    at: Instant,
}

impl SteadyClock {
    /// Trusts the machine's clock once, now.
    pub fn start() -> Self {
        Self { began: Timestamp::now(), at: Instant::now() }
    }

    /// An upper bound of the time of day.
    pub fn now(&self) -> Timestamp {
        self.judge(Timestamp::now(), self.at.elapsed())
    }

    fn judge(&self, clock: Timestamp, passed: Duration) -> Timestamp {
        clock.min(self.began.plus(passed))
    }
}

/// With its unit, such as `300ms` or `14d`.
pub fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).expect("digits and ASCII between them"))
    }
}

/// RFC 3339 in readable formats, the number in binary ones.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_u64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return u64::deserialize(deserializer).map(Self::from_ms);
        }
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("a time is RFC 3339 in UTC"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_with_milliseconds() {
        assert_eq!(Timestamp::from_s(1_696_527_000).to_string(), "2023-10-05T17:30:00.000Z");
        assert_eq!(Timestamp::from_ms(1_696_527_000_120).to_string(), "2023-10-05T17:30:00.120Z");
    }

    #[test]
    fn every_day_is_written_as_others_read_it() {
        for day in 0..=MS_MAX / MS_PER_DAY {
            let at = Timestamp::from_ms(day * MS_PER_DAY + day * 104_729 % MS_PER_DAY);
            assert_eq!(Timestamp::parse(&at.to_string()), Some(at), "{at}");
        }
    }

    #[test]
    fn a_clock_that_is_set_ahead_makes_nothing_older() {
        let clock = SteadyClock { began: Timestamp::from_s(1_000), at: Instant::now() };
        let judge = |clock_s, passed_s| clock.judge(Timestamp::from_s(clock_s), Duration::from_secs(passed_s)).s();
        assert_eq!(judge(1_060, 60), 1_060);
        assert_eq!(judge(9_000_000, 60), 1_060, "set ahead");
        assert_eq!(judge(500, 60), 500, "set back");
        assert!(SteadyClock::start().now() <= Timestamp::now());
    }

    #[test]
    fn what_was_written_is_read_back() {
        for ms in [0, 1, 1_696_527_000_120, u64::MAX] {
            let at = Timestamp::from_ms(ms);
            assert_eq!(Timestamp::parse(&at.to_string()), Some(at));
        }
    }
}
