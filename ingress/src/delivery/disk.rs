//! Writes to the disk log what Kafka does not acknowledge in time, one group after the other.

use std::sync::Arc;

use event_log::Record;

use crate::delivery::dispatcher::{Client, Dispatcher};
use crate::delivery::state::{Group, Input, flag};

pub fn run(dispatcher: &Dispatcher) {
    let mut failing = false;
    while let Some(group) = dispatcher.next_group() {
        write(dispatcher, group, &mut failing);
    }
}

/// Writes one group and passes the result to the dispatcher.
pub fn write<C: Client>(dispatcher: &Dispatcher<C>, group: Group, failing: &mut bool) {
    match dispatcher.log().append_blocking(group.iter().map(copy).collect()) {
        Ok(first) => {
            if std::mem::replace(failing, false) {
                tracing::info!("the disk log takes events again");
            }
            dispatcher.handle([Input::Appended { first }]);
        }
        Err(error) => {
            if !std::mem::replace(failing, true) {
                tracing::error!(
                    %error,
                    "the disk log takes no events: {error}. What Kafka does not acknowledge either is answered 503 and \
                     lost: bring Kafka back, make room where the disk log lies, or raise disk-log-limit"
                );
            }
            dispatcher.handle([Input::NotAppended(group)]);
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
