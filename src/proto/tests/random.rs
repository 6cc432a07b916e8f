//! Random writes, deaths of lanes and changes of paths against a plain byte queue.

use std::time::Duration;

use proptest::prelude::*;

use super::pair::{CLIENT, Pair, Path, SERVER, pattern};
use crate::proto::{Config, LaneId, SchedulerKind};

/// Indices are taken modulo what there is, so that cases shrink.
#[derive(Clone, Copy, Debug)]
enum Op {
    Open { from_server: bool, bytes: usize },
    LaneDown(usize),
    LaneUp { mbit: u8, delay_ms: u8 },
    Silence(usize),
    Slow { lane: usize, factor: u8 },
    Wait(u16),
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (any::<bool>(), 0usize..300_000)
            .prop_map(|(from_server, bytes)| Op::Open { from_server, bytes }),
        1 => any::<usize>().prop_map(Op::LaneDown),
        2 => (1u8..100, 1u8..120).prop_map(|(mbit, delay_ms)| Op::LaneUp { mbit, delay_ms }),
        1 => any::<usize>().prop_map(Op::Silence),
        1 => (any::<usize>(), 2u8..20).prop_map(|(lane, factor)| Op::Slow { lane, factor }),
        4 => (1u16..400).prop_map(Op::Wait),
    ]
}

fn run(scheduler: SchedulerKind, windows: u64, ops: &[Op]) {
    let config = Config {
        scheduler,
        stream_window: windows,
        stream_window_max: windows * 8,
        session_window: windows * 16,
        ..Config::default()
    };
    let mut pair = Pair::new(config.clone(), &[Path::new(20.0, 10), Path::new(5.0, 50)]);
    let mut lanes = vec![LaneId::new(0), LaneId::new(1)];
    let mut next = 2;
    let mut written = Vec::new();
    for op in ops {
        match *op {
            Op::Open { from_server, bytes } => {
                let end = if from_server { SERVER } else { CLIENT };
                let data = pattern(bytes, written.len() as u64 * 2 + 1);
                written.push((1 - end, pair.open(end, data.clone()), data));
            }
            Op::LaneDown(n) if !lanes.is_empty() => pair.lane_down(lanes.remove(n % lanes.len())),
            Op::LaneUp { mbit, delay_ms } if lanes.len() < 6 => {
                lanes.push(LaneId::new(next));
                pair.lane_up(LaneId::new(next), Path::new(mbit.into(), delay_ms.into()));
                next += 1;
            }
            Op::Silence(n) if !lanes.is_empty() => {
                let lane = lanes.remove(n % lanes.len());
                pair.set_path(lane, |path| path.silent = true);
            }
            Op::Slow { lane, factor } if !lanes.is_empty() => {
                let lane = lanes[lane % lanes.len()];
                pair.set_path(lane, |path| path.bytes_per_second /= f64::from(factor));
            }
            Op::Wait(ms) => drop(pair.drive(Duration::from_millis(ms.into()))),
            _ => {}
        }
        for end in &pair.ends {
            assert!(end.session.stats().reorder_bytes <= 2 * config.session_window);
        }
    }
    pair.lane_up(LaneId::new(next), Path::new(50.0, 10));
    pair.drive(Duration::from_secs(60));
    for (reader, id, data) in &written {
        let (bytes, ended) = &pair.ends[*reader].read[id];
        assert!(bytes == data, "{id}: {} of {} bytes", bytes.len(), data.len());
        assert!(ended, "{id} has ended");
    }
    for end in &pair.ends {
        assert!(!end.session.is_closed(), "{:?}", end.events.last());
        assert_eq!(end.session.memory() + end.session.stats().pending_bytes, 0);
        assert_eq!(end.session.stats().reorder_bytes, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn everything_arrives_whatever_happens_to_the_lanes(
        ops in prop::collection::vec(any_op(), 1..40),
        windows in 2_000u64..300_000,
        scheduler in 0usize..SchedulerKind::ALL.len(),
    ) {
        run(SchedulerKind::ALL[scheduler], windows, &ops);
    }
}
