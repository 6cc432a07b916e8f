//! Every tenth seed has flows: their rules hold beside everything else.

use imux_sim::{swarm, world};

#[test]
fn flows_keep_their_rules_on_any_network() {
    let mut flows = 0;
    for seed in (7..=607).step_by(10) {
        let options = swarm::draw(seed);
        assert!(!options.flows.is_empty(), "seed {seed}");
        let outcome = world::run(&options, seed, false);
        assert_eq!(outcome.failure, None, "seed {seed}");
        flows += outcome.counts.get("flow").copied().unwrap_or_default();
    }
    assert!(flows > 100, "{flows} ends of flows");
    assert!(swarm::draw(8).flows.is_empty());
}

/// Of seeds that have failed.
#[test]
fn a_flow_that_ends_before_it_is_known_leaves_nothing_behind() {
    let outcome = world::run(&swarm::draw(4_027), 4_027, false);
    assert_eq!(outcome.failure, None);
}
