//! What was checked, and what became of it.

use serde_json::{Value, json};

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Sound,
    /// Worth knowing; an operator may want it so.
    Note,
    Skipped,
    Fault {
        remedy: String,
    },
}

#[derive(Debug)]
pub struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
}

impl Check {
    fn verdict(&self) -> &'static str {
        match self.verdict {
            Verdict::Sound => "sound",
            Verdict::Note => "note",
            Verdict::Skipped => "skipped",
            Verdict::Fault { .. } => "FAULT",
        }
    }

    fn remedy(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Fault { remedy } => Some(remedy),
            Verdict::Sound | Verdict::Note | Verdict::Skipped => None,
        }
    }

    pub fn row(&self) -> Vec<String> {
        let remedy = self.remedy().map(|remedy| format!(": {remedy}")).unwrap_or_default();
        vec![self.verdict().to_owned(), self.name.to_owned(), format!("{}{remedy}", self.found)]
    }

    pub fn document(&self) -> Value {
        let verdict = self.verdict().to_ascii_lowercase();
        json!({ "check": self.name, "verdict": verdict, "found": self.found, "remedy": self.remedy() })
    }
}

#[derive(Debug, Default)]
pub struct Report(Vec<Check>);

impl Report {
    pub fn sound(&mut self, name: &'static str, found: impl Into<String>) {
        self.add(name, Verdict::Sound, found.into());
    }

    pub fn note(&mut self, name: &'static str, found: impl Into<String>) {
        self.add(name, Verdict::Note, found.into());
    }

    pub fn skipped(&mut self, name: &'static str, why: impl Into<String>) {
        self.add(name, Verdict::Skipped, why.into());
    }

    pub fn fault(&mut self, name: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(name, Verdict::Fault { remedy: remedy.into() }, found.into());
    }

    fn add(&mut self, name: &'static str, verdict: Verdict, found: String) {
        self.0.push(Check { name, verdict, found });
    }

    pub fn faults(&self) -> usize {
        self.0.iter().filter(|check| check.remedy().is_some()).count()
    }

    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        self.0.iter()
    }
}
