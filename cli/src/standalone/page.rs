//! What the page shows of ingress, which is in the same process here.

use std::sync::Arc;

use disk_log::DiskLog;
use ingress::Webhooks;
use ingress::admission::unknown_apps::{UnknownApp, UnknownApps};
use processor::surroundings::{Ingress, Surroundings, UnknownApp as Shown};

/// Names of the table; more are not shown.
const APPS_MAX: usize = 20;

pub fn surroundings(webhooks: &Webhooks, unknown: UnknownApps, log: DiskLog) -> Surroundings {
    let apps: Vec<String> = webhooks.apps.keys().take(APPS_MAX).map(ToString::to_string).collect();
    let ingress = move || Ingress {
        unknown_apps: unknown
            .list()
            .into_iter()
            .map(|(app, refused)| shown(&app, refused.count, refused.last))
            .collect(),
        apps: apps.clone(),
        log_bytes: log.bytes(),
        log_room: log.room().ok(),
        log_fault: log.fault(),
    };
    Surroundings { ingress: Some(Arc::new(ingress)), ..Surroundings::default() }
}

fn shown(app: &UnknownApp, count: u64, last: primitives::time::Timestamp) -> Shown {
    let what = match app {
        UnknownApp::Name(name) => name.clone(),
        UnknownApp::Key(name) => format!("{name}, with a missing or wrong path key"),
        UnknownApp::KeyAsName => "a path key in place of the app's name".to_owned(),
    };
    Shown { what, count, last }
}
