//! The lab on this very kernel: real namespaces, real TCP. Needs Linux and root; elsewhere each
//! test says that it was skipped. The bounds are wide, for machines that are busy with other
//! things.
#![cfg(target_os = "linux")]

use std::io::Read;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

#[path = "../../tests/support/skipped.rs"]
#[allow(dead_code, reason = "nobody has to be able to run the lab")]
mod skipped;

const LAB: &str = env!("CARGO_BIN_EXE_imux-lab");

fn lab(args: &[&str]) -> Output {
    Command::new(LAB).args(args).output().unwrap()
}

/// Whether the lab cannot run here, which is listed at the end of the tests.
fn skipped() -> bool {
    let probe = lab(&["sweep"]);
    let cannot = probe.status.code() == Some(77);
    assert!(cannot || probe.status.success(), "{probe:?}");
    let why = String::from_utf8_lossy(&probe.stderr);
    skipped::mark(cannot.then_some(why.trim()))
}

fn namespaces_of(pid: u32) -> Vec<String> {
    let prefix = format!("imuxlab-{pid}-");
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Vec::new() };
    let names = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|n| n.starts_with(&prefix)).collect()
}

fn start(args: &[&str]) -> Child {
    Command::new(LAB).args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("not within 10 s: {what}");
}

#[test]
fn one_path_carries_what_it_should_and_an_echo_takes_its_round_trip() {
    if skipped() {
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().to_str().unwrap();
    let run = |cell: &str| -> Value {
        let args = [
            "cell",
            cell,
            "--peers",
            "tcp",
            "--runs",
            "1",
            "--repeats",
            "0",
            "--path",
            "20,20",
            "--out",
            dir,
        ];
        let done = lab(&args);
        assert!(done.status.success(), "{done:?}");
        let text = std::fs::read_to_string(out.path().join("report.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let report = run("equal-up");
    let result = &report["cells"][0]["peers"][0]["runs"][0];
    let share = result["figures"]["up.share"].as_f64().unwrap();
    assert!((0.7..=1.01).contains(&share), "{result}");
    assert_eq!(result["faults"].as_array().unwrap().len(), 0, "{result}");

    let report = run("setup");
    let figures = &report["cells"][0]["peers"][0]["runs"][0]["figures"];
    let setup = figures["setup.p50"].as_f64().unwrap();
    assert!(
        (40.0..=60.0).contains(&setup),
        "two round trips: handshake, then the answer: {figures}"
    );
    assert!(std::fs::read_to_string(out.path().join("report.md")).unwrap().contains("| setup |"));
    assert!(std::fs::read_to_string(out.path().join("setup-bbr.svg")).unwrap().starts_with("<svg"));
}

#[test]
fn plain_datagrams_take_a_paths_round_trip_and_a_dead_path_loses_them() {
    if skipped() {
        return;
    }
    let done = lab(&["datagrams", "--cases", "lossy", "--runs", "1", "--seconds", "2"]);
    // It needs imux, which is built with all of the workspace.
    let missing = done.status.code() == Some(3);
    if skipped::mark(missing.then_some("imux is not built")) {
        return;
    }
    let table = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{done:?}");
    let row = |carrier: &str| -> Vec<f64> {
        let line = table.lines().find(|line| line.starts_with(&format!("| {carrier} |"))).unwrap();
        line.split('|').filter_map(|cell| cell.trim().parse().ok()).collect()
    };
    let (dead, lives) = (row("plain UDP, path 0"), row("plain UDP, path 1"));
    assert!(dead[0] > 30.0 && dead[6] > 700.0, "loss and gap: {table}");
    assert!(lives[0] < 30.0 && (40.0..=60.0).contains(&lives[2]), "loss and round trip: {table}");
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    if skipped() {
        return;
    }
    let mut run = start(&["cell", "equal-down", "--peers", "tcp", "--runs", "1"]);
    wait_for("namespaces", || namespaces_of(run.id()).len() == 2);
    std::thread::sleep(Duration::from_millis(500));
    let pid = run.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let status = run.wait().unwrap();
    assert_eq!(status.code(), Some(143));
    let mut words = String::new();
    run.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert!(words.contains("interrupted by signal 15"), "{words}");
    assert!(namespaces_of(run.id()).is_empty());
}

#[test]
fn what_a_crashed_run_left_is_swept() {
    if skipped() {
        return;
    }
    let mut run = start(&["cell", "equal-down", "--peers", "tcp", "--runs", "1"]);
    wait_for("namespaces", || namespaces_of(run.id()).len() == 2);
    std::thread::sleep(Duration::from_millis(300));
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(namespaces_of(run.id()).len(), 2);
    assert!(!skipped());
    assert!(namespaces_of(run.id()).is_empty());
}

#[test]
fn a_run_of_another_build_is_left_alone() {
    if skipped() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let other = home.path().join("another-name");
    std::fs::copy(LAB, &other).unwrap();
    let args = ["cell", "equal-down", "--peers", "tcp", "--runs", "1"];
    let mut run = Command::new(other).args(args).stderr(Stdio::null()).spawn().unwrap();
    wait_for("namespaces", || namespaces_of(run.id()).len() == 2);
    assert!(!skipped());
    assert_eq!(namespaces_of(run.id()).len(), 2);
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(!skipped());
    assert!(namespaces_of(run.id()).is_empty());
}

#[test]
fn mistakes_have_their_exit_codes() {
    let cases: [(&[&str], i32); 5] = [
        (&["cell", "no-such-cell"], 2),
        (&["cell", "equal-up", "--peers", "nobody"], 2),
        (&["datagrams", "--cases", "nothing"], 2),
        (&["cell", "equal-up", "--path", "fast"], 2),
        (&["cpu", "--cases", "0x0"], 2),
    ];
    for (args, code) in cases {
        let done = lab(args);
        assert_eq!(done.status.code(), Some(code), "{args:?}: {done:?}");
        assert!(!done.stderr.is_empty());
    }
    assert!(lab(&["cells"]).status.success());
}
