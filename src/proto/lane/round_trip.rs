//! Round trips of a lane according to its acknowledgements: from sending a frame to its
//! acknowledgement, queues included.

use std::time::{Duration, Instant};

use super::part::part;

/// How long a minimum is valid (10 s, as in BBR).
const RTT_MIN_LIFETIME: Duration = Duration::from_secs(10);

/// Smoothed as in RFC 6298.
#[derive(Clone, Debug, Default)]
pub(super) struct RoundTrip {
    smoothed: Option<Duration>,
    var: Duration,
    /// The smallest, and when it was seen.
    min: Option<(Duration, Instant)>,
}

impl RoundTrip {
    /// A frame was acknowledged `rtt` after it was given to the lane.
    pub(super) fn on_sample(&mut self, now: Instant, rtt: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(rtt);
                self.var = part::<2>(rtt);
            }
            Some(smoothed) => {
                let var = self.var.saturating_mul(3).saturating_add(smoothed.abs_diff(rtt));
                self.var = part::<4>(var);
                let smoothed = smoothed.saturating_mul(7).saturating_add(rtt);
                self.smoothed = Some(part::<8>(smoothed));
            }
        }
        match self.min {
            Some((min, at))
                if min < rtt && now.saturating_duration_since(at) < RTT_MIN_LIFETIME => {}
            _ => self.min = Some((rtt, now)),
        }
    }

    /// `None`: no sample yet.
    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The mean deviation.
    pub(super) fn var(&self) -> Duration {
        self.var
    }

    /// The recent minimum.
    pub(super) fn min(&self) -> Option<Duration> {
        self.min.map(|(min, _)| min)
    }

    /// How long an acknowledgement may reasonably take.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.smoothed.map(|smoothed| timeout(smoothed, self.var))
    }
}

/// Twice a round trip, plus four times its deviation.
pub(super) fn timeout(rtt: Duration, var: Duration) -> Duration {
    rtt.saturating_mul(2).saturating_add(var.saturating_mul(4))
}
