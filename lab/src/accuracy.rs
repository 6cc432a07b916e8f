//! Measures the link emulator on this machine: are rates and delays as configured?

use super::cell::{Better, Cell, Goal};
use super::error::LabError;
use super::load::{Direction, Job};
use super::matrix::prepare;
use super::peers::Peer;
use super::result::RunResult;
use super::runner::{Settings, run_once};
use super::say;
use super::stats::number;
use super::topology::PathSpec;
use super::workload::bulk;

const BULK_MS: u64 = 4000;

/// How well the emulator did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Accuracy {
    /// Median echo time in milliseconds above the configured round-trip time, on idle paths.
    pub echo_excess_ms: f64,
    /// Bytes delivered against rate x time with all paths busy; 1 is exact.
    pub rate_ratio: f64,
    /// Delivery lateness in microseconds: mean, one in a thousand, worst.
    pub late_us: (f64, f64, f64),
    /// Share of one core that the emulator took.
    pub core_share: f64,
}

/// Measures with an idle echo on one path, and with bulk over all paths at once.
pub fn measure(paths: &[PathSpec], congestion: &str) -> Result<Accuracy, LabError> {
    let settings = Settings { congestion: congestion.to_owned(), seed: 1, ..Settings::default() };
    let echo = Job::Echo { bytes: 200, interval_ms: 5, at_ms: 200, duration_ms: 1500 };
    let idle = Cell::new("accuracy-echo", "", vec![paths[0]]).step("echo", echo).goal(Goal::shown(
        "echo.p50",
        "ms",
        Better::Lower,
    ));
    let idle = run_once(&idle, &Peer::Tcp(None), 0, &settings)?;
    let busy = Cell::new("accuracy-rate", "", paths.to_vec())
        .step("down", bulk(Direction::Down, 1, BULK_MS, 0));
    let busy = run_once(&busy, &Peer::Mptcp, 0, &settings)?;
    Ok(Accuracy {
        echo_excess_ms: idle.figures.get("echo.p50").copied().unwrap_or(f64::INFINITY)
            - paths[0].rtt_ms,
        rate_ratio: steady_ratio(&busy, paths),
        late_us: (busy.links.late_us_mean, busy.links.late_us_p999, busy.links.late_us_max),
        core_share: busy.links.cpu_s / (BULK_MS as f64 / 1e3),
    })
}

/// Goodput of the second half, with all links busy, against their payload rate.
fn steady_ratio(run: &RunResult, paths: &[PathSpec]) -> f64 {
    let half = &run.timeline[run.timeline.len() / 2..];
    let mbit = half.iter().sum::<f64>() / half.len().max(1) as f64;
    mbit * 1e6 / 8.0 / paths.iter().map(PathSpec::payload_rate).sum::<f64>()
}

/// `imux-lab accuracy`
pub fn run(paths: usize, mbit: f64, rtt_ms: f64, congestion: &str) -> Result<(), LabError> {
    if paths == 0 || mbit <= 0.0 || rtt_ms < 0.0 {
        return Err(LabError::Usage("at least one path, with a rate above 0".to_owned()));
    }
    prepare()?;
    let got = measure(&vec![PathSpec::new(mbit, rtt_ms); paths], congestion)?;
    say(format_args!(
        "echo, idle: {} ms above the {rtt_ms} ms set (both kernels and processes included)",
        number(got.echo_excess_ms)
    ));
    say(format_args!(
        "rate, {paths} x {mbit} Mbit/s busy: {:.4} of what was set (MPTCP bulk)",
        got.rate_ratio
    ));
    let (mean, p999, worst) = got.late_us;
    say(format_args!(
        "deliveries behind their due time: mean {mean:.0} us, 99.9 % within {p999:.0} us, worst {worst:.0} us"
    ));
    say(format_args!("cost: {:.2} of one core", got.core_share));
    Ok(())
}
