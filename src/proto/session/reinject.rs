//! Sending again what another lane is late with, within a budget (the idea of XLINK; Zheng et al.,
//! SIGCOMM 2021).

use std::time::{Duration, Instant};

use super::Session;
use super::budget::cost_twice;
use super::pull::Pull;
use super::standing::{Answering, Relief};
use crate::proto::ids::{LaneId, StreamId};
use crate::proto::lane::{Carried, Health, Lane};
use crate::proto::limits::FRAME_BYTES_MAX;
use crate::proto::mutants::mutant;
use crate::proto::policy::Tier;
use crate::proto::scheduler::LaneView;
use crate::proto::stream::Chunk;
use crate::proto::streams::fit_payload;

/// A frame at the tail is worth sending twice if that saves at least this.
const TAIL_GAIN_MIN: f64 = 0.003;

/// Entries of each lane that are looked at for the tail: the last ones arrive last.
const TAIL_LOOKED_AT: usize = 32;

impl Session {
    /// When the next frame in flight on the lane counts as late.
    pub(super) fn late_at(&self, lane: &Lane, answering: Answering) -> Option<Instant> {
        let relief = answering.relief(lane);
        // Whatever is sent again on a slow link makes all of it later.
        let in_vain = lane.estimate.is_slow() && !answering.on_another_link(lane);
        if lane.health != Health::Good
            || relief == Relief::None
            || in_vain
            || lane.policy.tier == Tier::Metered
            || self.duplicates.left() < FRAME_BYTES_MAX as u64
        {
            return None;
        }
        let first = lane.ledger.entries().find(|entry| !entry.duplicated)?;
        let path_shared = self.links.view(lane.policy.link).is_shared();
        let mut late = first.expected_by(path_shared).checked_add(lane.grace())?;
        if self.duplicates.unreserved() < FRAME_BYTES_MAX as u64 {
            late = late.checked_add(lane.patience())?; // very late
        }
        // A backup takes over from a lane that does not answer, not from one that is slow; and what is
        // only held up (TCP repairs a loss in a round trip) has no need of a lane that takes longer.
        let repaired = lane.estimate.rtt().saturating_add(lane.patience());
        let sooner = matches!(relief, Relief::Peers { rtt } if rtt < repaired);
        let silent = lane.answered_until().filter(|_| !sooner);
        Some(silent.map_or(late, |silent| silent.max(late)))
    }

    /// What is late on the lane waits for the others again, in stream order; if its link is silent, so does what the link's
    /// other lanes owe.
    pub(super) fn move_late(&mut self, now: Instant, id: LaneId, answering: Answering) {
        let Some(lane) = self.lanes.get(&id) else { return };
        if self.late_at(lane, answering).is_none_or(|at| at > now) {
            return;
        }
        let (patience, link) = (lane.patience(), lane.policy.link);
        let very_late_after = lane.grace().saturating_add(patience);
        let silent = |heard| now.saturating_duration_since(heard) >= patience;
        let link_silent = self.links.heard_at(link).is_some_and(silent);
        for (_, lane) in self.lanes.iter_mut() {
            if lane.id == id {
                // Slower than forecast is one thing, no answer at all another.
                lane.late = !lane.answers(now);
            } else if link_silent && lane.policy.link == link && lane.health == Health::Good {
                lane.late |= lane.owes();
            }
        }
        for (expected_by, lane, end) in self.overdue(now, id, link_silent) {
            let very_late = link_silent || is_past(now, expected_by, very_late_after);
            let duplicates = &self.duplicates;
            if (if very_late { duplicates.left() } else { duplicates.unreserved() }) == 0 {
                break;
            }
            self.send_again(lane, end);
        }
    }

