//! What lanes may carry, seen from outside: each pull's yield, against tiers and caps.

use imux::proto::wire::Frame;
use imux::proto::{Health, LanePolicy, LaneStats, Tier};

use crate::net::{SECOND, Time};
use crate::oracle::copies::Pull;

/// What may leave at once under a cap: the core's burst, documented as a few milliseconds.
const BURST_SECONDS: f64 = 0.005;
/// The least that may leave at once: two small frames, and control frames, which are not cut to
/// fit.
const BURST_BYTES_MIN: f64 = 4096.0;
const CONTROL_BYTES: f64 = 8192.0;

/// How far all lanes of one path together are ahead of its cap.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    bytes: f64,
    at: Time,
}

/// What was seen of the links' caps.
#[derive(Debug)]
pub struct Policies {
    /// By link, towards the server and back.
    levels: Vec<[Level; 2]>,
}

impl Policies {
    pub fn new(links: usize) -> Self {
        Self { levels: vec![[Level::default(); 2]; links] }
    }

    /// `end` gave a lane with this policy `bytes`, made up of these frames. Returns what happened,
    /// or the broken rule.
    pub fn on_pull(
        &mut self,
        now: Time,
        end: usize,
        policy: LanePolicy,
        pull: Pull<'_>,
        bytes: u64,
    ) -> Result<Option<&'static str>, String> {
        let last_words = |frame: &Frame| matches!(frame, Frame::Close { .. });
        if is_plain(policy) || pull.frames.iter().any(last_words) {
            return Ok(None);
        }
        self.check_cap(now, end, policy, bytes as f64)?;
        let tier = policy.tier;
        let own = |frame: &&Frame| match frame {
            Frame::Ping | Frame::Ignored => true,
            Frame::Ack { lane, .. } => *lane == pull.lane,
            _ => false,
        };
        let work = pull.frames.iter().find(|frame| !own(frame));
        if let Some(frame) = work.filter(|_| better_answers(tier, pull.lanes)) {
            return Err(format!("a {tier} lane carries {frame:?} while better answer"));
        }
        let data = pull.frames.iter().any(|frame| matches!(frame, Frame::Stream { .. }));
        Ok(data.then_some(match tier {
            Tier::Express => "express carried",
            Tier::Backup => "backup carried",
            Tier::Metered => "metered carried",
            Tier::Primary => "capped carried",
        }))
    }

    fn check_cap(
        &mut self,
        now: Time,
        end: usize,
        policy: LanePolicy,
        bytes: f64,
    ) -> Result<(), String> {
        let Some(rate) = policy.rate_max.map(|rate| rate as f64) else { return Ok(()) };
        let level = &mut self.levels[policy.link.number() as usize][end];
        let passed = rate * (now - level.at) as f64 / SECOND as f64;
        *level = Level { bytes: (level.bytes - passed).max(0.0) + bytes, at: now };
        let most = (rate * BURST_SECONDS).max(BURST_BYTES_MIN) + CONTROL_BYTES;
        if level.bytes > most {
            return Err(format!(
                "{} is {:.0} bytes beyond its cap of {rate}",
                policy.link, level.bytes
            ));
        }
        Ok(())
    }
}

/// Whether lanes have no rule to keep.
pub fn is_plain(policy: LanePolicy) -> bool {
    policy == LanePolicy { link: policy.link, ..LanePolicy::default() }
}

