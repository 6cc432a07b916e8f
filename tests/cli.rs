//! The compiled program from outside: its words and its exit codes, where nothing is started.

#![cfg(feature = "cli")]

use std::process::{Command, Output, Stdio};

/// Runs the program without a terminal, with a home of its own, and waits for its end.
fn imux(args: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_imux"))
        .args(args)
        .env("IMUX_HOME", home.path())
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[track_caller]
fn refused(args: &[&str], words: &[&str]) {
    let output = imux(args);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
    assert!(output.stdout.is_empty(), "{args:?} wrote to standard output");
    for word in words {
        assert!(told.contains(word), "{args:?} lacks {word:?}: {told}");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    for args in [&["--help"][..], &["help"], &["client", "--help"], &["-server", "-help"]] {
        let output = imux(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains("Examples:") && help.contains("--listen"), "{args:?}: {help}");
    }
    let version = imux(&["--version"]).stdout;
    assert_eq!(version, format!("imux {}\n", env!("CARGO_PKG_VERSION")).into_bytes());
}

#[test]
fn no_arguments_is_a_usage_error_that_shows_the_help() {
    refused(&[], &["Usage: imux", "client", "server", "demo"]);
}

#[test]
fn neither_or_both_modes() {
    refused(&["-client", "-server"], &["both -client and -server"]);
    refused(&["--listen=localhost:2222"], &["neither client nor server"]);
}

#[test]
fn bad_binds_show_the_place() {
    refused(
        &["-client", "--dial=localhost:1", "--binds={\"0.0.0.0\" 10}"],
        &["line 1, column 12", "\n    {\"0.0.0.0\" 10}\n               ^\n", "--binds='{"],
    );
    refused(&["client", "--dial=localhost:1", "--bind=eth7"], &["dev:eth7"]);
    for (option, expected) in [
        ("tier=gold", "`gold` is no tier; there are primary, express, backup and metered"),
        ("rate=20", "`20` has no unit; write a rate such as 500kbit, 20mbit"),
        ("rate=1kbit", "write at least 64kbit"),
        (
            "speed=1",
            "known: lanes=COUNT, tier=primary|express|backup|metered, express=yes|no, rate=RATE",
        ),
    ] {
        let bind = format!("--bind=127.0.0.1=4,{option}");
        refused(&["client", "--dial=localhost:1", &bind], &[expected, "--bind"]);
    }
    let json = "--binds={\"0.0.0.0\": {\"rate\": 20}}";
    refused(&["client", "--dial=localhost:1", json], &["`rate` has to be text in quotes"]);
}

#[test]
fn a_bad_rust_log_is_a_usage_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_imux"))
        .args(["demo", "--size=1MiB"])
        .env("RUST_LOG", "imux=loud")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("RUST_LOG=imux=loud is not understood"), "{told}");
}
