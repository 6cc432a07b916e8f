//! A TCP relay between client and server that harms the lanes that go through it.
//!
//! One relay stands for all networks between the two ends. Paths are told apart by the address a
//! lane comes from: lanes bound to 127.0.0.2 are one path, those bound to 127.0.0.3 another.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Alive,
    /// Nothing moves, and nobody is told.
    Silent,
    Reset,
}

#[derive(Debug)]
struct Lane {
    from: IpAddr,
    fate: watch::Sender<Fate>,
    /// Bytes carried, both ways.
    carried: AtomicU64,
}

#[derive(Debug, Default)]
struct Shared {
    lanes: Mutex<Vec<Arc<Lane>>>,
    closed: AtomicBool,
    /// Bytes a second, each way and lane; 0 is no limit.
    rate: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Relay {
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let place = if target.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let listener = TcpListener::bind(place).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let task = tokio::spawn(accept(listener, target, shared.clone())).abort_handle();
        Self { addr, shared, task }
    }

    /// Lanes that have not ended and are not silent.
    pub(crate) fn alive(&self) -> usize {
        self.living(None).len()
    }

    fn living(&self, path: Option<IpAddr>) -> Vec<Arc<Lane>> {
        let lanes = self.shared.lanes.lock().unwrap();
        let living = lanes.iter().filter(|lane| {
            path.is_none_or(|path| path == lane.from)
                && *lane.fate.borrow() == Fate::Alive
                && lane.fate.receiver_count() > 0
        });
        living.cloned().collect()
    }

    /// Resets the lane that has been alive longest; false if there is none.
    pub(crate) fn reset_one(&self) -> bool {
        Self::decide(self.living(None).into_iter().take(1), Fate::Reset)
    }

    /// Silences the lane that has been alive longest; false if there is none.
    pub(crate) fn silence_one(&self) -> bool {
        Self::decide(self.living(None).into_iter().take(1), Fate::Silent)
    }

    /// Silences every lane of one path; new ones go through.
    pub(crate) fn silence_path(&self, path: &str) -> bool {
        let path = path.parse().unwrap();
        Self::decide(self.living(Some(path)).into_iter(), Fate::Silent)
    }

    /// Nothing moves on any lane there is, until [`restore`](Self::restore).
    pub(crate) fn silence_all(&self) {
        Self::decide(self.living(None).into_iter(), Fate::Silent);
    }

    pub(crate) fn restore(&self) {
        let lanes = self.shared.lanes.lock().unwrap();
        for lane in lanes.iter().filter(|lane| *lane.fate.borrow() == Fate::Silent) {
            lane.fate.send_replace(Fate::Alive);
        }
    }

    pub(crate) fn reset_all(&self) {
        let lanes = self.shared.lanes.lock().unwrap().clone();
        Self::decide(lanes.into_iter(), Fate::Reset);
    }

    /// New lanes are reset at once, or let through again.
    pub(crate) fn close(&self, closed: bool) {
        self.shared.closed.store(closed, Ordering::Relaxed);
    }

    /// Limits each lane's rate each way from now on, in bytes a second; 0 lifts the limit.
    pub(crate) fn throttle(&self, rate: u64) {
        self.shared.rate.store(rate, Ordering::Relaxed);
    }

    /// Bytes carried so far, both ways, by lanes from `path`.
    pub(crate) fn carried(&self, path: &str) -> u64 {
        let path: IpAddr = path.parse().unwrap();
        let lanes = self.shared.lanes.lock().unwrap();
        let of_path = lanes.iter().filter(|lane| lane.from == path);
        of_path.map(|lane| lane.carried.load(Ordering::Relaxed)).sum()
    }

    fn decide(lanes: impl Iterator<Item = Arc<Lane>>, fate: Fate) -> bool {
        lanes.map(|lane| lane.fate.send_replace(fate)).count() > 0
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
        self.reset_all();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, shared: Arc<Shared>) {
    loop {
        let (near, from) = listener.accept().await.unwrap();
        if shared.closed.load(Ordering::Relaxed) {
            super::net::reset(near);
            continue;
        }
        let (fate, watched) = watch::channel(Fate::Alive);
        let lane = Arc::new(Lane { from: from.ip(), fate, carried: AtomicU64::new(0) });
        shared.lanes.lock().unwrap().push(lane.clone());
        tokio::spawn(carry(near, target, lane, watched, shared.clone()));
    }
}

async fn carry(
    near: TcpStream,
    target: SocketAddr,
    lane: Arc<Lane>,
    mut fate: watch::Receiver<Fate>,
    shared: Arc<Shared>,
) {
    let Ok(far) = TcpStream::connect(target).await else {
        super::net::reset(near);
        return;
    };
    for socket in [&near, &far] {
        let _ = socket.set_nodelay(true);
        // Dropped before its end, it is cut off.
        let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let up = copy(near_read, far_write, lane.clone(), fate.clone(), shared.clone());
    let down = copy(far_read, near_write, lane, fate.clone(), shared);
    tokio::select! {
        _ = async { tokio::join!(up, down) } => {}
        _ = fate.wait_for(|fate| *fate == Fate::Reset) => {}
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    lane: Arc<Lane>,
    mut fate: watch::Receiver<Fate>,
    shared: Arc<Shared>,
) {
    let mut buffer = vec![0; 64 << 10];
    let mut free_at = Instant::now();
    loop {
        if fate.wait_for(|fate| *fate == Fate::Alive).await.is_err() {
            return;
        }
        let got = match from.read(&mut buffer).await {
            Ok(0) => {
                let _ = to.shutdown().await;
                return;
            }
            Ok(got) => got,
            Err(_) => return,
        };
        // It may have fallen silent while it waited for something to read.
        if fate.wait_for(|fate| *fate == Fate::Alive).await.is_err()
            || to.write_all(&buffer[..got]).await.is_err()
        {
            return;
        }
        lane.carried.fetch_add(got as u64, Ordering::Relaxed);
        let rate = shared.rate.load(Ordering::Relaxed);
        if rate > 0 {
            free_at =
                free_at.max(Instant::now()) + Duration::from_secs_f64(got as f64 / rate as f64);
            tokio::time::sleep_until(free_at).await;
        }
    }
}
