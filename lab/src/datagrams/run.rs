//! What runs came to.

use std::fmt::Write;

use super::helpers::Echoed;
use crate::say;
use crate::stats::{median, number, percentile};

/// One carrier's runs of one case.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) carrier: String,
    pub(super) runs: Vec<Run>,
    pub(super) failed: usize,
}

/// What one run came to.
#[derive(Debug, Clone, Default)]
pub(super) struct Run {
    pub(super) lost_percent: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    /// The longest time in which none came back.
    pub(super) gap_ms: f64,
    /// As iperf3 counts it.
    pub(super) jitter_ms: f64,
    /// CPU seconds of the carrier's processes for 10^9 bytes of payload, both ways together.
    pub(super) cpu_s_per_gb: f64,
}

impl Run {
    pub(super) fn of(echoed: &Echoed, cpu_s: f64, bytes: usize) -> Self {
        let times = &echoed.round_trips_ms;
        let of = |q| percentile(times, q).unwrap_or(f64::INFINITY);
        let came = times.len() as f64;
        let payload = (echoed.sent as f64 + came) * bytes as f64;
        Self {
            lost_percent: 100.0 * (1.0 - came / (echoed.sent as f64).max(1.0)),
            p50_ms: of(0.5),
            p99_ms: of(0.99),
            max_ms: of(1.0),
            gap_ms: echoed.gap_ms,
            cpu_s_per_gb: cpu_s * 1e9 / payload.max(1.0),
            ..Self::default()
        }
    }
}

impl Row {
    fn figures(&self, of: fn(&Run) -> f64) -> Vec<f64> {
        self.runs.iter().map(of).collect()
    }

    pub(super) fn middle(&self, of: fn(&Run) -> f64) -> String {
        median(&self.figures(of)).map_or_else(|| "-".to_owned(), number)
    }

    pub(super) fn worst(&self, of: fn(&Run) -> f64) -> String {
        self.figures(of).into_iter().reduce(f64::max).map_or_else(|| "-".to_owned(), number)
    }
}

/// What a column of a table is called, and what stands in it.
pub(super) type Column = (&'static str, fn(&Row) -> String);

/// Prints a table: medians, unless a column says otherwise.
pub(super) fn show(about: &str, rows: &[Row], columns: &[Column]) {
    let mut table = format!("\n{about}\n\n| carrier |");
    for (title, _) in columns {
        let _ = write!(table, " {title} |");
    }
    let _ = writeln!(table, " failed |\n|{}", "---|".repeat(columns.len() + 2));
    for row in rows {
        let _ = write!(table, "| {} |", row.carrier);
        for (_, of) in columns {
            let _ = write!(table, " {} |", of(row));
        }
        let _ = writeln!(table, " {} |", row.failed);
    }
    say(table);
}
