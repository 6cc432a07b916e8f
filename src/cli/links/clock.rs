//! When this machine has slept.
//!
//! The kernel cancels a timer of the wall clock when that jumps, as it does when a machine wakes
//! up; so nothing has to look now and then. How long it slept is the difference of two clocks, of
//! which one goes on meanwhile (`clock_gettime`(2), `timerfd_create`(2)).

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{
    ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags,
};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

/// Notices that the machine has slept.
#[derive(Debug)]
pub(super) struct Sleep {
    jumps: watch::Receiver<()>,
    asleep: Duration,
}

impl Sleep {
    pub(super) fn notice() -> Self {
        let (jumped, jumps) = watch::channel(());
        // It waits in the kernel, and ends with the process.
        let waiting = std::thread::Builder::new().name("clock".to_owned()).spawn(move || {
            while !jumped.is_closed() && wait_for_jump().is_ok() {
                jumped.send_replace(());
            }
        });
        if let Err(error) = waiting {
            tracing::debug!(%error, "it will not be noticed when this machine has slept");
        }
        Self { jumps, asleep: asleep() }
    }

    /// Waits until it has slept, and how long. Cancel safe.
    pub(super) async fn over(&mut self) -> Duration {
        loop {
            if self.jumps.changed().await.is_err() {
                return std::future::pending().await;
            }
            let before = std::mem::replace(&mut self.asleep, asleep());
            let slept = self.asleep.saturating_sub(before);
            // Or somebody has set the clock.
            if slept > Duration::from_millis(100) {
                return slept;
            }
        }
    }
}

/// Waits with a timer of the wall clock that never goes off, but is cancelled when that clock
/// jumps.
fn wait_for_jump() -> nix::Result<()> {
    let timer = TimerFd::new(TimerClock::CLOCK_REALTIME, TimerFlags::TFD_CLOEXEC)?;
    let never = TimeSpec::new(i64::from(i32::MAX) * 100, 0);
    let how = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
    timer.set(Expiration::OneShot(never), how)?;
    loop {
        match timer.wait() {
            Err(Errno::ECANCELED) => return Ok(()),
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// How long this machine has slept since it started.
fn asleep() -> Duration {
    let now = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
    // In this order the difference never falls short of what it was.
    let awake = now(ClockId::CLOCK_MONOTONIC);
    now(ClockId::CLOCK_BOOTTIME).saturating_sub(awake)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_machine_that_does_not_sleep_is_not_said_to_have() {
        let mut sleep = Sleep::notice();
        assert!(tokio::time::timeout(Duration::from_millis(50), sleep.over()).await.is_err());
    }
}
