//! The same cells in the simulator: its predictions beside what kernels do, and a lab for those
//! without root.
//!
//! Paths, load and events are translated, the run's trace becomes the notes that load and sink
//! would have made, and the figures are computed from those as usual. What differs: every echo is a
//! separate stream, transfers begin at fixed times, and only the core and its lanes are modelled
//! (no TLS, no CPU).

use imux_sim::options::{Congestion, Fault, FaultKind, HalfPlan, Options, PathOptions, StreamPlan};
use imux_sim::oracle::stream::Truth;
use imux_sim::world::{self, CLIENT, NAMES, Outcome};

use super::cell::{Action, Cell, Event};
use super::clock::NS_PER_MS;
use super::emu::{Change, Counters};
use super::error::LabError;
use super::flow::Flow;
use super::load::{Direction, Job, JobReport, LoadReport};
use super::measure::Notes;
use super::result::RunResult;
use super::sink::SinkReport;
use super::topology::{PAYLOAD_SHARE, PathSpec};
use super::workload::ideal_ms;

/// The load starts this long after the lanes are dialled, when handshakes over the longest paths
/// are through.
const LEAD_MS: u64 = 1500;
/// Size of a request for a download.
const REQUEST_BYTES: u64 = 32;
/// Consecutive transfers get this many times their ideal time.
const TRANSFER_ROOM: f64 = 4.0;

/// Runs `cell` with `lanes` per path.
///
/// # Errors
/// The simulator does not know the congestion control, or the cell throttles connections.
pub fn run(cell: &Cell, lanes: u16, congestion: &str, seed: u64) -> Result<RunResult, LabError> {
    if cell.paths.iter().any(|path| path.throttle_mbit.is_some()) {
        let cause = "the simulator's paths do not throttle single connections";
        return Err(LabError::Run(cause.to_owned()));
    }
    let plans = Plans::of(cell);
    let options = options(cell, &plans, lanes, control(congestion)?);
    let outcome = world::run(&options, seed, true);
    let (load, sink) = plans.notes(&outcome);
    let start_ns = LEAD_MS * NS_PER_MS;
    let notes = Notes { cell, start_ns, load: &load, sink: &sink };
    let given_up = outcome.counts.get("lane timed out").copied().unwrap_or(0);
    let figures = notes.figures().into_iter().chain(cell.of_bulk("given_up", given_up as f64));
    Ok(RunResult {
        figures: figures.filter(|(_, v)| v.is_finite()).collect(),
        faults: notes.faults().into_iter().chain(outcome.failure).collect(),
        processes: Vec::new(),
        links: Counters::default(),
        timeline: notes.timeline(),
        seed,
    })
}

fn control(congestion: &str) -> Result<Congestion, LabError> {
    match congestion {
        "bbr" => Ok(Congestion::Bbr),
        "cubic" => Ok(Congestion::Cubic),
        _ => Err(LabError::Usage(format!(
            "the simulator has no congestion control `{congestion}`; it has bbr and cubic"
        ))),
    }
}

fn options(cell: &Cell, plans: &Plans, lanes: u16, control: Congestion) -> Options {
    let stop_ms = (LEAD_MS + cell.deadline_ms()) as f64;
    let path = |path: &PathSpec| PathOptions {
        mbit: [path.mbit * PAYLOAD_SHARE; 2],
        delay_ms: [path.rtt_ms / 2.0; 2],
        queue_bytes: path.queue_kb * 1e3,
        loss: path.loss_pct / 100.0,
        lanes: lanes.into(),
        express: true,
        control,
        ..PathOptions::default()
    };
    Options {
        name: cell.name.clone(),
        paths: cell.paths.iter().map(path).collect(),
        streams: plans.streams.clone(),
        faults: cell.events.iter().flat_map(|event| faults(cell, *event, lanes, stop_ms)).collect(),
        faults_end_ms: stop_ms,
        stop_ms,
        ..Options::default()
    }
}

