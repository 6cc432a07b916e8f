//! Samples for tests.

use std::time::Duration;

use super::sample::{KernelSample, LaneSample};
use crate::proto::testing;

/// Of the path below.
pub(super) const RTT: Duration = Duration::from_millis(20);

/// A lane that fills a path of 20 ms and believes that it delivers 1 MB/s.
pub(super) fn filling_lane() -> LaneSample {
    LaneSample {
        active: true,
        in_flight: 20_000,
        acked_bytes: 0,
        answered_at: testing::start(),
        rate: 1e6,
        peak_rate: 1e6,
        pacing_rate: 1e6,
        rtt_min: RTT,
        is_slow: false,
        path_by_handshake: None,
        is_full: true,
        kernel: Some(KernelSample { rtt_min: RTT, ..KernelSample::default() }),
    }
}
