//! A disk that takes nothing: reported once, probed until it takes records again.

use std::{io, thread};

use tracing::{error, info};

use super::{AppendError, RETRY_AFTER, Request, Tail, Writer};
use crate::files::is_full;

impl Writer {
    /// Nothing can be written for now. Logs once, and schedules a retry.
    pub(super) fn fail(&mut self, error: io::Error) -> AppendError {
        let dir = self.shared.dir.display();
        let what = if is_full(&error) { "has no room" } else { "failed" };
        if self.failed_at.is_none() {
            error!(%error, "the disk {what} for the disk log in {dir}: {error}. It takes no events until that is mended");
        }
        self.shared.set_fault(Some(format!("the disk {what} for the disk log: {error}")));
        let error = if is_full(&error) { AppendError::Full } else { AppendError::Io(error.into()) };
        self.failed_at = Some((self.shared.files.now(), error.clone()));
        self.probe_later();
        error
    }

    pub(super) fn probe_later(&self) {
        if !self.shared.files.allows_threads() {
            // The simulation probes, too.
            return;
        }
        let requests = self.requests.clone();
        // Without a thread the next append finds out.
        let _ = thread::Builder::new().name("disk-log-probe".into()).spawn(move || {
            thread::sleep(RETRY_AFTER);
            if let Some(requests) = requests.upgrade() {
                // If the queue is full of appends, they find out.
                let _ = requests.try_send(Request::Probe);
            }
        });
    }

    pub(super) fn mended(&mut self) {
        if self.failed_at.take().is_some() && self.short_at.is_none() {
            self.shared.set_fault(None);
            info!("the disk log in {} takes events again", self.shared.dir.display());
        }
    }

    pub(super) fn probe(&mut self) {
        self.check_room();
        if self.failed_at.as_ref().is_none_or(|(at, _)| self.shared.files.since(*at) < RETRY_AFTER) {
            return;
        }
        if self.shared.files.room(&self.shared.dir).is_ok_and(|room| room < self.wanted) {
            self.failed_at = self.failed_at.take().map(|(_, error)| (self.shared.files.now(), error));
            return self.probe_later();
        }
        match self.begin(&mut Tail::default()) {
            Ok(()) => self.mended(),
            Err(error) => _ = self.fail(error),
        }
    }
}
