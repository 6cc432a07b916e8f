//! What the core's tests and fuzz targets share.
#![cfg_attr(not(test), allow(dead_code, reason = "the tests use all of it, the targets a part"))]

pub(crate) mod pair;

use std::time::{Duration, Instant};

use super::link::KernelSample;

/// Any instant will do: the core only ever adds to it and takes differences.
#[allow(clippy::disallowed_methods, reason = "an Instant cannot be made any other way")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

/// What the kernel reports for a lane on a path of 20 ms: its rate in bytes a second, and its
/// current round trip.
pub(crate) fn kernel(rate: u64, rtt: Duration) -> KernelSample {
    KernelSample {
        rtt,
        rtt_var: Duration::from_millis(1),
        rtt_min: Duration::from_millis(20),
        delivery_rate: Some(rate),
        app_limited: false,
        pacing_rate: None,
        cwnd_bytes: 0,
        delivered_bytes: None,
        silence: None,
    }
}
