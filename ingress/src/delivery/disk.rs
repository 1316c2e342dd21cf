//! Writes to the disk log what Kafka does not acknowledge in time, one group after the other.

use std::sync::Arc;

use common::log::Record;

use crate::delivery::dispatcher::{Client, Desk, flag};

/// Writes groups until the desk is closed and nothing is left.
pub fn run(desk: &Desk) {
    let mut failing = false;
    while let Some(group) = desk.next_group() {
        write(desk, group, &mut failing);
    }
}

/// Writes one group, and tells the desk what became of it.
pub fn write<C: Client>(desk: &Desk<C>, group: Vec<(Arc<Record>, bool)>, failing: &mut bool) {
    match desk.log().append_blocking(group.iter().map(copy).collect()) {
        Ok(first) => {
            if std::mem::replace(failing, false) {
                tracing::info!("the disk log takes events again");
            }
            desk.appended(first);
        }
        Err(error) => {
            if !std::mem::replace(failing, true) {
                tracing::error!(
                    %error,
                    "the disk log takes no events: {error}. What Kafka does not acknowledge either is answered 503 and \
                     lost: bring Kafka back, make room where the disk log lies, or raise disk-log-limit"
                );
            }
            desk.not_appended(group);
        }
    }
}

fn copy((record, resent): &(Arc<Record>, bool)) -> Record {
    let mut record = Record::clone(record);
    if *resent {
        flag(&mut record);
    }
    record
}
