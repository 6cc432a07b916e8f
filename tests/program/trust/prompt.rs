//! The question about a server's key, on a terminal of its own.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{known_hosts, server};
use crate::support::process;
use crate::support::terminal::OnTerminal;

fn client_at(home: &Path, at: &str) -> OnTerminal {
    client_with(home, at, &["--bind", "127.0.0.1=2"])
}

fn client_with(home: &Path, at: &str, binds: &[&str]) -> OnTerminal {
    let mut command = process::imux(home);
    command.args(["client", "--listen", "127.0.0.1:0", "--dial", at]).args(binds);
    OnTerminal::start(&mut command)
}

const QUESTION: &str = "[A]bort, [C]ontinue without saving, [S]ave and continue?";
const CHANGED: &str = "[A]bort, [C]ontinue without updating, [U]pdate and continue?";

#[test]
fn save_is_asked_once_for_all_lanes_and_not_again() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    let mut first = client_at(home.path(), &server.at);
    first.sees(&format!("{} presents key with fingerprint:", server.at));
    first.sees(&server.key);
    first.sees(QUESTION);
    // Anything but an answer is asked again; small letters are accepted.
    first.types("maybe\n");
    first.types("s\n");
    first.sees("client ready");
    assert_eq!(first.screen().matches(QUESTION).count(), 1);
    drop(first);
    assert_eq!(known_hosts(home.path()), format!("{} {}\n", server.at, server.key));

    let second = client_at(home.path(), &server.at);
    second.sees("client ready");
    assert!(!second.screen().contains(QUESTION));
}

#[test]
fn continue_records_nothing() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    let mut client = client_at(home.path(), &server.at);
    client.sees(QUESTION);
    client.types("C\n");
    client.sees("client ready");
    assert_eq!(known_hosts(home.path()), "");
}

#[test]
fn abort_and_the_end_of_input_are_refusals() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    // Ctrl-D at the start of a line is the end of input.
    for keys in ["A\n", "\x04"] {
        let mut client = client_at(home.path(), &server.at);
        client.sees(QUESTION);
        client.types(keys);
        client.exits(6);
        client.sees("not accepted");
    }
    assert_eq!(known_hosts(home.path()), "");
}

#[test]
fn a_changed_key_can_be_updated_by_a_person_only() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    let old = super::ANOTHER_KEY;
    fs::write(home.path().join("known_hosts"), format!("{} {old}\n", server.at)).unwrap();
    let mut client = client_at(home.path(), &server.at);
    client.sees("WARNING: Remote key has changed!!");
    client.sees(&format!("old: {old}"));
    client.sees(&format!("new: {}", server.key));
    client.sees(CHANGED);
    client.types("A\n");
    client.exits(7);

    // Neither habit nor the letters alone are an answer; the beginning of the new key is.
    let proof = &server.key["SHA256:".len()..][..8];
    let mut client = client_at(home.path(), &server.at);
    client.sees(CHANGED);
    client.types("yes\nS\nU\n");
    client.sees("The eight characters after SHA256: of the new key:");
    client.types(&format!("{}\nC {}\n", &proof[..7], &old["SHA256:".len()..][..8]));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!client.screen().contains("client ready"));
    client.types(&format!("C {proof}\n"));
    client.sees("client ready");
    drop(client);
    assert_eq!(known_hosts(home.path()), format!("{} {old}\n", server.at));

    let mut client = client_at(home.path(), &server.at);
    client.sees(CHANGED);
    client.types(&format!("U\n{proof}\n"));
    client.sees("client ready");
    let file = known_hosts(home.path());
    assert_eq!(file, format!("{} {}\n", server.at, server.key));
}

#[test]
fn yes_and_no_are_answers_to_an_unknown_key() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    let mut client = client_at(home.path(), &server.at);
    client.sees(QUESTION);
    client.types("no\n");
    client.exits(6);
    let mut client = client_at(home.path(), &server.at);
    client.sees(QUESTION);
    client.types("yes\n");
    client.sees("client ready");
    assert_eq!(known_hosts(home.path()), format!("{} {}\n", server.at, server.key));
}

/// What another process recorded while the question was open stays, and counts.
#[test]
fn a_key_recorded_while_the_question_is_open_is_not_replaced() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    let file = home.path().join("known_hosts");
    let other = format!("{} {}\n", server.at, super::ANOTHER_KEY);
    let mut client = client_at(home.path(), &server.at);
    client.sees(QUESTION);
    fs::write(&file, &other).unwrap();
    client.types("S\n");
    client.exits(7);
    client.sees("has changed");
    assert_eq!(known_hosts(home.path()), other);

    let mut client = client_at(home.path(), &server.at);
    client.sees(CHANGED);
    let third = format!("{} SHA256:{}\n", server.at, "B".repeat(42) + "A");
    fs::write(&file, &third).unwrap();
    client.types(&format!("U {}\n", &server.key["SHA256:".len()..][..8]));
    client.exits(7);
    assert_eq!(known_hosts(home.path()), third);
}

/// Many lanes wait for the answer, and others cannot be made, for longer than a lane may take: none
/// of it buries the question. All of it is logged afterwards, and all lanes that can be made are.
#[test]
fn nothing_is_written_while_a_question_stands() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    let binds = ["--bind", "127.0.0.2=10", "--bind", "dev:missing0=3"];
    let mut client = client_with(home.path(), &server.at, &binds);
    client.sees("\n> ");
    std::thread::sleep(Duration::from_secs(12));
    let shown = client.behind(QUESTION);
    assert_eq!(shown, "\n(`no` aborts, `yes` or the key itself saves.)\n> ");
    client.types("yes\n");
    client.sees("client ready");
    client.sees("missing0");
    for _ in 0..1_000 {
        let up = client.screen().matches("lane up").count();
        if up == 10 {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not all lanes came up: {}", client.screen());
}

#[test]
fn the_question_says_whose_key_it_is_and_with_what_to_compare_it() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    let client = client_at(home.path(), &server.at);
    client.sees("\n> ");
    let unknown = client.screen();
    drop(client);
    fs::write(home.path().join("known_hosts"), format!("{} {}\n", server.at, super::ANOTHER_KEY))
        .unwrap();
    let mut client = client_at(home.path(), &server.at);
    client.sees("\n> ");
    let changed = client.screen();
    for shown in [&unknown, &changed] {
        for words in [&*server.at, &server.key, "imux identity --of-server", "server ready"] {
            assert!(shown.contains(words), "{words} is not said: {shown}");
        }
        assert!(!shown.contains("certificate"), "{shown}");
        // Neither does any of it wrap.
        let question = &shown[shown.find(&*server.at).unwrap()..];
        assert!(question.lines().all(|line| line.trim_end().len() <= 80), "{question}");
    }
    assert!(changed.contains(super::ANOTHER_KEY), "{changed}");
    assert!(changed.contains("somebody else answers in its place"), "{changed}");
    // If the program is ended instead, the prompt is at the beginning of a line.
    let child = Pid::from_raw(client.child.id().cast_signed());
    kill(child, Signal::SIGINT).unwrap();
    client.exits(130);
    assert_eq!(client.behind("\n> ").chars().next(), Some('\n'));
}

/// A person may take their time: longer than a lane may take to be set up.
#[test]
fn an_answer_after_twelve_seconds_counts() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    let mut client = client_at(home.path(), &server.at);
    client.sees(QUESTION);
    std::thread::sleep(Duration::from_secs(12));
    client.types("S\n");
    client.sees("client ready");
}
