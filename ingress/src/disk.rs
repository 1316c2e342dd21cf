//! Writes to the disk log what Kafka does not acknowledge in time, one group after the other.

use std::sync::Arc;

use common::log::Record;

use crate::desk::{Desk, flag};

/// Writes groups until the desk is closed and nothing is left.
pub fn run(desk: &Desk) {
    let mut failing = false;
    while let Some(group) = desk.next_group() {
        match desk.log().append_blocking(group.iter().map(copy).collect()) {
            Ok(first) => {
                if failing {
                    tracing::info!("the disk log takes events again");
                }
                failing = false;
                desk.appended(first);
            }
            Err(error) => {
                if !failing {
                    tracing::error!(
                        %error,
                        "the disk log takes no events: {error}. What Kafka does not acknowledge either is answered 503 and \
                         lost: bring Kafka back, make room where the disk log lies, or raise disk-log-limit"
                    );
                }
                failing = true;
                desk.not_appended(group);
            }
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
