//! Round-trip time and rate of a lane, from its acknowledgements and, where available, the kernel's
//! own figures.
//!
//! The kernel sees every segment arrive, whether or not one before it was lost. An acknowledgement
//! comes once bytes are in order: after a loss it covers many at once. So the kernel's rate is the
//! better one, as long as its connection ends where the lane does.

use std::time::{Duration, Instant};

use super::handshake::{self, HANDSHAKE_BYTES};
use super::kernel::Kernel;
use super::lateness::Lateness;
use super::part::part;
use super::round_trip::{RoundTrip, timeout};
use crate::proto::limits::LINK_RATE_MIN;
use crate::proto::link::{
    INITIAL_WINDOW_BYTES, KernelSample, MaxFilter, PACKET_BYTES, SLOW_RATE, Startup,
};

/// Before anything is known: half the initial retransmission time-out (RFC 9002, 6.2.2 sets 333 ms
/// as the initial round trip).
const RTT_UNKNOWN: Duration = Duration::from_millis(333);

/// A maximum lasts one to two times this many round trips.
const RATE_WINDOW_ROUND_TRIPS: u32 = 5;
/// A maximum lasts at least this long, or one burst decides.
const RATE_WINDOW_MIN: Duration = Duration::from_millis(150);

/// The kernel's samples span a round trip each, and losses do not distort them: a shorter memory
/// notices sooner that a path has become slower. Counted in round trips without queues: with queues
/// they lengthen just when a path becomes slower, and that would be noticed later.
const KERNEL_WINDOW_ROUND_TRIPS: u32 = 2;
const KERNEL_WINDOW_MIN: Duration = Duration::from_millis(40);

/// Acknowledgements are delayed, tasks have to run: lane round trips of up to twice the kernel's,
/// plus this, still end at the same place.
const SPLIT_DELAY: Duration = Duration::from_millis(15);

/// A pacing kernel takes no more for a connection once this many seconds of its rate are queued
/// (`TSQ_THROTTLED`), and MPTCP skips that subflow.
const THROTTLED_SECONDS: f64 = 0.001;

/// Estimates of one lane.
#[derive(Clone, Debug)]
pub struct Estimate {
    round_trip: RoundTrip,
    handshake_rtt: Option<Duration>,
    /// From acknowledgements.
    acked_rate: MaxFilter,
    kernel: Kernel,
    /// What the path carries, in bytes a second, according to the lane's handshake; known only if
    /// that is little.
    path_by_handshake: Option<f64>,
    /// What all lanes on the path carried while they filled it, in bytes a second.
    path_rate: Option<f64>,
    /// The lane's part of its link's cap, in bytes a second: no estimate exceeds it.
    rate_max: f64,
    /// How many lanes share its path.
    sharing: f64,
    lateness: Lateness,
    found: Found,
    startup: Startup,
}

/// What follows from the samples: read many times per sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Found {
    /// The kernel's connection ends where the lane ends.
    end_to_end: bool,
    rtt_min: Duration,
    /// One way, to the peer.
    delay: Duration,
    /// Bytes a second; `None` before any was measured.
    measured_rate: Option<f64>,
    rate: f64,
    /// For a slow path: what it carries, for all the lanes that share it.
    slow: Option<f64>,
}

impl Estimate {
    pub fn new(handshake_rtt: Option<Duration>) -> Self {
        let mut estimate = Self {
            round_trip: RoundTrip::default(),
            handshake_rtt,
            acked_rate: MaxFilter::default(),
            kernel: Kernel::default(),
            path_by_handshake: None,
            path_rate: None,
            rate_max: f64::INFINITY,
            sharing: 1.0,
            lateness: Lateness::default(),
            found: Found::default(),
            startup: Startup::default(),
        };
        estimate.conclude();
        estimate
    }

