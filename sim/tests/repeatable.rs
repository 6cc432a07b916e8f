//! The same seed gives the same run, on this machine and on any other.

use imux_sim::{swarm, world};

/// Seed and trace hash. They change whenever the core or the simulator does anything else, or at
/// another moment: `imux-sim replay SEED` prints the new ones.
/// Two of them (12 and 20) are under BBR.
const TRACES: [(u64, u64); 8] = [
    (1, 0x11c4_6bc3_570b_0970),
    (2, 0xb93a_95cf_48f4_c758),
    (3, 0xc28c_f08c_90b0_f846),
    (4, 0xd74c_7266_9958_3a60),
    (5, 0x8470_5902_0219_f111),
    (12, 0xe7b9_3f9d_82d2_556d),
    (20, 0x6337_30ee_a052_b5b0),
    (1_000_003, 0xb5db_d03c_3eb1_92f3),
];

#[test]
fn a_seed_gives_the_same_trace_everywhere() {
    let traces = TRACES.map(|(seed, _)| (seed, world::run(&swarm::draw(seed), seed, false).hash));
    assert_eq!(traces, TRACES, "\nnow {traces:#x?}");
}
