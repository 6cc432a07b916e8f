//! A log that nobody reads: nothing waits for it, and its reader is told what is missing.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::net::{self, Destination};
use crate::support::process::{field, imux};
use crate::support::{bounded, eventually};

/// The program with a small pipe for its standard error, read up to the line that says it is ready.
struct Unread {
    child: Child,
    log: BufReader<ChildStderr>,
    ready: String,
}

impl Unread {
    fn start(home: &Path, args: &[&str]) -> Self {
        let mut command: Command = imux(home);
        command.args(args).arg("--debug").stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        fcntl(&stderr, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        // No more is read than is asked for.
        let mut log = BufReader::with_capacity(1, stderr);
        let mut ready = String::new();
        while !ready.contains(" ready ") {
            ready.clear();
            assert!(log.read_line(&mut ready).unwrap() > 0, "it has ended");
        }
        Self { child, log, ready }
    }

    fn address(&self) -> SocketAddr {
        field(&self.ready, "address").parse().unwrap()
    }

    /// Reads up to the line about lost lines: how many it read before, and how many were lost.
    fn told(&mut self) -> (usize, usize) {
        for read in 0.. {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "it was not told");
            if line.contains("lines of the log were lost") {
                assert!(line.contains("WARN"), "{line}");
                return (read, field(&line, "lines").parse().unwrap());
            }
        }
        unreachable!()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection broken off in the middle, for which both ends log a line.
async fn broken_off(addr: SocketAddr) {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(b"x").await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'x');
    net::reset(socket);
}

#[test]
fn a_log_that_nobody_reads_stops_nothing_and_is_told_what_it_lost() {
    const CONNECTIONS: usize = 4_000;
    bounded(120, async {
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let destination = Destination::echo().await;
        let to = destination.addr.to_string();
        let args = ["server", "--listen", "127.0.0.1:0", "--dial", &to];
        let mut server = Unread::start(homes[0].path(), &args);
        let dial = server.address().to_string();
        let key = field(&server.ready, "key").to_owned();
        let args = ["client", "--listen", "127.0.0.1:0", "--dial", &dial, "--pin", &key];
        let mut client = Unread::start(homes[1].path(), &args);
        let local = client.address();

        let mut all = tokio::task::JoinSet::new();
        for turn in 0..CONNECTIONS {
            if turn >= 100 {
                all.join_next().await.unwrap().unwrap();
            }
            all.spawn(broken_off(local));
        }
        while let Some(done) = all.join_next().await {
            done.unwrap();
        }

        // Once they are read again, both say how much is missing, and go on from there.
        for end in [&mut server, &mut client] {
            let (read, lost) = end.told();
            assert!(lost > 0 && read + lost > CONNECTIONS / 2, "{read} lines and {lost} lost");
        }
        broken_off(local).await;
        let mut line = String::new();
        while !line.contains("connection broken off") {
            line.clear();
            assert!(client.log.read_line(&mut line).unwrap() > 0);
        }

        // Unread again, they still end when told to.
        for end in [&mut client, &mut server] {
            end.signal(Signal::SIGTERM);
            eventually(20, "it ends", || end.child.try_wait().unwrap().is_some()).await;
            assert_eq!(end.child.wait().unwrap().code(), Some(143));
        }
    });
}

/// Nobody ever reads a line, not even that of a fatal error.
#[test]
fn an_error_that_nobody_reads_ends_the_program_nevertheless() {
    let home = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    std::io::Write::write_all(&mut &writer, &[b'\n'; 4096]).unwrap();
    let args = ["server", "--listen", "nowhere.invalid:1", "--dial", "localhost:1"];
    let mut child = imux(home.path()).args(args).stderr(writer).spawn().unwrap();
    bounded(20, eventually(15, "it ends", || child.try_wait().unwrap().is_some()));
    assert_eq!(child.wait().unwrap().code(), Some(4));
    drop(reader);
}

/// The last words are read, even by a slow reader.
#[test]
fn the_last_line_reaches_a_slow_reader() {
    let home = tempfile::tempdir().unwrap();
    let args = ["server", "--listen", "nowhere.invalid:1", "--dial", "localhost:1"];
    let mut child = imux(home.path()).args(args).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let log = BufReader::new(child.stderr.take().unwrap());
    let last = log.lines().map_while(Result::ok).last();
    assert_eq!(child.wait().unwrap().code(), Some(4));
    assert!(last.is_some_and(|line| line.contains("imux: error:")));
}
