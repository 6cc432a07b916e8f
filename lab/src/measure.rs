//! Turns the notes of load and sink into a cell's figures.

use std::collections::BTreeMap;

use super::cell::{Cell, Step};
use super::clock::NS_PER_MS;
use super::flow::{BIN_NS, Flow};
use super::load::{Direction, Job, JobReport, LoadReport};
use super::sink::SinkReport;
use super::stats::{jain, median, percentile};
use super::workload::ideal_ms;

/// Bin width of the timeline kept for plots.
pub const TIMELINE_MS: u64 = 100;
/// "Recovered" is judged over this long.
const RECOVER_WINDOW_NS: u64 = 500 * NS_PER_MS;
/// Time allowed for adapting after an event, before the new share is measured.
const SETTLE_NS: u64 = 2000 * NS_PER_MS;

/// Figures by name, `LABEL.FIGURE`.
pub type Figures = BTreeMap<String, f64>;

/// Everything noted in a run.
#[derive(Debug)]
pub struct Notes<'a> {
    /// The cell that was run.
    pub cell: &'a Cell,
    /// When the load started.
    pub start_ns: u64,
    /// The near end's notes.
    pub load: &'a LoadReport,
    /// The far end's notes.
    pub sink: &'a SinkReport,
}

impl Notes<'_> {
    /// The figures of all labelled steps.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let mut figures = Figures::new();
        for (step, report) in self.cell.steps.iter().zip(&self.load.jobs) {
            let Some(label) = &step.label else { continue };
            let part = match step.job {
                Job::Bulk { .. } => self.bulk(step, report),
                Job::Transfer { direction, bytes, .. } => self.transfers(direction, bytes, report),
                Job::Echo { .. } => echoes(report),
                Job::Setup { .. } => times(&report.times_ms),
            };
            figures
                .extend(part.into_iter().map(|(name, value)| (format!("{label}.{name}"), value)));
        }
        figures
    }

    /// What went wrong: wrong bytes, broken connections, unfinished load.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> =
            self.load.jobs.iter().flat_map(|j| j.faults.clone()).collect();
        let wrong = |f: &&Flow| f.fault.as_ref().is_some_and(|f| f.starts_with("wrong byte"));
        let flows = self.load.jobs.iter().flat_map(|j| &j.flows).chain(&self.sink.flows);
        faults.extend(flows.filter(wrong).filter_map(|f| f.fault.clone()));
        faults.extend(self.sink.strays.iter().map(|s| format!("at the sink: {s}")));
        faults
    }

    /// Payload megabits per second of the first bulk step, one value per [`TIMELINE_MS`].
    #[must_use]
    pub fn timeline(&self) -> Vec<f64> {
        let bulk = |(step, _): &(&Step, &JobReport)| {
            matches!(step.job, Job::Bulk { .. }) && step.label.is_some()
        };
        let Some((step, report)) = self.cell.steps.iter().zip(&self.load.jobs).find(bulk) else {
            return Vec::new();
        };
        let Job::Bulk { at_ms, duration_ms, .. } = step.job else { return Vec::new() };
        let received = self.received(step, report);
        (0..duration_ms / TIMELINE_MS)
            .map(|i| {
                let from = self.at(at_ms + i * TIMELINE_MS);
                let bytes = between(&received, from, from + TIMELINE_MS * NS_PER_MS);
                bytes * 8.0 / (TIMELINE_MS as f64 * 1e3)
            })
            .collect()
    }

    fn at(&self, ms: u64) -> u64 {
        self.start_ns + ms * NS_PER_MS
    }

    /// The flows of a job as their receivers saw them.
    fn received<'a>(&'a self, step: &Step, report: &'a JobReport) -> Vec<&'a Flow> {
        match step.job {
            Job::Bulk { direction: Direction::Up, .. } => {
                let ours = |f: &&Flow| report.flows.iter().any(|g| g.tag == f.tag);
                self.sink.flows.iter().filter(ours).collect()
            }
            _ => report.flows.iter().collect(),
        }
    }

    /// Bytes a job's senders handed over.
    fn sent(&self, direction: Direction, report: &JobReport) -> f64 {
        let sum =
            |flows: &mut dyn Iterator<Item = &Flow>| flows.map(|f| f.sent).sum::<u64>() as f64;
        match direction {
            Direction::Up => sum(&mut report.flows.iter()),
            Direction::Down => {
                let ours = |f: &&Flow| report.flows.iter().any(|g| g.tag == f.tag);
                sum(&mut self.sink.flows.iter().filter(ours))
            }
        }
    }

    fn bulk(&self, step: &Step, report: &JobReport) -> Figures {
        let Job::Bulk { direction, streams, at_ms, duration_ms, drain_ms } = step.job else {
            return Figures::new();
        };
        let received = self.received(step, report);
        let (from, to) = (self.at(at_ms), self.at(at_ms + duration_ms));
        let seconds = duration_ms as f64 / 1e3;
        let goodput = between(&received, from, to) / seconds;
        let mut figures = Figures::from([
            ("mbit".to_owned(), goodput * 8.0 / 1e6),
            ("share".to_owned(), goodput / self.cell.capacity()),
        ]);
        if streams > 1 {
            let mut shares: Vec<f64> =
                received.iter().map(|f| f.bytes_between(from, to) as f64).collect();
            // A stream that never got through has a share too: zero.
            shares.resize(streams as usize, 0.0);
            figures.insert("jain".to_owned(), jain(&shares).unwrap_or(0.0));
        }
        if drain_ms > 0 {
            let arrived: u64 = received.iter().map(|f| f.bytes).sum();
            figures.insert("undelivered".to_owned(), self.sent(direction, report) - arrived as f64);
        }
        figures.extend(self.around_events(&received, to));
        figures
    }

    fn around_events(&self, received: &[&Flow], end: u64) -> Figures {
        let events = &self.cell.events;
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return Figures::new();
        };
        let (first, last) = (self.at(first.at_ms), self.at(last.at_ms));
        let gap = received.iter().map(|f| f.longest_pause(first, end)).max().unwrap_or(end - first);
        let capacity = self.cell.capacity_after();
        let settled = last + SETTLE_NS;
        let share = between(received, settled, end) / ((end - settled) as f64 / 1e9) / capacity;
        let wanted = capacity * self.cell.recovered_share * RECOVER_WINDOW_NS as f64 / 1e9;
        let recovered = (last..end.saturating_sub(RECOVER_WINDOW_NS))
            .step_by(BIN_NS as usize)
            .find(|t| between(received, *t, t + RECOVER_WINDOW_NS) >= wanted);
        // If never: as long as we looked.
        let recover_ns = recovered.map_or(end - last, |t| t - last);
        Figures::from([
            ("gap".to_owned(), gap as f64 / 1e6),
            ("recover".to_owned(), recover_ns as f64 / 1e6),
            ("share_after".to_owned(), share),
        ])
    }

    fn transfers(&self, direction: Direction, bytes: u64, report: &JobReport) -> Figures {
        let mut figures = times(&report.times_ms);
        let request_ms = match direction {
            Direction::Up => 0.0,
            Direction::Down => {
                self.cell.paths.iter().map(|p| p.rtt_ms / 2.0).fold(f64::INFINITY, f64::min)
            }
        };
        let ideal = ideal_ms(bytes, &self.cell.paths) + request_ms;
        let done = report.times_ms.len() as f64;
        let middle = median(&report.times_ms).unwrap_or(f64::INFINITY);
        figures.insert("ms".to_owned(), middle);
        figures.insert(
            "ms_max".to_owned(),
            percentile(&report.times_ms, 1.0).unwrap_or(f64::INFINITY),
        );
        figures.insert("ratio".to_owned(), middle / ideal);
        figures.insert("failed".to_owned(), report.begun as f64 - done);
        figures
    }
}