    /// The frames that are late on the lane or, if its link is silent, all that its lanes owe, in the order they were expected
    /// in: by when, on which lane, and where on it they end.
    fn overdue(&self, now: Instant, id: LaneId, link_silent: bool) -> Vec<(Instant, LaneId, u64)> {
        let Some(late) = self.lanes.get(&id) else { return Vec::new() };
        let (grace, link) = (late.grace(), late.policy.link);
        let path_shared = self.links.view(link).is_shared();
        let of_link = |lane: &Lane| lane.policy.link == link && lane.health == Health::Good;
        let concerned = |lane: &&Lane| lane.id == id || (link_silent && of_link(lane));
        let mut overdue = Vec::new();
        for lane in self.lanes.values().filter(concerned) {
            let entries = lane.ledger.entries().filter(|entry| !entry.duplicated);
            let frames = entries.map(|entry| (entry.expected_by(path_shared), lane.id, entry.end));
            overdue.extend(frames.take_while(|(by, ..)| link_silent || is_past(now, *by, grace)));
        }
        overdue.sort_unstable();
        overdue
    }

    /// The frame that ends at `end` on `lane` waits for the other lanes again.
    fn send_again(&mut self, lane: LaneId, end: u64) {
        let ledger = self.lanes.get_mut(&lane).map(|lane| &mut lane.ledger);
        let Some(entry) = ledger.and_then(|ledger| ledger.entry_mut(end)) else { return };
        entry.duplicated = true;
        if let Carried::Data { range, .. } = &entry.carried {
            self.duplicates.spend(cost_twice(range.end.saturating_sub(range.start)));
            let carried = entry.carried.clone();
            self.on_undelivered(&carried);
        }
    }

    /// Whether there is a tail at all: nothing waits, but something is in flight.
    pub(super) fn tail_possible(&self) -> bool {
        self.streams.pending() == 0
            && self.lanes.len() > 1
            && self.duplicates.unreserved() > 0
            && self.lanes.values().any(|lane| lane.ledger.payload_in_flight() > 0)
    }

    /// The lane carries what a slower one would deliver later: the frame that ends at `end` there.
    pub(super) fn write_tail(&mut self, pull: &mut Pull<'_>, lane: LaneId, end: u64) {
        let Some(own) = self.view_of(pull.now, pull.lane) else { return };
        let Some(room) = pull.left() else { return };
        if let Some((stream, chunk)) = self.take_tail(lane, end, room) {
            self.write_twice(pull, &own, stream, &chunk);
        }
    }

    /// Writes on a lane, within the budget, what another was given before.
    pub(super) fn write_twice(
        &mut self,
        pull: &mut Pull<'_>,
        own: &LaneView,
        stream: StreamId,
        chunk: &Chunk,
    ) {
        self.duplicates.spend(cost_twice(chunk.payload()));
        self.write_again(pull, own, stream, chunk);
    }

    /// Writes on a lane what another was given before.
    pub(super) fn write_again(
        &mut self,
        pull: &mut Pull<'_>,
        own: &LaneView,
        stream: StreamId,
        chunk: &Chunk,
    ) {
        self.write_stream(pull, own, stream, chunk);
        self.note_payload(pull.lane, chunk.payload(), mutant!("copy-counted-as-new"));
    }

