//! The control socket: what other processes of the same user get from it, and nobody else.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt;

use crate::support::net::{Destination, reset, unused_port};
use crate::support::pair::Pair;
use crate::support::process::{Imux, imux};
use crate::support::skipped;
use crate::support::{bounded, eventually};

/// `imux client -W`, given this input.
fn through(pair: &Pair, how: &[&str], to: &str, input: &[u8]) -> Output {
    let mut command = imux(pair.folder.path());
    command.args(["client", "--dial", &pair.at, "--bind=any=1,express=no"]).args(how);
    command.args(["-W", to]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writing = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    output
}

fn socket(pair: &Pair, client: &Imux) -> PathBuf {
    pair.path(&format!("control/client-{}.sock", client.id()))
}

/// A client that may go to these places, with its socket there.
async fn running(line: &str) -> (Pair, Imux) {
    let pair = Pair::server("127.0.0.1:9", Some(line));
    let client = pair.client(&["-D", "127.0.0.1:0"]);
    client.line("client ready");
    pair.server.line("session created");
    let path = socket(&pair, &client);
    eventually(20, "the socket is there", || path.exists()).await;
    (pair, client)
}

#[test]
fn standard_input_and_output_go_over_the_session_of_a_client_that_runs() {
    bounded(60, async {
        let echo = Destination::echo().await;
        let to = echo.addr.to_string();
        let (pair, client) = running(&format!("dial=\"{to}\"")).await;
        let sessions = |pair: &Pair| pair.server.count("session created");
        let before = sessions(&pair);
        for length in [0, 4, 5_000_000] {
            let input = vec![b'x'; length];
            let done = through(&pair, &["--pin", &pair.key], &to, &input);
            assert_eq!(done.status.code(), Some(0), "{done:?}");
            assert!(done.stdout == input, "{length}");
        }
        assert_eq!(sessions(&pair), before, "it was a session of its own");
        // A server known by a pin alone is not known otherwise; a recorded one is.
        let own = through(&pair, &["--host-key", "accept-new"], &to, b"x");
        assert_eq!(own.status.code(), Some(0), "{own:?}");
        pair.server.nth_line("session created", before + 1);
        let known = through(&pair, &["--host-key", "strict"], &to, b"x");
        assert_eq!((known.status.code(), sessions(&pair)), (Some(0), before + 1));
        // Another name for the server is another server; so is one with another key.
        let port = pair.at.rsplit_once(':').unwrap().1;
        let other = Pair { at: format!("localhost:{port}"), ..pair };
        let done = through(&other, &["--pin", &other.key], &to, b"x");
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        other.server.nth_line("session created", before + 2);
        let pin = format!("SHA256:{}", "A".repeat(43));
        let done = through(&other, &["--pin", &pin], &to, b"x");
        assert_eq!(done.status.code(), Some(7), "{done:?}");
        drop(client);
    });
}

#[test]
fn without_a_client_that_runs_it_is_a_session_of_its_own() {
    bounded(60, async {
        let echo = Destination::echo().await;
        let to = echo.addr.to_string();
        let (pair, mut client) = running(&format!("dial=\"{to}\"")).await;
        client.signal(Signal::SIGKILL);
        client.exit_code();
        let left = socket(&pair, &client);
        assert!(left.exists());
        let done = through(&pair, &["--pin", &pair.key], &to, b"word");
        assert_eq!((done.status.code(), &done.stdout[..]), (Some(0), &b"word"[..]));
        // The next client removes what the other left behind, and nothing that is in use.
        let next = pair.client(&["-D", "127.0.0.1:0"]);
        next.line("client ready");
        let path = socket(&pair, &next);
        eventually(20, "the socket is there", || path.exists()).await;
        assert!(!left.exists());
        let mut third = pair.client(&["-D", "127.0.0.1:0"]);
        third.line("client ready");
        let other = socket(&pair, &third);
        eventually(20, "the other is there", || other.exists()).await;
        assert!(path.exists() && UnixStream::connect(&path).is_ok());
        // A clean exit leaves nothing behind.
        third.signal(Signal::SIGTERM);
        third.exit_code();
        assert!(!other.exists() && path.exists());
    });
}

#[test]
fn what_becomes_of_it_is_told_as_over_a_session_of_its_own() {
    bounded(60, async {
        let breaking = Destination::start(async |mut socket| {
            let _ = socket.read_u8().await;
            reset(socket);
        })
        .await;
        let (to, nobody) = (breaking.addr.to_string(), unused_port().await.to_string());
        let (pair, client) = running(&format!("dial=\"{to}\",dial=\"{nobody}\"")).await;
        for (to, told) in [
            (nobody.as_str(), "destination refused the connection"),
            ("127.0.0.1:1", "destination not allowed"),
            (to.as_str(), "reset"),
        ] {
            let done = through(&pair, &["--pin", &pair.key], to, b"x");
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.code() == Some(8) && said.contains(told), "{to}: {done:?}");
        }
        assert_eq!(client.count("client ready"), 1);
    });
}

