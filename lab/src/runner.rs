//! One run: a cell, a contender and a fresh topology, from set-up to figures.

use std::time::Duration;

use super::cell::{Action, Cell, Event};
use super::clock::{self, NS_PER_MS, now_ns};
use super::error::LabError;
use super::load::{LoadReport, Plan};
use super::measure::Notes;
use super::peers::{Peer, Programs, SINK_PORT};
use super::proc::{Helper, Process, Usage};
use super::result::{Kept, ProcessUsage, RunResult};
use super::scratch::Scratch;
use super::simulated;
use super::sink::SinkReport;
use super::stream::mix;
use super::topology::Topology;

/// Time from the plan to its start: the load makes its threads and connections meanwhile.
const LEAD_NS: u64 = 100 * NS_PER_MS;
const HELPER_LIMIT: Duration = Duration::from_secs(10);

/// How a run is made, apart from what it runs.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// System default congestion control of both ends.
    pub congestion: String,
    /// The source of losses and bytes.
    pub seed: u64,
    /// How often a run is repeated if the machine was too disturbed.
    pub repeats: u32,
    /// Where the contenders' programs are.
    pub programs: Programs,
}

/// Runs `cell` once through `peer`. Run `number` has the same losses for every contender.
pub fn run_once(
    cell: &Cell,
    peer: &Peer,
    number: u64,
    settings: &Settings,
) -> Result<RunResult, LabError> {
    let seed = mix(settings.seed ^ mix(number) ^ name_hash(&cell.name));
    if let Peer::Simulated(lanes) = peer {
        return simulated::run(cell, *lanes, &settings.congestion, seed);
    }
    let scratch = Scratch::new("run")?;
    let topology = Topology::new(&cell.paths, &settings.congestion, seed)?;
    let mut receiver = start_sink(&topology, *peer == Peer::Mptcp)?;
    let ready = peer.start(&topology, &settings.programs, &scratch)?;
    let mut loader = Helper::start("load", &topology.client(), &["load".to_owned()])?;
    let start_ns = now_ns() + LEAD_NS;
    let deadline_ms = cell.deadline_ms();
    let plan = Plan {
        by_proxy_to: None,
        target: ready.target,
        source: ready.source,
        mptcp: ready.mptcp,
        start_ns,
        seed,
        deadline_ms,
        jobs: cell.steps.iter().map(|s| s.job.clone()).collect(),
    };
    loader
        .tell(&serde_json::to_string(&plan).map_err(|e| LabError::setup("write the plan", e))?)?;
    for event in &cell.events {
        clock::sleep_until(start_ns + event.at_ms * NS_PER_MS)?;
        act(&topology, *event)?;
    }
    let load: LoadReport = loader.hear_json(Duration::from_millis(deadline_ms) + HELPER_LIMIT)?;
    receiver.tell("report")?;
    let sink: SinkReport = receiver.hear_json(HELPER_LIMIT)?;
    let notes = Notes { cell, start_ns, load: &load, sink: &sink };
    let mut faults = notes.faults();
    let mut processes = ready.processes;
    add_faults_of(&mut processes, &mut faults);
    let links = topology.emulator().counters()?;
    // No connection keeps the contender from closing its session.
    drop((loader, receiver));
    let processes = ended(processes);
    let given_up = processes.iter().map(|process| process.given_up).sum::<usize>();
    let figures = notes.figures().into_iter().chain(cell.of_bulk("given_up", given_up as f64));
    Ok(RunResult {
        // JSON has no infinity: what never happened has no figure.
        figures: figures.filter(|(_, v)| v.is_finite()).collect(),
        faults,
        processes,
        links,
        timeline: notes.timeline(),
        seed,
    })
}

fn start_sink(topology: &Topology, mptcp: bool) -> Result<Helper, LabError> {
    let mut args = vec!["sink".to_owned(), "--listen".to_owned(), format!("0.0.0.0:{SINK_PORT}")];
    if mptcp {
        args.push("--mptcp".to_owned());
    }
    let mut sink = Helper::start("sink", &topology.server(), &args)?;
    sink.hear(HELPER_LIMIT)?;
    Ok(sink)
}

/// Adds which processes have ended before their time and, if anything was wrong, what each said
/// last.
fn add_faults_of(processes: &mut [Process], faults: &mut Vec<String>) {
    for process in &mut *processes {
        if let Err(e) = process.check_alive() {
            faults.push(e.to_string());
        }
    }
    if !faults.is_empty() {
        let said =
            processes.iter().map(|p| (&p.name, p.log_tail())).filter(|(_, log)| !log.is_empty());
        faults.extend(said.map(|(name, log)| format!("{name} said last:\n{log}")));
    }
}

/// What the processes have used so far, and what they report as they end: the client first, so that
/// it can close its session.
fn ended(processes: Vec<Process>) -> Vec<ProcessUsage> {
    let usages: Vec<Usage> = processes.iter().map(Process::usage).collect();
    let mut used: Vec<ProcessUsage> = processes
        .into_iter()
        .zip(usages)
        .rev()
        .map(|(process, usage)| {
            let name = process.name.clone();
            let log = process.end();
            ProcessUsage { name, usage, kept: Kept::in_log(&log), given_up: given_up(&log) }
        })
        .collect();
    used.reverse();
    used
}

/// Counts the lanes that, by its log, it or its peer gave up.
fn given_up(log: &str) -> usize {
    log.lines().filter(|line| line.contains("lane timed out")).count()
}

fn act(topology: &Topology, event: Event) -> Result<(), LabError> {
    match event.action {
        Action::Link(change) => topology.emulator().change(event.path, change),
        Action::Interface(up) => topology.set_client_interface(event.path, up),
    }
}

fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_from_the_log() {
        let session = |held: u64, reorder: u64| {
            format!(
                r#"{{"level":"DEBUG","message":"what the session has cost","held_bytes_max":{held},"reorder_bytes_max":{reorder}}}"#
            )
        };
        let log = format!("no JSON\n{}\n{{}}\n{}\n", session(7, 20), session(9, 10));
        let kept = Kept { held_bytes_max: 9, reorder_bytes_max: 20 };
        assert_eq!(Kept::in_log(&log), Some(kept));
        assert_eq!(Kept::in_log("{\"held_bytes_max\":1}"), None);
    }
}