    /// Draws the conclusions from what is known now.
    fn conclude(&mut self) {
        let own = self.round_trip.min();
        let end_to_end = self.is_end_to_end();
        let kernel = self.kernel.latest().filter(|_| end_to_end);
        let kernel_rtt = kernel.map(|kernel| kernel.rtt_min).filter(|min| !min.is_zero());
        let smallest = [own, kernel_rtt, self.handshake_rtt].into_iter().flatten().min();
        let rtt_min = smallest.unwrap_or(RTT_UNKNOWN);
        // Acknowledgements may return on a faster lane: only the kernel's round trips use this path
        // both ways.
        let of_path = kernel_rtt.unwrap_or(rtt_min);
        let delay = part::<2>(of_path).min(own.unwrap_or(of_path));
        let kernel_rate = kernel.map_or(0.0, |_| self.kernel.rate());
        let acked_rate = self.acked_rate.max();
        let counted = match kernel_rate {
            rate if self.counts_wrong(rate, acked_rate) => acked_rate,
            rate => rate,
        };
        let measured_rate = [counted, acked_rate].into_iter().find(|rate| *rate > 0.0);
        // What a lane that was never busy has carried is only a lower bound.
        let was_busy = self.kernel.was_busy() || self.acked_rate.was_busy;
        let believed = INITIAL_WINDOW_BYTES / rtt_min.as_secs_f64().max(1e-4);
        let path = self.path_rate.or(self.path_by_handshake);
        let slow_path = path.filter(|rate| *rate < SLOW_RATE);
        let assumed = believed.min(slow_path.unwrap_or(f64::INFINITY)) / self.sharing;
        let least = if was_busy { 0.0 } else { assumed };
        let rate = measured_rate.map_or(assumed, |rate| rate.max(least)).min(self.rate_max);
        let of_lanes = rate * self.sharing;
        let slow = match self.path_rate {
            Some(path) if was_busy => Some(path.min(of_lanes)).filter(|_| path < SLOW_RATE),
            None if was_busy || self.rate_max.is_finite() => Some(of_lanes),
            Some(_) | None => path,
        };
        let slow = slow.filter(|rate| *rate < SLOW_RATE);
        self.found = Found { end_to_end, rtt_min, delay, measured_rate, rate, slow };
    }

    /// The kernel counts packets, and takes each for a full one; and it believes for ever what a
    /// lane that is never full once showed. On a slow path no lane is, and acknowledgements of a
    /// few frames each give the rate well.
    fn counts_wrong(&self, kernel_rate: f64, acked_rate: f64) -> bool {
        let slow = |rate: f64, part: f64| rate * self.sharing < SLOW_RATE * part;
        let shown = self.acked_rate.was_busy && acked_rate > 0.0;
        match self.path_rate {
            Some(path) => shown && path < SLOW_RATE,
            None => shown && slow(acked_rate, 1.0) && slow(kernel_rate, 2.0),
        }
    }

    /// A frame was acknowledged `rtt` after it was given to the lane.
    pub fn on_rtt(&mut self, now: Instant, rtt: Duration) {
        self.round_trip.on_sample(now, rtt);
        self.conclude();
    }

    /// A frame was acknowledged this much later than the path and the queue ahead of it explain.
    pub fn on_lateness(&mut self, now: Instant, late: Duration) {
        self.lateness.on_sample(now, late, self.rtt_min());
    }

    /// How much later than forecast acknowledgements usually are.
    pub fn lateness(&self, now: Instant) -> Duration {
        self.lateness.usual(now, self.rtt_min())
    }

    /// Whether the lateness of the frame that ends at `end` counts towards the usual one.
    pub fn counts_lateness(&self, end: u64) -> bool {
        self.lateness.counts(end)
    }

    /// `bytes` were delivered within `interval`. Unless the lane was `busy` throughout, the
    /// resulting rate is only a lower bound.
    pub fn on_delivery(&mut self, now: Instant, bytes: u64, interval: Duration, busy: bool) {
        // Acknowledgements are coalesced over a millisecond: shorter intervals are all error.
        if interval < Duration::from_millis(1) {
            return;
        }
        let rate = bytes as f64 / interval.as_secs_f64();
        let window = rate_window(self.rtt());
        self.acked_rate.add_sample(now, rate, busy, window);
        self.conclude();
        if let Some(kernel) = self.end_to_end_kernel() {
            let (rate, shared) = (self.rate(), self.sharing > 1.0);
            let round_trips = [kernel.rtt, kernel.rtt_min];
            self.startup.on_sample(now, round_trips, rate, busy, shared);
        }
    }

