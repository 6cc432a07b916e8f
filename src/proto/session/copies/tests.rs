use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::proto::config::Config;
use crate::proto::copies::cost_twice;
use crate::proto::ids::{LaneId, LinkId, Side};
use crate::proto::lane::{Carried, Condition, Task};
use crate::proto::policy::{LanePolicy, Tier};
use crate::proto::session::Session;
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
    let before = session.copies.budget_left();
    session.handle_timeout(start + Duration::from_millis(70));
    let entries = session.lanes.values().flat_map(|lane| lane.ledger.entries());
    let late = entries.filter(|entry| entry.duplicated);
    let ends = late.filter(|entry| matches!(entry.carried, Carried::Data { .. })).count();
    assert_eq!(ends, 20, "all are late");
    assert_eq!(before - session.copies.budget_left(), 20 * cost_twice(0));
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
        let pulled = session.poll_transmit(start + ms(at), lane, usize::MAX, &mut LaneBuf::new());
        assert!(pulled.is_some());
    }
    let owes_late = |session: &Session, lane: LaneId| {
        let lane = &session.lanes.get(lane).unwrap();
        (
            lane.condition == Condition::Late,
            lane.ledger.entries().filter(|entry| entry.duplicated).count() > 0,
        )
    };
    let (at, _) = session.poll_timeout().unwrap();
    assert!(at > start + ms(45) && at < start + ms(100), "{:?}", at - start);
    session.handle_timeout(at);
    for lane in of_link {
        assert_eq!(owes_late(&session, lane), (true, true), "{lane:?}");
    }
    assert_eq!(
        session.lanes.get(LANES[1]).unwrap().condition,
        Condition::Good,
        "another link's is not"
    );
}

#[test]
fn what_a_suspects_link_owes_on_standby_lanes_waits_for_others() {
    let start = testing::start();
    let ms = Duration::from_millis;
    let mut session = session(start);
    let (suspect, standby) = (LANES[0], LaneId::new(2));
    assert!(session.handle_lane_up(start, standby, Some(ms(20))));
    for (lane, link) in [(suspect, 7), (standby, 7), (LANES[1], 8)] {
        session.handle_lane_policy(
            start,
            lane,
            LanePolicy { link: LinkId::new(link), ..LanePolicy::default() },
        );
    }
    let bytes = 2_000;
    for (lane, at) in [(suspect, 0), (standby, 90)] {
        let now = start + ms(at);
        // No other lane is given any of it.
        session.lanes.values_mut().for_each(|each| {
            let late = each.id != lane;
            each.condition = if late { Condition::Late } else { Condition::Good };
        });
        let id = session.open(StreamKind::Raw).unwrap();
        session.send_stream(id).write(&mut vec![7; bytes].into()).unwrap();
        while session.streams.pending() > 0 {
            let pulled = session.poll_transmit(now, lane, usize::MAX, &mut LaneBuf::new());
            assert!(pulled.is_some());
        }
        session.lanes.get_mut(lane).unwrap().task = Task::Asleep;
    }
    session.lanes.get_mut(standby).unwrap().standby = true;
    session.handle_timeout(start + ms(101));
    assert_eq!(
        [suspect, standby].map(|id| session.lanes.get(id).unwrap().condition),
        [Condition::Suspect; 2]
    );
    assert_eq!(session.streams.pending(), 2 * bytes as u64);
}