fn faults(cell: &Cell, event: Event, lanes: u16, stop_ms: f64) -> Vec<Fault> {
    let at_ms = (LEAD_MS + event.at_ms) as f64;
    let fault = |kind| Fault { at_ms, path: event.path, kind };
    let each_lane = |kind: FaultKind| vec![fault(kind); usize::from(lanes) + 1];
    // Until the event that ends it, which is not a fault of its own.
    let down = |ends: Action| {
        let after = |e: &&Event| e.at_ms > event.at_ms && e.path == event.path && e.action == ends;
        let back = cell.events.iter().find(after);
        let until_ms = back.map_or(stop_ms, |back| (LEAD_MS + back.at_ms) as f64);
        fault(FaultKind::Down { for_ms: until_ms - at_ms })
    };
    match event.action {
        Action::Link(Change::Rate(bps)) => {
            vec![fault(FaultKind::Rate { mbit: bps / 1e6 * PAYLOAD_SHARE })]
        }
        Action::Link(Change::Delay(delay_ms)) => vec![fault(FaultKind::Delay { delay_ms })],
        Action::Link(Change::Loss(loss)) => vec![fault(FaultKind::Loss { loss })],
        Action::Link(Change::Reset) => each_lane(FaultKind::Reset),
        Action::Link(Change::Silent(true)) => vec![down(Action::Link(Change::Silent(false)))],
        Action::Interface(false) => {
            let mut faults = each_lane(FaultKind::ResetOneEnd { server: false, told: false });
            faults.push(down(Action::Interface(true)));
            faults
        }
        Action::Link(Change::Silent(false)) | Action::Interface(true) => Vec::new(),
    }
}

/// The streams of a cell, and what each is for.
struct Plans {
    streams: Vec<StreamPlan>,
    /// By stream: the step, and which half carries the measured data.
    uses: Vec<Use>,
    jobs: Vec<Job>,
}

#[derive(Clone, Copy)]
struct Use {
    step: usize,
    measured: usize,
}

impl Plans {
    fn of(cell: &Cell) -> Self {
        let jobs = cell.steps.iter().map(|step| step.job.clone()).collect();
        let mut plans = Self { streams: Vec::new(), uses: Vec::new(), jobs };
        for (step, each) in cell.steps.iter().enumerate() {
            plans.add(cell, step, &each.job);
        }
        plans
    }

    fn add(&mut self, cell: &Cell, step: usize, job: &Job) {
        match *job {
            Job::Bulk { direction, streams, at_ms, duration_ms, .. } => {
                // More than the paths can carry: time ends it.
                let bytes = (most(cell) * duration_ms as f64 / 1e3) as u64;
                let until_ms = (LEAD_MS + at_ms + duration_ms) as f64;
                for _ in 0..streams {
                    let payload = HalfPlan { bytes, until_ms, ..HalfPlan::default() };
                    self.transfer(step, direction, payload, at_ms);
                }
            }
            Job::Transfer { direction, bytes, count, parallel, at_ms, pause_ms } => {
                let room = ideal_ms(bytes * u64::from(parallel), &cell.paths) * TRANSFER_ROOM;
                for round in 0..u64::from(count) {
                    let at_ms = at_ms + round * (pause_ms + room as u64);
                    for _ in 0..parallel {
                        let payload = HalfPlan { bytes, ..HalfPlan::default() };
                        self.transfer(step, direction, payload, at_ms);
                    }
                }
            }
            Job::Echo { bytes, interval_ms, at_ms, duration_ms } => {
                for round in 0..duration_ms / interval_ms.max(1) {
                    self.echo(step, bytes as u64, at_ms + round * interval_ms);
                }
            }
            Job::Setup { count, at_ms, pause_ms } => {
                let longest = cell.paths.iter().map(|path| path.rtt_ms).fold(0.0, f64::max);
                for round in 0..u64::from(count) {
                    self.echo(step, 1, at_ms + round * (pause_ms + 2 * longest as u64));
                }
            }
        }
    }

    fn transfer(&mut self, step: usize, direction: Direction, payload: HalfPlan, at_ms: u64) {
        match direction {
            Direction::Up => self.push(step, 0, at_ms, [payload, HalfPlan::default()]),
            Direction::Down => {
                let request = HalfPlan { bytes: REQUEST_BYTES, ..HalfPlan::default() };
                let answer = HalfPlan { after_bytes: REQUEST_BYTES, ..payload };
                self.push(step, 1, at_ms, [request, answer]);
            }
        }
    }

    fn echo(&mut self, step: usize, bytes: u64, at_ms: u64) {
        let question = HalfPlan { bytes, ..HalfPlan::default() };
        let answer = HalfPlan { after_bytes: bytes, ..question.clone() };
        self.push(step, 1, at_ms, [question, answer]);
    }

    fn push(&mut self, step: usize, measured: usize, at_ms: u64, halves: [HalfPlan; 2]) {
        let at_ms = (LEAD_MS + at_ms) as f64;
        self.streams.push(StreamPlan { at_ms, halves, ..StreamPlan::default() });
        self.uses.push(Use { step, measured });
    }

