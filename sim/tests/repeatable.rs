//! The same seed gives the same run, on this machine and on any other.

use imux_sim::{swarm, world};

/// Seed and trace hash. They change whenever the core or the simulator does anything else, or at
/// another moment: `imux-sim replay SEED` prints the new ones.
const TRACES: [(u64, u64); 6] = [
    (1, 0x6de9_177c_3786_6406),
    (2, 0x5e25_edd2_de46_a7a9),
    (3, 0xb612_9f60_fea7_4344),
    (4, 0xd74c_7266_9958_3a60),
    (5, 0xa0fe_09dd_676e_892d),
    (1_000_003, 0x8ab1_d60a_a58f_1d8c),
];

#[test]
fn a_seed_gives_the_same_trace_everywhere() {
    let traces = TRACES.map(|(seed, _)| (seed, world::run(&swarm::draw(seed), seed, false).hash));
    assert_eq!(traces, TRACES, "\nnow {traces:#x?}");
}
