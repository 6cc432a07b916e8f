//! What the tests from outside share: the compiled program as a child process, a relay that lanes
//! go through and that harms them, destinations, and bytes that reveal their place.
//!
//! Everything is on loopback, at ports the system chooses, and ends with the test.

#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub(crate) mod bytes;
pub(crate) mod namespace;
pub(crate) mod net;
#[cfg(feature = "cli")]
pub(crate) mod pair;
#[cfg(feature = "cli")]
pub(crate) mod process;
pub(crate) mod relay;
pub(crate) mod skipped;
#[cfg(feature = "cli")]
pub(crate) mod terminal;
#[cfg(feature = "cli")]
pub(crate) mod tunnel;

/// Runs a test, and fails it if it takes longer than `seconds`.
#[track_caller]
pub(crate) fn bounded<T>(seconds: u64, test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    let runtime = Abandoned(Some(runtime));
    let limit = Duration::from_secs(seconds);
    let outcome = runtime.block_on(async { tokio::time::timeout(limit, test).await });
    match outcome {
        Ok(value) => value,
        Err(_) => panic!("not done after {seconds} s"),
    }
}

/// A runtime whose end waits for no thread: one that is stuck must not hide why a test failed.
struct Abandoned(Option<tokio::runtime::Runtime>);

impl std::ops::Deref for Abandoned {
    type Target = tokio::runtime::Runtime;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().unwrap()
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Runs a test as [`bounded`] does, and alone among its kind in this process: large transfers
/// through several programs want the machine to themselves. (`.config/nextest.toml` does the same
/// for processes.)
#[track_caller]
pub(crate) fn alone<T>(seconds: u64, test: impl Future<Output = T>) -> T {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed has also ended.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    bounded(seconds, test)
}

/// Checks every 20 ms until it is so.
#[track_caller]
pub(crate) fn eventually(
    seconds: u64,
    what: &str,
    mut is_so: impl FnMut() -> bool,
) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let until = tokio::time::Instant::now() + Duration::from_secs(seconds);
        while !is_so() {
            assert!(tokio::time::Instant::now() < until, "{place}: not within {seconds} s: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
