//! Tiers, caps and redundant streams.

use super::*;
use crate::proto::limits::LINK_RATE_MIN;

fn policy(tier: Tier, link: u64) -> LanePolicy {
    LanePolicy { tier, link: LinkId::new(link), rate_max: None }
}

/// A pair whose `n`th lane is of the `n`th tier, each on a link of its own.
fn tiers(tiers: &[Tier]) -> Pair {
    let mut pair = Pair::new(Config::default(), &vec![Path::new(50.0, 10); tiers.len()]);
    for (number, tier) in (0u64..).zip(tiers) {
        tell(&mut pair, number, policy(*tier, number));
    }
    pair
}

fn tell(pair: &mut Pair, lane: u64, policy: LanePolicy) {
    let now = pair.now;
    for end in &mut pair.ends {
        end.session.handle_lane_policy(now, LaneId::new(lane), policy);
    }
}

/// Payload given to lane `n` at `end`.
fn sent(pair: &Pair, end: usize, lane: u64) -> u64 {
    let stats = pair.ends[end].session.stats();
    stats.lanes.iter().find(|it| it.id == LaneId::new(lane)).map_or(0, |lane| lane.sent_bytes)
}

fn carry(pair: &mut Pair, end: usize, bytes: usize) {
    let data = pattern(bytes, 77);
    let id = pair.open(end, data.clone());
    let arrived = |pair: &Pair| pair.ends[1 - end].read.get(&id).is_some_and(|(_, ended)| *ended);
    pair.drive_until(60 * SECOND, arrived);
    pair.drive(SECOND / 10); // and is acknowledged
    assert!(pair.ends[1 - end].read[&id].0 == data[..]);
}

#[test]
fn only_the_best_tier_that_answers_carries_streams() {
    let mut pair = tiers(&[Tier::Primary, Tier::Backup, Tier::Metered]);
    for end in [CLIENT, SERVER] {
        carry(&mut pair, end, 1_000_000);
        assert_eq!((sent(&pair, end, 1), sent(&pair, end, 2)), (0, 0));
    }
    pair.lane_down(LaneId::new(0));
    for end in [CLIENT, SERVER] {
        carry(&mut pair, end, 1_000_000);
        assert_eq!((sent(&pair, end, 1), sent(&pair, end, 2)), (1_000_000, 0));
    }
    pair.lane_down(LaneId::new(1));
    for end in [CLIENT, SERVER] {
        carry(&mut pair, end, 1_000_000);
        assert_eq!(sent(&pair, end, 2), 1_000_000, "and nothing twice");
    }
    pair.lane_up(LaneId::new(3), Path::new(50.0, 10));
    tell(&mut pair, 3, policy(Tier::Primary, 0));
    for end in [CLIENT, SERVER] {
        let before = sent(&pair, end, 2);
        carry(&mut pair, end, 1_000_000);
        assert_eq!(sent(&pair, end, 2), before, "the primary is back");
    }
}

#[test]
fn a_backup_takes_over_from_a_silent_lane_at_once_and_a_metered_one_when_it_is_lost() {
    for (tier, gap_max) in [(Tier::Backup, SECOND / 4), (Tier::Metered, 2 * SECOND)] {
        let mut pair = tiers(&[Tier::Primary, tier]);
        let data = pattern(3_000_000, 2);
        let id = pair.open(CLIENT, data.clone());
        pair.drive(SECOND / 4);
        pair.set_path(LaneId::new(0), |path| path.silent = true);
        pair.drive(SECOND / 10); // what was in flight has arrived
        let read = pair.ends[SERVER].read[&id].0.len();
        let gap = pair.drive_until(9 * SECOND, |pair| pair.ends[SERVER].read[&id].0.len() > read);
        assert!(gap < gap_max, "{tier}: {gap:?}");
        assert!(tier == Tier::Backup || gap > SECOND / 2, "a stall that TCP repairs costs nothing");
        pair.drive_until(9 * SECOND, |pair| pair.ends[SERVER].read[&id].1);
        assert!(pair.ends[SERVER].read[&id].0 == data[..]);
    }
}

#[test]
fn an_express_lane_has_what_is_urgent_and_bulk_only_alone() {
    for end in [CLIENT, SERVER] {
        let mut pair = tiers(&[Tier::Primary, Tier::Express]);
        let bulk = pair.open(end, pattern(3_000_000, 2));
        pair.drive(SECOND / 4);
        let first = sent(&pair, end, 1);
        assert!(first <= 64 * 1024, "what a stream sends first is urgent, and no more: {first}");
        let before = pair.now;
        let urgent = pair.open(end, pattern(200, 3));
        let arrived =
            |pair: &Pair| pair.ends[1 - end].read.get(&urgent).is_some_and(|(_, ended)| *ended);
        let took = pair.drive_until(SECOND, arrived);
        assert!(took < SECOND / 80, "a way of 10 ms, and no bulk before it: {took:?}");
        assert_eq!(sent(&pair, end, 1), first + 200);
        assert!(!pair.ends[1 - end].read[&bulk].1, "there was bulk all the while");
        assert!(pair.now - before < SECOND / 2);
        pair.lane_down(LaneId::new(0));
        pair.drive_until(60 * SECOND, |pair| pair.ends[1 - end].read[&bulk].1);
        assert!(sent(&pair, end, 1) > 1_000_000, "now it is the best there is");
    }
}

