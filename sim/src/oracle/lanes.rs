//! Lanes of slow links must live as long as their links.

use crate::net::{SECOND, Time};
use crate::options::Options;

/// Slow enough that a lane always notices: half of what the core calls slow.
pub const SLOW_MBIT: f64 = 0.256;

/// A lane up for less has shown nothing yet of itself or its link: its first bytes may be lost
/// repeatedly at a full queue.
const NEW: Time = 10 * SECOND;

/// A lane was given up for not answering, after it had been up for `age`. An error: its link is
/// slow but carries, the peer lives, and the kernel showed it.
pub fn check_given_up(options: &Options, age: Time) -> Result<(), String> {
    let slow = |path: &crate::options::PathOptions| {
        path.mbit.into_iter().all(|mbit| (0.064..=SLOW_MBIT).contains(&mbit)) && path.loss == 0.0
    };
    let nothing_breaks = options.faults.is_empty() && options.endings.is_empty();
    let told = options.driver.metrics && options.driver.metrics_every_ms == 0.0;
    let known = age >= NEW && told && options.driver.unsent_bytes == 0;
    if nothing_breaks && known && options.paths.iter().all(slow) {
        return Err("a live lane of a slow link was given up".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Ending, PathOptions};
    use crate::scenarios;

    #[test]
    fn a_lane_of_a_slow_link_may_be_given_up_only_where_something_breaks() {
        let mut options = scenarios::named("reset").unwrap();
        options.faults = Vec::new();
        options.driver.metrics = true;
        options.driver.metrics_every_ms = 0.0;
        options.paths = vec![PathOptions { mbit: [0.1, 0.25], ..PathOptions::default() }];
        assert!(check_given_up(&options, NEW).is_err());
        assert_eq!(check_given_up(&options, NEW - 1), Ok(()), "new");
        options.paths[0].mbit[0] = 2.0;
        assert_eq!(check_given_up(&options, NEW), Ok(()), "not slow");
        options.paths[0].mbit[0] = 0.1;
        options.endings = vec![Ending { at_ms: 0.0, server: false, close: true }];
        assert_eq!(check_given_up(&options, NEW), Ok(()), "the peer goes");
    }
}
