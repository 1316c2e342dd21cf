//! `hookledger verify`: reads the whole state of a processor, and checks it against its digests.

use clap::{ArgMatches, Command};
use processor::state::{StoreError, opening, watchdog};
use runtime::settings::{PROCESS, Setting};

use crate::outcome::{Outcome, Usage};
use crate::output::print;
use crate::state::{State, described, setting_names, settings_of};

pub fn command() -> Command {
    runtime::settings::command("verify", "Reads a processor's whole state and compares it with its digest", &settings())
        .after_help(
            "Prints for each partition how far facts and raw are folded, and a digest: two processors at the same \
             place in facts have the same. The processor must not be running; it does the same at each start. Ends \
             with 3 if the state is damaged: the processor then quarantines it at its next start and reads facts again.",
        )
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let settings = settings_of(&settings(), arguments)?;
    let state = State::take(&settings)?;
    let dir = state.dir.display();
    if !state.dir.is_dir() {
        return Err(Usage(format!("there is no state in {dir}: a processor makes one when it starts")).into());
    }
    watchdog::end_with(&state.dir);
    match opening::inspect(&state.dir, state.trusts.clone()) {
        Ok(Some(store)) => {
            print(&described(&store))?;
            print(&format!("{dir} is what was folded.\n"))?;
            Ok(Outcome::Done)
        }
        Ok(None) => {
            print(&format!("{dir} is empty: all of facts will be read.\n"))?;
            Ok(Outcome::Done)
        }
        Err(error @ (StoreError::Damaged(_) | StoreError::Foreign(_))) => {
            print(&format!(
                "{dir} is not what was folded: {error}. Nothing is lost: the processor quarantines it at its next \
                 start and reads facts again, or `hookledger rebuild` does so now.\n"
            ))?;
            Ok(Outcome::No)
        }
        Err(error @ (StoreError::Rows(_) | StoreError::NoRoom)) => Err(error.into()),
    }
}

fn settings() -> Vec<Setting> {
    PROCESS.iter().filter(|setting| setting_names().contains(&setting.name)).copied().collect()
}