/// Bulk from `end` on a pair of primary lanes, then a few bytes.
fn urgent_behind_bulk(end: usize, tier: Tier) -> Pair {
    let mut pair = tiers(&[tier, Tier::Primary]);
    pair.open(end, pattern(3_000_000, 2));
    pair.drive(SECOND / 4);
    assert!(!told(&pair), "bulk alone is no reason");
    pair.open(end, pattern(200, 3));
    pair
}

fn told(pair: &Pair) -> bool {
    pair.ends.iter().any(|end| end.events.contains(&Event::ExpressWanted))
}

#[test]
fn the_client_is_told_once_that_an_express_lane_would_help() {
    for end in [CLIENT, SERVER] {
        let mut pair = urgent_behind_bulk(end, Tier::Primary);
        pair.drive_until(SECOND, told);
        pair.open(end, pattern(200, 4));
        pair.open(1 - end, pattern(3_000_000, 5));
        pair.drive(SECOND / 10);
        pair.open(1 - end, pattern(200, 6));
        pair.drive(SECOND);
        let heard = |end: usize| {
            pair.ends[end].events.iter().filter(|event| **event == Event::ExpressWanted).count()
        };
        assert_eq!((heard(CLIENT), heard(SERVER)), (1, 0));
    }
    let mut pair = urgent_behind_bulk(SERVER, Tier::Express);
    pair.drive(SECOND);
    assert!(!told(&pair), "there is one");
}

#[test]
fn that_an_express_lane_would_help_is_said_again_if_it_was_lost() {
    let mut pair = urgent_behind_bulk(SERVER, Tier::Primary);
    for lane in [0, 1] {
        pair.silence_one_way(LaneId::new(lane), SERVER);
    }
    pair.drive(SECOND / 10);
    for lane in [0, 1] {
        pair.lane_down(LaneId::new(lane));
    }
    assert!(!told(&pair));
    pair.lane_up(LaneId::new(2), Path::new(50.0, 10));
    pair.drive_until(SECOND, told);
    assert!(told(&pair));
}

#[test]
fn a_slow_primary_is_no_reason_for_a_backup() {
    let mut pair = tiers(&[Tier::Primary, Tier::Backup]);
    let id = pair.open(CLIENT, pattern(3_000_000, 2));
    pair.drive(SECOND / 4);
    // Slower than forecast: late, but it answers.
    pair.set_path(LaneId::new(0), |path| path.bytes_per_second /= 3.0);
    pair.drive_until(60 * SECOND, |pair| pair.ends[SERVER].read[&id].1);
    assert_eq!(sent(&pair, CLIENT, 1), 0);
}

#[test]
fn idle_metered_lanes_are_asked_less_often() {
    let pings = |tier| {
        let mut pair = tiers(&[Tier::Primary]);
        pair.drive(SECOND);
        pair.now += 7 * SECOND; // or one timer would serve both lanes
        pair.lane_up(LaneId::new(1), Path::new(50.0, 10));
        tell(&mut pair, 1, policy(tier, 1));
        pair.drive(600 * SECOND);
        pair.ends.iter().map(|end| end.timers[&Timer::Keepalive]).sum::<u64>()
    };
    let (primary, metered) = (pings(Tier::Primary), pings(Tier::Metered));
    assert!(metered * 10 < primary * 7, "{metered} and {primary}");
}

#[test]
fn the_lanes_of_a_link_share_its_cap_both_ways() {
    let cap = 1_250_000;
    for end in [CLIENT, SERVER] {
        let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 10); 3]);
        for lane in 0..3 {
            tell(&mut pair, lane, LanePolicy { rate_max: Some(cap), ..LanePolicy::default() });
        }
        let rates = |pair: &Pair| -> u64 {
            pair.ends[end].session.stats().lanes.iter().map(|lane| lane.rate).sum()
        };
        assert!(rates(&pair) <= cap);
        let begun = pair.now;
        carry(&mut pair, end, 2_500_000);
        let took = (pair.now - begun).as_secs_f64();
        assert!((1.98..2.15).contains(&took), "{took} s for two seconds' worth");
        assert!(rates(&pair) <= cap, "no estimate exceeds it");
        let paced = pair.ends[end].timers[&Timer::Paced];
        assert!((100..2_000).contains(&paced), "it waits, and does not spin: {paced} timers");
    }
}

#[test]
fn the_slowest_cap_there_is_still_carries() {
    let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 10)]);
    let rate_max = Some(LINK_RATE_MIN);
    tell(&mut pair, 0, LanePolicy { rate_max, ..LanePolicy::default() });
    for end in [CLIENT, SERVER] {
        carry(&mut pair, end, 40_000);
        assert_eq!(pair.ends[end].session.stats().lanes_lost, 0);
    }
}

