//! The one clock: tokio's, so that paused and simulated time work.

use std::time::Instant;

/// Now.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
