//! Results of many runs: kept as JSON, shown as markdown tables and SVG plots.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::cell::{Better, Cell, Goal};
use super::design::DesignReport;
use super::emu::link::LinkCounters;
use super::error::LabError;
use super::result::{ProcessUsage, RunResult};
use super::stats::{median, number};
use super::svg;

/// Plots with more events than this show none.
const MARKS_MAX: usize = 20;

/// A whole matrix.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// Kernel and machine.
    pub host: String,
    /// Seed of everything random.
    pub seed: u64,
    /// The cells, in order.
    pub cells: Vec<CellReport>,
    /// The random designs, one per congestion control.
    pub designs: Vec<DesignReport>,
}

/// A cell under one congestion control.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CellReport {
    /// What was run.
    pub cell: Cell,
    /// The system's default congestion control.
    pub congestion: String,
    /// The contenders that ran it.
    pub peers: Vec<PeerReport>,
}

/// A contender in a cell.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerReport {
    /// Its name.
    pub peer: String,
    /// Its runs.
    pub runs: Vec<RunResult>,
    /// Runs without a result, and why.
    pub failures: Vec<String>,
}

impl PeerReport {
    /// Median and worst of a figure over all runs. A run without it counts as the worst possible.
    #[must_use]
    pub fn figure(&self, goal: &Goal) -> Option<(f64, f64)> {
        let nothing = if goal.better == Better::Higher { 0.0 } else { f64::INFINITY };
        let mut values: Vec<f64> = self
            .runs
            .iter()
            .map(|r| r.figures.get(&goal.figure).copied().unwrap_or(nothing))
            .collect();
        values.resize(values.len() + self.failures.len(), nothing);
        let pick = if goal.better == Better::Higher { f64::min } else { f64::max };
        Some((median(&values)?, values.iter().copied().reduce(pick)?))
    }
}

impl Report {
    /// Writes `report.json`, `report.md` and the plots into `dir`.
    pub fn write(&self, dir: &Path) -> Result<(), LabError> {
        let put = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text)
                .map_err(|e| LabError::setup(format!("write {}", path.display()), e))
        };
        std::fs::create_dir_all(dir)
            .map_err(|e| LabError::setup(format!("make {}", dir.display()), e))?;
        let json = serde_json::to_string(self).map_err(|e| LabError::setup("write JSON", e))?;
        put("report.json", &json)?;
        put("report.md", &self.markdown())?;
        for cell in &self.cells {
            let name = format!("{}-{}", cell.cell.name, cell.congestion);
            put(&format!("{name}.svg"), &cell.bars())?;
            if !cell.cell.events.is_empty() {
                put(&format!("{name}-time.svg"), &cell.timelines())?;
            }
        }
        for design in &self.designs {
            put(&format!("design-{}.svg", design.congestion), &design.plot())?;
        }
        Ok(())
    }

    /// The tables.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = format!(
            "# Lab report\n\n{}; seed {}. Median (worst) of all runs; a run that came to \
            no result counts as the worst. `*` misses the target, `!` is below kernel TCP on the best path.\n",
            self.host, self.seed
        );
        let mut congestions: Vec<&str> = self.cells.iter().map(|c| c.congestion.as_str()).collect();
        congestions.dedup();
        for congestion in congestions {
            let cells: Vec<&CellReport> =
                self.cells.iter().filter(|c| c.congestion == congestion).collect();
            out += &format!("\n## Cells, system default {congestion}\n\n");
            out += &cells_table(&cells);
            out += &format!("\n## CPU and memory, system default {congestion}\n\n");
            out += &usage_table(&cells);
            out += &format!("\n## Packets lost to full queues, system default {congestion}\n\n");
            out += &queues_table(&cells);
            let mean =
                cells.iter().map(|c| c.lateness_us().0).sum::<f64>() / cells.len().max(1) as f64;
            let worst = cells.iter().map(|c| c.lateness_us().1).fold(0.0, f64::max) / 1e3;
            out += &format!(
                "\nThe link emulator delivered {mean:.0} us after the due time in the mean, {worst:.0} ms at worst.\n"
            );
        }
        for design in &self.designs {
            out += &format!(
                "\n## Random design, system default {}\n\n{}",
                design.congestion,
                design.markdown()
            );
        }
        let wrong: Vec<String> = self.cells.iter().flat_map(CellReport::trouble).collect();
        if !wrong.is_empty() {
            out += &format!("\n## What went wrong\n\n{}\n", wrong.join("\n"));
        }
        out
    }
}

fn peer_names(cells: &[&CellReport]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for peer in cells.iter().flat_map(|c| &c.peers) {
        if !names.contains(&peer.peer) {
            names.push(peer.peer.clone());
        }
    }
    names
}