#[test]
fn a_redundant_stream_goes_over_two_links_both_ways() {
    let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 10); 4]);
    for lane in 0..4 {
        tell(&mut pair, lane, policy(Tier::Primary, lane / 2));
    }
    let id = pair.open(CLIENT, pattern(100_000, 3));
    pair.ends[CLIENT].session.send_stream(id).set_redundant();
    pair.drive_until(SECOND, |pair| !pair.ends[SERVER].accepted.is_empty());
    pair.ends[SERVER].to_write.insert(id, pattern(100_000, 4));
    pair.drive(9 * SECOND);
    for (end, seed) in [(SERVER, 3), (CLIENT, 4)] {
        assert!(pair.ends[end].read[&id].0 == pattern(100_000, seed)[..], "delivered once");
        let other = 1 - end;
        let link = |link: u64| sent(&pair, other, 2 * link) + sent(&pair, other, 2 * link + 1);
        assert!(link(0) >= 80_000 && link(1) >= 80_000, "{} and {}", link(0), link(1));
        assert_eq!(pair.ends[end].session.memory(), 0);
    }
}

#[test]
fn a_redundant_stream_does_not_notice_a_lane_that_dies() {
    let mut pair = tiers(&[Tier::Primary, Tier::Primary]);
    carry(&mut pair, CLIENT, 500_000);
    let id = pair.ends[CLIENT].session.open(StreamKind::Raw).unwrap();
    pair.ends[CLIENT].session.send_stream(id).set_redundant();
    for word in 0..40u64 {
        if word == 20 {
            pair.set_path(LaneId::new(0), |path| path.silent = true);
        }
        let mut data = pattern(200, word);
        assert_eq!(pair.ends[CLIENT].session.send_stream(id).write(&mut data), Ok(200));
        let whole = 200 * (word as usize + 1);
        let took = pair.drive_until(SECOND, |pair| {
            pair.ends[SERVER].read.get(&id).is_some_and(|(read, _)| read.len() == whole)
        });
        assert!(took < Duration::from_millis(12), "word {word}: {took:?}");
    }
}

#[test]
fn what_opens_a_redundant_stream_goes_on_two_lanes() {
    for silent in 0..2 {
        let mut pair = tiers(&[Tier::Primary, Tier::Primary]);
        carry(&mut pair, CLIENT, 500_000);
        pair.silence_one_way(LaneId::new(silent), CLIENT);
        let id = pair.open(CLIENT, pattern(200, 1));
        pair.ends[CLIENT].session.send_stream(id).set_redundant();
        let took = pair.drive_until(SECOND, |pair| {
            pair.ends[SERVER].read.get(&id).is_some_and(|(read, _)| read.len() == 200)
        });
        assert!(took < Duration::from_millis(12), "lane {silent} is silent: {took:?}");
        pair.drive(9 * SECOND);
        assert_eq!(pair.ends[SERVER].accepted.len(), 2, "it opens one stream");
    }
}

#[test]
fn copies_are_not_charged_to_the_budget_and_metered_lanes_carry_none() {
    let config = Config { duplicate_share: 0.0, ..Config::default() };
    let mut pair = Pair::new(config, &[Path::new(50.0, 10); 2]);
    tell(&mut pair, 1, policy(Tier::Primary, 1));
    let id = pair.open(CLIENT, pattern(50_000, 3));
    pair.ends[CLIENT].session.send_stream(id).set_redundant();
    pair.drive(SECOND);
    assert!(pair.ends[CLIENT].session.stats().resent_bytes > 40_000);

    let mut pair = tiers(&[Tier::Metered, Tier::Metered]);
    let id = pair.open(CLIENT, pattern(50_000, 3));
    pair.ends[CLIENT].session.send_stream(id).set_redundant();
    pair.drive(SECOND);
    assert_eq!(pair.ends[CLIENT].session.stats().resent_bytes, 0);
}

#[test]
fn what_may_be_ignored_is_not_acknowledged_and_out_of_place_it_does_nothing() {
    let theirs = StreamId::new(Side::Client, Dir::Bi, 0);
    let ours = StreamId::new(Side::Server, Dir::Bi, 0);
    let hints = [Frame::Redundant { id: theirs }, Frame::LanePolicy(policy(Tier::Metered, 9))];
    assert!(hints.iter().all(|frame| !frame.is_ack_eliciting() && !frame.is_handshake()));
    assert_eq!(closed_with(&hostile(hints.to_vec())), None);
    let wrong = vec![Frame::Redundant { id: ours }];
    assert_eq!(closed_with(&hostile(wrong)), Some(Code::PROTOCOL));
    let flood = vec![Frame::LanePolicy(LanePolicy::default()); 100_001];
    assert_eq!(closed_with(&hostile(flood)), Some(Code::EXCESSIVE_LOAD));
}
