//! The table of commands, and the way from arguments to an exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use runtime::private;

use crate::outcome::Outcome;
use crate::{
    audit, check, completions, doctor, drain, examples, forward, history, import, installations, listen, man, output,
    rebuild, rejected, resume, salvage, send, show, standalone, tokens, trust, vault, verify, verify_token,
};

struct Entry {
    command: fn() -> Command,
    run: fn(&ArgMatches) -> anyhow::Result<Outcome>,
}

const COMMANDS: [Entry; 23] = [
    Entry { command: standalone::command, run: |arguments| standalone::run(arguments).map(|()| Outcome::Done) },
    Entry { command: send::command, run: send::run },
    Entry { command: doctor::command, run: doctor::run },
    Entry { command: listen::command, run: listen::run },
    Entry { command: installations::command, run: installations::run },
    Entry { command: show::command, run: show::run },
    Entry { command: history::command, run: history::run },
    Entry { command: check::command, run: check::run },
    Entry { command: verify_token::command, run: verify_token::run },
    Entry { command: tokens::command, run: tokens::run },
    Entry { command: trust::command, run: trust::run },
    Entry { command: import::command, run: import::run },
    Entry { command: rejected::command, run: rejected::run },
    Entry { command: forward::command, run: forward::run },
    Entry { command: verify::command, run: verify::run },
    Entry { command: vault::command, run: vault::run },
    Entry { command: rebuild::command, run: rebuild::run },
    Entry { command: audit::command, run: audit::run },
    Entry { command: resume::command, run: resume::run },
    Entry { command: salvage::command, run: salvage::run },
    Entry { command: drain::command, run: drain::run },
    Entry { command: completions::command, run: completions::run },
    Entry { command: man::command, run: man::run },
];

/// The first argument is the program's name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(message) => {
            // Help goes to stdout and is no failure; clap decides.
            let _ = message.print();
            return if message.use_stderr() { Outcome::Wrong.into() } else { Outcome::Done.into() };
        }
    };
    run(&matches).into()
}

pub fn command() -> Command {
    let command = Command::new("hookledger")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Keeps Bitrix24 webhooks and knows where an app is installed and what it may do")
        .after_help("Exit codes: 0 done or yes, 1 failed, 2 wrong usage or configuration, 3 no, 4 not known yet.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(COMMANDS.iter().map(|entry| (entry.command)()));
    examples::shown_in(command)
}

fn run(matches: &ArgMatches) -> Outcome {
    // A command may write a state or a log, and libraries make files of their own.
    private::only_private_files();
    let (name, arguments) = matches.subcommand().expect("clap requires a subcommand");
    let entry = COMMANDS.iter().find(|entry| (entry.command)().get_name() == name).expect("clap knows only these");
    match (entry.run)(arguments) {
        Ok(outcome) => outcome,
        Err(error) => {
            output::complain(&format!("hookledger {name}: {error:#}"));
            Outcome::of_error(&error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself() {
        for entry in &COMMANDS {
            let command = (entry.command)();
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
        }
    }
}