fn between(flows: &[&Flow], from_ns: u64, to_ns: u64) -> f64 {
    flows.iter().map(|f| f.bytes_between(from_ns, to_ns)).sum::<u64>() as f64
}

fn times(samples: &[f64]) -> Figures {
    let at = |q| percentile(samples, q).unwrap_or(f64::INFINITY);
    Figures::from([
        ("p50".to_owned(), at(0.5)),
        ("p99".to_owned(), at(0.99)),
        ("max".to_owned(), at(1.0)),
    ])
}

/// A message that never came back counts as later than all that did.
fn echoes(report: &JobReport) -> Figures {
    let mut samples = report.times_ms.clone();
    samples.resize((report.begun as usize).max(samples.len()), f64::INFINITY);
    let mut figures = times(&samples);
    figures.insert("missing".to_owned(), report.begun as f64 - report.times_ms.len() as f64);
    figures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::Action;
    use crate::emu::Change;
    use crate::topology::PathSpec;
    use crate::workload::bulk;

    /// A receiver that gets `per_ms` bytes each millisecond of the given spans.
    fn steady(tag: u64, start: u64, spans: &[(u64, u64, usize)]) -> Flow {
        let mut flow = Flow::new(tag, start);
        for (from, to, per_ms) in spans {
            for ms in *from..*to {
                flow.arrived(start + ms * NS_PER_MS, *per_ms);
            }
        }
        flow
    }

    #[test]
    fn a_death_in_the_middle() {
        // Two paths of 1000 payload bytes a millisecond; one dies at 3 s, the other goes on after
        // 200 ms.
        let mbit = 8.0 / crate::topology::PAYLOAD_SHARE;
        let cell = Cell::new("x", "", vec![PathSpec::new(mbit, 20.0); 2])
            .step("down", bulk(Direction::Down, 1, 9000, 1000))
            .event(3000, Action::Link(Change::Silent(true)));
        let start = 5_000 * NS_PER_MS;
        let flow = steady(0, start, &[(0, 3000, 2000), (3200, 9000, 1000)]);
        let sent = Flow { tag: 0, sent: flow.bytes + 7, ..Flow::default() };
        let load =
            LoadReport { jobs: vec![JobReport { flows: vec![flow], ..JobReport::default() }] };
        let sink = SinkReport { flows: vec![sent], strays: Vec::new() };
        let notes = Notes { cell: &cell, start_ns: start, load: &load, sink: &sink };
        let figures = notes.figures();
        let close = |name: &str, want: f64, by: f64| {
            assert!((figures[name] - want).abs() <= by, "{name}: {} not {want}", figures[name]);
        };
        close("down.gap", 200.0, 0.0);
        close("down.undelivered", 7.0, 0.0);
        close("down.share_after", 1.0, 0.01);
        // From 150 ms on, 450 of 500 ms have bytes.
        close("down.recover", 150.0, 10.0);
        close("down.share", (3.0 * 2.0 + 5.8) / 18.0, 0.01);
        assert_eq!(notes.timeline().len(), 90);
        assert!((notes.timeline()[0] - 16.0).abs() < 0.2);
        assert!(notes.faults().is_empty());
    }

    #[test]
    fn echoes_that_never_came_count_as_the_latest() {
        let report = JobReport { times_ms: vec![1.0; 90], begun: 100, ..JobReport::default() };
        let figures = echoes(&report);
        assert_eq!((figures["p50"], figures["missing"]), (1.0, 10.0));
        assert_eq!(figures["p99"], f64::INFINITY);
    }
}
