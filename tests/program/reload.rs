//! What runs by a file becomes what the file says now, and no stream is cut.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::net::{Destination, unused_port};
use crate::support::pair::Pair;
use crate::support::process::{Imux, field, run};
use crate::support::{bounded, eventually};

/// A client by a file, with these lines in its table.
struct ByFile {
    pair: Pair,
    client: Imux,
}

impl ByFile {
    fn start(line: &str, lines: &str) -> Self {
        let pair = Pair::server("127.0.0.1:9", Some(line));
        write(&pair, lines);
        let path = pair.path("imux.toml");
        let client = Imux::start(pair.folder.path(), &["run", "-c", path.to_str().unwrap()]);
        client.line("client ready");
        Self { pair, client }
    }

    /// Has it read this: exit code, standard output, standard error.
    fn reload(&self, lines: &str) -> (i32, String, String) {
        write(&self.pair, lines);
        run(self.pair.folder.path(), &["reload"])
    }

    #[track_caller]
    fn changes_to(&self, lines: &str) -> String {
        let (code, said, told) = self.reload(lines);
        assert_eq!((code, told.as_str()), (0, ""), "{lines}");
        said
    }
}

fn write(pair: &Pair, lines: &str) {
    let text = format!("[[client]]\ndial = \"{}\"\npin = \"{}\"\n{lines}\n", pair.at, pair.key);
    fs::write(pair.path("imux.toml"), text).unwrap();
}

async fn says(at: SocketAddr) -> u8 {
    let mut socket = TcpStream::connect(at).await.unwrap();
    socket.write_all(b"?").await.unwrap();
    socket.read_u8().await.unwrap()
}

async fn is_closed(at: SocketAddr) {
    eventually(20, "the port is closed", || std::net::TcpStream::connect(at).is_err()).await;
}