/// Whether lanes of a better tier could carry what a lane of this tier is given.
fn better_answers(tier: Tier, lanes: &[LaneStats]) -> bool {
    let better = |lane: &LaneStats| match tier {
        Tier::Primary | Tier::Express => false,
        // A backup takes over from late lanes, a metered lane only from lost ones.
        Tier::Backup => matches!(lane.tier, Tier::Primary | Tier::Express) && !lane.late,
        Tier::Metered => lane.tier != Tier::Metered,
    };
    lanes.iter().any(|lane| lane.health == Health::Good && better(lane))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use imux::proto::{Dir, LaneId, Side, StreamId};

    use super::*;
    use crate::options::PathOptions;

    fn lane(number: u64, tier: Tier) -> LaneStats {
        crate::oracle::lane(LaneId::new(number), tier)
    }

    fn data() -> Frame {
        let id = StreamId::new(Side::Client, Dir::Bi, 0);
        Frame::Stream { id, offset: 0, fin: false, data: Bytes::from_static(b"x") }
    }

    fn policy(tier: &str, cap_mbit: f64) -> LanePolicy {
        PathOptions { tier: tier.to_owned(), cap_mbit, ..PathOptions::default() }.policy(0)
    }

    /// The result of giving lane 1 of two a frame.
    fn given(
        tiers: [&str; 2],
        frame: Frame,
        change: impl Fn(&mut LaneStats),
    ) -> Result<Option<&'static str>, String> {
        let mut other = lane(0, tiers[0].parse().unwrap());
        change(&mut other);
        let lanes = [other, lane(1, tiers[1].parse().unwrap())];
        let pull = Pull { lane: LaneId::new(1), lanes: &lanes, frames: &[frame] };
        Policies::new(1).on_pull(0, 0, policy(tiers[1], 0.0), pull, 100)
    }

    #[test]
    fn a_worse_tier_that_works_beside_a_better_is_told_of() {
        let well = |_: &mut LaneStats| {};
        for tiers in [
            ["primary", "backup"],
            ["primary", "metered"],
            ["backup", "metered"],
            ["express", "backup"],
        ] {
            given(tiers, data(), well).unwrap_err();
            given(tiers, Frame::MaxData { max: 1 }, well).unwrap_err();
            given(tiers, Frame::Ack { lane: LaneId::new(0), position: 1 }, well).unwrap_err();
            assert_eq!(given(tiers, Frame::Ping, well), Ok(None));
            assert_eq!(
                given(tiers, Frame::Ack { lane: LaneId::new(1), position: 1 }, well),
                Ok(None)
            );
        }
        for tiers in [["backup", "backup"], ["metered", "backup"], ["metered", "metered"]] {
            assert!(given(tiers, data(), well).unwrap().is_some(), "{tiers:?}");
        }
    }

    #[test]
    fn a_backup_may_take_over_what_is_late_a_metered_lane_what_is_suspect() {
        let late = |lane: &mut LaneStats| lane.late = true;
        let suspect = |lane: &mut LaneStats| lane.health = Health::Suspect;
        assert_eq!(given(["primary", "backup"], data(), late), Ok(Some("backup carried")));
        given(["primary", "metered"], data(), late).unwrap_err();
        given(["backup", "metered"], data(), late).unwrap_err();
        assert_eq!(given(["primary", "metered"], data(), suspect), Ok(Some("metered carried")));
    }

    #[test]
    fn a_cap_that_is_exceeded_is_told_of() {
        // 10 Mbit/s are 1.25 bytes in a microsecond; 1.4 are too much once the burst is used up.
        for (bytes_a_ms, fine) in [(1_250, true), (1_400, false)] {
            let (mut policies, policy) = (Policies::new(1), policy("primary", 10.0));
            let lanes = [lane(0, Tier::Primary)];
            let frames = [data()];
            let pull = Pull { lane: LaneId::new(0), lanes: &lanes, frames: &frames };
            let mut times = (0..1_000).map(|ms| ms * 1_000_000);
            let kept = times.all(|now| policies.on_pull(now, 0, policy, pull, bytes_a_ms).is_ok());
            assert_eq!(kept, fine, "{bytes_a_ms}");
        }
    }

    #[test]
    fn a_burst_beyond_a_cap_is_told_of_and_the_other_direction_counts_apart() {
        let (mut policies, policy) = (Policies::new(1), policy("primary", 10.0));
        let lanes = [lane(0, Tier::Primary)];
        let pull = Pull { lane: LaneId::new(0), lanes: &lanes, frames: &[] };
        let burst = (1_250_000.0 * BURST_SECONDS + CONTROL_BYTES) as u64;
        assert_eq!(policies.on_pull(0, 0, policy, pull, burst), Ok(None));
        assert_eq!(policies.on_pull(0, 1, policy, pull, burst), Ok(None));
        policies.on_pull(0, 0, policy, pull, 1).unwrap_err();
        let close = [Frame::Close { code: imux::Code::NONE, reason: Bytes::new() }];
        let last_words = Pull { frames: &close, ..pull };
        assert_eq!(policies.on_pull(0, 1, policy, last_words, 1), Ok(None));
    }
}
