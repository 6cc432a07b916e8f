//! The same seed gives the same run, on this machine and on any other.

use imux_sim::{swarm, world};

/// Seed and trace hash. They change whenever the core or the simulator does anything else, or at
/// another moment: `imux-sim replay SEED` prints the new ones.
/// Two of them (12 and 20) are under BBR.
const TRACES: [(u64, u64); 8] = [
    (1, 0x11c4_6bc3_570b_0970),
    (2, 0x6881_12e4_1af1_35da),
    (3, 0x8451_6188_c54d_e894),
    (4, 0x4728_d25a_41e6_3774),
    (5, 0xde23_cf4d_d145_0fe5),
    (12, 0xaaab_67df_c6aa_a624),
    (20, 0x06bb_5c45_427d_232d),
    (1_000_003, 0x087e_4a8a_a16e_c44a),
];

#[test]
fn a_seed_gives_the_same_trace_everywhere() {
    let traces = TRACES.map(|(seed, _)| (seed, world::run(&swarm::draw(seed), seed, false).hash));
    assert_eq!(traces, TRACES, "\nnow {traces:#x?}");
}