/// One line per goal, one column per contender.
#[must_use]
pub fn cells_table(cells: &[&CellReport]) -> String {
    let names = peer_names(cells);
    let mut out = format!("| cell | figure | target | {} |\n", names.join(" | "));
    out += &format!("|---|---|---|{}\n", "---|".repeat(names.len()));
    for report in cells {
        for goal in &report.cell.goals {
            let sign = if goal.better == Better::Higher { ">=" } else { "<=" };
            let target = goal.target.map_or("-".to_owned(), |t| format!("{sign} {}", number(t)));
            let unit = if goal.unit.is_empty() { String::new() } else { format!(" {}", goal.unit) };
            out += &format!("| {} | {}{unit} | {target} |", report.cell.name, goal.figure);
            for name in &names {
                out += &format!(" {} |", report.entry(name, goal));
            }
            out += "\n";
        }
    }
    out
}

fn usage_table(cells: &[&CellReport]) -> String {
    let mut out = String::from(
        "| cell | contender | CPU s of each process, median | peak MB, worst | to be sent, or again, peak MB, worst \
         | out of order, peak MB, worst |\n|---|---|---|---|---|---|\n",
    );
    for report in cells {
        for peer in &report.peers {
            let Some(first) = peer.runs.first().filter(|r| !r.processes.is_empty()) else {
                continue;
            };
            let each = |f: &dyn Fn(&[f64]) -> f64, field: &dyn Fn(&ProcessUsage) -> Option<f64>| {
                let of = |i: usize| -> Vec<f64> {
                    peer.runs.iter().filter_map(|r| r.processes.get(i)).filter_map(field).collect()
                };
                let told = |values: Vec<f64>| match values.as_slice() {
                    [] => "-".to_owned(),
                    values => format!("{:.2}", f(values)),
                };
                let all: Vec<String> = (0..first.processes.len()).map(|i| told(of(i))).collect();
                all.join(" + ")
            };
            let worst = |v: &[f64]| v.iter().copied().fold(0.0, f64::max);
            let cpu = each(&|v| median(v).unwrap_or(0.0), &|p| Some(p.usage.cpu_s));
            let rss = each(&worst, &|p| Some(p.usage.rss_peak_kb as f64 / 1024.0));
            let mb = |bytes: u64| bytes as f64 / 1e6;
            let held = each(&worst, &|p| Some(mb(p.kept?.held_bytes_max)));
            let reordered = each(&worst, &|p| Some(mb(p.kept?.reorder_bytes_max)));
            let name = &report.cell.name;
            out += &format!("| {name} | {} | {cpu} | {rss} | {held} | {reordered} |\n", peer.peer);
        }
    }
    out
}

/// Percent of packets lost on the path and direction that lost most: median and worst of all runs.
fn queues_table(cells: &[&CellReport]) -> String {
    let names = peer_names(cells);
    let mut out = format!("| cell | {} |\n", names.join(" | "));
    out += &format!("|---|{}\n", "---|".repeat(names.len()));
    for report in cells {
        out += &format!("| {} |", report.cell.name);
        for name in &names {
            let peer = report.peers.iter().find(|p| p.peer == *name);
            let lost: Vec<f64> =
                peer.iter().flat_map(|p| &p.runs).map(overflowed_percent).collect();
            let worst = lost.iter().copied().reduce(f64::max);
            let told = median(&lost).zip(worst).map(|(m, w)| format!("{m:.2} % ({w:.2} %)"));
            out += &format!(" {} |", told.unwrap_or("-".to_owned()));
        }
        out += "\n";
    }
    out
}

fn overflowed_percent(run: &RunResult) -> f64 {
    let ways = run.links.paths.iter().flat_map(|(there, back)| [there, back]);
    let percent = |way: &LinkCounters| {
        let came = way.packets.saturating_add(way.overflowed);
        100.0 * way.overflowed as f64 / came.max(1) as f64
    };
    ways.map(percent).fold(0.0, f64::max)
}

impl CellReport {
    fn entry(&self, name: &str, goal: &Goal) -> String {
        let Some(peer) = self.peers.iter().find(|p| p.peer == name) else { return "-".to_owned() };
        let Some((median, worst)) = peer.figure(goal) else { return "-".to_owned() };
        let missed = if goal.is_met(median) { "" } else { " *" };
        let tcp = self.peers.iter().find(|p| p.peer == "tcp").and_then(|p| p.figure(goal));
        let bulk = goal.figure.ends_with(".share");
        let slower = bulk && name != "tcp" && tcp.is_some_and(|(best, _)| median < best);
        format!("{} ({}){missed}{}", number(median), number(worst), if slower { " !" } else { "" })
    }

