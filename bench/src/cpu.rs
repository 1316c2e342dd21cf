//! The CPU that a process has taken so far, all of its threads together.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

/// Microseconds of user and system time; none where the system has no `/proc`, or the process is gone.
pub fn taken_us(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; behind it, the fields are numbered from 3.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some((ticks(14)? + ticks(15)?) * 1_000_000 / ticks_per_s())
}

/// What was taken between the two, for each of so many events.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub fn per_event_us(before: Option<u64>, after: Option<u64>, events: u64) -> Option<f64> {
    let taken = after?.checked_sub(before?)?;
    (events > 0).then(|| taken as f64 / events as f64)
}

fn ticks_per_s() -> u64 {
    static TICKS: OnceLock<u64> = OnceLock::new();
    *TICKS.get_or_init(|| {
        let said = Command::new("getconf").arg("CLK_TCK").output().ok();
        let ticks = said.and_then(|said| String::from_utf8(said.stdout).ok()?.trim().parse().ok());
        ticks.filter(|ticks| *ticks > 0).unwrap_or(100)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_takes_more_and_more() {
        let before = taken_us(std::process::id()).expect("Linux has /proc");
        let mut sum = 0_u64;
        while taken_us(std::process::id()) == Some(before) {
            sum = std::hint::black_box(sum).wrapping_add(1);
        }
        assert!(taken_us(std::process::id()) > Some(before));
    }
}
