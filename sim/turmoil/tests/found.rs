//! What simulation found, each as small as it could be made.

use imux_sim::options::{HalfPlan, SessionOptions, StreamPlan};
use imux_turmoil::plan::{PathPlan, Plan};
use imux_turmoil::run::{Watch, run};

/// One lane over a path of 2 Mbit/s and 40 ms, one stream, no faults.
fn calm() -> Plan {
    let path = PathPlan {
        latency_ms: [10, 10],
        jitter_ms: 0,
        mbit: 2.0,
        piece_bytes: 8_192,
        segment_bytes: 16_384,
        lanes: 1,
    };
    let half = HalfPlan { bytes: 1_000, ..HalfPlan::default() };
    let stream = StreamPlan { halves: [half.clone(), half], ..StreamPlan::default() };
    Plan {
        seed: 1,
        paths: vec![path],
        sessions: [SessionOptions::default(), SessionOptions::default()],
        streams: vec![stream],
        faults: Vec::new(),
        faults_end_ms: 0,
        close_amid_data: false,
    }
}

fn assert_well(plan: &Plan) {
    let (outcome, _) = run(plan, Watch::default());
    assert_eq!(outcome.failure, None);
}

#[test]
fn a_calm_run_breaks_no_rule() {
    assert_well(&calm());
}

/// The lane's socket was closed right behind CLOSE, with the server's data still coming: it was
/// reset, and CLOSE, which was behind an upload, was lost with what had not been sent. The server
/// kept the session for its grace time.
#[test]
fn a_session_closed_amid_data_is_told_to_the_peer() {
    assert_well(&Plan { close_amid_data: true, ..calm() });
}
