//! `hookledger rebuild`: rebuilds a processor's state from `facts` beside the old one, and replaces that.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{ArgMatches, Command};
use indicatif::ProgressBar;
use processor::maintenance::rebuild::{RebuildProgress, rebuild};
use processor::state::{opening, watchdog};
use runtime::lifecycle::Stop;

use crate::logs::{logs, settings};
use crate::outcome::Outcome;
use crate::output::{bar, complain, print};
use crate::state::{State, described, settings_of};

/// Without a progress bar, a line shows the progress.
const LINE_EVERY: Duration = Duration::from_secs(5);

pub fn command() -> Command {
    runtime::settings::command("rebuild", "Rebuilds a processor's state from facts", &settings()).after_help(
        "Reads facts from Kafka, or, where kafka is not set, from the disk logs of a standalone in data-dir. The old \
         state is unchanged until the new one is complete and verified; then it is quarantined, as \
         `state.quarantine`. Publishes nothing. The processor must not be running.",
    )
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let settings = settings_of(&settings(), arguments)?;
    let stop = Stop::on_signals().context("listen for signals")?;
    let state = State::take(&settings)?;
    watchdog::end_with(&opening::beside(&state.dir, "rebuilding"));
    let mut event_log = logs(&settings, &state.data_dir, &stop)?;

    let mut shown = Shown::new();
    let ended =
        rebuild(&mut *event_log, &state.dir, state.trusts.clone(), &stop, &mut |progress| shown.report(progress));
    let ending = shown.end();
    ended.with_context(|| format!("{ending}; the old state is unchanged"))?;
    print(&format!("{ending}.\n"))?;
    let store = opening::open(&state.dir, event_log.identity(), event_log.partitions(), state.trusts.clone())?;
    print(&described(&store))?;
    let aside = opening::beside(&state.dir, "quarantine");
    if aside.is_dir() {
        print(&format!("The old state is in {}; it may be deleted.\n", aside.display()))?;
    }
    Ok(Outcome::Done)
}

/// Progress: a bar on a terminal, lines elsewhere.
pub struct Shown {
    bar: ProgressBar,
    is_terminal: bool,
    began: Instant,
    said: Instant,
    progress: RebuildProgress,
}

impl Shown {
    pub fn new() -> Self {
        let (is_terminal, now) = (io::stderr().is_terminal(), Instant::now());
        let bar = bar(0, "{bar:40} {pos}/{len} places of facts, {per_sec}, {eta} left");
        Self { bar, is_terminal, began: now, said: now, progress: RebuildProgress::default() }
    }

    pub fn report(&mut self, progress: RebuildProgress) {
        self.progress = progress;
        self.bar.set_length(progress.all);
        self.bar.set_position(progress.read);
        if !self.is_terminal && self.said.elapsed() >= LINE_EVERY {
            self.said = Instant::now();
            let left = left(progress, self.began.elapsed());
            complain(&format!("{}, about {} s left", self.sentence(), left.as_secs()));
        }
    }

    pub fn end(&self) -> String {
        self.bar.finish_and_clear();
        self.sentence()
    }

    fn sentence(&self) -> String {
        let (RebuildProgress { read, all }, took) = (self.progress, self.began.elapsed());
        let per_second = u128::from(read) * 1_000 / took.as_millis().max(1);
        format!("{read} of {all} places of facts are read in {:.1} s, {per_second} a second", took.as_secs_f64())
    }
}

fn left(RebuildProgress { read, all }: RebuildProgress, took: Duration) -> Duration {
    let rest = u32::try_from(all.saturating_sub(read).saturating_mul(1_000) / read.max(1)).unwrap_or(u32::MAX);
    took.saturating_mul(rest) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_what_was_done_in_proportion() {
        let took = Duration::from_secs(10);
        assert_eq!(left(RebuildProgress { read: 25, all: 100 }, took), Duration::from_secs(30));
        assert_eq!(left(RebuildProgress { read: 100, all: 100 }, took), Duration::ZERO);
    }
}
