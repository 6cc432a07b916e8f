//! The honest process, seen from its parent; and an honest session with it, whose work must go on.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use imux::lane::{BindSource, TcpOptions, TlsDialer};
use imux::trust::{Fingerprint, Identity, PinnedKeys};
use imux::{Client, ClientConfig, Link, StreamKind};

use super::child::{ROLE, SESSION_WINDOW};
use super::peer::{Keys, Out, Peer, client_tls};
use super::support::bytes::{Pattern, exchange};

const PATIENCE: Duration = Duration::from_secs(40);

/// What a hostile session may cost at most: its window, what may be on its way to it, and the
/// bookkeeping of both; and a lane's buffers, TLS included.
const SESSION_CAP: u64 = 3 * SESSION_WINDOW;
pub(crate) const LANE_CAP: u64 = 1 << 20;

/// The process.
#[derive(Debug)]
pub(crate) struct Honest {
    child: Child,
    commands: ChildStdin,
    lines: Receiver<String>,
    /// Lines that were read while another was waited for.
    kept: Mutex<VecDeque<String>>,
}

impl Honest {
    pub(crate) fn start(role: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "honest_end", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix("@ ") {
                    let _ = sender.send(line.to_owned());
                }
            }
        });
        Self { child, commands, lines, kept: Mutex::default() }
    }

    /// The next line that begins with `word`, without it.
    #[track_caller]
    pub(crate) fn told(&self, word: &str) -> String {
        let mut kept = self.kept.lock().unwrap();
        let fits = |line: &String| line.split(' ').next() == Some(word);
        let found = kept.iter().position(fits).and_then(|at| kept.remove(at));
        let line = found.unwrap_or_else(|| {
            loop {
                let line = self.lines.recv_timeout(PATIENCE);
                let line = line.unwrap_or_else(|_| panic!("nothing was told of {word:?}"));
                if fits(&line) {
                    break line;
                }
                kept.push_back(line);
            }
        });
        line[word.len()..].trim_start().to_owned()
    }

    /// Asserts that a session was closed with this code, and why. Where the peer goes on flooding,
    /// the kernel may cut the connection before what was said on it is read; what the honest
    /// end says here is always there.
    #[track_caller]
    pub(crate) fn expect_close(&self, peer: &mut Peer, codes: &[(u64, &str)]) -> String {
        match peer.thrown_out() {
            Out::Closed { code, .. } => assert!(codes.iter().any(|(known, _)| *known == code)),
            Out::LaneEnded => {}
            other @ Out::Refused { .. } => panic!("{other:?}"),
        }
        let over = self.told("over");
        let told = codes.iter().any(|(_, name)| over.contains(&format!("misbehaved: {name}")));
        assert!(told, "{over:?}");
        over
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, word: &str) -> String {
        writeln!(self.commands, "{word}").expect("the honest process has died");
        self.told(word)
    }

    /// Bytes on its heap now, and the most there were since it was asked last.
    #[track_caller]
    pub(crate) fn heap(&mut self) -> (u64, u64) {
        let answer = self.ask("heap");
        let (now, peak) = answer.split_once(' ').unwrap();
        (now.parse().unwrap(), peak.parse().unwrap())
    }
}

impl Drop for Honest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server with an honest session at work, and its heap as it is without a hostile peer. Fields
/// are dropped in this order: the session first.
pub(crate) struct Scene {
    bystander: Bystander,
    pub(crate) honest: Honest,
    pub(crate) server: SocketAddr,
    /// The server's.
    pub(crate) key: Fingerprint,
    pub(crate) identity: Identity,
    before: u64,
}

impl Scene {
    /// And a hostile session.
    pub(crate) fn with_session() -> (Self, Peer) {
        let scene = Self::start();
        let peer = scene.session();
        (scene, peer)
    }

    pub(crate) fn start() -> Self {
        let mut honest = Honest::start("server");
        let ready = honest.told("ready");
        let (server, key) = ready.split_once(' ').unwrap();
        let (server, key) = (server.parse().unwrap(), key.parse().unwrap());
        let bystander = Bystander::start(server, key);
        bystander.work(5);
        // Since then: the most that honest work costs.
        honest.heap();
        bystander.work(5);
        let (_, before) = honest.heap();
        Self { bystander, honest, server, key, identity: Identity::generate().unwrap(), before }
    }

    /// A lane with the hostile client's own key.
    pub(crate) fn dial(&self) -> Peer {
        Peer::dial(self.server, client_tls(&self.identity)).unwrap()
    }

    /// A hostile session's first lane.
    pub(crate) fn session(&self) -> Peer {
        self.session_and_keys().0
    }

    /// As [`session`](Self::session), with what it takes to join it.
    pub(crate) fn session_and_keys(&self) -> (Peer, Keys) {
        let mut peer = self.dial();
        let keys = peer.create();
        (peer, keys)
    }

    /// The honest session has been at work all the time and goes on; one hostile session on one
    /// lane has cost no more than it may.
    #[track_caller]
    pub(crate) fn end(self) {
        self.end_with(1, 1);
    }

    /// As [`end`](Self::end), after so many sessions and lanes at once.
    #[track_caller]
    pub(crate) fn end_with(mut self, sessions: u64, lanes: u64) {
        self.bystander.work(3);
        let (_, peak) = self.honest.heap();
        let (cost, cap) =
            (peak.saturating_sub(self.before), sessions * SESSION_CAP + lanes * LANE_CAP);
        eprintln!(
            "heap: {} KiB before, {} KiB more at most, cap {} KiB",
            self.before >> 10,
            cost >> 10,
            cap >> 10
        );
        assert!(
            cost <= cap + cap / 10,
            "{cost} bytes for a hostile peer; {cap} is what it may cost"
        );
    }
}

/// An honest client that sends and checks bytes without pause, on one session and no other.
struct Bystander {
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Bystander {
    fn start(server: SocketAddr, key: Fingerprint) -> Self {
        let (done, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (counted, stopped) = (done.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let client = connect(server, key).await;
                let session = client.session().unwrap();
                let pattern = Pattern::new(1);
                while !stopped.load(Ordering::Relaxed) {
                    let stream = session.open(StreamKind::Default).await.unwrap();
                    let both = (&pattern, 64 << 10);
                    let exchanged = tokio::time::timeout(PATIENCE, exchange(stream, both, both));
                    exchanged.await.expect("an honest exchange hangs").unwrap();
                    counted.fetch_add(1, Ordering::Relaxed);
                    // Present, and not the one who keeps the machine busy.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        });
        Self { done, stop, thread: Some(thread) }
    }

    /// Waits for so many exchanges more.
    #[track_caller]
    fn work(&self, exchanges: u64) {
        let (begun, goal) = (Instant::now(), self.done.load(Ordering::Relaxed) + exchanges);
        while self.done.load(Ordering::Relaxed) < goal {
            assert!(!self.thread.as_ref().unwrap().is_finished(), "the honest session broke");
            assert!(begun.elapsed() < PATIENCE, "the honest session stands still");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let outcome = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            outcome.expect("the honest session broke");
        }
    }
}

pub(crate) async fn connect(server: SocketAddr, key: Fingerprint) -> Client {
    let bind = BindSource::Addr("127.0.0.9".parse().unwrap());
    let tls = client_tls(&Identity::generate().unwrap());
    let dialer = TlsDialer::new(server.to_string(), bind, tls, TcpOptions::default()).unwrap();
    let link = Link::new(Arc::new(dialer), 2);
    let trust = Arc::new(PinnedKeys::new([key]));
    Client::connect(vec![link], ClientConfig::new(trust)).await.unwrap()
}
