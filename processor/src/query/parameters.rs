//! The parameters of a query and the fields of its body: known names, given once, with valid values. Else the problem
//! names the one that is wrong, and what it takes.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::{HttpMessage, HttpRequest, web};
use bitrix24::{AppName, Installation, MemberId};
use primitives::secret::Secret;
use serde_json::{Map, Value};

use super::problem::Problem;

/// Taken by every query for data.
pub const AFTER: &str = "after";
pub const WAIT: &str = "wait";

const LIMIT_MAX: usize = 1_000;
const LIMIT: usize = 100;
const WAIT_MAX: Duration = Duration::from_secs(30);
pub(super) const BODY_BYTES_MAX: usize = 16 * 1024;
/// Longer names are not repeated.
const NAME_BYTES_MAX: usize = 32;
/// A page of another site cannot make a browser send this content type.
const JSON: &str = "application/json";

pub struct Parameters(BTreeMap<&'static str, String>);

impl Parameters {
    /// Those of the query string.
    pub fn read(request: &HttpRequest, known: &[&'static str]) -> Result<Self, Problem> {
        let given = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
        let given = given.map_err(|_| Problem::Malformed("the query string cannot be read".into()))?;
        let mut values = BTreeMap::new();
        for (name, value) in given.into_inner() {
            let known_name = name_of(&name, known)?;
            if values.insert(known_name, value).is_some() {
                return Err(Problem::Malformed(format!("{name} is given more than once")));
            }
        }
        Ok(Self(values))
    }

    /// Of a form, which sends empty fields, too.
    pub fn without_empty(mut self) -> Self {
        self.0.retain(|_, value| !value.is_empty());
        self
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// `takes` completes the sentence "it takes …".
    pub fn parsed<T>(
        &self,
        name: &str,
        takes: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        self.text(name).map(|text| parse(text).ok_or_else(|| wrong(name, takes))).transpose()
    }

    pub fn limit(&self) -> Result<usize, Problem> {
        let parse = |text: &str| text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        let takes = format!("a whole number from 1 to {LIMIT_MAX}");
        Ok(self.parsed("limit", &takes, parse)?.unwrap_or(LIMIT))
    }

    pub fn cursor<T>(&self, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Problem> {
        self.parsed("cursor", "the `next` of an earlier answer", parse)
    }

    pub fn wait(&self) -> Result<Option<Duration>, Problem> {
        self.text(WAIT).map(wait).transpose()
    }
}

/// The JSON object of a body.
pub struct Body(Map<String, Value>);

impl Body {
    pub async fn read(request: &HttpRequest, payload: web::Payload, known: &[&'static str]) -> Result<Self, Problem> {
        if !request.content_type().eq_ignore_ascii_case(JSON) {
            return Err(Problem::NotJson);
        }
        let body = http_edge::receive(request, payload, BODY_BYTES_MAX).await?;
        let object = serde_json::from_slice(&body.bytes);
        let object: Map<String, Value> =
            object.map_err(|_| Problem::Malformed("the body takes a JSON object".to_owned()))?;
        object.keys().try_for_each(|name| name_of(name, known).map(drop))?;
        Ok(Self(object))
    }

    /// The fields of this name as parameters, for a filter in a body; `null` is absent.
    pub fn parameters(&self, names: &[&'static str]) -> Result<Parameters, Problem> {
        let mut values = BTreeMap::new();
        for name in names {
            let value = match self.0.get(*name) {
                Some(Value::Number(number)) => Some(number.to_string()),
                _ => self.text(name)?.map(str::to_owned),
            };
            values.extend(value.map(|value| (*name, value)));
        }
        Ok(Parameters(values))
    }

    /// A list of texts; `null` is absent.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<&str>>, Problem> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| item.as_str().ok_or_else(|| wrong(name, "a list of texts")))
                .collect::<Result<_, _>>()
                .map(Some),
            Some(_) => Err(wrong(name, "a list of texts")),
        }
    }

    /// `null` is absent.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => Err(wrong(name, "a text")),
        }
    }

    pub fn required<T>(&self, name: &str, takes: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Problem> {
        let text =
            self.text(name)?.ok_or_else(|| Problem::Malformed(format!("{name} is missing; it takes {takes}")))?;
        parse(text).ok_or_else(|| wrong(name, takes))
    }

    pub fn installation(&self) -> Result<Installation, Problem> {
        let app = self.required("app", "an app's name", AppName::parse)?;
        let member_id = self.required("member_id", "a portal's member_id", MemberId::parse)?;
        Ok(Installation { app, member_id })
    }

    pub fn secret(&self, name: &str) -> Result<Option<Secret>, Problem> {
        Ok(self.text(name)?.map(Secret::new))
    }

    pub fn wait(&self) -> Result<Option<Duration>, Problem> {
        self.text(WAIT)?.map(wait).transpose()
    }
}

pub fn wrong(name: &str, takes: &str) -> Problem {
    Problem::Malformed(format!("{name} takes {takes}"))
}

fn wait(text: &str) -> Result<Duration, Problem> {
    let wait = primitives::time::duration(text).filter(|wait| *wait <= WAIT_MAX);
    wait.ok_or_else(|| wrong(WAIT, "a duration of at most 30s with its unit, such as 2s"))
}

fn name_of(name: &str, known: &[&'static str]) -> Result<&'static str, Problem> {
    if let Some(known) = known.iter().find(|known| **known == name) {
        return Ok(known);
    }
    let may_repeat = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let shown = if may_repeat { name } else { "a name that was given" };
    Err(Problem::Malformed(match known {
        [] => format!("{shown} is not known here: this path takes no parameters"),
        known => format!("{shown} is not known here; known are {}", known.join(", ")),
    }))
}
