//! The size and the free room of a disk log, read at collection.

use disk_log::DiskLog;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Registry};

pub struct LogGauges {
    log: DiskLog,
    bytes: IntGauge,
    room_bytes: IntGauge,
    up: IntGauge,
}

impl LogGauges {
    pub fn register(registry: &Registry, log: DiskLog) {
        let whole = |name: &str, help: &str| IntGauge::new(name, help).expect("names in the code are valid");
        let gauges = Self {
            log,
            bytes: whole("disk_log_bytes", "Bytes of the disk log."),
            room_bytes: whole(
                "disk_log_room_bytes",
                "Bytes that the disk log can still take, by its limit and its disk.",
            ),
            up: whole("disk_log_up", "Whether events can be written to the disk log."),
        };
        registry.register(Box::new(gauges)).expect("each metric is registered once");
    }
}

impl Collector for LogGauges {
    fn desc(&self) -> Vec<&Desc> {
        [self.bytes.desc(), self.room_bytes.desc(), self.up.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.bytes.set(whole(self.log.bytes()));
        self.room_bytes.set(whole(self.log.room().unwrap_or(0)));
        self.up.set(i64::from(self.log.fault().is_none()));
        [self.bytes.collect(), self.room_bytes.collect(), self.up.collect()].concat()
    }
}
