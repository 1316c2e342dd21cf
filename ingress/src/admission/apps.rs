//! The app of a path: the table of apps, their keys and their older paths.

use std::collections::{BTreeMap, HashMap};

use bitrix24::AppName;
use primitives::path;
use primitives::secret::Fingerprint;
use runtime::settings::App;

use super::unknown_apps::UnknownApp;
use crate::problem::Refusal;

const EVENTS_PATH: &str = "/v1/events";

/// None means any name.
pub struct Apps {
    /// With the fingerprint of its key, if it has one.
    known: BTreeMap<AppName, Option<Fingerprint>>,
    /// Older paths of apps, in canonical form.
    older: HashMap<String, AppName>,
}

impl Apps {
    pub fn new(apps: &BTreeMap<AppName, App>) -> Self {
        let key = |app: &App| app.path_key.as_ref().map(|key| Fingerprint::of(key.reveal()));
        let older = |(name, app): (&AppName, &App)| -> Vec<_> {
            app.paths.iter().map(|path| (path::canonical(path).into_owned(), name.clone())).collect()
        };
        Self {
            known: apps.iter().map(|(name, app)| (name.clone(), key(app))).collect(),
            older: apps.iter().flat_map(older).collect(),
        }
    }

    /// Whether any name is accepted, which is for this machine alone.
    pub fn are_any(&self) -> bool {
        self.known.is_empty()
    }

    /// The app of a path. Without its key, an app with a key does not exist.
    pub fn owner(&self, path: &str) -> Result<AppName, Refusal> {
        let path = path::canonical(path);
        if let Some(app) = self.older.get(&*path) {
            return Ok(app.clone());
        }
        let (name, key) = name_and_key(&path).ok_or(Refusal::UnknownPath)?;
        let app = AppName::parse(name).ok_or(Refusal::UnknownApp)?;
        let wanted = self.known.get(&app);
        let known = self.known.is_empty() || wanted.is_some();
        // Fingerprints make the comparison independent of the key in time.
        let opens = key.map(Fingerprint::of) == wanted.copied().flatten();
        if known && opens { Ok(app) } else { Err(Refusal::UnknownApp) }
    }

    /// What is wrong with the path of an unknown app. None if it names none.
    pub fn unknown(&self, path: &str) -> Option<UnknownApp> {
        let path = path::canonical(path);
        let (name, _) = name_and_key(&path).filter(|(name, _)| !name.is_empty())?;
        let is_key = self.known.values().flatten().any(|key| *key == Fingerprint::of(name));
        Some(match AppName::parse(name) {
            _ if is_key => UnknownApp::KeyAsName,
            Some(app) if self.known.is_empty() || self.known.contains_key(&app) => UnknownApp::Key(app.to_string()),
            Some(_) | None => UnknownApp::name(name),
        })
    }
}

fn name_and_key(path: &str) -> Option<(&str, Option<&str>)> {
    let rest = path.strip_prefix(EVENTS_PATH).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
    let mut segments = rest.splitn(3, '/').skip(1);
    Some((segments.next().unwrap_or_default(), segments.next()))
}

#[cfg(test)]
mod tests {
    use primitives::secret::Secret;
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "s6p6eclrvim6da22ft9ch94ekreb52lv";

    fn apps() -> Apps {
        let name = |name| AppName::parse(name).expect("a name");
        let open = App { paths: vec!["/b24/handler.php".into(), "/b24/(a)".into()], ..App::default() };
        let shut = App { path_key: Some(Secret::new(KEY)), paths: vec!["/shut".into()], ..App::default() };
        Apps::new(&BTreeMap::from([(name("open"), open), (name("shut"), shut)]))
    }

    fn check(path: &str, expected: Result<&str, &Refusal>) {
        let owner = apps().owner(path);
        assert_eq!(owner.as_ref().map(AppName::as_str), expected, "{path}");
    }

    #[test]
    fn a_path_belongs_to_its_app_however_it_is_written() {
        for path in [
            "/v1/events/open",
            "/v1/events/open/",
            "//v1/events//open",
            "/v1/events/%6Fpen",
            "/%76%31/events/open",
            "/b24/handler.php",
            "/b24/handler.php/",
            "/b24/%68andler%2ephp",
            "/b24/%28a%29",
        ] {
            check(path, Ok("open"));
        }
        check("/shut", Ok("shut"));
    }

    #[test]
    fn an_app_with_a_key_is_there_with_its_key_only() {
        check(&format!("/v1/events/shut/{KEY}"), Ok("shut"));
        check(&format!("/v1/events/shut/{KEY}/"), Ok("shut"));
        check(&format!("/v1/events/shut/%73{}", &KEY[1..]), Ok("shut"));
        for path in [
            "/v1/events/shut".to_owned(),
            "/v1/events/shut/".to_owned(),
            format!("/v1/events/shut/{}", &KEY[1..]),
            format!("/v1/events/shut/{}", KEY.to_uppercase()),
            format!("/v1/events/shut/{KEY}x"),
            format!("/v1/events/shut/{KEY}/{KEY}"),
            format!("/v1/events/shut%2F{KEY}"),
            format!("/v1/events/open/{KEY}"),
            format!("/v1/events/other/{KEY}"),
            "/v1/events".to_owned(),
            "/v1/events/".to_owned(),
            "/v1/events/open/x".to_owned(),
            "/v1/events/OPEN".to_owned(),
            "/v1/events/../events/open".to_owned(),
        ] {
            check(&path, Err(&Refusal::UnknownApp));
        }
    }

    #[test]
    fn what_is_no_apps_path_is_unknown() {
        for path in
            ["", "/", "/v1", "/v1/event", "/v1/eventsopen", "/v2/events/open", "/b24", "/b24%2Fhandler.php", "*"]
        {
            check(path, Err(&Refusal::UnknownPath));
        }
    }

    #[test]
    fn what_is_wrong_with_a_path_is_known_without_its_key() {
        let unknown = |path: &str| apps().unknown(path);
        assert_eq!(unknown("/v1/events/opne"), Some(UnknownApp::Name("opne".into())));
        assert_eq!(unknown("/v1/events/OPEN/x"), Some(UnknownApp::Name("OPEN".into())));
        assert_eq!(unknown(&format!("/v1/events/shut/{KEY}x")), Some(UnknownApp::Key("shut".into())));
        assert_eq!(unknown(&format!("/v1/events/{KEY}")), Some(UnknownApp::KeyAsName));
        assert_eq!((unknown("/v1/events/"), unknown("/other")), (None, None));
    }

    #[test]
    fn any_name_is_taken_where_none_is_set() {
        let any = Apps::new(&BTreeMap::new());
        assert!(any.owner("/v1/events/whatever").is_ok_and(|app| app.as_str() == "whatever"));
        assert_eq!(any.owner("/v1/events/whatever/key"), Err(Refusal::UnknownApp));
        assert!(any.are_any() && !apps().are_any());
    }

    proptest! {
        #[test]
        fn any_path_has_an_answer_and_no_answer_repeats_it(path in "\\PC{0,40}") {
            if let Err(refusal) = apps().owner(&format!("/v1/events/shut/{path}{KEY}x")) {
                prop_assert!(!refusal.document().contains(KEY));
            }
            let _ = apps().owner(&path);
        }
    }
}
