//! Seeds that once failed, and what was wrong.

use imux_sim::{swarm, world};

/// The swarm's networks as they were drawn when the defect was found.
fn holds(seeds: &[u64]) {
    for &seed in seeds {
        let outcome = world::run(&swarm::draw(seed), seed, false);
        assert_eq!(outcome.failure, None, "seed {seed}");
    }
}

/// A lane whose buffer stayed full with nothing to be acknowledged was waited for without end: each
/// keepalive began its time anew; and so was one on which the peer was still heard.
#[test]
fn a_lane_that_takes_nothing_more_is_given_up() {
    holds(&[20_243_663, 20_248_638, 20_807_597]);
}

/// With little left of a link's cap, a lane was woken for a frame that the pull had no room for,
/// and declined, at once and again.
#[test]
fn no_lane_is_woken_for_what_it_would_not_carry() {
    holds(&[20_955_375]);
}

/// New bytes behind lost ones, in one frame, were taken for sent again; and a copy was dropped when
/// the first lane died before the second one had room.
#[test]
fn redundant_streams_lose_no_copy() {
    holds(&[20_131_598, 20_741_342, 20_790_038, 20_890_589, 20_943_071]);
}

/// A writer that waited for what was to be sent again was not told when that had arrived after all.
#[test]
fn a_writer_is_told_of_room_that_an_acknowledgement_makes() {
    holds(&[30_052_880]);
}

/// A lane that only answered counted its answers as in flight, which nothing ever acknowledges,
/// until it was full of them.
#[test]
fn a_lane_that_only_answers_stays_free() {
    holds(&[8_709_413]);
}

/// A lane that was woken and never came, its buffer full of answers to the peer, was waited for
/// without end.
#[test]
fn a_lane_that_does_not_come_when_woken_is_given_up() {
    holds(&[570_000_377]);
}