    fn trouble(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for peer in &self.peers {
            let mut faults: Vec<&String> = peer.runs.iter().flat_map(|r| &r.faults).collect();
            faults.extend(&peer.failures);
            if let Some(first) = faults.first() {
                let (cell, peer, n) = (&self.cell.name, &peer.peer, faults.len());
                lines.push(format!(
                    "- {cell} ({}), {peer}: {n} times, first: {first}",
                    self.congestion
                ));
            }
        }
        lines
    }

    /// How late the emulator was: mean of all runs, and the worst.
    fn lateness_us(&self) -> (f64, f64) {
        let runs: Vec<&RunResult> = self.peers.iter().flat_map(|p| &p.runs).collect();
        let mean =
            runs.iter().map(|r| r.links.late_us_mean).sum::<f64>() / runs.len().max(1) as f64;
        (mean, runs.iter().map(|r| r.links.late_us_max).fold(0.0, f64::max))
    }

    fn bars(&self) -> String {
        let Some(goal) = self.cell.goals.first() else { return String::new() };
        let bars: Vec<svg::Bar> = self
            .peers
            .iter()
            .filter_map(|p| {
                p.figure(goal).map(|(value, worst)| svg::Bar { name: p.peer.clone(), value, worst })
            })
            .collect();
        let unit = if goal.unit.is_empty() { String::new() } else { format!(", {}", goal.unit) };
        let title = format!(
            "{}: {}{unit} ({}; {})",
            self.cell.name, goal.figure, self.cell.about, self.congestion
        );
        svg::bars(&title, &bars, goal.target)
    }

    /// Goodput over time in each contender's first run.
    fn timelines(&self) -> String {
        let step = super::measure::TIMELINE_MS as f64 / 1e3;
        let lines: Vec<svg::Line> = self
            .peers
            .iter()
            .filter_map(|p| {
                let run = p.runs.first()?;
                let points = run
                    .timeline
                    .iter()
                    .enumerate()
                    .map(|(i, v)| ((i as f64 + 0.5) * step, *v))
                    .collect();
                Some(svg::Line { name: p.peer.clone(), points })
            })
            .collect();
        let events = self.cell.events.iter();
        let mut marks: Vec<f64> = events.map(|e| e.at_ms as f64 / 1e3).collect();
        // A varying path has so many events that nothing would show between them.
        if marks.len() > MARKS_MAX {
            marks.clear();
        }
        let title = format!(
            "{}: Mbit/s over seconds ({}; {})",
            self.cell.name, self.cell.about, self.congestion
        );
        svg::lines(&title, &lines, &marks)
    }
}

/// The machine the figures were measured on.
#[must_use]
pub fn host() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("Linux {}, {cores} x {model}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::Cell;
    use crate::topology::PathSpec;

    #[test]
    fn what_queues_have_lost_is_that_of_the_worst_path_and_way() {
        let way = |packets, overflowed| LinkCounters { packets, overflowed, ..Default::default() };
        let mut lossy = run(None);
        lossy.links.paths = vec![(way(0, 0), way(400, 4)), (way(195, 5), way(100, 1))];
        assert!((overflowed_percent(&lossy) - 2.5).abs() < 1e-9);
        assert_eq!(overflowed_percent(&run(None)), 0.0);
    }

    fn run(share: Option<f64>) -> RunResult {
        RunResult {
            figures: share.map(|s| ("down.share".to_owned(), s)).into_iter().collect(),
            faults: Vec::new(),
            processes: Vec::new(),
            links: crate::emu::Counters::default(),
            timeline: vec![1.0, 2.0],
            seed: 1,
        }
    }

    #[test]
    fn tables_show_median_worst_and_what_misses() {
        let cell = Cell::new("equal", "x", vec![PathSpec::new(50.0, 20.0)]).goal(Goal::at_least(
            "down.share",
            0.97,
            "",
        ));
        let peer = |name: &str, shares: &[Option<f64>]| PeerReport {
            peer: name.to_owned(),
            runs: shares.iter().map(|s| run(*s)).collect(),
            failures: Vec::new(),
        };
        let peers = vec![
            peer("tcp", &[Some(0.48); 3]),
            peer("agg", &[Some(0.4), Some(0.5), None]),
            peer("imux", &[Some(0.98), Some(0.97), Some(0.99)]),
        ];
        let report = CellReport { cell, congestion: "bbr".to_owned(), peers };
        let table = cells_table(&[&report]);
        assert!(table.contains("| 0.48 (0.48) * | 0.40 (0) * ! | 0.98 (0.97) |"), "{table}");
        let whole = Report { cells: vec![report], ..Report::default() };
        assert!(queues_table(&[&whole.cells[0]]).contains("| equal | 0.00 % (0.00 %) | 0.00 %"));
        let back: Report = serde_json::from_str(&serde_json::to_string(&whole).unwrap()).unwrap();
        assert_eq!(back.markdown(), whole.markdown());
    }
}
