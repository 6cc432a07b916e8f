//! The lab's one clock, and waits that a signal can end.
//!
//! `CLOCK_MONOTONIC` is the same in all processes and namespaces of a machine, so that one process
//! can stamp a byte's departure and another its arrival.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::error::LabError;

/// Nanoseconds in a millisecond.
pub const NS_PER_MS: u64 = 1_000_000;

/// Nanoseconds of the machine's monotonic clock.
#[must_use]
pub fn now_ns() -> u64 {
    // CLOCK_MONOTONIC exists on every Linux, and counts up from zero: neither step can fail.
    let t = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    u64::try_from(t.as_nanos()).unwrap_or(u64::MAX)
}

static SIGNAL: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// From now on SIGINT and SIGTERM are noted for [`check_interrupt`] instead of ending the process.
pub fn catch_signals() -> Result<(), LabError> {
    let seen = SIGNAL.get_or_init(|| Arc::new(AtomicUsize::new(0)));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_usize(signal, Arc::clone(seen), signal as usize)
            .map_err(|e| LabError::setup("listen for signals", e))?;
    }
    Ok(())
}

/// An error once SIGINT or SIGTERM has arrived.
pub fn check_interrupt() -> Result<(), LabError> {
    match SIGNAL.get().map_or(0, |s| s.load(Ordering::Relaxed)) {
        0 => Ok(()),
        signal => Err(LabError::Interrupted(i32::try_from(signal).unwrap_or(0))),
    }
}

/// Waits, but no longer than until a signal.
pub fn sleep(duration: Duration) -> Result<(), LabError> {
    sleep_until(now_ns().saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
}

/// Waits until the clock shows `deadline_ns`, or until a signal.
pub fn sleep_until(deadline_ns: u64) -> Result<(), LabError> {
    loop {
        check_interrupt()?;
        let left = deadline_ns.saturating_sub(now_ns());
        if left == 0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_nanos(left.min(20 * NS_PER_MS)));
    }
}
