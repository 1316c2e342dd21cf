//! Histories: a table of what portals, strangers and operators do, and of what must be known at the end.
//!
//! The table is text, `tests/histories/*.txt`; its README has the format. The tests of the domain, of the processor and of the
//! whole system read it here.

use std::fs;
use std::path::Path;

pub use cast::{Cast, Message};
pub use compare::Seen;

mod cast;
mod compare;

#[derive(Clone, Debug, Default)]
pub struct History {
    /// A sentence.
    pub name: String,
    /// The app's setting `trust`.
    pub trust: String,
    pub is_end_to_end: bool,
    /// Whether every order of arrival gives the same record.
    pub is_any_order: bool,
    /// Whether a replay of its events changes the record.
    pub is_once: bool,
    pub steps: Vec<Step>,
    pub expected: Expected,
}

/// An event or a command.
#[derive(Clone, Debug)]
pub struct Step {
    /// The holder of a token.
    pub who: String,
    pub at: String,
    pub kind: String,
    /// Fields that differ from the usual ones.
    pub fields: Vec<(String, String)>,
    /// The number of copies with this token.
    pub times: usize,
    /// The number of principals, each with a token of its own.
    pub principals: usize,
}

/// What must be known at the end.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    pub status: String,
    pub contested: bool,
    pub cleaned: Option<bool>,
    /// Principal and basis.
    pub trusted: Vec<(String, String)>,
    /// The steps in `events`, in its order: `2x5` is five in a row of step 2.
    pub events: Vec<String>,
    pub held: Vec<String>,
    /// Step and reason.
    pub rejected: Vec<(String, String)>,
    /// Field of the record and value; `-` is none.
    pub shows: Vec<(String, String)>,
    /// `method/token` and decision.
    pub methods: Vec<(String, String)>,
    /// `method/token`, and what `check` answers.
    pub asks: Vec<(String, String)>,
}

impl History {
    /// All histories of a folder, by file and line.
    pub fn all(folder: &Path) -> Vec<Self> {
        let files = fs::read_dir(folder).expect("a folder of histories");
        let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
        files.sort();
        files.iter().flat_map(|file| Self::parse(&fs::read_to_string(file).expect("UTF-8"))).collect()
    }

    /// Panics at a mistake: the table is part of the tests.
    pub fn parse(text: &str) -> Vec<Self> {
        let mut histories: Vec<Self> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix("== ") {
                let name = name.to_owned();
                histories.push(Self { name, trust: "first-install".to_owned(), ..Self::default() });
            } else {
                histories.last_mut().expect("a name comes first").read(line);
            }
        }
        histories
    }

    fn read(&mut self, line: &str) {
        let expected = &mut self.expected;
        let (word, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{}: {line}", self.name));
        match word {
            "trust:" => rest.clone_into(&mut self.trust),
            "runs:" => {
                for how in rest.split(", ") {
                    match how {
                        "end to end" => self.is_end_to_end = true,
                        "any order" => self.is_any_order = true,
                        "once" => self.is_once = true,
                        _ => panic!("{}: runs how? {how}", self.name),
                    }
                }
            }
            "=>" => {
                let mut words = rest.split(' ');
                words.next().expect("a status").clone_into(&mut expected.status);
                for word in words {
                    match word {
                        "contested" => expected.contested = true,
                        "cleaned" => expected.cleaned = Some(true),
                        "not-cleaned" => expected.cleaned = Some(false),
                        _ => expected.trusted.extend(pairs(word, ':')),
                    }
                }
            }
            "events:" => expected.events = rest.split(' ').map(str::to_owned).collect(),
            "held:" => expected.held = rest.split(' ').map(str::to_owned).collect(),
            "rejected:" => expected.rejected = pairs(rest, '='),
            "shows:" => expected.shows = pairs(rest, '='),
            "methods:" => expected.methods = pairs(rest, '='),
            "asks:" => expected.asks = pairs(rest, '='),
            who => self.steps.push(Step::parse(who, rest)),
        }
    }
}

impl Step {
    fn parse(who: &str, rest: &str) -> Self {
        let mut words = rest.splitn(3, ' ').map(str::to_owned);
        let (at, kind) = (words.next().expect("a time"), words.next().expect("a kind"));
        let mut fields = words.next().map(|fields| pairs(&fields, '=')).unwrap_or_default();
        let mut number = |name: &str| {
            let index = fields.iter().position(|(field, _)| field == name)?;
            fields.remove(index).1.parse().ok()
        };
        let (times, principals) = (number("times").unwrap_or(1), number("principals").unwrap_or(1));
        Self { who: who.to_owned(), at, kind, fields, times, principals }
    }

    pub fn is_command(&self) -> bool {
        matches!(self.kind.as_str(), "import" | "trust" | "revoke")
    }
}

fn pairs(text: &str, between: char) -> Vec<(String, String)> {
    let pair = |word: &str| {
        let (name, value) = word.split_once(between).unwrap_or_else(|| panic!("no {between} in {word}"));
        (name.to_owned(), value.to_owned())
    };
    text.split(' ').map(pair).collect()
}
