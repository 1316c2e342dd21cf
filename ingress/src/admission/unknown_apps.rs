//! The names of unknown apps to which webhooks were sent: most often a typing error in a handler's URL.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use primitives::time::Timestamp;

/// Anyone can make up names. Beyond this number the one with the fewest webhooks gives way.
const NAMES_MAX: usize = 50;
const NAME_CHARS_MAX: usize = 64;

/// Why a webhook has no app, without anything of its URL that may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnknownApp {
    /// No app has this name.
    Name(String),
    /// The app has this name, but another path key.
    Key(String),
    /// A path key stands where the name should be.
    KeyAsName,
}

impl UnknownApp {
    /// Control and format characters, and all beyond ASCII, are replaced.
    pub(crate) fn name(text: &str) -> Self {
        let shown = |letter: char| if letter.is_ascii_graphic() { letter } else { '?' };
        Self::Name(text.chars().take(NAME_CHARS_MAX).map(shown).collect())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub count: u64,
    pub last: Timestamp,
}

/// Of this process, since its start. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct UnknownApps(Arc<Mutex<BTreeMap<UnknownApp, Refused>>>);

impl UnknownApps {
    pub fn add(&self, app: UnknownApp, now: Timestamp) {
        let mut known = self.known();
        if let Some(refused) = known.get_mut(&app) {
            *refused = Refused { count: refused.count + 1, last: now };
            return;
        }
        if known.len() >= NAMES_MAX {
            let rarest = known.iter().min_by_key(|(_, refused)| (refused.count, refused.last));
            let rarest = rarest.map(|(app, _)| app.clone());
            rarest.and_then(|app| known.remove(&app));
        } else {
            // At most one line for each place, whatever a stranger sends.
            match &app {
                UnknownApp::Name(name) => tracing::warn!(%name, "a webhook for an unknown app was refused: {name}"),
                UnknownApp::Key(name) => tracing::warn!(%name, "a webhook without the path key of {name} was refused"),
                UnknownApp::KeyAsName => tracing::warn!("a webhook with a path key in place of an app was refused"),
            }
        }
        known.insert(app, Refused { count: 1, last: now });
    }

    /// The most frequent first.
    pub fn list(&self) -> Vec<(UnknownApp, Refused)> {
        let mut list: Vec<_> = self.known().iter().map(|(app, refused)| (app.clone(), *refused)).collect();
        list.sort_by_key(|(_, refused)| std::cmp::Reverse(refused.count));
        list
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<UnknownApp, Refused>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_s(second)
    }

    #[test]
    fn a_name_that_comes_again_outlasts_made_up_ones() {
        let apps = UnknownApps::default();
        apps.add(UnknownApp::name("crm-snyc"), at(1));
        apps.add(UnknownApp::name("crm-snyc"), at(2));
        (0..1_000).for_each(|number| apps.add(UnknownApp::name(&format!("made-up-{number}")), at(3)));
        let list = apps.list();
        assert_eq!(list.len(), NAMES_MAX);
        assert_eq!(list[0], (UnknownApp::Name("crm-snyc".into()), Refused { count: 2, last: at(2) }));
    }

    #[test]
    fn a_name_is_short_and_harmless() {
        let UnknownApp::Name(name) = UnknownApp::name(&"\u{202e}a\n".repeat(100)) else { panic!("a name") };
        assert_eq!((name.len(), &name[..6]), (NAME_CHARS_MAX, "?a??a?"));
    }
}
