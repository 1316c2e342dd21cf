//! An example for each command, which its help shows.

use clap::Command;

/// Each is a command line that the program takes.
const EXAMPLES: &[&str] = &[
    "hookledger standalone --apps crm-sync --data-dir /var/lib/hookledger",
    "hookledger send life --app crm-sync",
    "hookledger send file events/install.txt --app crm-sync",
    "hookledger send load --app crm-sync",
    "hookledger send install --app crm-sync --member a223c6b3710f85df22e9377d6c4f7553",
    "hookledger send update --app crm-sync --version 2",
    "hookledger send uninstall --app crm-sync --clean",
    "hookledger send payment --app crm-sync --days 30",
    "hookledger send method-confirm --app crm-sync --method voximplant.user.get",
    "hookledger send user-ready --app crm-sync",
    "hookledger send contact-add --app crm-sync --id 7",
    "hookledger send contact-update --app crm-sync --id 7",
    "hookledger send deal-update --app crm-sync --id 7",
    "hookledger send user-add --app crm-sync --id 7",
    "hookledger send offline --app crm-sync",
    "hookledger send test --app crm-sync",
    "hookledger doctor --config hookledger.toml --url https://hooks.example.com",
    "hookledger listen --app crm-sync --since 2h --forward http://127.0.0.1:3000/hooks",
    "hookledger installations --app crm-sync --status untrusted",
    "hookledger show crm-sync a223c6b3710f85df22e9377d6c4f7553",
    "hookledger history crm-sync a223c6b3710f85df22e9377d6c4f7553",
    "hookledger check crm-sync a223c6b3710f85df22e9377d6c4f7553 voximplant.user.get --token-file token.txt",
    "hookledger verify-token crm-sync a223c6b3710f85df22e9377d6c4f7553 --token-file token.txt",
    "hookledger tokens crm-sync a223c6b3710f85df22e9377d6c4f7553 --query-token-file token.txt",
    "hookledger trust crm-sync a223c6b3710f85df22e9377d6c4f7553 --token-file token.txt",
    "hookledger trust list crm-sync",
    "hookledger import portals.csv --app crm-sync --dry-run",
    "hookledger rejected list --app crm-sync --since 1d",
    "hookledger rejected show 01a204a0-5ffe-702c-8682-b3dec7a61848",
    "hookledger rejected redrive --app crm-sync --reason missing_token",
    "hookledger forward list --state parked",
    "hookledger forward retry crm-sync a223c6b3710f85df22e9377d6c4f7553",
    "hookledger forward skip crm-sync a223c6b3710f85df22e9377d6c4f7553 --id 01a204a0-601c-743a-94e1-00d5cccf9488",
    "hookledger verify --data-dir /var/lib/hookledger",
    "hookledger vault keygen vault.key",
    "hookledger vault rekey --kafka localhost:9092 --vault-key-file vault.key",
    "hookledger rebuild --kafka localhost:9092 --data-dir /var/lib/hookledger",
    "hookledger audit --kafka localhost:9092 --data-dir /var/lib/hookledger",
    "hookledger resume --kafka localhost:9092 --data-dir /var/lib/hookledger",
    "hookledger salvage --dir /var/lib/hookledger/ingress",
    "hookledger drain --kafka localhost:9092 --dir /mnt/lost-ingress",
    "hookledger completions bash > /etc/bash_completion.d/hookledger",
    "hookledger man /usr/local/share/man/man1",
];

/// The same command, and all below it, with their examples.
pub fn shown_in(command: Command) -> Command {
    let name = command.get_name().to_owned();
    add(command, &name)
}

fn add(command: Command, path: &str) -> Command {
    let of = |example: &&&str| example.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
    let own = EXAMPLES.iter().find(of).filter(|_| !command.has_subcommands() || command.get_arguments().count() > 0);
    let former = command.get_after_help().map(|help| format!("{help}\n")).unwrap_or_default();
    let command = match own {
        Some(example) => command.after_help(format!("{former}Example: {example}")),
        None => command,
    };
    command.mut_subcommands(|below| {
        let path = format!("{path} {}", below.get_name());
        add(below, &path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::command;

    fn leaves(command: &Command, path: &str, found: &mut Vec<String>) {
        for below in command.get_subcommands() {
            let path = format!("{path} {}", below.get_name());
            if below.has_subcommands() {
                leaves(below, &path, found);
            } else {
                found.push(path);
            }
        }
    }

    #[test]
    fn every_command_has_an_example_that_it_takes() {
        let mut paths = Vec::new();
        leaves(&command(), "hookledger", &mut paths);
        for path in paths {
            let has_one = EXAMPLES.iter().any(|example| format!("{example} ").starts_with(&format!("{path} ")));
            assert!(has_one, "{path} has no example");
        }
        for example in EXAMPLES {
            let words = example.split(" > ").next().unwrap_or_default().split(' ');
            assert!(command().try_get_matches_from(words).is_ok(), "{example} is not taken");
        }
    }
}
