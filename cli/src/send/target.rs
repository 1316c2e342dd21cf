//! Where events are sent: the arguments that the kinds of `send` share, and the check of a default port.

use std::path::PathBuf;

use anyhow::Context;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches};
use serde_json::Value;

use bitrix24::AppName;

use crate::arguments::{self, option};
use crate::outcome::Usage;
use portal_sim::client::{Answer, Client};

/// The default address of an ingress or `standalone`.
pub const URL: &str = "http://127.0.0.1:8080";
pub const APP: &str = "my-app";

pub fn target_arguments() -> [Arg; 3] {
    [
        option("to", "URL", "The ingress, without the path").default_value(URL),
        option("app", "APP", "The app, as in the handler's URL").default_value(APP).value_parser(arguments::app),
        arguments::path(
            "path-key-file",
            "FILE",
            "A file with the secret last segment of the URL; else the app's in HOOKLEDGER_PATH_KEYS_DIR",
        ),
    ]
}

/// A client of the target. Tokens and path keys do not go to a stranger: unless the address was given, the server there
/// has to be an ingress.
pub async fn client(arguments: &ArgMatches) -> anyhow::Result<Client> {
    let url = arguments.get_one::<String>("to").expect("a default");
    let client = Client::new(url)?;
    match arguments.value_source("to") {
        Some(ValueSource::CommandLine) => Ok(client),
        _ => of_an_ingress(client, url, &app(arguments)).await,
    }
}

async fn of_an_ingress(mut client: Client, url: &str, app: &AppName) -> anyhow::Result<Client> {
    // Without the path key: an ingress answers in its own way also if it knows no such path.
    let answer = client.get(&format!("/v1/events/{app}")).await;
    let answer = answer.context("look for an ingress at the default address; --to names another")?;
    if !is_of_an_ingress(&answer) {
        return Err(Usage(format!("the server at {url} is no ingress of Hookledger: name yours with --to")).into());
    }
    Ok(client)
}

fn is_of_an_ingress(answer: &Answer) -> bool {
    let document = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
    let is_here = answer.status == 200 && document["send"] == "POST";
    is_here || document["type"].as_str().is_some_and(|kind| kind.starts_with("/docs/problems#"))
}

pub fn app(arguments: &ArgMatches) -> AppName {
    arguments.get_one::<AppName>("app").expect("a default").clone()
}

/// The path of the app's events, from [`target_arguments`]. It may hold a secret.
pub fn path(arguments: &ArgMatches) -> anyhow::Result<String> {
    let app = app(arguments);
    let directory = std::env::var_os("HOOKLEDGER_PATH_KEYS_DIR").filter(|directory| !directory.is_empty());
    let kept = directory.map(|directory| PathBuf::from(directory).join(app.as_str())).filter(|file| file.exists());
    let Some(file) = arguments.get_one::<PathBuf>("path-key-file").cloned().or(kept) else {
        return Ok(format!("/v1/events/{app}"));
    };
    let key = std::fs::read_to_string(&file)
        .map_err(|error| Usage(format!("read the path key from {}: {error}", file.display())))?;
    Ok(format!("/v1/events/{app}/{}", key.trim()))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Asks a server that answers once so. Returns whether it is taken for an ingress, and the line that it was asked.
    fn ask(status: &str, body: &'static str) -> (anyhow::Result<()>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut lines = BufReader::new(stream.try_clone().expect("a second hand")).lines().map_while(Result::ok);
            let line = lines.next().expect("a request line");
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            stream.write_all((head + body).as_bytes()).expect("sent");
            line
        });
        let app = AppName::parse("crm-sync").expect("a name");
        let client = Client::new(&url).expect("a URL");
        let asked = portal_sim::client::block_on(async { of_an_ingress(client, &url, &app).await.map(drop) });
        (asked, server.join().expect("no panic"))
    }

    #[test]
    fn only_an_ingress_is_sent_to_at_an_address_that_nobody_named() {
        for (status, body, is_ingress) in [
            ("200 OK", r#"{"send":"POST"}"#, true),
            ("404 Not Found", r#"{"type":"/docs/problems#unknown-app","status":404}"#, true),
            ("200 OK", "<html>", false),
            ("200 OK", "{}", false),
            ("404 Not Found", r#"{"type":"about:blank"}"#, false),
        ] {
            let (asked, line) = ask(status, body);
            assert_eq!(asked.is_ok(), is_ingress, "{status} {body}");
            assert_eq!(line, "GET /v1/events/crm-sync HTTP/1.1");
            if let Err(error) = asked {
                assert!(error.is::<Usage>() && error.to_string().contains("--to"), "{error:#}");
            }
        }
    }
}
