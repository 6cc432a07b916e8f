//! What the kernel has reported about a lane.

use std::time::{Duration, Instant};

use crate::proto::link::{KernelSample, MaxFilter};

/// The kernel's latest sample, and what is kept of earlier ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Kernel {
    latest: Option<KernelSample>,
    /// When it was last asked.
    asked_at: Option<Instant>,
    /// When it last heard from the peer's kernel.
    heard_at: Option<Instant>,
    /// When it last heard that more bytes had arrived.
    delivered_at: Option<Instant>,
    rate: MaxFilter,
    /// The same, kept about as long as BBR keeps it.
    peak_rate: MaxFilter,
}

impl Kernel {
    /// Maxima of the rate last for `window`; those kept longer, for `kept`. Returns how many more
    /// bytes were counted as delivered.
    pub(super) fn on_sample(
        &mut self,
        now: Instant,
        sample: KernelSample,
        window: Duration,
        kept: Duration,
    ) -> u64 {
        let counted = |sample: &KernelSample| sample.delivered_bytes.unwrap_or_default();
        let delivered_before = self.latest.as_ref().map_or(0, counted);
        let delivered = counted(&sample).saturating_sub(delivered_before);
        if let Some(rate) = sample.delivery_rate {
            self.rate.add_sample(now, rate as f64, !sample.app_limited, window);
            self.peak_rate.add_sample(now, rate as f64, !sample.app_limited, kept);
        }
        let heard_at = sample.silence.and_then(|silence| now.checked_sub(silence));
        self.heard_at = self.heard_at.max(heard_at);
        if delivered > 0 {
            self.delivered_at = self.delivered_at.max(heard_at.or(Some(now)));
        }
        self.asked_at = Some(now);
        self.latest = Some(sample);
        delivered
    }

    pub(super) fn latest(&self) -> Option<&KernelSample> {
        self.latest.as_ref()
    }

    pub(super) fn asked_at(&self) -> Option<Instant> {
        self.asked_at
    }

    pub(super) fn heard_at(&self) -> Option<Instant> {
        self.heard_at
    }

    pub(super) fn delivered_at(&self) -> Option<Instant> {
        self.delivered_at
    }

    /// Recent maxima, in bytes a second.
    pub(super) fn rate(&self) -> f64 {
        self.rate.max()
    }

    pub(super) fn peak_rate(&self) -> f64 {
        self.peak_rate.max()
    }

    /// Whether it had enough to send in any sample.
    pub(super) fn was_busy(&self) -> bool {
        self.rate.was_busy
    }
}