fn ask(path: &Path, what: &[u8]) -> String {
    let mut socket = UnixStream::connect(path).unwrap();
    let _ = socket.write_all(what);
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let mut answer = String::new();
    let _ = socket.read_to_string(&mut answer);
    answer
}

#[test]
fn whatever_is_said_to_a_control_socket_is_bounded_and_harms_nothing() {
    bounded(120, async {
        let echo = Destination::echo().await;
        let to = echo.addr.to_string();
        let (pair, mut client) = running(&format!("dial=\"{to}\"")).await;
        let path = socket(&pair, &client);
        let about = ask(&path, b"{\"imux\": 1, \"ask\": \"about\"}\n");
        assert!(about.contains("\"role\":\"client\"") && about.contains(&pair.key), "{about}");
        assert!(about.contains(&pair.at), "{about}");
        for (what, answer) in [
            (&b"\n"[..], "no JSON"),
            (b"GET / HTTP/1.1\r\n\r\n", "no JSON"),
            (b"{\"imux\": 2, \"ask\": \"about\"}\n", "version 1"),
            (b"{\"imux\": 1, \"ask\": \"close\"}\n", "does not know"),
            (b"{\"imux\": 1, \"ask\": \"open\", \"to\": \"nowhere\"}\n", "no destination"),
            (b"{\"imux\": 1, \"ask\": \"open\", \"to\": \"db.example:1\"}\n", "not allowed"),
            (b"{\"imux\": 1, \"ask\": \"wait\", \"number\": 1}\n", "no such connection"),
        ] {
            let said = ask(&path, what);
            assert!(said.contains("refused") && said.contains(answer), "{what:?}: {said}");
        }
        // A line without an end, more requests than allowed, more connections than are served.
        assert_eq!(ask(&path, &vec![b'x'; 1 << 20]), "");
        let many = b"{\"imux\": 1, \"ask\": \"about\"}\n".repeat(100);
        assert_eq!(ask(&path, &many).lines().count(), 16);
        let idle: Vec<_> = (0..300).filter_map(|_| UnixStream::connect(&path).ok()).collect();
        eventually(30, "those that say nothing are given up", || {
            ask(&path, b"{\"imux\": 1, \"ask\": \"about\"}\n").contains("client")
        })
        .await;
        drop(idle);
        // A server says what it is, and takes nobody anywhere.
        let server = pair.path(&format!("control/server-{}.sock", pair.server.id()));
        assert!(
            ask(&server, b"{\"imux\": 1, \"ask\": \"about\"}\n").contains("\"role\":\"server\"")
        );
        let open = format!("{{\"imux\": 1, \"ask\": \"open\", \"to\": \"{to}\"}}\n");
        assert!(ask(&server, open.as_bytes()).contains("no client"));
        let done = through(&pair, &["--pin", &pair.key], &to, b"word");
        assert_eq!((done.status.code(), &done.stdout[..]), (Some(0), &b"word"[..]));
        assert!(client.is_running() && client.count("internal error") == 0);
    });
}

#[test]
fn nobody_else_gets_to_a_control_socket() {
    bounded(60, async {
        let (pair, client) = running("dial=\"127.0.0.1:1\"").await;
        let (folder, path) = (pair.path("control"), socket(&pair, &client));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
        // Where others can get in, nothing is made and nothing is asked.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let other = pair.client(&["--debug", "-D", "127.0.0.1:0"]);
        other.line("no control socket");
        assert!(!socket(&pair, &other).exists());
        // And should they get to it, they learn nothing.
        let is_root = nix::unistd::geteuid().is_root();
        if skipped::because((!is_root).then(|| "only root can be another user".to_owned())) {
            return;
        }
        for open in [pair.folder.path(), &folder, &path] {
            fs::set_permissions(open, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let script = "import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
s.sendall(b'{\"imux\": 1, \"ask\": \"about\"}\\n'); sys.stdout.write(repr(s.recv(100)))";
        let mut nobody = Command::new("python3");
        nobody.args(["-c", script]).arg(&path).uid(65_534).gid(65_534).current_dir("/");
        let Ok(output) = nobody.output() else { return };
        assert!(!String::from_utf8_lossy(&output.stdout).contains("role"), "{output:?}");
        client.line("another user has connected");
    });
}
