//! `imux demo`: the first thing anyone runs.

use serde_json::Value;

use crate::support::process;

#[test]
fn the_result_as_json() {
    let home = tempfile::tempdir().unwrap();
    let args = ["demo", "--size", "16MiB", "--json", "--quiet"];
    let (code, out, told) = process::run(home.path(), &args);
    assert_eq!((code, told.as_str()), (0, ""), "{out}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["intact"], true);
    for direction in ["up", "down"] {
        assert_eq!(report[direction]["bytes"], 16 << 20, "{report}");
    }
    let lanes = report["lanes"].as_array().unwrap();
    assert_eq!(lanes.len(), 3);
    for lane in lanes {
        assert!(lane["sent_bytes"].as_u64() > Some(0), "{lane} carried nothing");
        assert!(lane["received_bytes"].as_u64() > Some(0), "{lane} carried nothing");
    }
    assert!(lanes[1]["note"].as_str().unwrap().contains("killed"), "{report}");
    // It needs no files and leaves none.
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn the_result_and_the_progress_for_people() {
    let home = tempfile::tempdir().unwrap();
    let (code, out, told) = process::run(home.path(), &["demo", "--size", "8MiB"]);
    assert_eq!(code, 0, "{told}");
    assert!(out.ends_with("\nEvery byte arrived as it was sent.\n"), "{out}");
    assert!(told.contains("lane 2 is killed") && told.contains("100 %"), "{told}");
}
