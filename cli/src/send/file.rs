//! `hookledger send file F`: a recorded body, byte for byte.

use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Arg, ArgMatches, Command, value_parser};

use bitrix24::form::Form;

use super::player::Player;
use super::target::target_arguments;
use crate::arguments::option;
use crate::outcome::{Outcome, Usage};
use crate::output::{aligned, print, row};
use portal_sim::portal::{Encoding, FORM, JSON};

/// Far more than ingress accepts.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

pub fn command() -> Command {
    Command::new("file")
        .about("Sends a recorded body as it is")
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The body; JSON if its name ends in .json or it begins with {, else a form"),
        )
        .arg(
            option(
                "expect",
                "STATUS",
                "The expected status [default: 200, or 400 if the body names neither event nor member_id]",
            )
            .value_parser(value_parser!(u16).range(200..600)),
        )
        .args(target_arguments())
}

pub async fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let path = arguments.get_one::<PathBuf>("file").expect("clap requires it");
    let body = read(path)?;
    let is_event = Form::scan(&body).says_something();
    let expected = arguments.get_one::<u16>("expect").copied().unwrap_or(if is_event { 200 } else { 400 });
    let mut player = Player::from_arguments(arguments, Encoding::Form).await?;
    let said = player.post(content_type(path, &body), body.clone()).await?;

    print(&aligned(&[
        row("sent", format!("{}, {} bytes", path.display(), body.len())),
        row("answered", said.describe()),
    ]))?;
    let good = said.answer.status == expected && (expected != 200 || said.promise.is_some());
    if !good {
        print(&format!("expected  {expected}\n"))?;
    }
    Ok(if good { Outcome::Done } else { Outcome::Failed })
}

fn read(path: &Path) -> Result<Bytes, Usage> {
    let unreadable = |error: std::io::Error| Usage(format!("read {}: {error}", path.display()));
    let mut body = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut body).map_err(unreadable)?;
    if body.len() as u64 > FILE_BYTES_MAX {
        return Err(Usage(format!("{} is longer than {} MiB", path.display(), FILE_BYTES_MAX >> 20)));
    }
    Ok(body.into())
}

fn content_type(path: &Path, body: &[u8]) -> &'static str {
    let named = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    if named || body.trim_ascii_start().first() == Some(&b'{') { JSON } else { FORM }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_known_by_its_name_or_its_first_byte() {
        assert_eq!(content_type(Path::new("a.json"), b"a=b"), JSON);
        assert_eq!(content_type(Path::new("a.txt"), b"\n {}"), JSON);
        assert_eq!(content_type(Path::new("a.form"), b"a=b"), FORM);
    }
}