    /// The lane answers again: its path's rate has to be measured anew, and the lateness of what
    /// was sent meanwhile, up to this position, is not usual.
    pub fn on_return(&mut self, sent_position: u64) {
        self.startup = Startup::default();
        self.lateness.excuse(sent_position);
    }

    /// Whether the lane has filled its path: its kernel need not search for more.
    pub fn is_full(&self) -> bool {
        self.startup.is_over()
    }

    /// The largest rate over a longer time, given the kernel's figures if they hold end to end. On
    /// a path whose rate varies, the latest rate would hardly let it be found fast again.
    pub fn peak_rate(&self, kernel: Option<&KernelSample>) -> f64 {
        let kept = kernel.map_or(0.0, |_| self.kernel.peak_rate());
        kept.min(self.rate_max).max(self.rate())
    }

    /// The kernel's figures. Returns how many more bytes it counted as delivered.
    pub fn on_metrics(&mut self, now: Instant, metrics: KernelSample) -> u64 {
        let (window, kept) = (self.kernel_window(), rate_window(self.rtt_min()));
        if self.kernel.asked_at().is_none() {
            let shown = |rtt| handshake::slow_path(rtt, &metrics);
            self.path_by_handshake = self.handshake_rtt.and_then(shown);
        }
        let delivered = self.kernel.on_sample(now, metrics, window, kept);
        self.conclude();
        delivered
    }

    /// The lanes of its path carried this many bytes a second while they filled it, or would carry
    /// this many according to the handshake of the first one.
    pub fn learn_of_path(&mut self, rate: Option<f64>, by_handshake: Option<f64>) {
        if (self.path_rate, self.path_by_handshake) != (rate, by_handshake) {
            (self.path_rate, self.path_by_handshake) = (rate, by_handshake);
            self.conclude();
        }
    }

    /// What its handshake, or that of its path's first lane, showed the path to carry, in bytes a
    /// second, if that is little.
    pub fn path_by_handshake(&self) -> Option<f64> {
        self.path_by_handshake
    }

    /// Whether the path is known to carry little.
    pub fn is_slow(&self) -> bool {
        self.found.slow.is_some()
    }

    /// How long `bytes`, of any lane, take on a slow path; zero on any other. A path slower than
    /// the least cap counts as silent, and is not waited for without end.
    pub fn slow_time(&self, bytes: f64) -> Duration {
        let seconds = self.found.slow.map_or(0.0, |rate| bytes / rate.max(LINK_RATE_MIN as f64));
        Duration::from_secs_f64(seconds.min(3600.0))
    }

    /// How long one of the lane's packets takes on a slow path.
    pub fn slow_packet(&self) -> Duration {
        self.slow_time(PACKET_BYTES)
    }

    /// How far apart acknowledgements naturally come on a slow path: its kernel sends one for every
    /// two packets.
    pub fn ack_gap(&self) -> Duration {
        self.slow_time(2.0 * PACKET_BYTES * self.sharing)
    }

    /// How long a maximum of the kernel's samples is kept.
    pub fn kernel_window(&self) -> Duration {
        self.rtt_min().saturating_mul(KERNEL_WINDOW_ROUND_TRIPS).max(KERNEL_WINDOW_MIN)
    }

    /// The kernel's figures, if its connection ends where the lane ends.
    pub fn end_to_end_kernel(&self) -> Option<&KernelSample> {
        self.kernel.latest().filter(|_| self.found.end_to_end)
    }

