//! Exit codes, for scripts.

use std::process::ExitCode;

use runtime::settings::SettingsError;

use crate::client::UrlError;
use crate::query::QueryError;

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
            return query.outcome();
        }
        let wrong = error.is::<Usage>() || error.is::<SettingsError>() || error.is::<UrlError>();
        if wrong { Self::Wrong } else { Self::Failed }
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
}
