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
    let opening = "Sending 8.0 MiB each way over 3 lanes; lane 2 is killed half way.";
    assert_eq!(told.lines().next(), Some(opening), "{told}");
    assert!(told.contains("\nlane 2 is killed\n") && told.contains("100 %"), "{told}");
    // Rates say what they measure: a lane each way, one direction, or both together.
    assert!(out.contains(" each way ") && out.contains("rate one way"), "{out}");
    assert!(told.lines().any(|line| line.starts_with("up + down ")), "{told}");
    assert!(out.contains("\nEvery byte arrived as it was sent. The fastest lane alone"), "{out}");
    assert!(out.contains(" times as fast up, "), "{out}");
    for line in out.lines().chain(told.lines()) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    // The last words are how to do it for real: they can be typed as they are.
    let (_, commands) = out.split_once("For real").unwrap();
    let commands = commands.replace("\\\n", " ");
    let commands: Vec<_> = commands.lines().filter(|line| line.starts_with("  imux ")).collect();
    assert_eq!(commands.len(), 2, "{out}");
    for (command, option) in commands.iter().zip(["--listen", "--dial"]) {
        let mut args: Vec<_> = command.split_whitespace().skip(1).collect();
        // With one unknown option added, that option is the only thing wrong.
        args.push("--not-there");
        let (code, _, told) = process::run(home.path(), &args);
        assert_eq!(code, 2, "{told}");
        assert!(told.contains("'--not-there'") && command.contains(option), "{told}");
    }
}
