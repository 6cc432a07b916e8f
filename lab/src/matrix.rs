//! Many runs: cells or random settings, with contenders taking turns and results written as they
//! come.

use super::calm::run_calm;
use super::cell::Cell;
use super::clock;
use super::design::{self, DesignReport};
use super::error::LabError;
use super::peers::Peer;
use super::report::{CellReport, PeerReport, Report, cells_table, host};
use super::runner::Settings;
use super::say;
use super::topology::{check_supported, sweep};

/// Before any run: checks that the lab can run here, and removes what earlier runs left behind.
pub fn prepare() -> Result<(), LabError> {
    check_supported()?;
    clock::catch_signals()?;
    sweep();
    Ok(())
}

/// The contenders that can run here. Names and skips the others; fails if none is left.
pub fn available(peers: &[Peer], settings: &Settings) -> Result<Vec<Peer>, LabError> {
    let mut found = Vec::new();
    for peer in peers {
        match peer.check(&settings.programs) {
            Ok(()) => found.push(peer.clone()),
            Err(e) if peers.len() == 1 => return Err(e),
            Err(e) => eprintln!("imux-lab: {peer} is left out: {e}"),
        }
    }
    Ok(found)
}

/// Runs a cell with every contender, `runs` times.
pub fn run_cell(
    cell: &Cell,
    peers: &[Peer],
    runs: u32,
    settings: &Settings,
) -> Result<CellReport, LabError> {
    let report =
        |p: &Peer| PeerReport { peer: p.to_string(), runs: Vec::new(), failures: Vec::new() };
    let mut reports: Vec<PeerReport> = peers.iter().map(report).collect();
    for run in 0..runs {
        for (peer, report) in peers.iter().zip(&mut reports) {
            eprint!("{} {} run {}/{runs} {peer}: ", cell.name, settings.congestion, run + 1);
            match run_calm(cell, peer, run.into(), settings) {
                Ok(result) => {
                    let shown: Vec<String> = cell
                        .goals
                        .iter()
                        .filter_map(|g| {
                            result.figures.get(&g.figure).map(|v| format!("{} {v:.3}", g.figure))
                        })
                        .collect();
                    eprintln!(
                        "{}{}",
                        shown.join(", "),
                        if result.faults.is_empty() { "" } else { " (faults)" }
                    );
                    report.runs.push(result);
                }
                Err(e @ LabError::Run(_)) => {
                    eprintln!("{e}");
                    report.failures.push(e.to_string());
                }
                Err(e) => {
                    eprintln!();
                    return Err(e);
                }
            }
        }
    }
    Ok(CellReport { cell: cell.clone(), congestion: settings.congestion.clone(), peers: reports })
}

/// Runs all cells and a random design under each congestion control. `save` gets the report after
/// every cell, so that an interrupt loses only the current cell.
pub fn run_all(
    cells: &[Cell],
    designs: u32,
    peers: &[Peer],
    runs: u32,
    congestions: &[String],
    settings: &Settings,
    mut save: impl FnMut(&Report) -> Result<(), LabError>,
) -> Result<Report, LabError> {
    let mut report = Report { host: host(), seed: settings.seed, ..Report::default() };
    for congestion in congestions {
        let settings = Settings { congestion: congestion.clone(), ..settings.clone() };
        for cell in cells {
            let cell = run_cell(cell, peers, runs, &settings)?;
            say(cells_table(&[&cell]));
            report.cells.push(cell);
            save(&report)?;
        }
        if designs == 0 {
            continue;
        }
        let multipath: Vec<Peer> =
            peers.iter().filter(|p| !matches!(p, Peer::Tcp(_))).cloned().collect();
        report
            .designs
            .push(DesignReport { congestion: congestion.clone(), ..DesignReport::default() });
        for cell in design::draw(designs, settings.seed) {
            eprintln!("{} {congestion}: {}", cell.name, cell.about);
            let setting = design::measure(&cell, &multipath, runs, &settings)?;
            eprintln!("  alone {:.1?}, {:.1?}", setting.singles, setting.peers);
            if let Some(design) = report.designs.last_mut() {
                design.settings.push(setting);
            }
            save(&report)?;
        }
    }
    Ok(report)
}
