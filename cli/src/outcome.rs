//! Exit codes, for scripts.

use std::process::ExitCode;

use runtime::settings::SettingsError;

use crate::query_error::QueryError;
use portal_sim::client::UrlError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Success, or the answer is yes.
    Done,
    /// Failure, or something is not as it should be.
    Failed,
    Wrong,
    No,
    NotYet,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

impl Outcome {
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Wrong => 2,
            Self::No => 3,
            Self::NotYet => 4,
        }
    }

    pub fn of_error(error: &anyhow::Error) -> Self {
        if let Some(query) = error.downcast_ref::<QueryError>() {
            return Self::of_query(query);
        }
        let wrong = error.is::<Usage>() || error.is::<SettingsError>() || error.is::<UrlError>();
        if wrong { Self::Wrong } else { Self::Failed }
    }

    fn of_query(error: &QueryError) -> Self {
        match error {
            QueryError::Problem { status: 404, title, .. }
                if ["unknown installation", "unknown rejected event", "no tokens"].contains(&title.as_str()) =>
            {
                Self::No
            }
            QueryError::Problem { status: 400, .. } => Self::Wrong,
            // The event was not folded in time, or the state is still being read.
            QueryError::Problem { status: 503 | 504, .. } => Self::NotYet,
            QueryError::Unreachable { .. } | QueryError::Problem { .. } | QueryError::Foreign { .. } => Self::Failed,
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        outcome.code().into()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn wrong_usage_is_told_apart_from_failure_whatever_was_said_on_the_way() {
        let wrong = Err::<(), _>(Usage("no".into())).context("read the arguments").expect_err("an error");
        assert_eq!(Outcome::of_error(&wrong), Outcome::Wrong);
        assert_eq!(Outcome::of_error(&anyhow::anyhow!("the disk is gone")), Outcome::Failed);
    }

    #[test]
    fn problems_end_as_exit_codes() {
        let problem = |status, title: &str| {
            Outcome::of_query(&QueryError::Problem { status, title: title.into(), detail: String::new() })
        };
        assert_eq!(problem(404, "unknown installation"), Outcome::No);
        assert_eq!(problem(404, "no such page"), Outcome::Failed);
        assert_eq!(problem(400, "malformed question"), Outcome::Wrong);
        assert_eq!(problem(504, "not yet"), Outcome::NotYet);
        assert_eq!(problem(401, "unauthorised"), Outcome::Failed);
    }
}
