//! Rate caps: one token bucket per link, for what this end sends on the link's lanes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::proto::ids::LinkId;
use crate::proto::limits::LINK_RATE_MIN;
use crate::proto::policy::LanePolicy;

/// This much of the cap's time may leave at once, so that a timer may be some milliseconds late
/// without wasting capacity.
const BURST_SECONDS: f64 = 0.005;
/// At least two small frames may leave at once.
const BURST_BYTES_MIN: f64 = 4096.0;

/// Rounding must not make a timer fire before the tokens it waits for are there.
const ROUNDING: Duration = Duration::from_micros(1);

/// What a lane may send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateAllowance {
    /// Bytes of frames.
    pub bytes: usize,
    /// It is worth a frame of data. Less is only for the lane's own acknowledgements.
    pub ready: bool,
}

/// One link's cap. Invariant: tokens <= burst.
#[derive(Debug)]
struct Bucket {
    /// Bytes a second.
    rate: f64,
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    fn burst(&self) -> f64 {
        (self.rate * BURST_SECONDS).max(BURST_BYTES_MIN)
    }

    /// What a frame of data waits for: half of the burst; the other half makes up for late timers.
    fn quantum(&self) -> f64 {
        self.burst() / 2.0
    }

    fn tokens_at(&self, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(self.filled_at).as_secs_f64();
        (self.tokens + seconds * self.rate).min(self.burst())
    }

    /// When there will be `tokens`; in the past if there are already.
    fn reaches(&self, tokens: f64) -> Instant {
        let seconds = ((tokens - self.tokens) / self.rate).clamp(0.0, 3600.0);
        let wait = Duration::from_secs_f64(seconds).saturating_add(ROUNDING);
        self.filled_at.checked_add(wait).unwrap_or(self.filled_at)
    }

    fn settle(&mut self, now: Instant) {
        self.tokens = self.tokens_at(now);
        self.filled_at = self.filled_at.max(now);
    }
}

/// The caps of all links that have one, by link.
#[derive(Debug, Default)]
pub struct RateCaps(BTreeMap<LinkId, Bucket>);

impl RateCaps {
    /// A lane of the link is up: the newest cap applies. `in_use`: links that have lanes.
    pub fn set(&mut self, now: Instant, policy: &LanePolicy, in_use: impl Fn(LinkId) -> bool) {
        let Some(rate) = policy.rate_max else { return };
        let rate = rate.max(LINK_RATE_MIN) as f64;
        // A full bucket of an unused link is as good as none; one in debt is kept until it is full.
        self.0.retain(|link, bucket| in_use(*link) || bucket.tokens_at(now) < bucket.burst());
        let bucket =
            self.0.entry(policy.link).or_insert(Bucket { rate, tokens: 0.0, filled_at: now });
        bucket.settle(now);
        bucket.rate = rate;
    }

    /// What a lane with this policy may send now.
    pub fn allowance(&self, now: Instant, policy: &LanePolicy) -> RateAllowance {
        let Some(bucket) = self.of(policy) else {
            return RateAllowance { bytes: usize::MAX, ready: true };
        };
        let tokens = bucket.tokens_at(now);
        RateAllowance { bytes: tokens.max(0.0) as usize, ready: tokens >= bucket.quantum() }
    }

    /// Whether the lane may send frames of its own: an acknowledgement, a PING.
    pub fn may_speak(&self, now: Instant, policy: &LanePolicy) -> bool {
        self.allowance(now, policy).bytes > 0
    }

    /// When it may, if that is not always.
    pub fn speaks_at(&self, policy: &LanePolicy) -> Option<Instant> {
        self.of(policy).map(|bucket| bucket.reaches(1.0))
    }

    /// When there is enough for a frame of data, if that is not always.
    pub fn ready_at(&self, policy: &LanePolicy) -> Option<Instant> {
        self.of(policy).map(|bucket| bucket.reaches(bucket.quantum()))
    }

    /// The lane was given `bytes`. Its own control frames beyond the allowance are a debt.
    pub fn spend(&mut self, now: Instant, policy: &LanePolicy, bytes: usize) {
        if policy.rate_max.is_some()
            && let Some(bucket) = self.0.get_mut(&policy.link)
        {
            bucket.settle(now);
            bucket.tokens -= bytes as f64;
        }
    }

    fn of(&self, policy: &LanePolicy) -> Option<&Bucket> {
        policy.rate_max.and_then(|_| self.0.get(&policy.link))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing;

    fn policy(link: u64, rate: u64) -> LanePolicy {
        LanePolicy { link: LinkId::new(link), rate_max: Some(rate), ..LanePolicy::default() }
    }

    #[test]
    fn no_more_than_rate_and_burst_however_it_is_asked() {
        let start = testing::start();
        for (rate, step_us) in [(2_500_000, 137), (8_000, 1_000), (125_000_000, 50_000)] {
            let (mut caps, policy) = (RateCaps::default(), policy(7, rate));
            caps.set(start, &policy, |_| false);
            let mut sent = 0u64;
            for step in 0..20_000 {
                let now = start + Duration::from_micros(step * step_us);
                let allowance = caps.allowance(now, &policy);
                if allowance.ready {
                    caps.spend(now, &policy, allowance.bytes);
                    sent += allowance.bytes as u64;
                }
                let seconds = (now - start).as_secs_f64();
                let most = rate as f64 * seconds + (rate as f64 * BURST_SECONDS).max(4096.0);
                assert!(sent as f64 <= most, "{sent} of {most} after {seconds} s");
            }
            assert!(sent > 0);
        }
    }

    #[test]
    fn what_a_timer_waits_for_is_there_when_it_fires() {
        let start = testing::start();
        for rate in [8_000, 1_234_567, 1 << 40, u64::MAX] {
            let (mut caps, policy) = (RateCaps::default(), policy(0, rate));
            caps.set(start, &policy, |_| false);
            for owed in [1, 777, 100_000] {
                let now = caps.ready_at(&policy).unwrap().max(start);
                caps.spend(now, &policy, owed);
                let speaks = caps.speaks_at(&policy).unwrap();
                assert!(caps.may_speak(speaks.max(now), &policy), "{rate}");
                let ready = caps.ready_at(&policy).unwrap();
                assert!(caps.allowance(ready.max(now), &policy).ready, "{rate}");
            }
        }
    }

    #[test]
    fn a_link_that_owes_is_not_forgotten_with_its_lanes() {
        let start = testing::start();
        let mut caps = RateCaps::default();
        caps.set(start, &policy(1, 8_000), |_| false);
        caps.spend(start, &policy(1, 8_000), 80_000);
        caps.set(start, &policy(2, 8_000), |_| false);
        caps.set(start, &policy(1, 8_000), |_| false);
        assert!(!caps.may_speak(start + Duration::from_secs(9), &policy(1, 8_000)));
        caps.set(start + Duration::from_secs(30), &policy(3, 8_000), |_| false);
        assert_eq!(caps.0.len(), 1, "a full bucket without lanes is like none");
        caps.set(start + Duration::from_secs(60), &policy(4, 8_000), |link| link == LinkId::new(3));
        assert_eq!(caps.0.len(), 2, "a link that has lanes keeps its cap");
    }

    #[test]
    fn a_lane_without_a_cap_may_always() {
        let caps = RateCaps::default();
        let all = RateAllowance { bytes: usize::MAX, ready: true };
        assert_eq!(caps.allowance(testing::start(), &LanePolicy::default()), all);
        assert_eq!(caps.ready_at(&LanePolicy::default()), None);
    }
}