/// A stream that is echoed block by block until `stop`; how many bytes came back.
async fn stream(at: SocketAddr, stop: Arc<AtomicBool>) -> u64 {
    let mut socket = TcpStream::connect(at).await.unwrap();
    let (mut count, mut back) = (0, vec![0; 1_500]);
    while !stop.load(Ordering::Relaxed) {
        let block: Vec<u8> = (0..1_500u64).map(|at| (count + at) as u8).collect();
        socket.write_all(&block).await.unwrap();
        socket.read_exact(&mut back).await.unwrap();
        assert!(block == back, "after {count} bytes");
        count += 1_500;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    socket.shutdown().await.unwrap();
    assert_eq!(socket.read(&mut back).await.unwrap(), 0);
    count
}

const BINDS: [&str; 4] = [
    "bind = { link = \"127.0.0.2\", lanes = 2, express = false }",
    "bind = { link = \"127.0.0.3\", lanes = 2, express = false, rate = \"800mbit\" }",
    "bind = [\"127.0.0.2=1,tier=backup\", \"127.0.0.3=2,express=no\"]",
    "bind = [\"127.0.0.2=2,express=no\", \"127.0.0.4=1,tier=metered\"]",
];

#[test]
fn a_hundred_streams_live_through_ten_reloads_with_other_forwards_and_binds() {
    bounded(120, async {
        let echo = Destination::echo().await;
        let (base, mut extra) = (unused_port().await, unused_port().await);
        let lines = |extra: SocketAddr, bind: usize| {
            let to = echo.addr;
            format!(
                "forward = [\"{base}:{to}\", {{ listen = \"{extra}\", to = \"{to}\" }}]\n{}",
                BINDS[bind]
            )
        };
        let by_file = ByFile::start("dial=\"127.0.0.1:*\"", &lines(extra, 0));
        let stop = Arc::new(AtomicBool::new(false));
        let mut streams = JoinSet::new();
        for number in 0..100 {
            // Half of them over a port that is gone by the next reload.
            streams.spawn(stream(if number % 2 == 0 { base } else { extra }, stop.clone()));
        }
        for turn in 1..=10 {
            let before = std::mem::replace(&mut extra, unused_port().await);
            let said = by_file.changes_to(&lines(extra, turn % 4));
            assert!(said.contains("changed: forwards, binds of client 1"), "{said}");
            assert_eq!((says(base).await, says(extra).await), (b'?', b'?'));
            is_closed(before).await;
            let (code, said, told) = by_file.reload("forwrad = 1");
            assert_eq!((code, said.as_str()), (3, ""), "{told}");
            assert!(
                told.contains(":4:1: there is no key `forwrad`") && told.contains("stays"),
                "{told}"
            );
            assert_eq!((says(base).await, says(extra).await), (b'?', b'?'));
        }
        // Once more through whatever lanes there are now.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        stop.store(true, Ordering::Relaxed);
        let mut count = 0;
        while let Some(stream) = streams.join_next().await {
            let bytes = stream.unwrap();
            assert!(bytes > 0);
            count += 1;
        }
        assert_eq!(count, 100);
        assert_eq!(by_file.client.count("reload: changed"), 10);
        assert_eq!(by_file.client.count("reload: all stays as it was"), 10);
        assert_eq!(by_file.pair.server.count("session created"), 1);
    });
}

/// Answers with this byte.
async fn answering(byte: u8) -> Destination {
    Destination::start(move |mut socket: TcpStream| async move {
        while socket.read_u8().await.is_ok() {
            if socket.write_u8(byte).await.is_err() {
                break;
            }
        }
    })
    .await
}

#[test]
fn a_port_that_leads_elsewhere_now_does_so_for_new_connections_alone() {
    bounded(60, async {
        let (one, two) = (answering(b'1').await, answering(b'2').await);
        let at = unused_port().await;
        let by_file =
            ByFile::start("dial=\"127.0.0.1:*\"", &format!("forward = \"{at}:{}\"", one.addr));
        let mut open = TcpStream::connect(at).await.unwrap();
        open.write_all(b"?").await.unwrap();
        assert_eq!(open.read_u8().await.unwrap(), b'1');
        by_file.changes_to(&format!("forward = \"{at}:{}\"", two.addr));
        eventually(20, "new ones go there", || {
            let mut socket = std::net::TcpStream::connect(at).unwrap();
            let mut answer = [0];
            std::io::Write::write_all(&mut socket, b"?").unwrap();
            std::io::Read::read_exact(&mut socket, &mut answer).unwrap();
            answer == *b"2"
        })
        .await;
        open.write_all(b"?").await.unwrap();
        assert_eq!(open.read_u8().await.unwrap(), b'1');
        assert_eq!(
            by_file.changes_to(&format!("forward = \"{at}:{}\"", two.addr)).lines().count(),
            1
        );
        by_file.client.line("reload: nothing has changed");
    });
}

#[test]
fn ports_that_change_tables_are_handed_over() {
    bounded(60, async {
        let (one, two) = (answering(b'1').await, answering(b'2').await);
        let (a, b) = (unused_port().await, unused_port().await);
        let lines = |pair: &Pair, first: SocketAddr, second: SocketAddr| {
            let table = |at, to| {
                format!(
                    "[[client]]\ndial = \"{}\"\npin = \"{}\"\nforward = \"{at}:{to}\"\n",
                    pair.at, pair.key
                )
            };
            table(first, one.addr) + &table(second, two.addr)
        };
        let pair = Pair::server("127.0.0.1:9", Some("dial=\"127.0.0.1:*\""));
        let path = pair.path("imux.toml");
        fs::write(&path, lines(&pair, a, b)).unwrap();
        let client = Imux::start(pair.folder.path(), &["run", "-c", path.to_str().unwrap()]);
        client.nth_line("client ready", 2);
        let mut open = TcpStream::connect(a).await.unwrap();
        open.write_all(b"?").await.unwrap();
        assert_eq!(open.read_u8().await.unwrap(), b'1');
        // Each takes over the other's.
        fs::write(&path, lines(&pair, b, a)).unwrap();
        let (code, said, told) = run(pair.folder.path(), &["reload"]);
        assert_eq!(code, 0, "{told}");
        assert!(said.contains("forwards of client 1; forwards of client 2"), "{said}");
        for (at, expected) in [(a, b'2'), (b, b'1')] {
            while says(at).await != expected {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
        open.write_all(b"?").await.unwrap();
        assert_eq!(open.read_u8().await.unwrap(), b'1');
        // To one that listened nowhere else before, and its own is gone.
        let other = unused_port().await;
        fs::write(&path, lines(&pair, a, other)).unwrap();
        let (code, _, told) = run(pair.folder.path(), &["reload"]);
        assert_eq!(code, 0, "{told}");
        while says(a).await != b'1' {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        is_closed(b).await;
    });
}

#[test]
fn where_one_place_cannot_be_had_nothing_changes() {
    bounded(60, async {
        let echo = Destination::echo().await;
        let (base, other) = (unused_port().await, unused_port().await);
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = echo.addr;
        let by_file = ByFile::start("dial=\"127.0.0.1:*\"", &format!("forward = \"{base}:{to}\""));
        let lines =
            format!("forward = [\"{other}:{to}\", \"{}:{to}\"]", taken.local_addr().unwrap());
        let (code, said, told) = by_file.reload(&lines);
        assert_eq!((code, said.as_str()), (3, ""), "{told}");
        assert!(
            told.contains("cannot listen on") && told.contains("all stays as it was"),
            "{told}"
        );
        assert_eq!(says(base).await, b'?');
        is_closed(other).await;
        // The same by a signal, and then a file that is right.
        by_file.client.signal(Signal::SIGHUP);
        by_file.client.nth_line("reload: all stays as it was", 2);
        write(&by_file.pair, &format!("forward = \"{other}:{to}\""));
        by_file.client.signal(Signal::SIGHUP);
        by_file.client.line("reload: changed: forwards of client 1");
        assert_eq!(says(other).await, b'?');
        is_closed(base).await;
    });
}

#[test]
fn what_needs_a_restart_is_said_and_the_rest_is_done() {
    bounded(60, async {
        let echo = Destination::echo().await;
        let (at, other) = (unused_port().await, unused_port().await);
        let line = |at| format!("forward = \"{at}:{}\"\n", echo.addr);
        let by_file = ByFile::start("dial=\"127.0.0.1:*\"", &line(at));
        let said = by_file.changes_to(&format!("{}grace = 60\nkeep-trying = true", line(other)));
        let restart = "needs a restart: keep-trying, what its sessions keep to of client 1";
        assert!(said.contains("changed: forwards of client 1") && said.contains(restart), "{said}");
        assert_eq!(says(other).await, b'?');
        let more = "[[client]]\ndial = \"localhost:1\"\nlisten = \"localhost:0\"\n";
        let said = by_file.changes_to(&format!("{}{more}", line(other)));
        assert!(said.contains("needs a restart: another number of [[client]]"), "{said}");
        // The log's level.
        assert_eq!(by_file.client.count("DEBUG"), 0);
        let path = by_file.pair.path("imux.toml");
        write(&by_file.pair, &line(other));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("debug = true\n{text}")).unwrap();
        let (code, said, _) = run(by_file.pair.folder.path(), &["reload"]);
        assert!(code == 0 && said.contains("changed: the log's level"), "{said}");
        says(other).await;
        by_file.client.line("DEBUG");
    });
}

#[test]
fn a_port_at_the_server_comes_and_goes_by_the_file() {
    bounded(60, async {
        let echo = Destination::echo().await;
        let (at, far) = (unused_port().await, unused_port().await);
        let line = "dial=\"127.0.0.1:*\",listen=\"127.0.0.1:*\"";
        let forward = format!("forward = \"{at}:{}\"\n", echo.addr);
        let by_file = ByFile::start(line, &forward);
        let said = by_file.changes_to(&format!("{forward}reverse = \"{far}:{}\"", echo.addr));
        assert!(said.contains("changed: reverse forwards of client 1"), "{said}");
        by_file.client.line("the server takes connections for this client");
        let mut open = TcpStream::connect(far).await.unwrap();
        open.write_all(b"?").await.unwrap();
        assert_eq!(open.read_u8().await.unwrap(), b'?');
        by_file.changes_to(&forward);
        is_closed(far).await;
        open.write_all(b"!").await.unwrap();
        assert_eq!(open.read_u8().await.unwrap(), b'!');
    });
}

#[test]
fn servers_of_a_file_read_who_may_connect_again_and_a_home_without_one_has_nothing_to_reload() {
    bounded(60, async {
        let home = tempfile::tempdir().unwrap();
        let (code, _, told) = run(home.path(), &["reload"]);
        assert!(code == 3 && told.contains("nothing runs by a file"), "{told}");
        let path = home.path().join("imux.toml");
        fs::write(&path, "[server]\nlisten = \"127.0.0.1:0\"\ndial = \"localhost:9\"\n").unwrap();
        let server = Imux::start(home.path(), &["run", "-c", path.to_str().unwrap()]);
        field(&server.line("server ready"), "address");
        let (_, own, _) = run(home.path(), &["identity"]);
        assert_eq!(run(home.path(), &["authorize", own.trim()]).0, 0);
        let (code, said, told) = run(home.path(), &["reload"]);
        assert!(code == 0 && said.contains("nothing has changed"), "{said}{told}");
        assert!(server.line("authorised clients read").contains("clients=1"));
    });
}
