//! A processor in a process of its own, which damage may end; and what a supervisor does then: start another one.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use processor::metrics::Metrics;
use processor::run::limits::Limits;
use processor::run::recent_events::RecentEvents;
use processor::run::session::{Processor, Timings};
use processor::run::shared::Shared;
use processor::state::{Trusts, watchdog};
use runtime::lifecycle::{Readiness, Stop};

use crate::history::{History, Restored, Seen, logs};

/// Before each answer, to tell it from what the harness of tests prints.
const ANSWER: &str = "answer:";
/// A state is small here: who needs longer hangs.
const HANGS: Duration = Duration::from_secs(120);
/// A supervisor that has to start more processes than this for one state is no help.
const STARTS_MAX: usize = 4;

/// What a processor made of a state.
#[derive(Debug)]
pub struct Answer {
    /// Whether it had to set the state aside.
    pub is_quarantined: bool,
    /// How many processes ended on the way.
    pub ended: usize,
    /// What it came to.
    pub digests: Vec<String>,
}

/// The process, as long as it lives.
#[derive(Default)]
pub struct Worker(Option<Running>);

struct Running {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
}

impl Worker {
    /// Lets a processor begin with the state in `dir`, and another one if that ends it.
    pub fn restore(&mut self, dir: &Path, seed: u64, records: usize) -> Answer {
        for ended in 0..STARTS_MAX {
            let running = self.0.get_or_insert_with(start);
            // A process that has ended is noticed by its silence.
            let _ = writeln!(running.orders, "{seed} {records} {}", dir.display());
            match running.answers.recv_timeout(HANGS) {
                Ok(answer) => {
                    let digests = answer.split_whitespace().map(str::to_owned).collect();
                    let is_quarantined = dir.with_extension("quarantine").exists();
                    return Answer { is_quarantined, ended, digests };
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => self.end(),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.end();
                    panic!("a processor hangs with {}", dir.display());
                }
            }
        }
        panic!("{} ended {STARTS_MAX} processors", dir.display());
    }

    fn end(&mut self) {
        if let Some(mut running) = self.0.take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

fn start() -> Running {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "a_processor_of_its_own", "--ignored", "--nocapture"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started");
    let orders = child.stdin.take().expect("piped");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let (tell, answers) = mpsc::channel();
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if let Some((_, answer)) = line.split_once(ANSWER)
                && tell.send(answer.to_owned()).is_err()
            {
                return;
            }
        }
    });
    Running { child, orders, answers }
}

/// The other side: restores each directory that it is given, until there are no more.
pub fn serve() {
    runtime::abort::on_abort(|_| std::process::exit(1)).expect("a thread");
    let mut histories = HashMap::new();
    for order in std::io::stdin().lines().map_while(Result::ok) {
        let [seed, records, dir] = order.split(' ').collect::<Vec<_>>()[..] else { panic!("{order}") };
        let (seed, records) = (seed.parse().expect("a seed"), records.parse().expect("a number"));
        let history = histories.entry((seed, records)).or_insert_with(|| Arc::new(History::of(seed, records)));
        watchdog::end_with(Path::new(dir));
        println!("{ANSWER}{}", restore(Path::new(dir), history).digests.join(" "));
    }
}

/// As the program does it.
pub fn restore(dir: &Path, history: &Arc<History>) -> Seen {
    let (shared, stop, seen) = (Shared::default(), Stop::default(), Arc::new(Mutex::new(Seen::default())));
    let processor = Processor {
        vouching: None,
        vault: None,
        forwarding: None,
        state_dir: Box::new(dir.to_owned()),
        timings: Timings::default(),
        limits: Limits::default(),
        trusts: Trusts::default(),
        shared: shared.clone(),
        recent_events: RecentEvents::default(),
        metrics: Metrics::new(&runtime::telemetry::registry()),
        stop: stop.clone(),
    };
    let noted = seen.clone();
    let open = move || {
        let (shared, stop, seen) = (shared.clone(), stop.clone(), noted.clone());
        Ok(logs(history, Restored { shared, stop, seen, was_assigned: false }))
    };
    processor.run(open, Readiness::default().pending("facts")).expect("an orderly end");
    let seen = seen.lock().expect("not poisoned");
    seen.clone()
}
