//! The tokens of an event in clear, for the vault alone. [`interpret`](super::interpret) only notes that they are there.

use std::fmt;
use std::time::Duration;

use bitrix24::form::Request;
use event_log::RawEvent;
use primitives::secret::Secret;
use primitives::time::Timestamp;

use super::{Read, Reader, Subject, scopes, stamp, token};
use crate::event::Call;

/// An access token lives no longer.
const TOKEN_LIFE: Duration = Duration::from_secs(60 * 60);

/// The tokens of one event.
pub struct EventTokens {
    pub application_token: Secret,
    pub pair: Option<Pair>,
}

/// A pair is a unit: both tokens are of one event.
pub struct Pair {
    pub access_token: Secret,
    pub refresh_token: Secret,
    /// When the access token ends.
    pub expires_at: Timestamp,
    pub user_id: Option<String>,
    pub scope: Vec<String>,
}

impl fmt::Debug for EventTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secrets]")
    }
}

/// The fields of a pair and what belongs to it.
pub(super) struct Names {
    access: &'static str,
    refresh: &'static str,
    life: &'static str,
    end: &'static str,
    user: &'static str,
    scope: &'static str,
}

const AUTH: Names = Names {
    access: "auth[access_token]",
    refresh: "auth[refresh_token]",
    life: "auth[expires_in]",
    end: "auth[expires]",
    user: "auth[user_id]",
    scope: "auth[scope]",
};
/// Of the app's system user; `auth` has the tokens of the administrator who installed the app.
const SYSTEM_USER: Names = Names {
    access: "data[access_token]",
    refresh: "data[refresh_token]",
    life: "data[expires_in]",
    end: "data[expires]",
    user: "data[user_id]",
    scope: "data[scope]",
};
const PAGE: Names =
    Names { access: "AUTH_ID", refresh: "REFRESH_ID", life: "AUTH_EXPIRES", end: "", user: "", scope: "" };

/// The tokens of an event or a call that [`interpret`](super::interpret) takes.
pub fn tokens(raw: &RawEvent) -> Option<EventTokens> {
    let Read { request, secrets, subject, token, .. } = super::read(raw).ok()?;
    let pair = pair_of(&request, &subject).map(|(names, access_token, refresh_token)| {
        let reader = Reader { request: &request, secrets: &secrets };
        let occurred_at = stamp(raw, &request).occurred_at;
        let number = |name: &str| reader.text(name).and_then(|text| text.parse().ok());
        let life = number(names.life).map_or(TOKEN_LIFE, Duration::from_secs);
        let end = occurred_at.plus(life.min(TOKEN_LIFE));
        let scope = reader.short(names.scope);
        Pair {
            access_token: Secret::new(access_token),
            refresh_token: Secret::new(refresh_token),
            expires_at: number(names.end).map_or(end, |expires| end.min(Timestamp::from_s(expires))),
            user_id: reader.short(names.user),
            scope: scope.iter().flat_map(|scope| scopes(scope)).map(str::to_owned).collect(),
        }
    });
    Some(EventTokens { application_token: Secret::new(token?), pair })
}

/// The access token and the refresh token.
pub(super) fn pair_of<'a>(request: &'a Request, subject: &Subject) -> Option<(Names, &'a str, &'a str)> {
    let pair = |names: Names| {
        let (access, refresh) = (token(request.text(names.access)?)?, token(request.text(names.refresh)?)?);
        Some((names, access, refresh))
    };
    match subject {
        Subject::Event(name) if name == "onappuserready" => pair(SYSTEM_USER).or_else(|| pair(AUTH)),
        Subject::Call(Call::Placement) => pair(AUTH).or_else(|| pair(PAGE)),
        Subject::Event(_) | Subject::Call(Call::Robot) => pair(AUTH),
    }
}

#[cfg(test)]
mod tests {
    use bitrix24::AppName;
    use bitrix24::form::Form;

    use super::*;

    fn raw(body: &str) -> RawEvent {
        let app = AppName::parse("crm-sync").expect("a name");
        let head = Form::parse(body.as_bytes()).head();
        RawEvent::new(app, head, body.to_owned().into(), Timestamp::from_s(1_000_000))
    }

    const AUTH: &str = "&auth[member_id]=a223&auth[application_token]=app-token";

    #[test]
    fn a_pair_is_both_tokens_of_one_event_or_none() {
        let has = |body: &str| {
            let raw = raw(body);
            let event = crate::interpret(&raw, crate::Position { partition: 0, offset: 0 }).expect("an event");
            let tokens = tokens(&raw).expect("an event");
            assert_eq!(tokens.application_token.reveal(), "app-token");
            assert_eq!(event.has_tokens, tokens.pair.is_some(), "{body}");
            tokens.pair.map(|pair| (pair.access_token.reveal().to_owned(), pair.refresh_token.reveal().to_owned()))
        };
        let pair = |access: &str, refresh: &str| Some((access.to_owned(), refresh.to_owned()));
        let both = "&auth[access_token]=access-1&auth[refresh_token]=refresh-1";
        for event in ["ONAPPINSTALL", "ONAPPUPDATE", "ONAPPUSERREADY", "ONOFFLINEEVENT"] {
            assert_eq!(has(&format!("event={event}{AUTH}{both}")), pair("access-1", "refresh-1"));
        }
        assert_eq!(has(&format!("event=ONX{AUTH}&auth[access_token]=access-1")), None);
        assert_eq!(has(&format!("event=ONX{AUTH}&auth[refresh_token]=refresh-1")), None);
        assert_eq!(has(&format!("event=ONX{AUTH}&auth[access_token]=&auth[refresh_token]=r")), None);
        assert_eq!(has(&format!("event=ONX{AUTH}&AUTH_ID=access-1&REFRESH_ID=refresh-1")), None, "no page");
        let system_user = "&data[access_token]=access-2&data[refresh_token]=refresh-2";
        assert_eq!(has(&format!("event=ONAPPUSERREADY{AUTH}{both}{system_user}")), pair("access-2", "refresh-2"));
        assert_eq!(has(&format!("event=ONAPPINSTALL{AUTH}{both}{system_user}")), pair("access-1", "refresh-1"));
        let halves = "&data[access_token]=access-2&auth[refresh_token]=refresh-1";
        assert_eq!(has(&format!("event=ONAPPUSERREADY{AUTH}{halves}")), None);
        let page = "AUTH_ID=access-1&REFRESH_ID=refresh-1&member_id=a223&APPLICATION_TOKEN=app-token&PLACEMENT=DEFAULT";
        assert_eq!(has(page), pair("access-1", "refresh-1"));
        assert_eq!(has(&format!("document_id[0]=crm{AUTH}{both}")), pair("access-1", "refresh-1"), "a robot");
    }

    #[test]
    fn an_access_token_ends_an_hour_after_its_event_at_most() {
        let ends = |more: &str| {
            let body = format!("event=ONX&ts=999000{AUTH}&auth[access_token]=a&auth[refresh_token]=r{more}");
            tokens(&raw(&body)).and_then(|tokens| tokens.pair).expect("a pair").expires_at.s()
        };
        assert_eq!(ends(""), 1_002_600);
        assert_eq!(ends("&auth[expires_in]=60"), 999_060);
        assert_eq!(ends("&auth[expires]=1000000"), 1_000_000);
        assert_eq!(ends("&auth[expires_in]=99999999&auth[expires]=99999999999"), 1_002_600);
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let body = format!("event=ONX{AUTH}&auth[access_token]=access-1&auth[refresh_token]=refresh-1");
        assert_eq!(format!("{:?}", tokens(&raw(&body))), "Some([secrets])");
    }
}
