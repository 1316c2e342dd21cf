//! Which installations a list shows.

use std::time::Duration;

use bitrix24::AppName;
use domain::{InstallationRecord, RecordStatus};
use primitives::time::Timestamp;

use super::parameters::Parameters;
use super::problem::Problem;

pub const NAMES: [&str; 7] = ["app", "domain", "status", "silent_for", "updated_since", "unfinished", "contested"];

/// Of the page alone.
pub const SEARCH: &str = "search";

#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub app: Option<AppName>,
    domain: Option<String>,
    status: Option<RecordStatus>,
    silent_for: Option<Duration>,
    updated_since: Option<Timestamp>,
    unfinished: Option<bool>,
    contested: Option<bool>,
    /// In lower case: a part of the address or of the `member_id`.
    search: Option<String>,
}

/// Longer ones are of no portal.
const SEARCH_BYTES_MAX: usize = 128;

impl Filter {
    pub fn read(parameters: &Parameters) -> Result<Self, Problem> {
        let statuses = RecordStatus::ALL.map(RecordStatus::label);
        let status = |text: &str| RecordStatus::ALL.into_iter().find(|status| status.label() == text);
        let domain = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let boolean = |text: &str| match text {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        };
        let duration = "a duration with its unit, such as 30d";
        let time = "a time of RFC 3339 in UTC, such as 2026-01-31T10:00:00Z";
        Ok(Self {
            app: parameters.parsed("app", "an app's name", AppName::parse)?,
            domain: parameters.parsed("domain", "a host", domain)?,
            status: parameters.parsed("status", &format!("one of {}", statuses.join(", ")), status)?,
            silent_for: parameters.parsed("silent_for", duration, primitives::time::duration)?,
            updated_since: parameters.parsed("updated_since", time, Timestamp::parse)?,
            unfinished: parameters.parsed("unfinished", "true or false", boolean)?,
            contested: parameters.parsed("contested", "true or false", boolean)?,
            search: None,
        })
    }

    /// As typed by a person.
    pub fn searching(self, parameters: &Parameters) -> Result<Self, Problem> {
        let search = |text: &str| (text.len() <= SEARCH_BYTES_MAX).then(|| text.trim().to_lowercase());
        Ok(Self { search: parameters.parsed(SEARCH, "a part of an address or a member_id", search)?, ..self })
    }

    pub fn passes(&self, record: &InstallationRecord, now: Timestamp) -> bool {
        let heard = record.last_heard_at;
        let is_at = |wanted: &String| {
            record.profile.domain.as_ref().is_some_and(|domain| domain.to_lowercase() == wanted.to_lowercase())
        };
        let has = |text: &str, part: &str| text.to_lowercase().contains(part);
        let is_found = |part: &String| {
            record.profile.domain.as_ref().is_some_and(|domain| has(domain, part))
                || has(record.installation.member_id.as_str(), part)
        };
        self.app.as_ref().is_none_or(|app| *app == record.installation.app)
            && self.search.as_ref().is_none_or(is_found)
            && self.domain.as_ref().is_none_or(is_at)
            && self.status.is_none_or(|status| status == record.status)
            && self.silent_for.is_none_or(|silent_for| heard.is_none_or(|at| now.since(at) >= silent_for))
            && self.updated_since.is_none_or(|since| heard.is_some_and(|at| at >= since))
            && self.contested.is_none_or(|contested| contested == record.contested)
            && self.unfinished.is_none_or(|unfinished| unfinished == is_unfinished(record.status))
    }
}

/// Events came, but no trusted principal reported a complete install.
fn is_unfinished(status: RecordStatus) -> bool {
    !matches!(status, RecordStatus::Installed | RecordStatus::Uninstalled)
}
