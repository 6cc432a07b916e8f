//! One link: combines what its mechanisms know of its path.

use std::time::{Duration, Instant};

use super::active_set::{ActiveSet, PathSample};
use super::delivery_rate::DeliveryRate;
use super::filling::Filling;
use super::jitter::Jitter;
use super::kernel_count::{KernelCount, WindowSum};
use super::pacing::Pacing;
use super::path::SLOW_RATE;
use super::sample::{Advice, LaneSample, WindowSample};
use super::standing_queue::StandingQueue;
use super::unsent::unsent_limit;
use super::window::Window;
use crate::proto::count::{Count, span};
use crate::proto::policy::Tier;

/// Hold lanes to what their path carries once they have filled it in more samples than this. Held
/// sooner, they would not find out what it carries; and while little is known of its jitter, a
/// queue is uncertain.
const SEARCHING_SAMPLES: u32 = 4;

/// A link that has lanes.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) lanes: Count,
    /// How many are express lanes: they carry bulk only while no other lane answers.
    express: Count,
    /// How many of the others are on standby.
    pub(super) standby: usize,
    /// How many should be active; `None`: all.
    pub(super) active_max: Option<usize>,
    /// When the peer's end was last heard of, on any of the lanes.
    pub(super) heard_at: Instant,
    count: KernelCount,
    pub(super) delivery_rate: DeliveryRate,
    /// What the handshake of its first lane showed, in bytes a second, if that is little: the
    /// others' handshakes wait behind it, and show less.
    pub(super) by_handshake: Option<f64>,
    jitter: Jitter,
    queue: StandingQueue,
    active_set: ActiveSet,
    /// It looked slow from the start, and has not delivered more yet.
    seems_slow: bool,
    /// In how many samples several lanes filled the path; `None`: no sample yet.
    filled: Option<u32>,
}

impl Link {
    /// A link without lanes. Something was just heard on it.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            lanes: Count::ZERO,
            express: Count::ZERO,
            standby: 0,
            active_max: None,
            heard_at: now,
            count: KernelCount::new(now),
            delivery_rate: DeliveryRate::new(now),
            by_handshake: None,
            jitter: Jitter::default(),
            queue: StandingQueue::NONE,
            active_set: ActiveSet::default(),
            seems_slow: false,
            filled: None,
        }
    }

    pub(super) fn join(&mut self, tier: Tier) {
        self.lanes.add(1);
        self.express.add(u64::from(tier == Tier::Express));
    }

    pub(super) fn leave(&mut self, tier: Tier) {
        self.lanes.take(1);
        self.express.take(u64::from(tier == Tier::Express));
    }

    /// Lanes that share the path. Express and standby lanes leave it to the others.
    fn active(&self) -> usize {
        span(self.express.get(), self.lanes.get()).saturating_sub(self.standby as u64) as usize
    }

    /// What the link means for one of its lanes.
    pub(super) fn view(&self) -> LinkView {
        LinkView {
            sharing: self.active().max(1),
            queue: self.queue,
            jitter: self.jitter.allowance(),
        }
    }

    /// A lane's kernel counted this many more `bytes` as delivered, with round trips of `rtt`.
    pub(super) fn on_delivered(&mut self, bytes: u64, rtt: Duration) {
        self.count.on_delivered(bytes, rtt);
    }

    /// Takes a sample of the link's `lanes`, once per `window`. Returns whether the active lanes
    /// are to change.
    pub(super) fn on_sample(
        &mut self,
        now: Instant,
        lanes: impl Iterator<Item = LaneSample>,
        window: Duration,
    ) -> bool {
        let Some(filled) = self.filled else {
            self.begin(now, lanes);
            return true;
        };
        let Some(sum) = self.count.end_window(now, window) else { return false };
        if sum.bytes > 0.0 {
            // A window is two round trips, but no shorter than is worth measuring.
            self.jitter.on_sample(sum.rtt, window.as_secs_f64() / 2.0);
        }
        let filling = Filling::of(now, lanes);
        self.delivery_rate.on_sample(now, filling.answers);
        if self.seems_slow && self.delivery_rate.rate().is_some_and(|rate| rate >= SLOW_RATE) {
            // The handshake took long for another reason: a busy machine, say.
            self.seems_slow = false;
            let rtt = Duration::try_from_secs_f64(sum.rtt).unwrap_or_default();
            self.active_max = Some(ActiveSet::begin(rtt));
            self.active_set = ActiveSet::default();
            return true;
        }
        let slow = filling.fill_slow_path(sum.rtt, self.delivery_rate.rate());
        if slow && self.active_max != Some(1) {
            self.active_max = Some(1);
            self.active_set.on_slow(now);
            self.queue = StandingQueue::NONE;
            return true;
        }
        let filled = filled.saturating_add(u32::from(filling.lanes > 1));
        self.filled = Some(filled);
        self.queue = StandingQueue::NONE;
        if filled > SEARCHING_SAMPLES {
            let jitter = self.jitter.allowance();
            self.queue = StandingQueue::of(&filling, sum.rtt, self.count.rate(), jitter);
        }
        self.arrange(now, window, sum, &filling)
    }

    /// Starts with as many active lanes as suit the path's length; little else is known of it.
    fn begin(&mut self, now: Instant, lanes: impl Iterator<Item = LaneSample>) {
        let (mut rtt, mut slow) = (Duration::MAX, false);
        for lane in lanes {
            rtt = rtt.min(lane.rtt_min);
            slow |= lane.is_slow;
            self.by_handshake = self.by_handshake.or(lane.path_by_handshake);
        }
        self.active_max = Some(if slow { 1 } else { ActiveSet::begin(rtt) });
        if slow {
            self.active_set.on_slow(now);
        }
        self.seems_slow = slow;
        self.filled = Some(0);
    }

    /// Decides how many lanes are active. Returns whether that changes.
    fn arrange(
        &mut self,
        now: Instant,
        window: Duration,
        sum: WindowSum,
        filling: &Filling,
    ) -> bool {
        let (active, carried) = (self.active(), self.count.rate());
        let lanes = active.saturating_add(self.standby);
        let wanted = self.active_set.on_sample(PathSample {
            now,
            window,
            lanes,
            active,
            needed: filling.needed(carried),
            busy: filling.lanes.saturating_mul(2) >= active,
            queued: self.queue.is_standing(),
            too_short: filling.exceed_path(carried),
            bytes: sum.bytes,
        });
        if self.active_set.is_policed() {
            self.queue = StandingQueue::NONE;
        }
        if let Some(wanted) = wanted {
            self.active_max = Some(wanted).filter(|wanted| *wanted < lanes);
        }
        wanted.is_some()
    }
}

