//! The random design: settings drawn from a seed, and how much each contender gains from using all
//! paths.
//!
//! The benefit is measured against what kernel TCP carries on each path alone in the same time,
//! after Paasch, Khalili and Bonaventure, "On the Benefits of Applying Experimental Design to
//! Improve Multipath TCP" (CoNEXT 2013).

use serde::{Deserialize, Serialize};

use super::calm::run_calm;
use super::cell::{Better, Cell, Goal};
use super::error::LabError;
use super::load::Direction;
use super::peers::Peer;
use super::runner::Settings;
use super::stats::number;
use super::stats::{aggregation_benefit, median, percentile};
use super::stream::Rng;
use super::svg;
use super::topology::PathSpec;
use super::workload::{bulk, describe};

/// Bulk time of each run, start-up included. The slowest settings have round trips of 0.2 s.
const BULK_MS: u64 = 8000;
const FIGURE: &str = "down.mbit";
/// Prefix of settings' names; the number follows.
const NAME: &str = "random";
/// The highest setting number, so that a typo does not draw settings for hours.
const SETTINGS_MAX: u32 = 100_000;

/// All settings under one congestion control.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DesignReport {
    /// The system's default congestion control.
    pub congestion: String,
    /// The settings.
    pub settings: Vec<SettingReport>,
}

/// One setting.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SettingReport {
    /// Its paths.
    pub paths: Vec<PathSpec>,
    /// Mbit/s of kernel TCP on each path alone, median of its runs.
    pub singles: Vec<f64>,
    /// Mbit/s of each contender, median of its runs; 0 if it failed.
    pub peers: Vec<(String, f64)>,
}

impl SettingReport {
    fn benefit(&self, peer: &str) -> Option<f64> {
        let (_, goodput) = self.peers.iter().find(|p| p.0 == peer)?;
        aggregation_benefit(*goodput, &self.singles)
    }
}

/// `count` settings: 2 to 4 paths of 1 to 100 Mbit/s and 2 to 200 ms, all log-uniform; queues of
/// 0.5 to 4 bandwidth-delay products; half the paths lose nothing, the others up to 2.5 %.
#[must_use]
pub fn draw(count: u32, seed: u64) -> Vec<Cell> {
    let mut rng = Rng::new(seed);
    let path = |rng: &mut Rng| {
        let path = PathSpec::new(rng.log_range(1.0, 100.0), rng.log_range(2.0, 200.0));
        let path = path.with_queue_bdp(rng.log_range(0.5, 4.0));
        let lossy = rng.unit() < 0.5;
        path.with_loss(if lossy { rng.unit() * 2.5 } else { 0.0 })
    };
    (1..=count)
        .map(|number| {
            let paths: Vec<PathSpec> =
                (0..2 + rng.next_u64() % 3).map(|_| path(&mut rng)).collect();
            let about = describe(&paths);
            Cell::new(&format!("{NAME}{number}"), &about, paths)
                .step("down", bulk(Direction::Down, 1, BULK_MS, 0))
                .goal(Goal::shown(FIGURE, "Mbit/s", Better::Higher))
        })
        .collect()
}

/// The setting with this name, up to `SETTINGS_MAX`; `random1` is the first that `draw` gives.
#[must_use]
pub fn by_name(name: &str, seed: u64) -> Option<Cell> {
    let number: u32 = name.strip_prefix(NAME)?.parse().ok()?;
    (1..=SETTINGS_MAX).contains(&number).then(|| draw(number, seed).pop())?
}

/// Measures one setting: each path alone, then each contender; `runs` times, taking turns.
pub fn measure(
    cell: &Cell,
    peers: &[Peer],
    runs: u32,
    settings: &Settings,
) -> Result<SettingReport, LabError> {
    let mut all: Vec<(Cell, Peer)> =
        (0..cell.paths.len()).map(|path| alone(cell, path, peers)).collect();
    all.extend(peers.iter().map(|peer| (cell.clone(), peer.clone())));
    let mut goodputs = vec![Vec::new(); all.len()];
    for run in 0..runs {
        for ((cell, peer), goodputs) in all.iter().zip(&mut goodputs) {
            let goodput = match run_calm(cell, peer, run.into(), settings) {
                Ok(result) => result.figures.get(FIGURE).copied().unwrap_or(0.0),
                Err(e @ LabError::Run(_)) => {
                    eprintln!("{} {peer}: {e}", cell.name);
                    0.0
                }
                Err(e) => return Err(e),
            };
            goodputs.push(goodput);
        }
    }
    let mut medians = goodputs.iter().map(|g| median(g).unwrap_or(0.0));
    let singles = medians.by_ref().take(cell.paths.len()).collect();
    let peers = peers.iter().map(ToString::to_string).zip(medians).collect();
    Ok(SettingReport { paths: cell.paths.clone(), singles, peers })
}

