//! A TCP relay between client and server that harms the lanes that go through it.
//!
//! One relay stands for all networks between the two ends. Paths are told apart by the address a
//! lane comes from: lanes bound to 127.0.0.2 are one path, those bound to 127.0.0.3 another.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// How a lane dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// Both ends are reset.
    Reset,
    /// Both ends see the connection end in order, as when a proxy is stopped.
    Fin,
    /// What is sent is accepted and never arrives, and nobody is told.
    Silence,
}

impl Death {
    pub(crate) const ALL: [Self; 3] = [Self::Reset, Self::Fin, Self::Silence];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Alive,
    /// It dies of the next bytes it is to carry: half of them arrive.
    Doomed(Death),
    Dead(Death),
    /// Nothing moves, and nobody is told; it may go on later.
    Silent,
}

#[derive(Debug)]
struct Lane {
    from: IpAddr,
    fate: watch::Sender<Fate>,
    /// Bytes carried, both ways.
    carried: AtomicU64,
    /// What the relay had carried when this lane last carried something: the highest is the most
    /// recent.
    turn: AtomicU64,
}

#[derive(Debug, Default)]
struct Shared {
    lanes: Mutex<Vec<Arc<Lane>>>,
    closed: AtomicBool,
    /// Bytes a second, each way and lane; 0 is no limit.
    rate: AtomicU64,
    /// Bytes carried by all lanes.
    carried: AtomicU64,
    /// Lanes that have died in the middle of what they carried, by [`Death`].
    deaths: [AtomicU64; 3],
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
        // Accepted sockets inherit its buffers.
        let listener = socket(target);
        listener.bind(place.parse().unwrap()).unwrap();
        let listener = listener.listen(1024).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let task = tokio::spawn(accept(listener, target, shared.clone())).abort_handle();
        Self { addr, shared, task }
    }

    /// Lanes that have not ended and are not silent.
    pub(crate) fn alive(&self) -> usize {
        self.shared.living(None).len()
    }

    /// Lanes whose sockets are still held here: those that carry, and dead ones that an end has not
    /// given up.
    pub(crate) fn held(&self) -> usize {
        let lanes = self.shared.lanes.lock().unwrap();
        lanes.iter().filter(|lane| lane.fate.receiver_count() > 0).count()
    }

    /// Dooms the longest-lived lane that has carried more than a handshake: half of the next bytes
    /// it is to carry arrive, then it dies. `false` if there is none.
    pub(crate) fn kill(&self, death: Death) -> bool {
        let in_use = self.shared.in_use().into_iter();
        decide(in_use.take(1), Fate::Doomed(death))
    }

    /// Dooms lanes from now on, each in a different way from the one before: after each pause the
    /// lane that carried something last, unless another is still doomed.
    pub(crate) fn kill_after(&self, pauses: impl Iterator<Item = Duration> + Send + 'static) {
        let shared = Arc::downgrade(&self.shared);
        tokio::spawn(async move {
            for (pause, death) in pauses.zip(Death::ALL.into_iter().cycle()) {
                tokio::time::sleep(pause).await;
                let Some(shared) = shared.upgrade() else { return };
                if !shared.anyone_doomed() {
                    let last = |lane: &Arc<Lane>| lane.turn.load(Ordering::Relaxed);
                    let busy = shared.in_use().into_iter().max_by_key(last);
                    decide(busy.into_iter(), Fate::Doomed(death));
                }
            }
        });
    }

    /// How many lanes have died this way, in the middle of what they carried.
    pub(crate) fn deaths(&self, death: Death) -> u64 {
        self.shared.deaths[death as usize].load(Ordering::Relaxed)
    }

    /// Silences every lane of one path; new ones go through.
    pub(crate) fn silence_path(&self, path: &str) -> bool {
        let path = path.parse().unwrap();
        decide(self.shared.living(Some(path)).into_iter(), Fate::Silent)
    }

    /// Nothing moves on any lane there is, until [`restore`](Self::restore).
    pub(crate) fn silence_all(&self) {
        decide(self.shared.living(None).into_iter(), Fate::Silent);
    }

    /// Silent and doomed lanes go on.
    pub(crate) fn restore(&self) {
        let lanes = self.shared.lanes.lock().unwrap();
        let waits = |fate: Fate| matches!(fate, Fate::Silent | Fate::Doomed(_));
        for lane in lanes.iter().filter(|lane| waits(*lane.fate.borrow())) {
            lane.fate.send_replace(Fate::Alive);
        }
    }

    pub(crate) fn reset_all(&self) {
        let lanes = self.shared.lanes.lock().unwrap().clone();
        decide(lanes.into_iter(), Fate::Dead(Death::Reset));
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
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
        self.reset_all();
    }
}

/// More than TLS and the first frames are, there and back.
const HANDSHAKE_BYTES: u64 = 8 << 10;

/// A network's queue is finite.
const QUEUE_BYTES: u32 = 32 << 10;

/// A socket of the address's kind. By default the kernel would give it megabytes to queue in, which
/// is half a minute on a slow lane.
fn socket(like: SocketAddr) -> TcpSocket {
    let socket = if like.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    socket.set_recv_buffer_size(QUEUE_BYTES).unwrap();
    socket
}

async fn accept(listener: TcpListener, target: SocketAddr, shared: Arc<Shared>) {
    loop {
        let (near, from) = listener.accept().await.unwrap();
        if shared.closed.load(Ordering::Relaxed) {
            super::net::reset(near);
            continue;
        }
        let (fate, watched) = watch::channel(Fate::Alive);
        let lane = Arc::new(Lane {
            from: from.ip(),
            fate,
            carried: AtomicU64::new(0),
            turn: AtomicU64::new(0),
        });
        shared.lanes.lock().unwrap().push(lane.clone());
        tokio::spawn(carry(near, target, lane, watched, shared.clone()));
    }
}

