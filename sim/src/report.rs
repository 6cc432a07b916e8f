//! What a run achieved, against what its network could have done.

use std::fmt;

use crate::net::{MS, SECOND, Time, ms};
use crate::options::{FaultKind, Options};
use crate::world::{LaneSum, Outcome};

/// The smallest step of the ideal's clock.
const STEP: Time = MS / 10;
/// An ideal that takes longer than this does not count.
const IDEAL_MAX: Time = 600 * SECOND;

/// Figures of one run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Payload of all streams that were read, both ways, in bytes.
    pub bytes: u64,
    /// For the largest stream: how long it took, and could have taken on all paths and on one.
    pub took: Time,
    pub ideal: Time,
    pub ideal_alone: Time,
    /// Its longest time without a byte for the reader.
    pub longest_gap: Time,
    /// For the other streams of at least 100 KB: time over ideal, sorted.
    pub ratios: Vec<f64>,
    /// Answer times of the small question-and-answer streams, sorted.
    pub answers: Vec<Time>,
    /// How long data waited for earlier data, sorted.
    pub order_delays: Vec<Time>,
    pub duplicate_share: f64,
    pub reorder_bytes_max: u64,
    /// Bytes by path, towards the server.
    pub path_bytes: Vec<u64>,
    /// What each lane was given, by its number.
    pub lanes: Vec<LaneSum>,
    pub failure: Option<String>,
}

impl Report {
    pub fn new(options: &Options, outcome: &Outcome) -> Self {
        let main = (0..options.streams.len()).max_by_key(|&n| options.streams[n].halves[0].bytes);
        let took_of = |plan: usize, half: usize| {
            let truth = &outcome.truths[plan][half];
            let start = truth.first_write.unwrap_or_default();
            truth.last_read.unwrap_or(outcome.ended_at).saturating_sub(start)
        };
        let mut ratios = Vec::new();
        let mut answers = Vec::new();
        for (n, plan) in options.streams.iter().enumerate() {
            let begun = outcome.truths[n][0].first_write.unwrap_or(ms(plan.at_ms));
            if plan.halves[1].after_bytes > 0 {
                let end = outcome.truths[n][1].last_read.unwrap_or(outcome.ended_at);
                answers.push(end.saturating_sub(begun));
            } else if Some(n) != main && plan.halves[0].bytes >= 100_000 {
                let ideal = ideal(options, begun, plan.halves[0].bytes, None);
                ratios.push(took_of(n, 0) as f64 / ideal as f64);
            }
        }
        ratios.sort_by(f64::total_cmp);
        answers.sort_unstable();
        let mut order_delays = outcome.order_delays.clone();
        order_delays.sort_unstable();
        let (took, longest_gap, best, best_alone) = main.map_or((0, 0, 0, 0), |n| {
            let plan = &options.streams[n];
            let begun = outcome.truths[n][0].first_write.unwrap_or(ms(plan.at_ms));
            let bytes = plan.halves[0].bytes;
            let alone =
                (0..options.paths.len()).map(|path| ideal(options, begun, bytes, Some(path)));
            let alone = alone.min().unwrap_or(0);
            let gap = outcome.truths[n][0].longest_gap;
            (took_of(n, 0), gap, ideal(options, begun, bytes, None), alone)
        });
        let received: u64 = outcome.stats.iter().map(|s| s.received_bytes).sum();
        let duplicate: u64 = outcome.stats.iter().map(|s| s.duplicate_bytes).sum();
        Self {
            bytes: outcome.truths.iter().flatten().map(|truth| truth.read).sum(),
            took,
            ideal: best,
            ideal_alone: best_alone,
            longest_gap,
            ratios,
            answers,
            order_delays,
            duplicate_share: duplicate as f64 / received.max(1) as f64,
            reorder_bytes_max: outcome.stats.iter().map(|s| s.reorder_bytes_max).max().unwrap_or(0),
            path_bytes: outcome.path_bytes.iter().map(|bytes| bytes[0]).collect(),
            lanes: outcome.lanes.clone(),
            failure: outcome.failure.clone(),
        }
    }

    /// Share of the possible rate; 1 is all of it.
    pub fn goodput_share(&self) -> f64 {
        self.ideal as f64 / self.took.max(1) as f64
    }

    /// How much faster it was than the best single path could have been.
    pub fn over_alone(&self) -> f64 {
        self.ideal_alone as f64 / self.took.max(1) as f64
    }
}

