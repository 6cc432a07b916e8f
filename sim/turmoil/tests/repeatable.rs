//! The same seed is the same run.

use imux_turmoil::run::try_seed;

#[test]
fn a_seed_gives_the_same_run_again_and_another_seed_another() {
    let first = try_seed(3);
    assert_eq!(first.failure, None);
    assert_eq!(try_seed(3).hash, first.hash);
    assert_ne!(try_seed(4).hash, first.hash);
}
