//! A schedule of ingress alone: events and faults from one seed.

use bytes::Bytes;
use event_log::Record;
use event_log::contract::header;
use fastrand::Rng;
use primitives::time::Timestamp;

use super::company::{Company, LARGE_BYTES};
use super::judge::Counts;
use super::mutation::Mutation;
use crate::seeds::Outcome;

const BEGIN_MS: u64 = 1_800_000_000_000;
/// Enough rounds to come to rest.
const ROUNDS_MAX: u64 = 3_000;
const ROUND_MS: u64 = 200;

pub fn run(seed: u64, mutation: Option<Mutation>, traced: bool) -> Outcome<Counts> {
    let mut random = Rng::with_seed(seed);
    let partitions = random.u32(1..=3);
    let company = Company::new(random.fork(), partitions, BEGIN_MS, mutation, traced);
    let (portals, ms_max) = (random.u32(1..=5), if random.bool() { 3 } else { 20 });
    let mut schedule = Schedule { company, random, portals, ms_max, events: 0 };
    let run = schedule.play();
    let (counts, violation, trace) = schedule.company.end();
    Outcome { counts, violation: run.err().or(violation), trace }
}

struct Schedule {
    company: Company,
    random: Rng,
    portals: u32,
    /// The longest step: at slow times, Kafka responds within the deadline.
    ms_max: u64,
    events: u64,
}

impl Schedule {
    fn play(&mut self) -> Result<(), String> {
        for _ in 0..self.random.u32(200..1_100) {
            if self.random.u32(..25) == 0 {
                for _ in 0..self.random.u32(1..5) {
                    let event = self.event();
                    self.company.take(event);
                }
            }
            self.company.act()?;
            let ms = self.random.u64(..self.ms_max);
            self.company.stage().lock().pass(ms);
            self.company.fresh();
        }
        self.rest()
    }

    fn rest(&mut self) -> Result<(), String> {
        self.company.stage().lock().note(|| "rest".to_owned());
        for _ in 0..ROUNDS_MAX {
            self.company.rest()?;
            self.company.stage().lock().pass(ROUND_MS);
            self.company.fresh();
            if self.company.is_at_rest() {
                return self.company.conclude();
            }
        }
        Err(format!("I8: no rest: {}", self.company.state()))
    }

    fn event(&mut self) -> Record {
        self.events += 1;
        let key = (self.random.u32(..15) > 0).then(|| format!("app/m{}", self.random.u32(..self.portals)));
        let bytes = if self.random.u32(..12) == 0 { LARGE_BYTES } else { self.random.usize(..200) };
        let value: Vec<u8> = (0..bytes).map(|_| self.random.u8(1..)).collect();
        let headers = vec![(header::ID.into(), self.events.to_string().into_bytes())];
        let now_ms = self.company.stage().lock().now_ms;
        Record { key, value: Some(Bytes::from(value)), headers, at: Timestamp::from_ms(now_ms) }
    }
}
