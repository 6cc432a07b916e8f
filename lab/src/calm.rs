//! Runs undisturbed by the machine itself.

use super::cell::Cell;
use super::emu::Counters;
use super::error::LabError;
use super::peers::Peer;
use super::result::RunResult;
use super::runner::{Settings, run_once};

/// A calm machine delivers within 0.1 ms. Above this mean, something else (other work, or a
/// hypervisor taking the processors away) has shaped the run as much as the links did.
const DISTURBED_MEAN_US: f64 = 250.0;
/// The same holds if it was once later than this: hypervisors take a processor away for 0.1 s at a
/// time, and would cause the longest gap.
const DISTURBED_ONCE_US: f64 = 20_000.0;

/// Runs once, and repeats up to [`Settings::repeats`] times while the machine was too disturbed to
/// emulate links; returns the calmest run.
pub fn run_calm(
    cell: &Cell,
    peer: &Peer,
    number: u64,
    settings: &Settings,
) -> Result<RunResult, LabError> {
    let mut best = run_once(cell, peer, number, settings)?;
    for _ in 0..settings.repeats {
        if disturbance(&best.links) <= 1.0 {
            break;
        }
        let links = &best.links;
        eprint!("(links {:.0} us late, {:.0} once, again) ", links.late_us_mean, links.late_us_max);
        let again = run_once(cell, peer, number, settings)?;
        if disturbance(&again.links) < disturbance(&best.links) {
            best = again;
        }
    }
    Ok(best)
}

/// How late the emulator was; above 1 is too late.
fn disturbance(links: &Counters) -> f64 {
    (links.late_us_mean / DISTURBED_MEAN_US).max(links.late_us_max / DISTURBED_ONCE_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_disturbed_by_delays_as_a_rule_and_by_a_long_one() {
        let disturbance = |late_us_mean, late_us_max| {
            disturbance(&Counters { late_us_mean, late_us_max, ..Counters::default() })
        };
        assert!(disturbance(40.0, 9_000.0) <= 1.0);
        assert!(disturbance(300.0, 9_000.0) > 1.0);
        assert!(disturbance(40.0, 100_000.0) > disturbance(40.0, 30_000.0));
    }
}
