//! The link emulator: one thread that carries packets between the TUN devices of two namespaces.
//!
//! netem would do this in the kernel, but many kernels lack it. One thread waits in `ppoll` with a
//! timer slack of a nanosecond; [`link`] decides what it carries, and when, from the packets' times
//! alone. A write to a TUN device also runs the receiving kernel's TCP: that is most of this
//! thread's CPU time, and a real network would spend it elsewhere.

mod direction;
pub mod link;
pub mod reset;
pub mod segment;
pub mod throttle;

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl;
use nix::sys::time::TimeSpec;
use serde::{Deserialize, Serialize};
use tun_rs::SyncDevice;

use super::clock::now_ns;
use super::error::LabError;
use direction::{Direction, Packet};
use link::{LinkCounters, LinkSpec};
use reset::Resetter;
use segment::End;

/// Largest packet: the devices' MTU.
pub const MTU: usize = 1500;
/// At many packets a millisecond the emulator wakes this often instead of for each packet: waking
/// up costs as much as carrying two. It is about the timing error a packet can have.
const GRAIN_NS: u64 = 40_000;
/// This many packets in [`BUSY_WINDOW_NS`] count as busy.
const BUSY_PACKETS: usize = 8;
const BUSY_WINDOW_NS: u64 = 1_000_000;
/// Packets read from one device before the others get their turn.
const BATCH: usize = 64;
/// With nothing due, look again after at most this long.
const IDLE_WAIT_NS: u64 = 100_000_000;

/// A path's two devices and its two directions.
#[expect(missing_debug_implementations, reason = "devices have none")]
pub struct PathDevices {
    /// In the client's namespace.
    pub client: SyncDevice,
    /// In the server's namespace.
    pub server: SyncDevice,
    /// Client to server.
    pub up: LinkSpec,
    /// Server to client.
    pub down: LinkSpec,
    /// Each TCP connection's own link in front of that, either way, if the path throttles them.
    pub throttle: Option<LinkSpec>,
}

/// A change to a running path, in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A new rate in bits per second.
    Rate(f64),
    /// A new one-way delay in milliseconds.
    Delay(f64),
    /// A new share of lost packets.
    Loss(f64),
    /// Swallow everything, or stop doing so.
    Silent(bool),
    /// Reset every TCP connection on the path.
    Reset,
}

/// What the emulator has done so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Per path: client to server, server to client.
    pub paths: Vec<(LinkCounters, LinkCounters)>,
    /// Packets delivered.
    pub delivered: u64,
    /// Mean time in microseconds between a packet's due time and its delivery.
    pub late_us_mean: f64,
    /// The same for the worst one in a thousand.
    pub late_us_p999: f64,
    /// The same for the worst one.
    pub late_us_max: f64,
    /// CPU seconds of the emulator's thread.
    pub cpu_s: f64,
}

enum Order {
    Change(usize, Change),
    Count(Sender<Counters>),
    Stop,
}

