//! `hookledger send install` and similar: one event of each kind.

use clap::{Arg, ArgMatches, Command, value_parser};

use super::player::{Player, at_s, encoding, encoding_argument, portal, portal_arguments};
use super::target::target_arguments;
use crate::arguments::{option, switch};
use crate::outcome::Outcome;
use crate::output::{aligned, print, row};
use portal_sim::portal::{Event, Portal, Token};

struct Kind {
    name: &'static str,
    about: &'static str,
    arguments: fn() -> Vec<Arg>,
    make: fn(&ArgMatches, &Portal) -> Event,
}

const KINDS: [Kind; 12] = [
    Kind {
        name: "install",
        about: "ONAPPINSTALL: the app was installed",
        arguments: || vec![option("version", "N", "The app's version").default_value("1")],
        make: |arguments, _| Event::Install { version: given(arguments, "version") },
    },
    Kind {
        name: "update",
        about: "ONAPPUPDATE: the app was updated",
        arguments: || {
            vec![
                option("version", "N", "To this version").default_value("2"),
                option("previous-version", "N", "From this version").default_value("1"),
            ]
        },
        make: |arguments, _| Event::Update {
            version: given(arguments, "version"),
            previous_version: given(arguments, "previous-version"),
        },
    },
    Kind {
        name: "uninstall",
        about: "ONAPPUNINSTALL: the app was removed",
        arguments: || vec![switch("clean", "The app's data is to go, too")],
        make: |arguments, _| Event::Uninstall { clean: arguments.get_flag("clean") },
    },
    Kind {
        name: "payment",
        about: "ONAPPPAYMENT: the app was paid for",
        arguments: || {
            vec![
                option("code", "CODE", "The app's code in the market").default_value("vendor.app"),
                option("version", "N", "The installed version").default_value("1"),
                option("status", "LETTER", "The status that payment brought").default_value("P"),
                number("days", "The days that are left, if the period ends"),
            ]
        },
        make: |arguments, _| Event::Payment {
            code: given(arguments, "code"),
            version: given(arguments, "version"),
            status: given(arguments, "status"),
            days: arguments.get_one::<u64>("days").copied(),
        },
    },
    Kind {
        name: "method-confirm",
        about: "ONAPPMETHODCONFIRM: an administrator let the holder of a token call a method, or did not",
        arguments: || {
            vec![
                option("method", "METHOD", "The method").default_value("voximplant.user.get"),
                option("token", "TOKEN", "The token [default: the portal's access token]"),
                switch("deny", "The administrator denied it"),
            ]
        },
        make: |arguments, portal| Event::MethodConfirm {
            method: given(arguments, "method"),
            token: arguments
                .get_one::<String>("token")
                .map_or_else(|| portal.access_token.clone(), |token| Token::new(token.clone())),
            confirmed: !arguments.get_flag("deny"),
        },
    },
    Kind {
        name: "user-ready",
        about: "ONAPPUSERREADY: the app's system user exists",
        arguments: Vec::new,
        make: |_, portal| portal.user_ready(),
    },
    crm("contact-add", "ONCRMCONTACTADD: a contact was added", |arguments, _| Event::Crm {
        name: "ONCRMCONTACTADD",
        id: id(arguments),
    }),
    crm("contact-update", "ONCRMCONTACTUPDATE: a contact was changed", |arguments, _| Event::Crm {
        name: "ONCRMCONTACTUPDATE",
        id: id(arguments),
    }),
    crm("deal-update", "ONCRMDEALUPDATE: a deal was changed", |arguments, _| Event::Crm {
        name: "ONCRMDEALUPDATE",
        id: id(arguments),
    }),
    crm("user-add", "ONUSERADD: a user was added", |arguments, _| Event::UserAdd {
        id: id(arguments),
        name: "Klaus".to_owned(),
    }),
    Kind {
        name: "offline",
        about: "ONOFFLINEEVENT: there are offline events to fetch",
        arguments: Vec::new,
        make: |_, _| Event::Offline,
    },
    Kind { name: "test", about: "ONAPPTEST: a call of event.test", arguments: Vec::new, make: |_, _| Event::Test },
];

const fn crm(name: &'static str, about: &'static str, make: fn(&ArgMatches, &Portal) -> Event) -> Kind {
    Kind { name, about, arguments: || vec![number("id", "What it happened to").default_value("1")], make }
}

pub fn commands() -> Vec<Command> {
    let command = |kind: &Kind| {
        Command::new(kind.name)
            .about(kind.about)
            .args((kind.arguments)())
            .args(portal_arguments())
            .arg(encoding_argument())
            .args(target_arguments())
    };
    KINDS.iter().map(command).collect()
}

pub async fn run(name: &str, arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let kind = KINDS.iter().find(|kind| kind.name == name).expect("clap knows only these");
    let portal = portal(arguments);
    let event = (kind.make)(arguments, &portal);
    let mut player = Player::from_arguments(arguments, encoding(arguments)).await?;
    let said = player.send(&portal, &event, at_s(arguments)).await?;
    print(&aligned(&[
        row("portal", player.installation(&portal).to_string()),
        row("sent", event.name().to_owned()),
        row("answered", said.describe()),
    ]))?;
    Ok(if said.promise.is_some() { Outcome::Done } else { Outcome::Failed })
}

fn number(name: &'static str, help: &'static str) -> Arg {
    option(name, "N", help).value_parser(value_parser!(u64))
}

fn given(arguments: &ArgMatches, name: &str) -> String {
    arguments.get_one::<String>(name).expect("a default").clone()
}

fn id(arguments: &ArgMatches) -> u64 {
    *arguments.get_one::<u64>("id").expect("a default")
}
