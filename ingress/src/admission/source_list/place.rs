//! The location of a list: a file or a URL, read within limits of size and time.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use std::{fmt, io};

use anyhow::{Context, ensure};
use ureq::Agent;
use ureq::http::Uri;

use super::parse::parse;

/// Bitrix24's list has some hundred addresses, a few KiB.
const LIST_BYTES_MAX: u64 = 1 << 20;
/// From looking up the name to the last byte.
const FETCH_WAIT_MAX: Duration = Duration::from_secs(10);
/// Enough for a list that has moved, but not for a loop.
const REDIRECTS_MAX: u32 = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The file may be replaced at any time.
    File(PathBuf),
    Url(String),
}

/// The metadata of a file, to detect changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    changed: SystemTime,
    bytes: u64,
    inode: u64,
}

impl Place {
    /// A URL with `http` or `https`, without a password; anything else is a file.
    pub fn parse(text: &str) -> Option<Self> {
        let Some((scheme, _)) = text.split_once("://") else {
            return (!text.is_empty()).then(|| Self::File(text.into()));
        };
        let uri: Uri = text.parse().ok()?;
        // URLs are shown in logs.
        let open = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        let web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
        (web && open).then(|| Self::Url(text.to_owned()))
    }

    /// Whether the list is fetched without TLS, so that a third party can change it.
    pub fn is_open(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Url(url) => !url.to_ascii_lowercase().starts_with("https:"),
        }
    }

    pub fn read(&self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::File(path) => {
                let mut bytes = Vec::new();
                File::open(path)?.take(LIST_BYTES_MAX + 1).read_to_end(&mut bytes)?;
                ensure!(bytes.len() as u64 <= LIST_BYTES_MAX, "it is larger than 1 MiB");
                Ok(bytes)
            }
            Self::Url(url) => fetch(url).with_context(|| format!("get {url}")),
        }
    }

    pub fn check(&self) -> anyhow::Result<()> {
        let good = self.read().and_then(|bytes| parse(&bytes));
        good.map(drop).with_context(|| format!("read the source list {self}"))
    }

    /// None if the path is not a file.
    pub fn stamp(&self) -> Option<Stamp> {
        let Self::File(path) = self else { return None };
        let read = || -> io::Result<Stamp> {
            let found = fs::metadata(path)?;
            Ok(Stamp { changed: found.modified()?, bytes: found.len(), inode: found.ino() })
        };
        read().ok()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(url) => f.write_str(url),
        }
    }
}

/// Uses proxies from the environment (`HTTPS_PROXY`, `NO_PROXY`); certificates are checked against
/// Mozilla's list, which is built in.
fn fetch(url: &str) -> anyhow::Result<Vec<u8>> {
    let mut answer = agent(url).get(url).call()?;
    Ok(answer.body_mut().with_config().limit(LIST_BYTES_MAX).read_to_vec()?)
}

fn agent(url: &str) -> Agent {
    let config = Agent::config_builder()
        .timeout_global(Some(FETCH_WAIT_MAX))
        .max_redirects(REDIRECTS_MAX)
        // A redirect must not lead from TLS to plain HTTP.
        .https_only(url.to_ascii_lowercase().starts_with("https:"))
        .user_agent(concat!("hookledger/", env!("CARGO_PKG_VERSION")))
        .build();
    Agent::new_with_config(config)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn a_place_is_a_file_or_a_page_without_a_password() {
        let url = |text: &str| Some(Place::Url(text.to_owned()));
        for (text, expected) in [
            ("https://dl.bitrix24.com/webhook/app-world.json", url("https://dl.bitrix24.com/webhook/app-world.json")),
            ("http://127.0.0.1:8000/list", url("http://127.0.0.1:8000/list")),
            ("/etc/hookledger/list.json", Some(Place::File("/etc/hookledger/list.json".into()))),
            ("list.txt", Some(Place::File("list.txt".into()))),
            ("ftp://example.org/list", None),
            ("https://me:secret@example.org/list", None),
            ("https://", None),
            ("", None),
        ] {
            assert_eq!(Place::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn a_page_without_tls_is_anybodys_to_write() {
        for (text, open) in
            [("http://h/list", true), ("HTTP://h/list", true), ("HTTPS://h/list", false), ("list.txt", false)]
        {
            assert_eq!(Place::parse(text).expect("a place").is_open(), open, "{text}");
        }
    }

    /// Answers so many requests, the one after the other, each with the next of these answers.
    fn server(answers: &'static [&'static str]) -> (String, thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/list", listener.local_addr().expect("an address"));
        let serving = thread::spawn(move || {
            for answer in answers {
                let (mut client, _) = listener.accept().expect("a client");
                let mut request = BufReader::new(client.try_clone().expect("a second hand"));
                let mut line = String::new();
                while request.read_line(&mut line).expect("a line") > 2 {
                    line.clear();
                }
                // The client may have seen enough before the end.
                let _ = client.write_all(answer.as_bytes());
            }
        });
        (url, serving)
    }

    #[test]
    fn a_page_is_read_and_followed_when_it_has_moved() {
        let (url, serving) = server(&[
            "HTTP/1.1 302 Found\r\nlocation: /moved\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\n3.3.3.3",
        ]);
        assert_eq!(Place::Url(url).read().expect("a list"), b"3.3.3.3");
        serving.join().expect("served");
    }

    #[test]
    fn what_is_no_whole_answer_is_an_error() {
        for answers in [
            &["HTTP/1.1 500 Oh\r\ncontent-length: 7\r\nconnection: close\r\n\r\n3.3.3.3"][..],
            &["HTTP/1.1 404 Gone\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"],
            &["HTTP/1.1 200 OK\r\ncontent-length: 70\r\nconnection: close\r\n\r\n3.3.3.3"],
            &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n7\r\n3.3.3.3\r\n"],
            &["garbage\r\n\r\n"],
            &["HTTP/1.1 302 Found\r\nlocation: /a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"; 4],
        ] {
            let (url, serving) = server(answers);
            assert!(Place::Url(url).read().is_err(), "{answers:?}");
            serving.join().expect("served");
        }
    }

    #[test]
    fn a_list_beyond_the_limit_is_an_error() {
        let bytes = usize::try_from(LIST_BYTES_MAX).expect("a size") + 1;
        let long = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}", "#".repeat(bytes));
        let (url, serving) = server(vec![&*long.leak()].leak());
        assert!(Place::Url(url).read().is_err());
        serving.join().expect("served");

        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "#".repeat(bytes)).expect("written");
        assert!(Place::File(file.path().into()).read().is_err());
        fs::write(file.path(), "#".repeat(bytes - 1)).expect("written");
        assert_eq!(Place::File(file.path().into()).read().expect("a list").len(), bytes - 1);
    }

    #[test]
    fn who_asked_for_tls_is_not_led_away_from_it() {
        for (url, only) in [("https://a/list", true), ("HTTPS://a/list", true), ("http://a/list", false)] {
            assert_eq!(agent(url).config().https_only(), only, "{url}");
        }
        let led_away = agent("https://a/list").get("http://127.0.0.1:1/list").call();
        assert!(led_away.is_err_and(|error| matches!(error, ureq::Error::RequireHttpsOnly(_))));
    }
}
