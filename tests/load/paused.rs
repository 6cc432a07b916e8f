//! Many connections whose programs do not read: the others go on, and the log says once why they
//! have less.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::memory::{MIB, echo, of_kind, two_kinds};
use crate::support::alone;
use crate::support::tunnel::Tunnel;

/// What was moved for connections that nobody reads, and these.
#[derive(Default)]
struct Paused {
    moved: Arc<AtomicU64>,
    downloads: Vec<TcpStream>,
    uploads: Vec<tokio::task::JoinHandle<()>>,
}

impl Paused {
    /// `count` in all, every other one an upload.
    async fn fill_up_to(&mut self, count: usize, tunnel: &Tunnel) {
        while self.downloads.len() + self.uploads.len() < count {
            if self.downloads.len() <= self.uploads.len() {
                self.downloads.push(of_kind(tunnel, b's').await);
            } else {
                let (mut upload, moved) = (of_kind(tunnel, b'u').await, self.moved.clone());
                self.uploads.push(tokio::spawn(async move {
                    let block = vec![2; 64 << 10];
                    while upload.write_all(&block).await.is_ok() {
                        moved.fetch_add(block.len() as u64, Ordering::Relaxed);
                    }
                }));
            }
        }
        // Until nothing moves any more on any of them.
        let mut last = (u64::MAX, Instant::now());
        while last.1.elapsed() < Duration::from_millis(500) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = self.moved.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, Instant::now());
            }
        }
    }
}

/// With these windows at both ends, so many connections pause, then more; an echo goes on beside
/// all of them.
fn others_go_on(windows: &'static [&'static str], counts: &'static [usize], length: u64) {
    alone(150, async move {
        let mut paused = Paused::default();
        let destination = two_kinds(paused.moved.clone()).await;
        let mut tunnel = Tunnel::with(destination.addr, windows, windows).await;
        for &count in counts {
            paused.fill_up_to(count, &tunnel).await;
            let took = echo(&tunnel, length).await;
            println!("{windows:?}, {count} paused: an echo of {length} bytes took {took:?}");
        }
        for end in [&tunnel.client, &tunnel.server] {
            assert_eq!(end.count("programs do not read"), 1, "said once");
        }
        paused.uploads.iter().for_each(tokio::task::JoinHandle::abort);
        tunnel.assert_healthy();
    });
}

#[test]
fn paused_readers_stop_nobody() {
    others_go_on(&["--session-window", "8MiB", "--window", "1MiB"], &[6, 12, 14, 40, 100], 4 * MIB);
}

#[test]
fn paused_readers_stop_nobody_by_default() {
    others_go_on(&[], &[80, 200], 4 * MIB);
}

#[test]
fn a_thousand_paused_readers_stop_nobody() {
    // This process has both outer ends of each connection.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    others_go_on(&[], &[1000], MIB);
}

#[test]
fn paused_readers_stop_nobody_where_windows_are_tiny() {
    others_go_on(&["--session-window", "256KiB", "--window", "256KiB"], &[2, 9, 20], MIB / 4);
}