    /// The lane and the position on it of a frame that `id` would deliver sooner.
    pub(super) fn tail_choice(&self, now: Instant, id: LaneId) -> Option<(LaneId, u64)> {
        let kept_free = |lane: &Lane| lane.is_kept_free() || lane.policy.tier == Tier::Metered;
        if !self.tail_possible() || self.lanes.get(&id).is_none_or(kept_free) {
            return None;
        }
        let own = self.view_of(now, id)?;
        let link = self.lanes.get(&id)?.policy.link;
        let in_vain = |lane: &Lane| lane.policy.link == link && lane.estimate.is_slow();
        let slower = self.lanes.values().filter(|lane| lane.id != id && !in_vain(lane));
        slower
            .filter_map(|lane| {
                let rate = lane.estimate.rate().max(1.0);
                let delay = lane.estimate.delay().as_secs_f64();
                let acked = lane.ledger.acked_position();
                let entries = lane.ledger.entries().rev().take(TAIL_LOOKED_AT);
                entries.filter(|entry| !entry.duplicated).find_map(|entry| {
                    let Carried::Data { range, .. } = &entry.carried else { return None };
                    let size = range.end.saturating_sub(range.start) as f64;
                    // What stands before it has to go through first; its forecast may be too hopeful.
                    let ahead = entry.end.saturating_sub(acked) as f64 / rate - delay;
                    let forecast = entry.eta.saturating_duration_since(now).as_secs_f64();
                    let gain = ahead.max(forecast) - own.arrival(size);
                    (gain > TAIL_GAIN_MIN.max(own.arrival(size) / 4.0))
                        .then_some((gain, lane.id, entry.end))
                })
            })
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, lane, end)| (lane, end))
    }

    /// Marks the frame that ends at `end` on `lane` as sent twice, and returns what of it is still
    /// worth sending.
    fn take_tail(&mut self, lane: LaneId, end: u64, room: usize) -> Option<(StreamId, Chunk)> {
        let ledger = &mut self.lanes.get_mut(&lane)?.ledger;
        let entry = ledger.entry_mut(end)?;
        entry.duplicated = true;
        let Carried::Data { id, range, fin } = &entry.carried else { return None };
        let chunk = Chunk { range: range.clone(), fin: *fin };
        let mut owed = self.streams.get(*id)?.send.still_owed(&chunk)?;
        let fits = fit_payload(*id, owed.range.start, room.min(FRAME_BYTES_MAX));
        if owed.payload() > fits {
            owed = Chunk {
                range: owed.range.start..owed.range.start.saturating_add(fits),
                fin: false,
            };
        }
        Some((*id, owed))
    }
}

