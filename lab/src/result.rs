//! The result of one run.

use serde::{Deserialize, Serialize};

use super::emu::Counters;
use super::measure::Figures;
use super::proc::Usage;

/// The result of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunResult {
    /// Figures by name, without those of what never happened.
    pub figures: Figures,
    /// What went wrong; empty if nothing did.
    pub faults: Vec<String>,
    /// The contender's processes.
    pub processes: Vec<ProcessUsage>,
    /// What the links did.
    pub links: Counters,
    /// Goodput in Mbit/s of the first bulk step, one value per 100 ms.
    pub timeline: Vec<f64>,
    /// Seed of the run.
    pub seed: u64,
}

/// What a process used in a run, from its start to the end of the load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessUsage {
    /// Contender and end.
    pub name: String,
    /// CPU time and peak memory.
    #[serde(flatten)]
    pub usage: Usage,
    /// The most it kept, if it reports that.
    pub kept: Option<Kept>,
    /// How many lanes it or its peer gave up for not answering.
    #[serde(default)]
    pub given_up: usize,
}

/// The most that any session of an imux process kept, in bytes, as reported at its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// To be sent, or sent again.
    pub held_bytes_max: u64,
    /// Out of order.
    pub reorder_bytes_max: u64,
}

impl Kept {
    /// Reads it from a log in JSON lines.
    pub(crate) fn in_log(log: &str) -> Option<Self> {
        let kept = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        kept.reduce(|a: Self, b: Self| Self {
            held_bytes_max: a.held_bytes_max.max(b.held_bytes_max),
            reorder_bytes_max: a.reorder_bytes_max.max(b.reorder_bytes_max),
        })
    }
}
