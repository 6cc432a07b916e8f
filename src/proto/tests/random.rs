//! Random writes, datagrams, lane deaths and path changes against plain queues: the cases that a
//! fuzz target also runs, but drawn so that they shrink well, and larger.

use proptest::prelude::*;

use crate::proto::SchedulerKind;
use crate::proto::fuzz::{Case, Op, some_policy};

fn any_op() -> impl Strategy<Value = Op> {
    let n = any::<usize>;
    prop_oneof![
        6 => (any::<bool>(), 0usize..300_000, any::<u8>()).prop_map(|(from_server, bytes, dice)| Op::Open {
            from_server,
            bytes,
            redundant: dice < 50,
        }),
        2 => (n(), 0usize..100_000).prop_map(|(half, bytes)| Op::Answer { half, bytes }),
        1 => n().prop_map(Op::Reset),
        1 => n().prop_map(Op::Stop),
        1 => n().prop_map(Op::Pause),
        2 => n().prop_map(Op::LaneDown),
        4 => (1u8..100, 1u8..120, any::<u8>()).prop_map(|(mbit, delay_ms, dice)| Op::LaneUp {
            mbit,
            delay_ms,
            policy: some_policy(dice),
        }),
        2 => n().prop_map(Op::Silence),
        1 => (n(), any::<bool>()).prop_map(|(lane, server)| Op::SilenceOneWay { lane, server }),
        2 => (n(), 2u8..20).prop_map(|(lane, factor)| Op::Slow { lane, factor }),
        2 => (any::<bool>(), 1u16..1_000, any::<bool>()).prop_map(|(from_server, deadline_ms, redundant)| {
            Op::OpenFlow { from_server, deadline_ms, redundant }
        }),
        4 => (n(), any::<bool>(), 1u8..50, 0usize..66_000).prop_map(|(flow, server, count, bytes)| {
            Op::Datagrams { flow, server, count, bytes }
        }),
        1 => (n(), any::<bool>()).prop_map(|(flow, server)| Op::EndFlow { flow, server }),
        8 => (1u16..400).prop_map(Op::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn everything_arrives_whatever_happens_to_the_lanes(
        ops in prop::collection::vec(any_op(), 1..40),
        window in 2_000u64..300_000,
        scheduler in 0usize..SchedulerKind::ALL.len(),
    ) {
        let scheduler = SchedulerKind::ALL[scheduler];
        Case { scheduler, window, streams_max: 100, read_max: usize::MAX, cut: usize::MAX, ops }.run();
    }
}
