//! What a lane's TCP knows: how much it may have in flight, and the path's delay and rate.

use std::time::Duration;

use imux::proto::KernelSample;

use super::{Link, MSS, SECOND, Time};
use crate::options::Congestion;

/// Segments in flight before the first acknowledgement (RFC 6928).
pub(super) const INITIAL_WINDOW: f64 = 10.0 * MSS;
/// The largest window.
const WINDOW_MAX: f64 = 64e6;

/// The congestion window of a loss-based control, in bytes.
#[derive(Debug)]
pub(super) struct Window {
    bytes: f64,
    threshold: f64,
    /// Before the last cut.
    most: f64,
    cut_at: Time,
    recovers_until: Time,
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            bytes: INITIAL_WINDOW,
            threshold: f64::INFINITY,
            most: 0.0,
            cut_at: 0,
            recovers_until: 0,
        }
    }

    /// What may be in flight now, under the link's control.
    pub(super) fn now(&self, link: &Link) -> f64 {
        match link.control {
            Congestion::Pipe => f64::INFINITY,
            Congestion::Cubic | Congestion::Bbr => self.bytes,
        }
    }

    /// Something was lost: the window is cut at most once a round trip.
    pub(super) fn cut(&mut self, now: Time, round_trip: Time) {
        if now >= self.recovers_until {
            self.recovers_until = now + round_trip;
            self.most = self.bytes;
            self.bytes = (self.bytes * 0.7).max(2.0 * MSS);
            self.threshold = self.bytes;
            self.cut_at = now;
        }
    }

    /// `bytes` were acknowledged.
    pub(super) fn grow(&mut self, now: Time, bytes: f64) {
        if self.bytes < self.threshold {
            self.bytes = (self.bytes + bytes).min(WINDOW_MAX);
            return;
        }
        // CUBIC (RFC 9438, 4.2), and no slower than Reno.
        let since = now.saturating_sub(self.cut_at) as f64 / SECOND as f64;
        let segments = self.most / MSS;
        let plateau = (segments * 0.3 / 0.4).cbrt();
        let cubic = (0.4 * (since - plateau).powi(3) + segments) * MSS;
        let reno = self.bytes + MSS * bytes / self.bytes;
        self.bytes = reno.max(cubic.min(self.bytes + bytes)).min(WINDOW_MAX);
    }

    /// The socket is closed: makes room for its last segments.
    pub(super) fn reopen(&mut self) {
        self.bytes = self.bytes.max(INITIAL_WINDOW);
    }

    pub(super) fn bytes(&self) -> f64 {
        self.bytes
    }
}

/// Measured from acknowledgements; times in nanoseconds.
#[derive(Debug)]
pub(super) struct Estimates {
    rtt: f64,
    rtt_var: f64,
    rtt_min: f64,
    delivery_rate: Option<u64>,
    app_limited: bool,
}

impl Estimates {
    pub(super) fn new() -> Self {
        Self {
            rtt: 0.0,
            rtt_var: 0.0,
            rtt_min: f64::INFINITY,
            delivery_rate: None,
            app_limited: false,
        }
    }

    /// A segment and its acknowledgement took `sample`.
    pub(super) fn on_round_trip(&mut self, sample: f64) {
        let first = self.rtt == 0.0;
        self.rtt_var = if first {
            sample / 2.0
        } else {
            0.75 * self.rtt_var + 0.25 * (self.rtt - sample).abs()
        };
        self.rtt = if first { sample } else { 0.875 * self.rtt + 0.125 * sample };
        self.rtt_min = self.rtt_min.min(sample);
    }

    /// Bytes were delivered at `rate`.
    pub(super) fn on_delivery(&mut self, rate: f64, app_limited: bool) {
        // From a sender that ran out of data, only rates above the known one count.
        if !app_limited || self.delivery_rate.is_some_and(|known| (known as f64) < rate) {
            self.delivery_rate = Some(rate as u64);
            self.app_limited = app_limited;
        }
    }

    /// What a kernel would report, if it has measured anything: with its window and, if it paces,
    /// its rate.
    pub(super) fn metrics(
        &self,
        window: f64,
        pacing_rate: Option<f64>,
        delivered: u64,
        silence: Option<Duration>,
    ) -> Option<KernelSample> {
        (self.rtt > 0.0).then(|| KernelSample {
            rtt: Duration::from_nanos(self.rtt as u64),
            rtt_var: Duration::from_nanos(self.rtt_var as u64),
            rtt_min: Duration::from_nanos(self.rtt_min as u64),
            delivery_rate: self.delivery_rate,
            app_limited: self.app_limited && pacing_rate.is_some(),
            pacing_rate: pacing_rate.map(|rate| rate as u64),
            cwnd_bytes: window as u64,
            delivered_bytes: Some(delivered),
            silence,
        })
    }
}