/// The baseline for a single path: kernel TCP on it or, if no contender uses a kernel, the
/// simulator.
fn alone(cell: &Cell, path: usize, peers: &[Peer]) -> (Cell, Peer) {
    if peers.iter().all(Peer::is_simulated) {
        (Cell { paths: vec![cell.paths[path]], ..cell.clone() }, Peer::Simulated(1))
    } else {
        (cell.clone(), Peer::Tcp(Some(path)))
    }
}

impl DesignReport {
    fn peers(&self) -> Vec<&str> {
        self.settings
            .first()
            .map(|s| s.peers.iter().map(|p| p.0.as_str()).collect())
            .unwrap_or_default()
    }

    fn benefits(&self, peer: &str) -> Vec<f64> {
        self.settings.iter().filter_map(|s| s.benefit(peer)).collect()
    }

    /// The distribution of the benefit, then every setting.
    #[must_use]
    pub fn markdown(&self) -> String {
        let peers = self.peers();
        let mut out = format!(
            "Aggregation benefit over {} settings (0: the best path alone, 1: the sum of all).\n\n\
             | contender | worst | 10 % | median | 90 % | settings below the best path |\n|---|---|---|---|---|---|\n",
            self.settings.len()
        );
        for peer in &peers {
            let benefits = self.benefits(peer);
            let at = |q| percentile(&benefits, q).map_or("-".to_owned(), number);
            let middle = median(&benefits).map_or("-".to_owned(), number);
            let below = benefits.iter().filter(|b| **b < 0.0).count();
            out += &format!(
                "| {peer} | {} | {} | {middle} | {} | {below} |\n",
                at(0.0),
                at(0.1),
                at(0.9)
            );
        }
        out += &format!(
            "\n| paths | each alone, Mbit/s | {} |\n|---|---|{}\n",
            peers.join(" | "),
            "---|".repeat(peers.len())
        );
        for setting in &self.settings {
            let singles: Vec<String> = setting.singles.iter().map(|s| number(*s)).collect();
            out += &format!("| {} | {} |", describe(&setting.paths), singles.join(" + "));
            for (peer, goodput) in &setting.peers {
                let benefit = setting.benefit(peer).map_or("-".to_owned(), number);
                out += &format!(" {} ({benefit}) |", number(*goodput));
            }
            out += "\n";
        }
        out
    }

    /// For each contender, the share of settings (x) with at most this benefit (y).
    #[must_use]
    pub fn plot(&self) -> String {
        let line = |peer: &&str| {
            let mut benefits = self.benefits(peer);
            benefits.sort_by(f64::total_cmp);
            let count = benefits.len().max(1) as f64;
            let points =
                benefits.iter().enumerate().map(|(i, b)| ((i as f64 + 1.0) / count, *b)).collect();
            svg::Line { name: (*peer).to_owned(), points }
        };
        let title = format!("Aggregation benefit over the share of settings ({})", self.congestion);
        svg::lines(&title, &self.peers().iter().map(line).collect::<Vec<_>>(), &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_from_the_seed_and_stay_in_their_ranges() {
        assert_eq!(draw(40, 7), draw(40, 7));
        assert_ne!(draw(40, 7), draw(40, 8));
        assert_eq!(draw(40, 7)[..10], draw(10, 7)[..], "more settings leave the first as they are");
        for cell in draw(200, 1) {
            assert!((2..=4).contains(&cell.paths.len()));
            for p in &cell.paths {
                assert!(
                    (1.0..=100.0).contains(&p.mbit) && (2.0..=200.0).contains(&p.rtt_ms),
                    "{p:?}"
                );
                assert!((0.0..=2.5).contains(&p.loss_pct) && p.queue_kb >= 6.0, "{p:?}");
            }
        }
    }

    #[test]
    fn a_setting_is_found_by_its_name() {
        assert_eq!(by_name("random8", 1).as_ref(), draw(40, 1).get(7));
        for name in ["random0", "random", "random-1", "random100001", "equal-down"] {
            assert_eq!(by_name(name, 1), None, "{name}");
        }
    }

    #[test]
    fn benefit_of_a_setting() {
        let setting = SettingReport {
            paths: vec![PathSpec::new(50.0, 20.0); 2],
            singles: vec![48.0, 48.0],
            peers: vec![("mptcp".to_owned(), 72.0), ("agg".to_owned(), 24.0)],
        };
        assert_eq!(setting.benefit("mptcp"), Some(0.5));
        assert_eq!(setting.benefit("agg"), Some(-0.5));
        let report = DesignReport { congestion: "bbr".to_owned(), settings: vec![setting] };
        assert!(report.markdown().contains("| agg | -0.50 |"), "{}", report.markdown());
        assert!(report.plot().contains("polyline"));
    }
}
