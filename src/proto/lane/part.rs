//! A part of a duration.

use std::time::Duration;

/// `duration / N` for a divisor that cannot be zero.
pub fn part<const N: u32>(duration: Duration) -> Duration {
    const { assert!(N > 0) };
    duration.checked_div(N).unwrap_or_default()
}