/// A running emulator. Dropping it stops it and closes its devices.
#[derive(Debug)]
pub struct Emulator {
    orders: Sender<Order>,
    bell: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Emulator {
    /// Starts the thread. Packets lost at random depend on `seed`.
    pub fn start(paths: Vec<PathDevices>, seed: u64) -> Result<Self, LabError> {
        let fail = |e: io::Error| LabError::setup("start the link emulator", e);
        let (bell, bell_end) = UnixStream::pair().map_err(fail)?;
        bell_end.set_nonblocking(true).map_err(fail)?;
        for path in &paths {
            path.client.set_nonblocking(true).map_err(fail)?;
            path.server.set_nonblocking(true).map_err(fail)?;
        }
        let (orders, inbox) = mpsc::channel();
        let paths = paths
            .into_iter()
            .enumerate()
            .map(|(i, p)| Path {
                up: Direction::new(End::Client, p.up, p.throttle, seed ^ (2 * i as u64)),
                down: Direction::new(End::Server, p.down, p.throttle, seed ^ (2 * i as u64 + 1)),
                client: p.client,
                server: p.server,
                resetter: Resetter::default(),
            })
            .collect();
        let core = Core { paths, spare: Vec::new(), late: Lateness::default() };
        let body = move || core.run(&inbox, &bell_end);
        let builder = std::thread::Builder::new().name("emulator".to_owned());
        let thread = Some(builder.spawn(body).map_err(fail)?);
        Ok(Self { orders, bell, thread })
    }

    /// Changes a path at once.
    pub fn change(&self, path: usize, change: Change) -> Result<(), LabError> {
        self.order(Order::Change(path, change))
    }

    /// What it has done so far.
    pub fn counters(&self) -> Result<Counters, LabError> {
        let (tx, rx) = mpsc::channel();
        self.order(Order::Count(tx))?;
        rx.recv_timeout(Duration::from_secs(5))
            .map_err(|_| LabError::Run("the link emulator does not answer".to_owned()))
    }

    fn order(&self, order: Order) -> Result<(), LabError> {
        let sent = self.orders.send(order).is_ok() && (&self.bell).write_all(&[1]).is_ok();
        if sent { Ok(()) } else { Err(LabError::Run("the link emulator has stopped".to_owned())) }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Path {
    client: SyncDevice,
    server: SyncDevice,
    up: Direction,
    down: Direction,
    resetter: Resetter,
}

struct Core {
    paths: Vec<Path>,
    spare: Vec<Packet>,
    late: Lateness,
}

impl Core {
    fn run(mut self, inbox: &Receiver<Order>, bell: &UnixStream) {
        take_priority();
        let mut ready = Vec::new();
        let mut traffic = Traffic::default();
        loop {
            self.wait(bell, traffic.busy, &mut ready);
            if ready.last() == Some(&true) {
                let _ = (&*bell).read(&mut [0; 64]);
                while let Ok(order) = inbox.try_recv() {
                    match order {
                        Order::Change(path, change) => self.apply(path, change),
                        Order::Count(answer) => drop(answer.send(self.counters())),
                        Order::Stop => return,
                    }
                }
            }
            let mut moved = 0;
            for (path, ready) in self.paths.iter_mut().zip(ready.chunks_exact(2)) {
                if ready[0] {
                    moved += path.read(End::Client, &mut self.spare);
                }
                if ready[1] {
                    moved += path.read(End::Server, &mut self.spare);
                }
                moved += path.deliver(&mut self.spare, &mut self.late);
            }
            traffic.note(now_ns(), moved);
        }
    }

    /// Waits for packets, orders, or the next due time; `ready` says which descriptors have
    /// something.
    fn wait(&self, bell: &UnixStream, busy: bool, ready: &mut Vec<bool>) {
        let left = if busy {
            std::thread::sleep(Duration::from_nanos(GRAIN_NS));
            0
        } else {
            let ways = self.paths.iter().flat_map(|p| [p.up.next_due_ns(), p.down.next_due_ns()]);
            let due = ways.flatten().min();
            // Waking up takes about one grain.
            due.map_or(IDLE_WAIT_NS, |due| {
                due.saturating_sub(now_ns() + GRAIN_NS).min(IDLE_WAIT_NS)
            })
        };
        let devices = self.paths.iter().flat_map(|p| [p.client.as_fd(), p.server.as_fd()]);
        let mut fds: Vec<PollFd<'_>> =
            devices.chain([bell.as_fd()]).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match ppoll(&mut fds, Some(TimeSpec::from(Duration::from_nanos(left))), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            // Cannot happen with descriptors we own; waiting keeps it from spinning.
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
        ready.clear();
        ready.extend(
            fds.iter().map(|fd| fd.revents().is_some_and(|r| r.contains(PollFlags::POLLIN))),
        );
    }

    fn apply(&mut self, path: usize, change: Change) {
        let Some(path) = self.paths.get_mut(path) else { return };
        let now = now_ns();
        for link in [&mut path.up.link, &mut path.down.link] {
            match change {
                Change::Rate(bps) => link.set_rate(now, bps),
                Change::Delay(ms) => link.set_delay(now, (ms * 1e6) as u64),
                Change::Loss(share) => link.set_loss(share),
                Change::Silent(silent) => link.set_silent(silent),
                Change::Reset => {}
            }
        }
        if change == Change::Reset {
            for (end, packet) in path.resetter.reset_all() {
                path.inject(end, &packet);
            }
        }
    }

    fn counters(&self) -> Counters {
        let late = &self.late;
        Counters {
            paths: self.paths.iter().map(|p| (p.up.counters(), p.down.counters())).collect(),
            delivered: late.count,
            late_us_mean: late.sum_ns as f64 / late.count.max(1) as f64 / 1e3,
            late_us_p999: late.quantile_us(0.999),
            late_us_max: late.max_ns as f64 / 1e3,
            cpu_s: thread_cpu_s(),
        }
    }
}

impl Path {
    /// Takes in a device's packets; returns how many.
    fn read(&mut self, from: End, spare: &mut Vec<Packet>) -> usize {
        for count in 0..BATCH {
            let mut packet = spare.pop().unwrap_or_default();
            packet.resize(MTU, 0);
            let device = if from == End::Client { &self.client } else { &self.server };
            let Ok(n) = device.recv(&mut packet) else {
                spare.push(packet);
                return count;
            };
            packet.truncate(n);
            let now = now_ns();
            if let Some(reset) = self.resetter.inspect(from, &packet) {
                if !reset.is_empty() {
                    self.inject(from, &reset);
                }
                continue;
            }
            let way = if from == End::Client { &mut self.up } else { &mut self.down };
            way.enqueue(now, packet);
        }
        BATCH
    }

    /// Delivers the due packets; returns how many.
    fn deliver(&mut self, spare: &mut Vec<Packet>, late: &mut Lateness) -> usize {
        let mut count = 0;
        for (way, device) in [(&mut self.up, &self.server), (&mut self.down, &self.client)] {
            let now = now_ns();
            // A little early or late rather than always late.
            while let Some((due, packet)) = way.take_due(now + GRAIN_NS / 2) {
                late.add(now.saturating_sub(due));
                count += 1;
                // Refused while the device is down: the packet is lost then, as on a real
                // interface.
                let _ = device.send(&packet);
                if spare.len() < 4096 {
                    spare.push(packet);
                }
            }
        }
        count
    }

    /// Delivers a packet to an end at once.
    fn inject(&self, end: End, packet: &[u8]) {
        let device = if end == End::Client { &self.client } else { &self.server };
        let _ = device.send(packet);
    }
}

/// Whether packets arrive so fast that batches are better.
#[derive(Debug, Default)]
struct Traffic {
    busy: bool,
    since_ns: u64,
    packets: usize,
}

impl Traffic {
    fn note(&mut self, now_ns: u64, packets: usize) {
        self.packets += packets;
        if now_ns >= self.since_ns + BUSY_WINDOW_NS {
            self.busy = self.packets >= BUSY_PACKETS;
            self.packets = 0;
            self.since_ns = now_ns;
        }
    }
}

/// How late packets were delivered: a histogram with 2 µs bins.
#[derive(Debug)]
struct Lateness {
    count: u64,
    sum_ns: u64,
    max_ns: u64,
    bins: Vec<u64>,
}

impl Default for Lateness {
    fn default() -> Self {
        Self { count: 0, sum_ns: 0, max_ns: 0, bins: vec![0; 5000] }
    }
}

impl Lateness {
    fn add(&mut self, ns: u64) {
        self.count += 1;
        self.sum_ns += ns;
        self.max_ns = self.max_ns.max(ns);
        let last = self.bins.len() - 1;
        self.bins[((ns / 2000) as usize).min(last)] += 1;
    }

    fn quantile_us(&self, q: f64) -> f64 {
        let want = (self.count as f64 * q) as u64;
        let mut below = 0;
        for (i, n) in self.bins.iter().enumerate() {
            below += n;
            if below > want {
                return 2.0 * (i as f64 + 1.0);
            }
        }
        self.max_ns as f64 / 1e3
    }
}

/// Exact timers and priority for this thread, as far as the system grants them: contenders that use
/// every core must not make the links jitter.
fn take_priority() {
    let _ = prctl::set_timerslack(1);
    let thread = nix::unistd::gettid().to_string();
    // Real-time round robin; the kernel's throttle keeps it from starving others.
    let _ = Command::new("chrt")
        .args(["--rr", "--pid", "10", &thread])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

fn thread_cpu_s() -> f64 {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(0.0, |t| Duration::from(t).as_secs_f64())
}
