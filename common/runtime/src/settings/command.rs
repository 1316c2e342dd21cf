//! Settings as flags of a command.

use clap::{Arg, ArgAction, Command};

use super::{Kind, Setting};

pub(super) const CONFIG: Setting = Setting::new("config").help("A TOML file with settings by these names.");

/// A command with a flag for each setting; its help shows the default and the variable. Defaults are not clap's, since
/// a file and the environment come before them.
pub fn command(program: &str, about: &str, known: &[Setting]) -> Command {
    let own_config = known.iter().any(|setting| setting.name == CONFIG.name);
    let config = (!own_config).then_some(&CONFIG);
    Command::new(program.to_owned())
        .about(about.to_owned())
        .version(env!("CARGO_PKG_VERSION"))
        .args(known.iter().chain(config).flat_map(flags))
}

pub(super) fn variable(name: &str) -> String {
    format!("HOOKLEDGER_{}", name.replace('-', "_").to_ascii_uppercase())
}

/// The name of the setting for a secret's file.
pub(super) fn file_name(name: &str) -> String {
    format!("{name}-file")
}

fn flags(setting: &Setting) -> Vec<Arg> {
    let variable = variable(setting.name);
    let default = setting.default.map(|default| format!(" [default: {default}]")).unwrap_or_default();
    let flag = Arg::new(setting.name)
        .long(setting.name)
        .help(format!("{}{default} [environment: {variable}]", setting.help))
        .value_name(if setting.name == CONFIG.name { "FILE" } else { "VALUE" });
    match setting.kind {
        Kind::Plain => vec![flag.action(ArgAction::Set)],
        Kind::Repeated => vec![flag.action(ArgAction::Append)],
        Kind::Switch => vec![flag.action(ArgAction::SetTrue)],
        Kind::Secret => {
            let name = file_name(setting.name);
            let file = Arg::new(name.clone())
                .long(name)
                .help(format!("A file that holds `{}` [environment: {variable}_FILE]", setting.name))
                .value_name("FILE")
                .conflicts_with(setting.name);
            // A random token may begin with a dash, and would look like an unknown flag.
            vec![flag.action(ArgAction::Set).allow_hyphen_values(true), file]
        }
    }
}