    /// Whether the kernel's connection ends where the lane ends: a proxy in between answers long
    /// before the peer does. The handshake's round trip counts, too: on one of many lanes that
    /// share a path, every frame of a long transfer may have waited at this end. On a slow path
    /// both take much longer than the kernel's shortest round trip, that of an empty packet before
    /// there was a queue, but not necessarily longer than its usual ones.
    fn is_end_to_end(&self) -> bool {
        let Some(kernel) = self.kernel.latest() else { return false };
        let counted = Some(self.kernel.rate()).filter(|_| self.kernel.was_busy());
        let slow = counted.or(self.path_rate).or(self.path_by_handshake);
        let slow = slow.filter(|rate| (1.0..SLOW_RATE).contains(rate));
        let full = Duration::from_secs_f64(slow.map_or(0.0, |rate| HANDSHAKE_BYTES / rate));
        let nearer = kernel.rtt_min.saturating_mul(2).max(timeout(kernel.rtt, kernel.rtt_var));
        let nearer = nearer.saturating_add(SPLIT_DELAY).saturating_add(full);
        let own = self.round_trip.min();
        let own = own.map(|own| self.handshake_rtt.map_or(own, |rtt| rtt.min(own)));
        own.is_none_or(|own| own <= nearer)
    }

    /// The kernel's current pacing rate, given its figures if they hold end to end. At least the
    /// estimated rate: more while the kernel searches for the path's.
    pub fn pacing_rate(&self, kernel: Option<&KernelSample>) -> f64 {
        let pacing = kernel.and_then(|kernel| kernel.pacing_rate);
        pacing.map_or(0.0, |rate| rate as f64).min(self.rate_max).max(self.rate())
    }

    /// What fills the lane as an MPTCP scheduler sees it, in bytes: its kernel's congestion window;
    /// where the kernel paces, what the pipe holds plus a millisecond, which is where such a kernel
    /// holds a subflow back. BBR's window is twice the pipe and never full.
    pub fn congestion_window(&self) -> Option<f64> {
        let kernel = self.end_to_end_kernel().filter(|kernel| kernel.cwnd_bytes > 0)?;
        let window = kernel.cwnd_bytes as f64;
        let pipe = self.rate() * (self.rtt_min().as_secs_f64() + THROTTLED_SECONDS);
        Some(if kernel.pacing_rate.is_some() { window.min(pipe) } else { window })
    }

    /// When the peer's kernel was last heard: while it answers, the path works, even if a loss
    /// keeps anything from coming in order.
    pub fn kernel_heard_at(&self) -> Option<Instant> {
        self.end_to_end_kernel().and(self.kernel.heard_at())
    }

    /// When the kernel last learnt that more has arrived, in order or not: whatever else is late,
    /// the path works.
    pub fn kernel_delivered_at(&self) -> Option<Instant> {
        self.end_to_end_kernel().and(self.kernel.delivered_at())
    }

    /// When the kernel was last asked.
    pub fn kernel_at(&self) -> Option<Instant> {
        self.kernel.asked_at()
    }

    /// Smoothed round-trip time, queues included.
    pub fn rtt(&self) -> Duration {
        self.round_trip
            .smoothed()
            .or(self.kernel.latest().map(|kernel| kernel.rtt))
            .or(self.handshake_rtt)
            .unwrap_or(RTT_UNKNOWN)
    }

    /// Smallest round-trip time: that of the path without queues.
    pub fn rtt_min(&self) -> Duration {
        self.found.rtt_min
    }

    /// Whether any rate was measured.
    pub fn is_measured(&self) -> bool {
        self.found.measured_rate.is_some()
    }

    /// Bytes a second; before any was measured, TCP's initial window per round trip.
    pub fn rate(&self) -> f64 {
        self.found.rate
    }

    /// This many lanes share the path, and with it TCP's initial window; no rate exceeds `rate_max`
    /// from now on.
    pub fn set_share(&mut self, lanes: usize, rate_max: f64) {
        self.sharing = lanes.max(1) as f64;
        self.rate_max = rate_max;
        self.conclude();
    }

