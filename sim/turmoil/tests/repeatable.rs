//! The same seed is the same run.

use imux_turmoil::plan::Plan;
use imux_turmoil::run::try_seed;

#[test]
fn a_seed_gives_the_same_run_again_and_another_seed_another() {
    let mut hashes = Vec::new();
    for seed in (1..).filter(|seed| Plan::draw(*seed).repeats()).take(5) {
        let first = try_seed(seed);
        assert_eq!(first.failure, None, "seed {seed}");
        assert_eq!(try_seed(seed).hash, first.hash, "seed {seed}");
        hashes.push(first.hash);
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 5);
}
