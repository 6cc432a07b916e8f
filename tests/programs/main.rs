//! Programs that were not written here, carried unharmed while lanes die under them.
//!
//! A lane dies every 150 ms, and each test is done in seconds. With `IMUX_CHAOS_SECONDS=600` each
//! does its work again and again for ten minutes, and a lane dies every one to five seconds.
//!
//! The test of a program that is not installed is skipped, and listed at the end of the README's
//! command; with `IMUX_REQUIRE_PROGRAMS=1` that is a failure.

#![cfg(feature = "cli")]

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::bytes::Pattern;
use support::eventually;
use support::net::unused_port;
use support::relay::Death;
use support::skipped;
use support::tunnel::Tunnel;
use tokio::time::Instant;

mod browser;
mod curl;
mod dns;
mod docker;
mod gateway;
mod git;
mod page;
mod postgres;
mod proxies;
mod redis;
mod reverse;
mod rsync;
mod ssh;
mod top;

#[path = "../support/mod.rs"]
mod support;

/// Where a program is. Servers are where an ordinary user's PATH does not lead; Debian has those of
/// PostgreSQL in folders of their versions, and in the PATH a script that looks for a cluster.
fn find(program: &str) -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = versions.map(|version| version.path().join("bin"));
    let folders = folders.chain(std::env::split_paths(&path));
    let folders = folders.chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Whether all of these are there.
#[track_caller]
fn installed(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| find(program).is_none()).collect();
    !skipped::because((!missing.is_empty()).then(|| format!("not installed: {missing:?}")))
}

fn command(program: &str) -> Command {
    let mut command = Command::new(find(program).unwrap());
    // Nobody's settings, and no questions.
    command.stdin(Stdio::null()).env("HOME", "/nonexistent").env("GIT_TERMINAL_PROMPT", "0");
    command
}

/// A server of somebody else's; ended when dropped.
struct Daemon {
    child: Child,
    addr: SocketAddr,
    folder: tempfile::TempDir,
}

impl Daemon {
    /// Starts a server as `command` says, and waits until it takes connections.
    async fn start(
        folder: tempfile::TempDir,
        command: impl FnOnce(&Path, SocketAddr) -> Command,
    ) -> Self {
        let addr = unused_port().await;
        let log = File::create(folder.path().join("daemon.log")).unwrap();
        let mut command = command(folder.path(), addr);
        let command = command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let mut daemon = Self { child, addr, folder };
        let connects = |addr| std::net::TcpStream::connect(addr).is_ok();
        let ended = |daemon: &mut Self| daemon.child.try_wait().unwrap().is_some();
        eventually(30, "the server takes connections", || connects(addr) || ended(&mut daemon))
            .await;
        assert!(!ended(&mut daemon), "it has ended: {}", daemon.log());
        daemon
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("daemon.log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Those that have children end them.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT);
        for _ in 0..500 {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the server ---\n{}", self.log());
        }
    }
}

/// A process that is killed when dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How long each test is to do its work again and again, if so.
fn chaos_seconds() -> Option<u64> {
    let set = std::env::var("IMUX_CHAOS_SECONDS").ok()?;
    Some(set.parse().unwrap_or_else(|_| panic!("IMUX_CHAOS_SECONDS={set}: no number")))
}

fn bounded(test: impl Future<Output = ()>) {
    support::alone(200 + 2 * chaos_seconds().unwrap_or(0), test);
}

/// A tunnel whose lanes die all the time.
struct Chaos {
    tunnel: Tunnel,
    until: Instant,
    turns: u64,
}

impl Chaos {
    /// Ten lanes of 2 MB/s each: slow enough that lanes die under what is carried.
    async fn before(daemon: &Daemon) -> Self {
        let tunnel = Tunnel::start(daemon.addr).await;
        tunnel.relay.throttle(2_000_000);
        let pauses = match chaos_seconds() {
            Some(_) => [1_000, 4_000, 2_000, 5_000, 3_000],
            None => [150; 5],
        };
        tunnel.relay.kill_after(pauses.map(Duration::from_millis).into_iter().cycle());
        let until = Instant::now() + Duration::from_secs(chaos_seconds().unwrap_or(0));
        Self { tunnel, until, turns: 0 }
    }

    /// Whether the work is to be done, once at least.
    fn goes_on(&mut self) -> bool {
        let go_on = self.turns == 0 || Instant::now() < self.until;
        self.turns += u64::from(go_on);
        go_on
    }

    fn end(mut self, what: &str) {
        let relay = &self.tunnel.relay;
        let deaths = Death::ALL.map(|death| format!("{} {death:?}", relay.deaths(death)));
        println!("{what}: {} times, deaths {}", self.turns, deaths.join(", "));
        self.tunnel.assert_healthy();
    }
}

/// Runs the program to its end.
async fn run(mut command: Command) -> Output {
    let shown = format!("{command:?}");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}: {}: {told}", output.status);
    output
}

/// A web server for what is in the folder. It logs each request.
async fn web_server(folder: tempfile::TempDir) -> Daemon {
    Daemon::start(folder, |folder, addr| {
        let mut python = command("python3");
        // Home is where some installations of Python find themselves.
        python.env("HOME", std::env::var_os("HOME").unwrap_or_default());
        python.args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"]);
        python.arg(folder).arg(addr.port().to_string());
        python
    })
    .await
}

/// A web server for one large file, which is this one: `/large`.
async fn server_of_a_large_file() -> (Daemon, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let large = file(folder.path().join("large"), 1, 20_000_000);
    (web_server(folder).await, large)
}

/// A file of such a size; its contents can be told from all others.
fn file(path: PathBuf, seed: u64, length: usize) -> PathBuf {
    fs::write(&path, Pattern::new(seed).bytes(length)).unwrap();
    path
}

#[track_caller]
fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (fs::read(one).unwrap(), fs::read(other).unwrap());
    assert!(one == other, "the files differ");
}