fn is_past(now: Instant, expected_by: Instant, grace: Duration) -> bool {
    expected_by.checked_add(grace).is_some_and(|at| at <= now)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::proto::config::Config;
    use crate::proto::ids::{LinkId, Side};
    use crate::proto::policy::LanePolicy;
    use crate::proto::testing;
    use crate::proto::wire::{LaneBuf, StreamKind};

    const LANES: [LaneId; 2] = [LaneId::new(0), LaneId::new(1)];

    /// A client with two lanes of 20 ms, up at `start`.
    fn session(start: Instant) -> Session {
        let config = Arc::new(Config::default());
        let mut session = Session::new(Side::Client, config.clone(), config.params(), 7, start);
        for lane in LANES {
            assert!(session.handle_lane_up(start, lane, Some(Duration::from_millis(20))));
        }
        session
    }

    #[test]
    fn a_late_end_without_bytes_costs_its_frame() {
        let start = testing::start();
        let mut session = session(start);
        for _ in 0..20 {
            let id = session.open(StreamKind::Raw).unwrap();
            session.send_stream(id).finish().unwrap();
        }
        for lane in LANES {
            assert!(session.poll_transmit(start, lane, usize::MAX, &mut LaneBuf::new()).is_some());
        }
        let before = session.duplicates.left();
        session.handle_timeout(start + Duration::from_millis(70));
        let entries = session.lanes.values().flat_map(|lane| lane.ledger.entries());
        let late = entries.filter(|entry| entry.duplicated);
        let ends = late.filter(|entry| matches!(entry.carried, Carried::Data { .. })).count();
        assert_eq!(ends, 20, "all are late");
        assert_eq!(before - session.duplicates.left(), 20 * cost_twice(0));
        assert!(cost_twice(0) > 0);
    }

    #[test]
    fn what_a_silent_links_lanes_owe_is_late_together() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut session = session(start);
        let of_link = [LANES[0], LaneId::new(2), LaneId::new(3)];
        for lane in of_link {
            let _ = session.handle_lane_up(start, lane, Some(ms(20)));
            session.handle_lane_policy(
                start,
                lane,
                LanePolicy { link: LinkId::new(7), ..LanePolicy::default() },
            );
        }
        // The third was given its frame much later than the others.
        for (lane, at) in [(of_link[0], 0), (of_link[1], 0), (of_link[2], 45)] {
            let id = session.open(StreamKind::Raw).unwrap();
            session.send_stream(id).finish().unwrap();
            let pulled =
                session.poll_transmit(start + ms(at), lane, usize::MAX, &mut LaneBuf::new());
            assert!(pulled.is_some());
        }
        let owes_late = |session: &Session, lane: LaneId| {
            let lane = &session.lanes[&lane];
            (lane.late, lane.ledger.entries().filter(|entry| entry.duplicated).count() > 0)
        };
        let (at, _) = session.poll_timeout().unwrap();
        assert!(at > start + ms(45) && at < start + ms(100), "{:?}", at - start);
        session.handle_timeout(at);
        for lane in of_link {
            assert_eq!(owes_late(&session, lane), (true, true), "{lane:?}");
        }
        assert!(!session.lanes[&LANES[1]].late, "another link's is not");
    }

    #[test]
    fn what_a_suspects_link_owes_on_lanes_that_rest_waits_for_others() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut session = session(start);
        let (suspect, resting) = (LANES[0], LaneId::new(2));
        assert!(session.handle_lane_up(start, resting, Some(ms(20))));
        for (lane, link) in [(suspect, 7), (resting, 7), (LANES[1], 8)] {
            session.handle_lane_policy(
                start,
                lane,
                LanePolicy { link: LinkId::new(link), ..LanePolicy::default() },
            );
        }
        let bytes = 2_000;
        for (lane, at) in [(suspect, 0), (resting, 90)] {
            let now = start + ms(at);
            // No other is given any of it.
            session.lanes.iter_mut().for_each(|(id, each)| each.late = *id != lane);
            let id = session.open(StreamKind::Raw).unwrap();
            session.send_stream(id).write(&mut vec![7; bytes].into()).unwrap();
            while session.streams.pending() > 0 {
                let pulled = session.poll_transmit(now, lane, usize::MAX, &mut LaneBuf::new());
                assert!(pulled.is_some());
            }
            session.lanes.get_mut(&lane).unwrap().idle = true;
        }
        session.lanes.get_mut(&resting).unwrap().resting = true;
        session.handle_timeout(start + ms(101));
        assert_eq!([suspect, resting].map(|id| session.lanes[&id].health), [Health::Suspect; 2]);
        assert_eq!(session.streams.pending(), 2 * bytes as u64);
    }

    #[test]
    fn lanes_that_rest_are_asked_before_they_are_given_up_with_a_suspect() {
        let start = testing::start();
        let mut session = session(start);
        let (suspect, resting) = (LANES[0], LaneId::new(2));
        assert!(session.handle_lane_up(start, resting, Some(Duration::from_millis(20))));
        for (lane, link) in [(suspect, 7), (resting, 7), (LANES[1], 8)] {
            session.handle_lane_policy(
                start,
                lane,
                LanePolicy { link: LinkId::new(link), ..LanePolicy::default() },
            );
        }
        session.lanes.get_mut(&resting).unwrap().resting = true;
        // Nothing was heard of any lane for long: there was nothing to say.
        let now = start + Duration::from_secs(14);
        let id = session.open(StreamKind::Raw).unwrap();
        session.send_stream(id).finish().unwrap();
        assert!(session.poll_transmit(now, suspect, 4096, &mut LaneBuf::new()).is_some());
        session.lanes.iter_mut().for_each(|(_, lane)| lane.idle = true);
        session.handle_timeout(now + Duration::from_millis(110));
        assert_eq!([suspect, resting].map(|id| session.lanes[&id].health), [Health::Suspect; 2]);
        session.handle_timeout(now + Duration::from_millis(150));
        assert!(session.lanes.contains_key(&resting), "it has not been asked yet");
    }

    /// A client whose lane of 20 ms owes a frame since `start`, beside another lane, both of whose kernels tell of a path of
    /// this rate. Says whether its kernel has to be asked, and how it is after it, at the time it would be suspect.
    fn after_silence(rate: u64, other: LanePolicy, other_heard: bool) -> (bool, Health, u64) {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut session = session(start);
        session.handle_lane_policy(start, LANES[1], other);
        let metrics = |silence| crate::proto::LaneMetrics {
            silence: Some(silence),
            ..testing::kernel(rate, ms(20))
        };
        for lane in LANES {
            session.handle_lane_metrics(start, lane, metrics(ms(0)));
        }
        let id = session.open(StreamKind::Raw).unwrap();
        session.send_stream(id).write(&mut vec![7; 1000].into()).unwrap();
        session.lanes.get_mut(&LANES[1]).unwrap().late = true;
        while session.streams.pending() > 0 {
            assert!(session.poll_transmit(start, LANES[0], 4096, &mut LaneBuf::new()).is_some());
        }
        session.lanes.get_mut(&LANES[0]).unwrap().idle = true;
        session.lanes.get_mut(&LANES[1]).unwrap().late = false;
        // Frames that are late may still travel twice where that is worth it.
        session.duplicates.spend(session.duplicates.left());
        let (mut now, mut asked) = (start, false);
        while now < start + ms(900) {
            now += ms(10);
            if other_heard {
                session.handle_lane_metrics(now, LANES[1], metrics(ms(0)));
            }
            session.handle_timeout(now);
            while let Some(event) = session.poll_event() {
                if event == crate::proto::Event::MetricsWanted(LANES[0]) {
                    asked = true;
                    session.handle_lane_metrics(now, LANES[0], metrics(now - start));
                }
            }
            if session.lanes[&LANES[0]].health != Health::Good {
                break;
            }
        }
        (asked, session.lanes[&LANES[0]].health, session.streams.pending())
    }

    #[test]
    fn what_a_lane_owes_moves_to_its_own_link_only_if_the_lane_is_what_is_broken() {
        let same = LanePolicy { tier: Tier::Express, ..LanePolicy::default() };
        let another = LanePolicy { link: LinkId::new(7), ..LanePolicy::default() };
        assert_eq!(after_silence(1_000_000, same, true), (true, Health::Suspect, 1000));
        assert_eq!(after_silence(1_000_000, another, false), (true, Health::Suspect, 1000));
        assert_eq!(after_silence(8_000, same, false).1, Health::Good, "a slow link is slow");
    }

    /// After how many seconds a lane that owes is given up, if it is, beside one of this link. Its kernel hears the peer all the
    /// time, and of more bytes if it `delivers`.
    fn given_up_after(other_link: u64, delivers: bool) -> Option<u64> {
        let start = testing::start();
        let mut session = session(start);
        let other = LanePolicy { link: LinkId::new(other_link), ..LanePolicy::default() };
        session.handle_lane_policy(start, LANES[1], other);
        let id = session.open(StreamKind::Raw).unwrap();
        session.send_stream(id).finish().unwrap();
        assert!(session.poll_transmit(start, LANES[0], 4096, &mut LaneBuf::new()).is_some());
        (0..200_u64).find(|second| {
            let now = start + Duration::from_secs(*second);
            let kernel = crate::proto::LaneMetrics {
                silence: Some(Duration::ZERO),
                delivered_bytes: Some(if delivers { *second } else { 500 }),
                ..testing::kernel(1_000_000, Duration::from_millis(20))
            };
            session.handle_lane_metrics(now, LANES[0], kernel);
            session.handle_timeout(now);
            let mut events = std::iter::from_fn(|| session.poll_event());
            events.any(|event| {
                matches!(event, crate::proto::Event::LaneLost { lane, .. } if lane == LANES[0])
            })
        })
    }

    #[test]
    fn a_lane_of_the_only_link_is_not_given_up_while_its_kernel_hears_the_peer() {
        assert!(given_up_after(7, false).is_some_and(|seconds| seconds < 3), "there is another");
        let middlebox = given_up_after(0, false);
        assert!(middlebox.is_some_and(|seconds| (60..70).contains(&seconds)), "{middlebox:?}");
        assert_eq!(given_up_after(0, true), None, "its path carries");
    }

    #[test]
    fn a_lane_that_is_late_as_a_rule_is_forecast_to_be() {
        let start = testing::start();
        let mut session = session(start);
        let [late, other] = LANES;
        let lane = session.lanes.get_mut(&late).unwrap();
        (0..100).for_each(|_| lane.estimate.on_lateness(start, Duration::from_millis(160)));
        let arrival = |lane| session.view_of(start, lane).unwrap().arrival(1000.0);
        let later = arrival(late) - arrival(other);
        assert!((0.14..0.16).contains(&later), "{later}");
    }
}