/// The shortest time in which the paths together, or one of them, deliver `bytes` towards the
/// server from `begun` on: the smallest T with the sum of rate_i x max(0, T - delay_i) >= bytes,
/// with rates and outages from the faults.
pub fn ideal(options: &Options, begun: Time, bytes: u64, only: Option<usize>) -> Time {
    let mut sent = 0.0;
    let mut at = begun;
    while sent < bytes as f64 && at < begun + IDEAL_MAX {
        at += STEP;
        for (n, path) in options.paths.iter().enumerate() {
            let delay = ms(path.delay_ms[0]);
            if only.is_none_or(|only| only == n) && at >= begun + delay {
                sent += rate_at(options, n, at - delay) * STEP as f64 / SECOND as f64;
            }
        }
    }
    at - begun
}

fn rate_at(options: &Options, path: usize, time: Time) -> f64 {
    let mut mbit = options.paths[path].mbit[0];
    for fault in options.faults.iter().filter(|fault| ms(fault.at_ms) <= time) {
        let since = time - ms(fault.at_ms);
        match &fault.kind {
            FaultKind::Outage { for_ms } if since < ms(*for_ms) => return 0.0,
            FaultKind::Down { for_ms } if fault.path == path && since < ms(*for_ms) => return 0.0,
            FaultKind::Rate { mbit: rate } if fault.path == path => mbit = *rate,
            _ => {}
        }
    }
    mbit * 125_000.0
}

/// The value that `share` of the sorted values do not exceed.
pub fn quantile<T: Copy + Default>(sorted: &[T], share: f64) -> T {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

fn millis(time: Time) -> f64 {
    time as f64 / MS as f64
}

impl Report {
    /// Transfers beside the largest, and answers.
    fn show_others(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.ratios.is_empty() {
            writeln!(
                f,
                "other transfers  median {:.3} x the ideal time, worst {:.3} ({} of them)",
                quantile(&self.ratios, 0.5),
                quantile(&self.ratios, 1.0),
                self.ratios.len(),
            )?;
        }
        if !self.answers.is_empty() {
            writeln!(
                f,
                "answers          p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms ({} of them)",
                millis(quantile(&self.answers, 0.5)),
                millis(quantile(&self.answers, 0.99)),
                millis(quantile(&self.answers, 1.0)),
                self.answers.len(),
            )?;
        }
        Ok(())
    }

    /// What each path and each lane carried.
    fn show_paths(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum: u64 = self.path_bytes.iter().sum();
        let shares: Vec<String> = self
            .path_bytes
            .iter()
            .map(|bytes| format!("{:.1} %", *bytes as f64 * 100.0 / sum.max(1) as f64))
            .collect();
        writeln!(f, "by path          {}", shares.join(", "))?;
        for (number, lane) in self.lanes.iter().enumerate() {
            let megabytes = |bytes: u64| bytes as f64 / 1e6;
            let [up, down] = lane.payload;
            writeln!(
                f,
                "{:<16} path {}: {:.3} MB up, {:.3} MB down; {:.3} MB of it sent before",
                format!("lane {number}"),
                lane.path,
                megabytes(up.sent),
                megabytes(down.sent),
                megabytes(up.again + down.again),
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mbit = |bytes: u64, time: Time| bytes as f64 * 8e3 / time.max(1) as f64;
        writeln!(
            f,
            "largest stream   {:.3} s; ideal {:.3} s on all paths, {:.3} s on the best alone",
            self.took as f64 / SECOND as f64,
            self.ideal as f64 / SECOND as f64,
            self.ideal_alone as f64 / SECOND as f64
        )?;
        writeln!(
            f,
            "goodput          {:.3} of the ideal, {:.2} x the best path alone ({:.1} Mbit/s over all)",
            self.goodput_share(),
            self.over_alone(),
            mbit(self.bytes, self.took),
        )?;
        writeln!(f, "longest gap      {:.1} ms at the reader", millis(self.longest_gap))?;
        writeln!(
            f,
            "out of order     p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms; {} KB of memory at most",
            millis(quantile(&self.order_delays, 0.5)),
            millis(quantile(&self.order_delays, 0.99)),
            millis(quantile(&self.order_delays, 1.0)),
            self.reorder_bytes_max / 1024,
        )?;
        self.show_others(f)?;
        self.show_paths(f)?;
        write!(f, "duplicates       {:.2} % of bytes received", self.duplicate_share * 100.0)
    }
}
