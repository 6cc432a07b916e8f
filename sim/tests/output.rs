//! Whoever reads the output may have heard enough.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_imux-sim");

/// Runs the program, reads one line of its output, and closes it.
fn one_line(args: &[&str]) -> (String, std::process::Output) {
    let mut command = Command::new(PROGRAM);
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (line, running.wait_with_output().unwrap())
}

#[test]
fn a_closed_output_ends_the_program_without_words() {
    let (line, ended) = one_line(&["compare", "--seeds", "1", "--scenario", "equal,single"]);
    assert!(line.starts_with("scenario "), "{line}");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert_eq!(ended.status.code(), Some(141), "as shells show an end by SIGPIPE");
}

#[test]
fn an_error_has_its_words() {
    let ended = Command::new(PROGRAM).args(["run", "--scenario", "none"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let words = String::from_utf8_lossy(&ended.stderr);
    assert!(words.contains("neither a scenario") && words.contains("silent-death"), "{words}");
}

#[test]
fn a_run_says_how_well_it_went_and_leaves_a_trace_and_a_picture() {
    let dir = tempfile::tempdir().unwrap();
    let [trace, picture] = ["trace.jsonl", "picture.svg"].map(|name| dir.path().join(name));
    let ended = Command::new(PROGRAM)
        .args(["run", "--scenario", "silent-death", "--seed", "7", "--trace"])
        .arg(&trace)
        .arg("--picture")
        .arg(&picture)
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(0));
    let words = String::from_utf8(ended.stdout).unwrap();
    let figures = [
        "largest stream",
        "goodput",
        "of the ideal",
        "longest gap",
        "out of order",
        "by path",
        "lane 0",
        "lane 1",
        "lane 2",
        "sent before",
        "duplicates",
        "no rule was broken",
    ];
    for figure in figures {
        assert!(words.contains(figure), "{figure} is not in {words}");
    }
    let trace = std::fs::read_to_string(trace).unwrap();
    let records =
        trace.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let kinds: std::collections::BTreeSet<String> =
        records.map(|record| record["what"].as_str().unwrap().to_owned()).collect();
    for kind in ["lane up", "suspect", "lane lost", "fault: silent", "arrive", "read", "drained"] {
        assert!(kinds.contains(kind), "{kind} is not in {kinds:?}");
    }
    let picture = std::fs::read_to_string(picture).unwrap();
    for part in ["<svg", "lane 1 lost", "waited", "path 1", "</svg>"] {
        assert!(picture.contains(part), "{part} is not in the picture");
    }
}
