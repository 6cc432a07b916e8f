//! One cell of the matrix: paths, load, events, and target figures.

use serde::{Deserialize, Serialize};

use super::emu::Change;
use super::load::Job;
use super::topology::PathSpec;

/// What happens to a path while a cell runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A change on the path itself.
    Link(Change),
    /// The client's interface goes down (false) or comes back (true).
    Interface(bool),
}

/// An action at its time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds from the start of the load.
    pub at_ms: u64,
    /// Which path.
    pub path: usize,
    /// What happens.
    pub action: Action,
}

/// A job and the name of its figures; jobs without a name are not measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Prefix of the figures' names.
    pub label: Option<String>,
    /// What is done.
    pub job: Job,
}

/// Which way a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// A figure of a cell that goes into the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// The figure's name.
    pub figure: String,
    /// Its unit; empty for ratios.
    pub unit: String,
    /// Which way it is better.
    pub better: Better,
    /// The target, if there is one.
    pub target: Option<f64>,
}

impl Goal {
    /// A figure that should be at least `target`.
    #[must_use]
    pub fn at_least(figure: &str, target: f64, unit: &str) -> Self {
        Self::new(figure, unit, Better::Higher, Some(target))
    }

    /// A figure that should be at most `target`.
    #[must_use]
    pub fn at_most(figure: &str, target: f64, unit: &str) -> Self {
        Self::new(figure, unit, Better::Lower, Some(target))
    }

    /// A figure shown without a target.
    #[must_use]
    pub fn shown(figure: &str, unit: &str, better: Better) -> Self {
        Self::new(figure, unit, better, None)
    }

    fn new(figure: &str, unit: &str, better: Better, target: Option<f64>) -> Self {
        Self { figure: figure.to_owned(), unit: unit.to_owned(), better, target }
    }

    /// Whether `value` meets the target; true without one.
    #[must_use]
    pub fn is_met(&self, value: f64) -> bool {
        self.target.is_none_or(|target| match self.better {
            Better::Higher => value >= target,
            Better::Lower => value <= target,
        })
    }
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Short name, unique.
    pub name: String,
    /// A one-line description.
    pub about: String,
    /// The paths, each the same in both directions.
    pub paths: Vec<PathSpec>,
    /// What is sent.
    pub steps: Vec<Step>,
    /// What happens meanwhile.
    pub events: Vec<Event>,
    /// The figures that count; the first is the one plotted.
    pub goals: Vec<Goal>,
    /// "Recovered" means this share of the capacity left after the last event.
    pub recovered_share: f64,
}

impl Cell {
    /// A cell without load, events or goals.
    #[must_use]
    pub fn new(name: &str, about: &str, paths: Vec<PathSpec>) -> Self {
        Self {
            name: name.to_owned(),
            about: about.to_owned(),
            paths,
            steps: Vec::new(),
            events: Vec::new(),
            goals: Vec::new(),
            recovered_share: 0.9,
        }
    }

    /// Adds a measured job.
    #[must_use]
    pub fn step(mut self, label: &str, job: Job) -> Self {
        self.steps.push(Step { label: Some(label.to_owned()), job });
        self
    }

    /// Adds an unmeasured job.
    #[must_use]
    pub fn warm_up(mut self, job: Job) -> Self {
        self.steps.push(Step { label: None, job });
        self
    }

    /// Adds an event on path 0.
    #[must_use]
    pub fn event(mut self, at_ms: u64, action: Action) -> Self {
        self.events.push(Event { at_ms, path: 0, action });
        self
    }

    /// Adds a figure that counts.
    #[must_use]
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goals.push(goal);
        self
    }

    /// Payload bytes per second of all paths at the start.
    #[must_use]
    pub fn capacity(&self) -> f64 {
        self.paths.iter().map(PathSpec::payload_rate).sum()
    }

    /// Payload bytes per second of all paths after the last event.
    #[must_use]
    pub fn capacity_after(&self) -> f64 {
        let mut rates: Vec<f64> = self.paths.iter().map(PathSpec::payload_rate).collect();
        let mut usable = vec![true; rates.len()];
        for event in &self.events {
            match event.action {
                Action::Interface(up) => usable[event.path] = up,
                Action::Link(Change::Silent(silent)) => usable[event.path] = !silent,
                Action::Link(Change::Rate(bps)) => {
                    rates[event.path] = bps / 8.0 * super::topology::PAYLOAD_SHARE;
                }
                Action::Link(Change::Delay(_) | Change::Loss(_) | Change::Reset) => {}
            }
        }
        rates.iter().zip(usable).filter(|(_, usable)| *usable).map(|(rate, _)| rate).sum()
    }

    /// A figure of the whole run, under the name of the first measured bulk.
    #[must_use]
    pub fn of_bulk(&self, figure: &str, value: f64) -> Option<(String, f64)> {
        let bulk = |step: &&Step| matches!(step.job, Job::Bulk { .. }) && step.label.is_some();
        let label = self.steps.iter().find(bulk)?.label.as_ref()?;
        Some((format!("{label}.{figure}"), value))
    }

    /// Milliseconds from the start until all its load must be done, whatever happens.
    #[must_use]
    pub fn deadline_ms(&self) -> u64 {
        let end = |job: &Job| match *job {
            Job::Bulk { at_ms, duration_ms, drain_ms, .. } => at_ms + duration_ms + drain_ms + 500,
            Job::Echo { at_ms, duration_ms, .. } => at_ms + duration_ms + 2500,
            Job::Transfer { at_ms, count, pause_ms, bytes, parallel, .. } => {
                // Four times slower than the sum of the paths, and half a second each.
                let each = bytes as f64 * f64::from(parallel) / self.capacity() * 4000.0 + 500.0;
                at_ms + u64::from(count) * (pause_ms + each as u64) + 5000
            }
            Job::Setup { at_ms, count, pause_ms } => {
                at_ms + u64::from(count) * (pause_ms + 500) + 5000
            }
        };
        self.steps.iter().map(|s| end(&s.job)).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_follows_the_events() {
        let path = PathSpec::new(12.0, 20.0);
        let rate = path.payload_rate();
        let cell = Cell::new("x", "", vec![path, path]);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1.0, "{a} {b}");
        close(cell.capacity(), 2.0 * rate);
        let dead = cell.clone().event(1, Action::Link(Change::Silent(true)));
        close(dead.capacity_after(), rate);
        close(dead.event(2, Action::Link(Change::Silent(false))).capacity_after(), 2.0 * rate);
        close(
            cell.clone().event(1, Action::Link(Change::Rate(1.2e6))).capacity_after(),
            1.1 * rate,
        );
        close(cell.event(1, Action::Interface(false)).capacity_after(), rate);
    }

    #[test]
    fn goals_know_which_way_is_better() {
        assert!(Goal::at_least("a", 0.9, "").is_met(0.95));
        assert!(!Goal::at_least("a", 0.9, "").is_met(0.85));
        assert!(Goal::at_most("a", 10.0, "ms").is_met(9.0));
        assert!(!Goal::at_most("a", 10.0, "ms").is_met(11.0));
        assert!(Goal::shown("a", "", Better::Lower).is_met(1e9));
    }
}
