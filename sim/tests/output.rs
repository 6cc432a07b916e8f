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