    /// Mean deviation of the round-trip time.
    pub fn rtt_var(&self) -> Duration {
        self.round_trip.var()
    }

    /// The way to the peer, without queues: half of the path's smallest round trip.
    pub fn delay(&self) -> Duration {
        self.found.delay
    }

    /// The return path of acknowledgements, on the fastest lane: the rest of the smallest round
    /// trip.
    pub fn way_back(&self) -> Duration {
        self.rtt_min().saturating_sub(self.delay())
    }

    /// How long an acknowledgement may reasonably take.
    pub fn timeout(&self) -> Duration {
        self.round_trip.timeout().unwrap_or_else(|| self.rtt().saturating_mul(3))
    }

    /// How long the path may reasonably take to answer, by the kernel's figures where they hold end
    /// to end.
    pub fn path_timeout(&self) -> Duration {
        let kernel = self.end_to_end_kernel().filter(|kernel| !kernel.rtt.is_zero());
        kernel.map_or(self.timeout(), |kernel| timeout(kernel.rtt, kernel.rtt_var))
    }

    /// Bytes in the pipe when it is full and there is no queue.
    pub fn bandwidth_delay_bytes(&self) -> f64 {
        self.rate() * self.rtt_min().as_secs_f64()
    }
}

fn rate_window(round_trip: Duration) -> Duration {
    round_trip.saturating_mul(RATE_WINDOW_ROUND_TRIPS).max(RATE_WINDOW_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::{self, kernel};

    #[test]
    fn the_rate_is_a_recent_maximum() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut estimate = Estimate::new(Some(ms(20)));
        estimate.on_delivery(start, 10_000, ms(10), true);
        assert_eq!(estimate.rate(), 1e6);
        estimate.on_delivery(start + ms(20), 1_000, ms(10), true);
        assert_eq!(estimate.rate(), 1e6, "one slow sample proves nothing");
        for step in 1..40 {
            estimate.on_delivery(start + ms(20 * step), 1_000, ms(10), true);
        }
        assert_eq!(estimate.rate(), 1e5, "many do");
        estimate.on_delivery(start + ms(900), 10, ms(10), false);
        assert_eq!(estimate.rate(), 1e5, "an idle lane's little is no evidence of slowness");
    }

    #[test]
    fn a_lane_that_was_never_busy_is_not_taken_for_slow() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut estimate = Estimate::new(Some(ms(20)));
        let assumed = estimate.rate();
        estimate.on_delivery(start, 200, ms(20), false);
        assert_eq!(estimate.rate(), assumed);
        estimate.on_delivery(start + ms(20), 200_000, ms(20), false);
        assert_eq!(estimate.rate(), 1e7, "it can do as much");
        let mut slow = Estimate::new(Some(ms(20)));
        slow.on_delivery(start, 200, ms(20), true);
        assert_eq!(slow.rate(), 1e4, "it had more to send");
    }

    #[test]
    fn the_way_there_is_the_paths_by_whatever_lane_acknowledgements_come() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut estimate = Estimate::new(Some(ms(100)));
        assert_eq!((estimate.delay(), estimate.way_back()), (ms(50), ms(50)));
        estimate.on_metrics(start, KernelSample { rtt_min: ms(100), ..kernel(1_000_000, ms(100)) });
        estimate.on_rtt(start, ms(55));
        assert_eq!((estimate.delay(), estimate.way_back()), (ms(50), ms(5)));
        let mut waited = Estimate::new(Some(ms(20)));
        waited.on_rtt(start, ms(90)); // at this end
        waited.on_metrics(start, kernel(1_000_000, ms(25)));
        assert_eq!(waited.rate(), 1e6, "no proxy made the handshake that quick");
        let mut split = Estimate::new(Some(ms(60)));
        split.on_rtt(start, ms(60));
        split.on_metrics(start, KernelSample { rtt_min: ms(2), ..kernel(1_000_000, ms(2)) });
        assert_eq!(
            (split.delay(), split.rtt_min()),
            (ms(30), ms(60)),
            "a proxy answers, not the peer"
        );
    }

    #[test]
    fn a_lane_is_full_when_its_congestion_window_is_or_its_pipe_where_the_kernel_paces() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut estimate = Estimate::new(Some(ms(20)));
        assert_eq!(estimate.congestion_window(), None, "no kernel has told");
        let cubic = KernelSample { cwnd_bytes: 90_000, ..kernel(1_000_000, ms(20)) };
        estimate.on_metrics(start, cubic);
        assert_eq!(estimate.congestion_window(), Some(90_000.0));
        estimate.on_metrics(start, KernelSample { pacing_rate: Some(1_000_000), ..cubic });
        assert_eq!(estimate.congestion_window(), Some(21_000.0), "a pipe and a millisecond");
    }

    #[test]
    fn no_rate_exceeds_the_cap() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut estimate = Estimate::new(Some(ms(20)));
        estimate.set_share(1, 5e5);
        assert_eq!(estimate.rate(), 5e5, "what is assumed");
        estimate.set_share(4, 5e5);
        assert!((estimate.rate() - 182_500.0).abs() < 1.0, "what is assumed of one of four");
        estimate.on_delivery(start, 10_000, ms(10), true);
        assert_eq!((estimate.rate(), estimate.pacing_rate(None)), (5e5, 5e5), "what is measured");
        estimate.set_share(1, f64::INFINITY);
        assert_eq!(estimate.rate(), 1e6);
    }

    #[test]
    fn an_idle_lane_has_not_become_slower() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut estimate = Estimate::new(Some(ms(20)));
        estimate.on_delivery(start, 10_000, ms(10), true);
        estimate.on_delivery(start + ms(60_000), 1_000, ms(10), true);
        assert_eq!(estimate.rate(), 1e6);
    }

    #[test]
    fn timeouts_follow_the_round_trip() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut estimate = Estimate::new(Some(ms(50)));
        assert_eq!(estimate.timeout(), ms(150));
        (0..100).for_each(|_| estimate.on_rtt(start, ms(50)));
        assert!(estimate.timeout() < ms(101), "{:?}", estimate.timeout());
        assert_eq!(estimate.rtt_min(), ms(50));
    }

    #[test]
    fn a_path_that_became_slower_is_noticed_before_its_queue_has_drained() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut estimate = Estimate::new(Some(ms(20)));
        estimate.on_rtt(start, ms(20));
        estimate.on_metrics(start, kernel(6_000_000, ms(20)));
        let noticed = (1..100).map(|step| start + ms(10 * step)).find(|&at| {
            let rtt = ms(20) + at.saturating_duration_since(start);
            estimate.on_rtt(at, rtt);
            estimate.on_metrics(at, kernel(600_000, rtt));
            estimate.rate() < 1e6
        });
        assert!(noticed.is_some_and(|at| at <= start + ms(100)), "{noticed:?}");
    }

    #[test]
    fn a_lane_is_full_by_its_kernels_round_trips_while_it_is_busy_and_until_it_was_silent() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut estimate = Estimate::new(Some(ms(20)));
        let mut round = 0;
        let mut step = |estimate: &mut Estimate, rate: u64, rtt: u64, busy: bool| {
            let now = start + ms(60 * round);
            round += 1;
            estimate.on_rtt(now, ms(12)); // acknowledged on a faster lane
            estimate.on_metrics(now, kernel(rate, ms(rtt)));
            estimate.on_delivery(now, rate / 100, ms(10), busy);
            estimate.is_full()
        };
        for rate in [1_000_000, 2_000_000, 4_000_000] {
            assert!(!step(&mut estimate, rate, 30, true), "it still grows");
        }
        assert!(!step(&mut estimate, 4_200_000, 21, true), "there is no queue");
        assert!(!step(&mut estimate, 4_300_000, 30, false), "it was not busy");
        assert!(step(&mut estimate, 4_400_000, 30, true));
        estimate.on_return(0);
        assert!(!estimate.is_full());
    }

    #[test]
    fn a_handshake_shows_a_slow_path_and_no_busy_machine() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let slow_after = |handshake: u64, rtt: u64| {
            let mut estimate = Estimate::new(Some(ms(handshake)));
            let metrics =
                KernelSample { rtt: ms(rtt), rtt_min: ms(100), ..kernel(14_480, ms(100)) };
            estimate.on_metrics(start, KernelSample { app_limited: true, ..metrics });
            estimate.is_slow()
        };
        assert!(slow_after(320, 124), "64 kbit/s");
        assert!(slow_after(165, 106), "256 kbit/s");
        assert!(!slow_after(101, 100), "as fast as it can be");
        assert!(
            !slow_after(900, 101),
            "only the handshake took long: a lost packet, a busy machine"
        );
        assert!(!slow_after(110, 130), "only a packet did: jitter");
    }

    #[test]
    fn full_packets_of_a_slow_path_are_no_proxy() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut estimate = Estimate::new(Some(ms(320)));
        estimate.on_rtt(start, ms(320));
        estimate.on_metrics(start, kernel(8_000, ms(100)));
        assert!(estimate.end_to_end_kernel().is_some());
        let mut behind = Estimate::new(Some(ms(320)));
        behind.on_rtt(start, ms(320));
        behind.on_metrics(start, kernel(1_000_000, ms(100)));
        assert!(behind.end_to_end_kernel().is_none(), "a fast path to something nearer");
    }

    #[test]
    fn a_slow_path_is_known_by_what_was_acknowledged_and_not_by_packets_counted() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut estimate = Estimate::new(Some(ms(100)));
        for step in 0..10 {
            let now = start + ms(200 * step);
            estimate.on_metrics(now, kernel(12_000, ms(100)));
            estimate.on_delivery(now, 1_600, ms(200), true);
        }
        assert!((estimate.rate() - 8_000.0).abs() < 1.0, "{}", estimate.rate());
        assert!(estimate.is_slow());
        let eight_seconds = estimate.slow_time(64_000.0);
        assert!((eight_seconds.as_secs_f64() - 8.0).abs() < 0.1, "{eight_seconds:?}");
        estimate.learn_of_path(Some(1e6), None);
        assert!(!estimate.is_slow(), "it is one of many lanes of a fast path");
        assert_eq!(estimate.ack_gap(), Duration::ZERO);
    }

    #[test]
    fn the_rate_of_a_moment_ago_is_kept() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut estimate = Estimate::new(Some(ms(20)));
        for step in 0..10 {
            let now = start + ms(20 * step);
            estimate.on_metrics(now, kernel(1_000_000, ms(40)));
            estimate.on_delivery(now, 10_000, ms(10), true);
        }
        for step in 10..15 {
            estimate.on_metrics(start + ms(20 * step), kernel(200_000, ms(40)));
        }
        assert!(estimate.rate() < 250_000.0, "{}", estimate.rate());
        let kernel = estimate.end_to_end_kernel().copied();
        assert_eq!(estimate.peak_rate(kernel.as_ref()), 1_000_000.0);
        assert_eq!(estimate.peak_rate(None), estimate.rate());
    }

    #[test]
    fn lateness_is_learnt_and_forgotten() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut estimate = Estimate::new(Some(ms(20)));
        estimate.on_lateness(start, ms(160));
        assert_eq!(estimate.lateness(start), ms(10), "one proves little");
        (1..100).for_each(|step| estimate.on_lateness(start + ms(step), ms(160)));
        let last = start + ms(99);
        let learnt = estimate.lateness(last);
        assert!(learnt > ms(150) && learnt <= ms(160), "{learnt:?}");
        assert_eq!(estimate.lateness(last + ms(20)), learnt, "nothing could have come since");
        assert!(estimate.lateness(last + ms(120)) < learnt - ms(40));
        assert_eq!(estimate.lateness(last + ms(400)), Duration::ZERO);
    }
}