/// What a link means for one of its lanes.
#[derive(Debug, Clone, Copy)]
pub struct LinkView {
    /// How many lanes share its path.
    sharing: usize,
    queue: StandingQueue,
    /// How much longer than usual round trips may be without a queue, in seconds.
    jitter: f64,
}

impl LinkView {
    /// For a link of which nothing is known.
    pub(super) const UNKNOWN: Self = Self { sharing: 1, queue: StandingQueue::NONE, jitter: 0.0 };

    /// How many lanes share its path.
    pub fn sharing(&self) -> usize {
        self.sharing
    }

    pub fn is_shared(&self) -> bool {
        self.sharing > 1
    }

    /// What a lane can expect to deliver, as a fraction of its rate.
    pub fn share(&self) -> f64 {
        self.queue.share()
    }

    /// Most bytes the lane may have in flight.
    pub fn window(&self, lane: &WindowSample) -> f64 {
        let is_queued = self.queue.is_standing();
        Window { sharing: self.sharing, is_queued, jitter: self.jitter }.bytes(lane)
    }

    /// How a lane is to be used.
    pub fn advice(&self, lane: &LaneSample) -> Advice {
        let pacing = Pacing::new(self.queue, self.is_shared(), self.jitter).limit(lane);
        Advice {
            active: lane.active,
            share: self.share(),
            pacing_limit: pacing.map_or(u64::MAX, |limit| limit as u64),
            window: self.window(&lane.into()) as u64,
            unsent_limit: unsent_limit(lane),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::link::testing::{RTT, filling_lane};
    use crate::proto::testing;

    const WINDOW: Duration = Duration::from_millis(40);

    #[test]
    fn a_link_that_seemed_slow_starts_anew_once_it_delivers_much() {
        let mut now = testing::start();
        let mut link = Link::new(now);
        (0..4).for_each(|_| link.join(Tier::Primary));
        let by_handshake = Some(10_000.0);
        let lane = LaneSample { is_slow: true, path_by_handshake: by_handshake, ..filling_lane() };
        let mut sample = |link: &mut Link, bytes| {
            now += WINDOW;
            link.on_delivered(bytes, RTT);
            link.delivery_rate.on_ack(bytes);
            // Its window is too small to fill the path.
            let lanes = [LaneSample { in_flight: 4_500, ..lane }].into_iter();
            link.on_sample(now, lanes, WINDOW)
        };
        assert!(sample(&mut link, 0));
        assert_eq!(link.active_max, Some(1));
        assert!(!sample(&mut link, 1_000));
        assert!(sample(&mut link, 70_000));
        assert_eq!(link.active_max, Some(2), "one for each 10 ms of its round trip");
        assert!(link.delivery_rate.rate().is_some_and(|rate| rate >= SLOW_RATE));
    }
}
