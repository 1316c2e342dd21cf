//! What is done to Kafka, and to the way there, while webhooks are sent.

use std::time::{Duration, Instant};

use super::sender::Senders;
use crate::guard::signal;
use crate::kafka::Broker;
use crate::process::Process;
use crate::proxy::Proxy;
use crate::random::{Rng, milliseconds};

/// By when webhooks are answered, whatever is broken.
const GOES_ON_WITHIN: Duration = Duration::from_secs(60);

/// During each fault at least so many webhooks are answered.
const DURING: u64 = 200;

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The broker stands still.
    Frozen,
    /// The broker stands still again and again, for moments.
    Stuttering,
    /// The broker is killed and comes back later.
    Killed,
    /// All that is said to the broker and by it comes late.
    Delayed,
    /// Few bytes in a second come through.
    Narrow,
    /// The connections are cut in the middle of messages, again and again.
    Cut,
    /// What is said to the broker comes later, or never: then the connection is cut.
    Deaf,
    /// No client can connect.
    Refusing,
    /// The broker takes records and answers that it may not have done so.
    Error,
    /// Ingress itself stands still.
    IngressFrozen,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Frozen,
        Self::Stuttering,
        Self::Killed,
        Self::Delayed,
        Self::Narrow,
        Self::Cut,
        Self::Deaf,
        Self::Refusing,
        Self::Error,
        Self::IngressFrozen,
    ];
}

/// Everything that faults are done to.
pub struct Stage<'a> {
    /// The broker.
    pub broker: &'a mut Broker,
    /// What is in front of it for ingress.
    pub proxy: &'a Proxy,
    /// Ingress.
    pub ingress: &'a Process,
    /// Who is to be answered all the while.
    pub senders: &'a Senders,
}

impl Stage<'_> {
    /// Does it, and ends it.
    pub fn play(&mut self, fault: Fault, random: &mut Rng) {
        match fault {
            Fault::Frozen => {
                self.broker.freeze();
                self.lasts(milliseconds(random, 300..=4_000));
                self.broker.thaw();
            }
            Fault::Stuttering => self.stutter(random),
            Fault::Killed => {
                self.broker.kill();
                self.lasts(milliseconds(random, 0..=3_000));
                self.broker.restart();
            }
            Fault::Delayed => {
                self.proxy.delay(milliseconds(random, 20..=900));
                self.lasts(milliseconds(random, 1_000..=4_000));
                self.proxy.delay(Duration::ZERO);
            }
            Fault::Narrow => {
                self.proxy.narrow(20_000 + random.u64(..400_000));
                self.lasts(milliseconds(random, 1_000..=4_000));
                self.proxy.narrow(0);
            }
            Fault::Cut => {
                for _ in 0..=random.u64(..8) {
                    self.proxy.cut();
                    self.lasts(milliseconds(random, 0..=700));
                }
            }
            Fault::Deaf => {
                self.proxy.deaf(true);
                self.lasts(milliseconds(random, 300..=3_000));
                if random.bool() {
                    self.proxy.cut();
                }
                self.proxy.deaf(false);
            }
            Fault::Refusing => {
                self.proxy.refuse(true);
                self.proxy.cut();
                self.lasts(milliseconds(random, 300..=3_000));
                self.proxy.refuse(false);
            }
            Fault::Error => {
                let before = self.proxy.lies();
                self.proxy.lie(true);
                self.lasts(milliseconds(random, 300..=3_000));
                self.proxy.lie(false);
                assert!(self.proxy.lies() > before, "no answer of the broker was an error");
            }
            Fault::IngressFrozen => {
                signal(self.ingress.pid(), "STOP").expect("freeze ingress");
                std::thread::sleep(milliseconds(random, 50..=1_500));
                signal(self.ingress.pid(), "CONT").expect("thaw ingress");
            }
        }
    }

    fn stutter(&self, random: &mut Rng) {
        let end = Instant::now() + milliseconds(random, 1_000..=4_000);
        while Instant::now() < end {
            self.broker.freeze();
            std::thread::sleep(milliseconds(random, 20..=500));
            self.broker.thaw();
            std::thread::sleep(milliseconds(random, 5..=200));
        }
    }

    /// A fault lasts so long, and until some webhooks were answered all the same.
    fn lasts(&self, time: Duration) {
        let start = Instant::now();
        self.senders.goes_on(DURING, GOES_ON_WITHIN);
        std::thread::sleep(time.saturating_sub(start.elapsed()));
    }
}
