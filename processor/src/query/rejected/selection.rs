//! Which rejected events are asked for, and which of them the caller may see.

use bitrix24::{AppName, MemberId};
use domain::Reason;
use primitives::time::Timestamp;

use super::item::Item;
use crate::query::access::Caller;
use crate::query::log_reads::{TIME_OR_AGE, time_or_age};
use crate::query::parameters::Parameters;
use crate::query::problem::Problem;

pub const FILTERS: [&str; 4] = ["app", "member_id", "reason", "since"];

/// Which rejected events are asked for.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub app: Option<AppName>,
    pub member_id: Option<MemberId>,
    pub reason: Option<Reason>,
    pub since: Option<Timestamp>,
}

impl Selection {
    pub fn read(parameters: &Parameters) -> Result<Self, Problem> {
        let reasons = format!("one of {}", Reason::ALL.map(Reason::label).join(", "));
        Ok(Self {
            app: parameters.parsed("app", "an app's name", AppName::parse)?,
            member_id: parameters.parsed("member_id", "a portal's member_id", MemberId::parse)?,
            reason: parameters.parsed("reason", &reasons, Reason::parse)?,
            since: parameters.parsed("since", TIME_OR_AGE, time_or_age)?,
        })
    }

    pub fn has(&self, item: &Item) -> bool {
        self.app.as_ref().is_none_or(|app| item.app.as_ref() == Some(app))
            && self.member_id.as_ref().is_none_or(|member_id| item.member_id.as_ref() == Some(member_id))
            && self.reason.is_none_or(|reason| item.reason == reason.label())
            && self.since.is_none_or(|since| item.received_at >= since)
    }
}

impl Caller {
    /// An event of an unknown app is for callers that may see every app.
    pub fn sees_rejected(&self, app: Option<&AppName>) -> bool {
        app.map_or(!self.is_limited(), |app| self.sees(app))
    }
}