async fn carry(
    mut near: TcpStream,
    target: SocketAddr,
    lane: Arc<Lane>,
    mut fate: watch::Receiver<Fate>,
    shared: Arc<Shared>,
) {
    let Ok(mut far) = socket(target).connect(target).await else {
        super::net::reset(near);
        return;
    };
    // A reset that finds the queue full is lost: this asks whether anybody is there, unseen by
    // either end.
    let every = Duration::from_secs(5);
    let keepalive = socket2::TcpKeepalive::new().with_time(every).with_interval(every);
    for socket in [&near, &far] {
        let _ = socket.set_nodelay(true);
        let socket = socket2::SockRef::from(socket);
        let _ = socket.set_tcp_keepalive(&keepalive);
        // Dropped before its end, it is cut off.
        let _ = socket.set_linger(Some(Duration::ZERO));
    }
    let (near_read, near_write) = near.split();
    let (far_read, far_write) = far.split();
    let up = copy(near_read, far_write, &lane, fate.clone(), &shared);
    let down = copy(far_read, near_write, &lane, fate.clone(), &shared);
    tokio::select! {
        // An error on either side ends both; an end is passed on one way.
        _ = async { tokio::try_join!(up, down) } => {}
        _ = fate.wait_for(|fate| matches!(fate, Fate::Dead(_))) => {}
    }
    let fate = *fate.borrow();
    match fate {
        Fate::Dead(Death::Fin) => {
            let _ = tokio::join!(near.shutdown(), far.shutdown());
            swallow(near, far).await;
        }
        Fate::Dead(Death::Silence) => swallow(near, far).await,
        _ => {}
    }
}

/// Nothing that comes arrives, until both ends have given it up: neither hears of the other's end.
async fn swallow(mut near: TcpStream, mut far: TcpStream) {
    let (mut nowhere, mut neither) = (tokio::io::sink(), tokio::io::sink());
    let _ = tokio::join!(
        tokio::io::copy(&mut near, &mut nowhere),
        tokio::io::copy(&mut far, &mut neither)
    );
}

async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    lane: &Lane,
    mut fate: watch::Receiver<Fate>,
    shared: &Shared,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut free_at = Instant::now();
    loop {
        moving(&mut fate).await;
        // A slow lane is slow all the time, not now and then.
        let rate = shared.rate.load(Ordering::Relaxed);
        let room = if rate > 0 {
            (rate / 50).clamp(1, buffer.len() as u64) as usize
        } else {
            buffer.len()
        };
        let got = from.read(&mut buffer[..room]).await?;
        if got == 0 {
            return to.shutdown().await;
        }
        // It may have fallen silent while waiting for something to read.
        moving(&mut fate).await;
        let mut rest = &buffer[..got];
        let now = *fate.borrow();
        if let Fate::Doomed(death) = now {
            let half;
            (half, rest) = rest.split_at(got / 2);
            to.write_all(half).await?;
            shared.die(lane, death);
            moving(&mut fate).await;
        }
        to.write_all(rest).await?;
        lane.carried.fetch_add(got as u64, Ordering::Relaxed);
        let turn = shared.carried.fetch_add(got as u64, Ordering::Relaxed);
        lane.turn.store(turn, Ordering::Relaxed);
        if rate > 0 {
            free_at =
                free_at.max(Instant::now()) + Duration::from_secs_f64(got as f64 / rate as f64);
            tokio::time::sleep_until(free_at).await;
        }
    }
}

/// Waits while the lane is silent; if it has died, for ever.
async fn moving(fate: &mut watch::Receiver<Fate>) {
    // The sender is held by the relay, and by the lane's own task.
    let _ = fate.wait_for(|fate| matches!(fate, Fate::Alive | Fate::Doomed(_))).await;
}

impl Shared {
    fn living(&self, path: Option<IpAddr>) -> Vec<Arc<Lane>> {
        let lanes = self.lanes.lock().unwrap();
        let living = lanes.iter().filter(|lane| {
            path.is_none_or(|path| path == lane.from)
                && *lane.fate.borrow() == Fate::Alive
                && lane.fate.receiver_count() > 0
        });
        living.cloned().collect()
    }

    fn anyone_doomed(&self) -> bool {
        let doomed = |lane: &Arc<Lane>| {
            matches!(*lane.fate.borrow(), Fate::Doomed(_)) && lane.fate.receiver_count() > 0
        };
        self.lanes.lock().unwrap().iter().any(doomed)
    }

    /// Living lanes that have carried more than a handshake, the oldest first.
    fn in_use(&self) -> Vec<Arc<Lane>> {
        let mut lanes = self.living(None);
        lanes.retain(|lane| lane.carried.load(Ordering::Relaxed) > HANDSHAKE_BYTES);
        lanes
    }

    /// Kills a doomed lane, unless what it carried the other way already has.
    fn die(&self, lane: &Lane, death: Death) {
        let died = lane.fate.send_if_modified(|fate| {
            let doomed = matches!(fate, Fate::Doomed(_));
            if doomed {
                *fate = Fate::Dead(death);
            }
            doomed
        });
        self.deaths[death as usize].fetch_add(u64::from(died), Ordering::Relaxed);
    }
}

/// Whether there were any.
fn decide(lanes: impl Iterator<Item = Arc<Lane>>, fate: Fate) -> bool {
    let mut any = false;
    for lane in lanes {
        lane.fate.send_replace(fate);
        any = true;
    }
    any
}
