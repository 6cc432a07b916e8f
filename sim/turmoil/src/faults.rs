//! What is done to the simulated network, and when.

use std::collections::BTreeMap;

use tokio::sync::watch;
use turmoil::Sim;

use crate::book::Book;
use crate::plan::{FaultKind, Plan};
use crate::relay::{Mood, SERVER};

/// The client's name in the simulated network.
pub const CLIENT: &str = "client";

/// A relay's name in the simulated network.
#[must_use]
pub fn relay(path: usize) -> String {
    format!("relay-{path}")
}

/// One step of what goes wrong, or of its end.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin(FaultKind),
    Hold {
        path: usize,
        leg: usize,
    },
    Release {
        path: usize,
        leg: usize,
    },
    Crash {
        path: usize,
    },
    Bounce {
        path: usize,
    },
    CrashServer,
    BounceServer,
    Unstall {
        path: usize,
        direction: usize,
    },
    /// From here on nothing new goes wrong.
    Calm,
}

/// All that goes wrong in a run.
#[derive(Debug)]
pub struct Faults {
    /// By time, in milliseconds; latest first.
    steps: Vec<(u64, Step)>,
    moods: Vec<watch::Sender<Mood>>,
    /// How many faults hold a leg of a path.
    held: BTreeMap<(usize, usize), u64>,
    stalled: BTreeMap<(usize, usize), u64>,
    /// How many faults keep a relay down, and the server.
    down: BTreeMap<usize, u64>,
    server_down: u64,
}

impl Faults {
    /// The faults of a plan, on relays of these moods.
    #[must_use]
    pub fn new(plan: &Plan, moods: Vec<watch::Sender<Mood>>) -> Self {
        let mut steps = Vec::new();
        for fault in &plan.faults {
            let end = |for_ms: u64| (fault.at_ms + for_ms).min(plan.faults_end_ms);
            steps.push((fault.at_ms, Step::Begin(fault.kind)));
            // What is held back when its host dies is heard of later; what is not, at once.
            let mut silence = |path: usize, leg: usize, until: u64| {
                steps.push((fault.at_ms, Step::Hold { path, leg }));
                steps.push((until, Step::Release { path, leg }));
            };
            match fault.kind {
                FaultKind::Hold { path, leg, for_ms } => silence(path, leg, end(for_ms)),
                FaultKind::Outage { for_ms } => {
                    (0..plan.paths.len()).for_each(|path| silence(path, 0, end(for_ms)));
                }
                FaultKind::Crash { path, for_ms, silent } => {
                    if silent {
                        silence(path, 0, end(for_ms));
                        silence(path, 1, end(for_ms));
                    }
                    steps.push((fault.at_ms, Step::Crash { path }));
                    steps.push((end(for_ms), Step::Bounce { path }));
                }
                FaultKind::Restart { for_ms, silent } => {
                    if silent {
                        (0..plan.paths.len()).for_each(|path| silence(path, 1, end(for_ms)));
                    }
                    steps.push((fault.at_ms, Step::CrashServer));
                    steps.push((end(for_ms), Step::BounceServer));
                }
                FaultKind::Stall { path, direction, for_ms } => {
                    steps.push((end(for_ms), Step::Unstall { path, direction }));
                }
                _ => {}
            }
        }
        steps.push((plan.faults_end_ms, Step::Calm));
        // Those of one time stay in their order.
        steps.sort_by_key(|(at, _)| *at);
        steps.reverse();
        let (held, stalled, down) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { steps, moods, held, stalled, down, server_down: 0 }
    }

    /// Does what is due.
    pub fn step(&mut self, sim: &mut Sim<'_>, book: &Book) {
        let now_ms = sim.elapsed().as_millis() as u64;
        while let Some((_, step)) = self.steps.pop_if(|(at, _)| *at <= now_ms) {
            self.act(step, sim, book);
        }
    }

    fn act(&mut self, step: Step, sim: &mut Sim<'_>, book: &Book) {
        match step {
            Step::Begin(kind) => {
                let now = sim.elapsed().as_nanos() as u64;
                book.note_at(now, kind.name(), "net", 0, 0, 0);
                self.begin(kind, sim);
            }
            Step::Hold { path, leg } => {
                *self.held.entry((path, leg)).or_default() += 1;
                sim.hold(relay(path), end_of(leg));
            }
            Step::Release { path, leg } => {
                if last(self.held.get_mut(&(path, leg))) {
                    sim.release(relay(path), end_of(leg));
                }
            }
            Step::Crash { path } => {
                *self.down.entry(path).or_default() += 1;
                sim.crash(relay(path));
            }
            Step::Bounce { path } => {
                if last(self.down.get_mut(&path)) {
                    sim.bounce(relay(path));
                }
            }
            Step::CrashServer => {
                self.server_down += 1;
                if self.server_down == 1 {
                    sim.crash(SERVER);
                    book.restarted();
                }
            }
            Step::BounceServer => {
                if last(Some(&mut self.server_down)) {
                    sim.bounce(SERVER);
                }
            }
            Step::Calm => self.moods.iter().for_each(|mood| mood.send_modify(Mood::calm)),
            Step::Unstall { path, direction } => {
                if last(self.stalled.get_mut(&(path, direction))) {
                    self.moods[path].send_modify(|mood| mood.stalled[direction] = false);
                }
            }
        }
    }

    /// What a fault does at once.
    fn begin(&mut self, kind: FaultKind, sim: &mut Sim<'_>) {
        match kind {
            FaultKind::Reset { path } => self.moods[path].send_modify(|mood| mood.resets += 1),
            FaultKind::Cut { path } => self.moods[path].send_modify(|mood| mood.cuts += 1),
            FaultKind::HalfClose { path, direction } => {
                self.moods[path].send_modify(|mood| mood.half_closes[direction] += 1);
            }
            FaultKind::Swallow { path, directions } => self.moods[path].send_modify(|mood| {
                for (count, swallowed) in mood.swallows.iter_mut().zip(directions) {
                    *count += u64::from(swallowed);
                }
            }),
            FaultKind::Stall { path, direction, .. } => {
                *self.stalled.entry((path, direction)).or_default() += 1;
                self.moods[path].send_modify(|mood| mood.stalled[direction] = true);
            }
            FaultKind::Corrupt { path, direction } => {
                self.moods[path].send_modify(|mood| mood.corruptions[direction] += 1);
            }
            FaultKind::Rate { path, mbit } => self.moods[path].send_modify(|mood| mood.mbit = mbit),
            FaultKind::Latency { path, ms } => {
                let latency = std::time::Duration::from_millis(ms);
                sim.set_link_latency(relay(path), CLIENT, latency);
                sim.set_link_latency(relay(path), SERVER, latency);
            }
            FaultKind::Hold { .. }
            | FaultKind::Outage { .. }
            | FaultKind::Crash { .. }
            | FaultKind::Restart { .. } => {}
        }
    }
}

/// The other end of a relay's leg.
const fn end_of(leg: usize) -> &'static str {
    if leg == 0 { CLIENT } else { SERVER }
}

/// One fault less does this; whether it was the last.
fn last(count: Option<&mut u64>) -> bool {
    count.is_some_and(|count| {
        *count = count.saturating_sub(1);
        *count == 0
    })
}