    /// The notes load and sink would have made.
    fn notes(&self, outcome: &Outcome) -> (LoadReport, SinkReport) {
        let mut flows: Vec<Flow> = (0u64..)
            .zip(&self.streams)
            .map(|(tag, plan)| Flow::new(tag, (plan.at_ms * NS_PER_MS as f64) as u64))
            .collect();
        for record in outcome.trace.records().iter().filter(|record| record.what == "read") {
            let stream = record.id as usize;
            // The client opens all streams: it reads their second halves.
            let half = usize::from(record.end == NAMES[CLIENT]);
            if half == self.uses[stream].measured {
                flows[stream].arrived(record.t, record.b as usize);
            }
        }
        let mut load = LoadReport { jobs: vec![JobReport::default(); self.jobs.len()] };
        for (stream, flow) in flows.iter_mut().enumerate() {
            let Use { step, measured } = self.uses[stream];
            flow.sent = outcome.truths[stream][measured].written;
            let report = &mut load.jobs[step];
            report.begun += 1;
            report.flows.push(flow.clone());
            let plan = &self.streams[stream];
            if outcome.truths[stream][measured].read >= plan.halves[measured].bytes {
                report.times_ms.push(time_ms(plan, &outcome.truths[stream][measured]));
            }
        }
        (load, SinkReport { flows, strays: Vec::new() })
    }
}

fn time_ms(plan: &StreamPlan, truth: &Truth) -> f64 {
    truth.last_read.unwrap_or(0) as f64 / NS_PER_MS as f64 - plan.at_ms
}

/// Payload bytes a second of all paths at their peak.
fn most(cell: &Cell) -> f64 {
    let raised = cell.events.iter().filter_map(|event| match event.action {
        Action::Link(Change::Rate(bps)) => Some(bps / 8.0),
        _ => None,
    });
    cell.capacity() + raised.sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios::by_name;

    fn figures(name: &str) -> std::collections::BTreeMap<String, f64> {
        let cell = by_name(name).unwrap();
        let result = run(&cell, 1, "bbr", 1).unwrap();
        assert_eq!(result.faults, Vec::<String>::new(), "{name}");
        result.figures
    }

    #[test]
    fn bulk_both_ways() {
        for (name, figure) in [("equal-down", "down.share"), ("equal-up", "up.share")] {
            let share = figures(name)[figure];
            assert!((0.9..=1.0).contains(&share), "{name}: {share}");
        }
    }

    #[test]
    fn a_death_and_what_comes_after() {
        let figures = figures("death");
        assert!((20.0..200.0).contains(&figures["down.gap"]), "{figures:?}");
        assert!((0.9..1.02).contains(&figures["down.share_after"]), "{figures:?}");
        assert_eq!(figures["down.undelivered"], 0.0);
    }

    #[test]
    fn a_slow_link_is_filled_and_no_lane_of_it_is_given_up() {
        for cell in crate::slow::cells() {
            for (control, lanes) in [("bbr", 1), ("bbr", 4), ("cubic", 1), ("cubic", 4)] {
                let result = run(&cell, lanes, control, 1).unwrap();
                let told = format!("{} {control} {lanes}: {:?}", cell.name, result.figures);
                assert_eq!(result.faults, Vec::<String>::new(), "{told}");
                assert_eq!(result.figures["down.given_up"], 0.0, "{told}");
                assert!(result.figures["down.share"] > 0.6, "{told}");
                // If the queue holds what is in flight, nothing urgent waits for more than that.
                let short = cell.name.ends_with("short");
                assert!(short || result.figures["echo.p50"] < 1_300.0, "{told}");
            }
        }
    }

    #[test]
    fn echoes_and_transfers() {
        let echo = figures("echo-idle");
        assert!((20.0..22.0).contains(&echo["echo.p50"]), "{echo:?}");
        assert_eq!(echo["echo.missing"], 0.0);
        let transfers = figures("xfer-1m-equal");
        assert!((1.0..1.5).contains(&transfers["down.ratio"]), "{transfers:?}");
        assert_eq!(transfers["up.failed"], 0.0);
    }

    #[test]
    fn a_path_that_throttles_connections_is_not_simulated_as_if_it_did_not() {
        let cell = crate::scenarios::by_name("throttled-down").unwrap();
        assert!(matches!(run(&cell, 1, "bbr", 1), Err(LabError::Run(_))));
    }

    #[test]
    fn every_cell_can_be_simulated() {
        for cell in crate::scenarios::all() {
            let plans = Plans::of(&cell);
            assert_eq!(plans.streams.len(), plans.uses.len());
            let options = options(&cell, &plans, 1, Congestion::Cubic);
            assert!(options.streams.iter().all(|s| s.at_ms < options.stop_ms), "{}", cell.name);
            let back = |e: &&Event| {
                matches!(e.action, Action::Interface(true) | Action::Link(Change::Silent(false)))
            };
            let ends = cell.events.iter().filter(back).count();
            assert!(options.faults.len() >= cell.events.len() - ends, "{}", cell.name);
        }
        assert_eq!(control("reno").unwrap_err().exit_code(), 2);
    }
}