#[test]
fn standby_lanes_are_asked_before_they_are_given_up_with_a_suspect() {
    let start = testing::start();
    let mut session = session(start);
    let (suspect, standby) = (LANES[0], LaneId::new(2));
    assert!(session.handle_lane_up(start, standby, Some(Duration::from_millis(20))));
    for (lane, link) in [(suspect, 7), (standby, 7), (LANES[1], 8)] {
        session.handle_lane_policy(
            start,
            lane,
            LanePolicy { link: LinkId::new(link), ..LanePolicy::default() },
        );
    }
    session.lanes.get_mut(standby).unwrap().standby = true;
    // Nothing was heard of any lane for long: there was nothing to say.
    let now = start + Duration::from_secs(14);
    let id = session.open(StreamKind::Raw).unwrap();
    session.send_stream(id).finish().unwrap();
    assert!(session.poll_transmit(now, suspect, 4096, &mut LaneBuf::new()).is_some());
    session.lanes.values_mut().for_each(|lane| lane.task = Task::Asleep);
    session.handle_timeout(now + Duration::from_millis(110));
    assert_eq!(
        [suspect, standby].map(|id| session.lanes.get(id).unwrap().condition),
        [Condition::Suspect; 2]
    );
    session.handle_timeout(now + Duration::from_millis(150));
    assert!(session.lanes.contains(standby), "it has not been asked yet");
}

/// A client whose lane of 20 ms has owed a frame since `start`, beside another lane; both lanes'
/// kernels report a path of this rate. Returns whether its kernel has to be asked, and its
/// condition afterwards, at the time it would be suspect.
fn after_silence(rate: u64, other: LanePolicy, other_heard: bool) -> (bool, Condition, u64) {
    let start = testing::start();
    let ms = Duration::from_millis;
    let mut session = session(start);
    session.handle_lane_policy(start, LANES[1], other);
    let metrics = |silence| crate::proto::KernelSample {
        silence: Some(silence),
        ..testing::kernel(rate, ms(20))
    };
    for lane in LANES {
        session.handle_lane_metrics(start, lane, metrics(ms(0)));
    }
    let id = session.open(StreamKind::Raw).unwrap();
    session.send_stream(id).write(&mut vec![7; 1000].into()).unwrap();
    session.lanes.get_mut(LANES[1]).unwrap().condition = Condition::Late;
    while session.streams.pending() > 0 {
        assert!(session.poll_transmit(start, LANES[0], 4096, &mut LaneBuf::new()).is_some());
    }
    session.lanes.get_mut(LANES[0]).unwrap().task = Task::Asleep;
    session.lanes.get_mut(LANES[1]).unwrap().condition = Condition::Good;
    // Late frames may still be sent twice where that pays off.
    session.copies.spend_all();
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
        if session.lanes.get(LANES[0]).unwrap().is_suspect() {
            break;
        }
    }
    (asked, session.lanes.get(LANES[0]).unwrap().condition, session.streams.pending())
}

#[test]
fn what_a_lane_owes_moves_to_its_own_link_only_if_the_lane_is_what_is_broken() {
    let same = LanePolicy { tier: Tier::Express, ..LanePolicy::default() };
    let another = LanePolicy { link: LinkId::new(7), ..LanePolicy::default() };
    assert_eq!(after_silence(1_000_000, same, true), (true, Condition::Suspect, 1000));
    assert_eq!(after_silence(1_000_000, another, false), (true, Condition::Suspect, 1000));
    assert_eq!(after_silence(8_000, same, false).1, Condition::Good, "a slow link is slow");
}

/// How many seconds a lane that owes takes to be given up, if it is, beside one of this link. Its
/// kernel hears the peer all the time, and of more bytes if it `delivers`.
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
        let kernel = crate::proto::KernelSample {
            silence: Some(Duration::ZERO),
            delivered_bytes: Some(if delivers { *second } else { 500 }),
            ..testing::kernel(1_000_000, Duration::from_millis(20))
        };
        session.handle_lane_metrics(now, LANES[0], kernel);
        session.handle_timeout(now);
        let mut events = std::iter::from_fn(|| session.poll_event());
        events.any(
            |event| matches!(event, crate::proto::Event::LaneLost { lane, .. } if lane == LANES[0]),
        )
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
    let lane = session.lanes.get_mut(late).unwrap();
    (0..100).for_each(|_| lane.estimate.on_lateness(start, Duration::from_millis(160)));
    let arrival = |lane| session.lanes.view_of(start, lane).unwrap().arrival(1000.0);
    let later = arrival(late) - arrival(other);
    assert!((0.14..0.16).contains(&later), "{later}");
}
