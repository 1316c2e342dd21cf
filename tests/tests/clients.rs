//! The programs of `docs/clients` run as they stand there, and miss nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use portal_sim::player::{Player, Step};
use tempfile::TempDir;
use tests::cluster::Standalone;
use tests::load::send;
use tests::wait::{eventually, not_run};

const WITHIN: Duration = Duration::from_secs(90);
const PORTALS: u64 = 5;
const ROUNDS: usize = 3;
const TOKEN: &str = "0123456789abcdef";
/// The language of a page's code, the page, what runs it, and its file.
const PROGRAMS: [[&str; 4]; 3] = [
    ["python", "python", "python3", "events.py"],
    ["javascript", "node", "node", "events.mjs"],
    ["php", "php", "php", "events.php"],
];

/// A program of a page, started again each time that it is killed.
struct Reader {
    command: Command,
    running: Option<Child>,
    output: PathBuf,
    directory: TempDir,
}

impl Reader {
    /// One for each page.
    fn of_all(feed: &str, test: &str) -> Vec<(&'static str, Self)> {
        let mut all = Vec::new();
        for [language, page, program, file] in PROGRAMS {
            if Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok() {
                all.push((page, Self::new(language, page, program, file, feed)));
            } else {
                not_run(test, &format!("there is no {program}"));
            }
        }
        all
    }

    fn new(language: &str, page: &str, program: &str, file: &str, feed: &str) -> Self {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/clients/{page}.md"));
        let page = fs::read_to_string(page).expect("a page");
        let code = page.split(&format!("```{language}\n")).nth(1).expect("code").split("```").next().expect("its end");
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join(file), code).expect("written");
        let mut command = Command::new(program);
        command.arg(file).current_dir(directory.path()).stdin(Stdio::null());
        command.env("HOOKLEDGER_FEED", feed).env("HOOKLEDGER_TOKEN", TOKEN);
        Self { command, running: None, output: directory.path().join("output"), directory }
    }

    fn start(&mut self) {
        let output = File::options().create(true).append(true).open(&self.output).expect("a file");
        let errors = output.try_clone().expect("the same");
        self.running = Some(self.command.stdout(output).stderr(errors).spawn().expect("started"));
    }

    fn kill9(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill().expect("killed");
            running.wait().expect("ended");
        }
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// The ids of each portal in the order in which each came first; a line that was cut short is no event.
    fn ids(&self) -> BTreeMap<String, Vec<String>> {
        let mut first: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in self.text().lines() {
            if let [id, app, member, _] = line.split(' ').collect::<Vec<_>>()[..] {
                let ids = first.entry(format!("{app}/{member}")).or_default();
                if !ids.iter().any(|known| known == id) {
                    ids.push(id.to_owned());
                }
            }
        }
        first
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.kill9();
    }
}

#[test]
fn programs_of_the_documents_miss_nothing_when_they_and_the_server_are_killed() {
    let test = "programs_of_the_documents_miss_nothing_when_they_and_the_server_are_killed";
    let mut standalone = Standalone::start_with(&[("HOOKLEDGER_QUERY_TOKENS", TOKEN)]);
    let feed = format!("http://{}/v1/feed", standalone.process.address("queries"));
    let mut readers = Reader::of_all(&feed, test);
    let mut portals: Vec<_> = (0..PORTALS).map(|number| Player::new("crm-sync", number)).collect();
    let mut sent: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for round in 0..ROUNDS {
        for (_, reader) in &mut readers {
            reader.start();
        }
        let mut webhooks = standalone.process.webhooks();
        for step in [Step::Install, Step::PassedOn, Step::PassedOn] {
            let step = if round == 0 { step } else { Step::PassedOn };
            for portal in &mut portals {
                let id = send(&mut webhooks, portal.webhook(step)).id;
                sent.entry(portal.key()).or_default().push(id);
            }
        }
        if round + 1 < ROUNDS {
            let newest: BTreeSet<&String> = sent.values().filter_map(|ids| ids.last()).collect();
            for (program, reader) in &mut readers {
                // Within what it does with these events, or behind it.
                eventually(WITHIN, &format!("{program} has got some of the round"), || {
                    reader.ids().values().flatten().any(|id| newest.contains(id)).then_some(())
                });
                reader.kill9();
            }
            standalone.process.kill9();
            standalone.process.restart();
            standalone.process.ready();
        }
    }
    for (program, reader) in &readers {
        eventually(WITHIN, &format!("{program} has every event"), || (reader.ids() == sent).then_some(()));
        let place = reader.directory.path().join("hookledger.cursor");
        eventually(WITHIN, &format!("{program} notes its place"), || place.exists().then_some(()));
    }
}

#[test]
fn programs_of_the_documents_end_with_the_reason_where_they_cannot_go_on() {
    let test = "programs_of_the_documents_end_with_the_reason_where_they_cannot_go_on";
    let (one, other) = (Standalone::start(), Standalone::start());
    let mut queries = one.process.queries();
    let page = queries.get("/v1/feed").expect("an answer").json();
    let cursor = page["next"].as_str().expect("a cursor");
    let feed = format!("http://{}/v1/feed", other.process.address("queries"));
    for (program, mut reader) in Reader::of_all(&feed, test) {
        fs::write(reader.directory.path().join("hookledger.cursor"), cursor).expect("written");
        reader.start();
        let status = reader.running.take().expect("started").wait().expect("an end");
        assert_eq!(status.code(), Some(1), "{program}: {}", reader.text());
        assert!(reader.text().contains("cursor-of-another-log"), "{program}: {}", reader.text());
    }
}
