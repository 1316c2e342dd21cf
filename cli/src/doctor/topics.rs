//! Kafka: whether it answers, and whether its topics keep what is promised.

use std::time::Duration;

use runtime::settings::KafkaSettings;

use super::report::Report;

const KAFKA: &str = "kafka";
const WAIT_MAX: Duration = Duration::from_secs(10);

pub fn check(settings: Option<&KafkaSettings>, report: &mut Report) {
    let Some(settings) = settings else {
        report.skipped(KAFKA, "the standalone form has none");
        return;
    };
    if let Err(error) = kafka_log::check(settings) {
        report.fault(KAFKA, error.to_string(), "correct kafka-set");
        return;
    }
    match kafka_log::inspect(settings, WAIT_MAX) {
        Err(error) => {
            let remedy = "see that the brokers run and that their advertised names can be reached from here";
            report.fault(KAFKA, format!("{} does not answer: {error:#}", settings.servers), remedy);
        }
        Ok(found) => {
            let is_sound = found.faults.is_empty();
            for fault in found.faults {
                let (what, remedy) = fault.split_once(": ").unwrap_or((&fault, ""));
                report.fault(KAFKA, what, remedy);
            }
            found.notes.into_iter().for_each(|note| report.note(KAFKA, note));
            if is_sound && found.brokers == 1 {
                report.note(KAFKA, "one broker: what it acknowledged may be lost with its disk or power");
            }
            if is_sound {
                report.sound(KAFKA, format!("{} answers, its topics keep what is promised", settings.servers));
            }
        }
    }
}
