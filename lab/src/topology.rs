//! Two network namespaces joined by emulated paths, set up for one run and removed afterwards.
//!
//! Client: one TUN device and one address per path; packets *from* that address leave by that
//! device (`ip rule add from ADDR table N`), as on a host with several uplinks. Server: one address
//! on `lo`, reached over every path; answers return by their destination's path.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use serde::{Deserialize, Serialize};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::emu::link::LinkSpec;
use super::emu::{Emulator, MTU, PathDevices};
use super::error::LabError;
use super::proc::{Place, find_program, left_behind};
use super::scratch;

/// Namespaces are called `imuxlab-PID-c` and `imuxlab-PID-s`.
const PREFIX: &str = "imuxlab-";
const NETNS_DIR: &str = "/run/netns";
/// Routing table of path 0; each further path uses the next number.
const TABLE_BASE: usize = 100;
/// The server's one address.
pub const SERVER_ADDR: Ipv4Addr = Ipv4Addr::new(10, 77, 255, 1);

/// The largest share of a link's rate that can be payload: 1500-byte packets less 52 bytes of IPv4
/// and TCP headers with timestamps.
pub const PAYLOAD_SHARE: f64 = 1448.0 / 1500.0;

/// One path, the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PathSpec {
    /// Megabits of IP packets per second.
    pub mbit: f64,
    /// Round-trip time in milliseconds, half of it each way.
    pub rtt_ms: f64,
    /// Percent of packets lost at random each way.
    pub loss_pct: f64,
    /// Queue in kilobytes (1000 bytes).
    pub queue_kb: f64,
    /// Limit for each TCP connection in megabits per second, if they are throttled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle_mbit: Option<f64>,
}

impl PathSpec {
    /// A path with a queue of one bandwidth-delay product, but at least 32 kB.
    #[must_use]
    pub fn new(mbit: f64, rtt_ms: f64) -> Self {
        let queue_kb = (mbit * rtt_ms / 8.0).max(32.0);
        Self { mbit, rtt_ms, loss_pct: 0.0, queue_kb, throttle_mbit: None }
    }

    /// The same path with random losses.
    #[must_use]
    pub fn with_loss(self, loss_pct: f64) -> Self {
        Self { loss_pct, ..self }
    }

    /// The same path with a queue of this many bandwidth-delay products (and room for four
    /// packets).
    #[must_use]
    pub fn with_queue_bdp(self, bdp: f64) -> Self {
        Self { queue_kb: (bdp * self.mbit * self.rtt_ms / 8.0).max(6.0), ..self }
    }

    /// The same path with each TCP connection held to this rate.
    #[must_use]
    pub fn with_throttle(self, mbit: f64) -> Self {
        Self { throttle_mbit: Some(mbit), ..self }
    }

    /// Payload bytes per second that a perfect TCP could carry.
    #[must_use]
    pub fn payload_rate(&self) -> f64 {
        self.mbit * 1e6 / 8.0 * PAYLOAD_SHARE
    }

    /// Each connection's own link, for the emulator, with the queue of a path at that rate.
    #[must_use]
    pub fn throttle(&self) -> Option<LinkSpec> {
        let link = |mbit| LinkSpec { delay_ns: 0, ..Self::new(mbit, self.rtt_ms).link() };
        self.throttle_mbit.map(link)
    }

    /// One direction for the emulator.
    #[must_use]
    pub fn link(&self) -> LinkSpec {
        LinkSpec {
            rate_bps: self.mbit * 1e6,
            delay_ns: (self.rtt_ms / 2.0 * 1e6) as u64,
            loss: self.loss_pct / 100.0,
            queue_bytes: (self.queue_kb * 1000.0) as u64,
        }
    }
}

/// The client's address on path `i`.
#[must_use]
pub fn client_addr(i: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, u8::try_from(i).unwrap_or(254), 2)
}

/// The device of path `i` at both ends.
#[must_use]
pub fn device(i: usize) -> String {
    format!("p{i}")
}

/// Fails with what is missing, unless the lab can run here.
pub fn check_supported() -> Result<(), LabError> {
    if !Uid::effective().is_root() {
        return Err(LabError::Unsupported(
            "it must make network namespaces; run it as root".to_owned(),
        ));
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err(LabError::Unsupported(
            "there is no /dev/net/tun; load the `tun` module".to_owned(),
        ));
    }
    if find_program("ip").is_none() {
        return Err(LabError::MissingProgram {
            program: "ip".to_owned(),
            fix: "install iproute2".to_owned(),
        });
    }
    Ok(())
}

/// The two namespaces and the emulator between them. Dropping it removes everything.
#[derive(Debug)]
pub struct Topology {
    // Dropped before the namespaces: its devices live in them.
    emulator: Emulator,
    client: Namespace,
    server: Namespace,
    paths: Vec<PathSpec>,
}

impl Topology {
    /// Sets everything up. `congestion` is the system default congestion control of both ends.
    pub fn new(paths: &[PathSpec], congestion: &str, seed: u64) -> Result<Self, LabError> {
        check_supported()?;
        if paths.is_empty() || paths.len() > 200 {
            return Err(LabError::Usage("a topology has 1 to 200 paths".to_owned()));
        }
        let client = Namespace::new("c")?;
        let server = Namespace::new("s")?;
        let mut devices = Vec::new();
        for (i, path) in paths.iter().enumerate() {
            devices.push(PathDevices {
                client: client.open_tun(&device(i))?,
                server: server.open_tun(&device(i))?,
                up: path.link(),
                down: path.link(),
                throttle: path.throttle(),
            });
        }
        let emulator = Emulator::start(devices, seed)?;
        let topology = Self { emulator, client, server, paths: paths.to_vec() };
        topology.configure_client()?;
        topology.configure_server()?;
        for namespace in [&topology.client, &topology.server] {
            namespace.sysctl("net.ipv4.tcp_no_metrics_save", "1")?;
            namespace.sysctl("net.ipv4.conf.all.rp_filter", "0")?;
            namespace.sysctl("net.ipv4.conf.default.rp_filter", "0")?;
        }
        set_congestion(&[&topology.client, &topology.server], congestion)?;
        Ok(topology)
    }

    /// The link emulator.
    #[must_use]
    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// The client's namespace.
    #[must_use]
    pub fn client(&self) -> Place {
        Place::Namespace(self.client.name.clone())
    }

    /// The server's namespace.
    #[must_use]
    pub fn server(&self) -> Place {
        Place::Namespace(self.server.name.clone())
    }

    /// The paths as they were at the start.
    #[must_use]
    pub fn paths(&self) -> &[PathSpec] {
        &self.paths
    }

    /// Runs `ip ARGS` in the client's namespace.
    pub fn client_ip(&self, args: &str) -> Result<(), LabError> {
        self.client.ip(args)
    }

    /// Runs `ip ARGS` in the server's namespace.
    pub fn server_ip(&self, args: &str) -> Result<(), LabError> {
        self.server.ip(args)
    }

    /// Takes a path's client device down, or up again with its routes.
    pub fn set_client_interface(&self, path: usize, up: bool) -> Result<(), LabError> {
        let dev = device(path);
        if up {
            self.client.ip(&format!("link set {dev} up"))?;
            self.route_client(path)
        } else {
            self.client.ip(&format!("link set {dev} down"))
        }
    }

    fn configure_client(&self) -> Result<(), LabError> {
        self.client.ip("link set lo up")?;
        for i in 0..self.paths.len() {
            let (dev, addr, table) = (device(i), client_addr(i), TABLE_BASE + i);
            self.client.ip(&format!("addr add {addr}/32 dev {dev}"))?;
            self.client.ip(&format!("link set {dev} mtu {MTU} up"))?;
            self.client.ip(&format!("rule add from {addr} table {table}"))?;
            self.client.ip(&format!("rule add oif {dev} table {table}"))?;
            // With its device down, an address must not leave by another path.
            self.client.ip(&format!("route add unreachable default metric 9999 table {table}"))?;
            self.route_client(i)?;
        }
        Ok(())
    }

    fn route_client(&self, i: usize) -> Result<(), LabError> {
        let (dev, addr, table) = (device(i), client_addr(i), TABLE_BASE + i);
        self.client.ip(&format!("route replace default dev {dev} src {addr} table {table}"))?;
        // For unbound sockets: the earlier path wins.
        self.client.ip(&format!("route replace default dev {dev} src {addr} metric {}", 10 + i))
    }

    fn configure_server(&self) -> Result<(), LabError> {
        self.server.ip("link set lo up")?;
        self.server.ip(&format!("addr add {SERVER_ADDR}/32 dev lo"))?;
        for i in 0..self.paths.len() {
            let dev = device(i);
            self.server.ip(&format!("link set {dev} mtu {MTU} up"))?;
            self.server
                .ip(&format!("route add {}/32 dev {dev} src {SERVER_ADDR}", client_addr(i)))?;
        }
        Ok(())
    }
}

/// A network namespace owned by this process.
#[derive(Debug)]
struct Namespace {
    name: String,
}

impl Namespace {
    fn new(end: &str) -> Result<Self, LabError> {
        let name = format!("{PREFIX}{}-{end}", std::process::id());
        ip(&["netns", "add", &name])?;
        Ok(Self { name })
    }

    fn ip(&self, args: &str) -> Result<(), LabError> {
        let words: Vec<&str> = ["-n", &self.name].into_iter().chain(args.split(' ')).collect();
        ip(&words)
    }

    fn sysctl(&self, key: &str, value: &str) -> Result<(), LabError> {
        let file = format!("/proc/sys/{}", key.replace('.', "/"));
        let value = value.to_owned();
        let what = format!("set {key} in {}", self.name);
        self.inside(move || std::fs::write(file, value))?.map_err(|e| LabError::setup(what, e))
    }

    /// Opens a new TUN device in this namespace; it stays there when the caller leaves.
    fn open_tun(&self, name: &str) -> Result<SyncDevice, LabError> {
        let device = name.to_owned();
        self.inside(move || DeviceBuilder::new().name(device).enable(false).build_sync())?
            .map_err(|e| LabError::setup(format!("make the TUN device {name} in {}", self.name), e))
    }

    /// Runs `body` on a separate thread that has entered this namespace.
    fn inside<T: Send + 'static>(
        &self,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LabError> {
        let path = Path::new(NETNS_DIR).join(&self.name);
        let entered = std::thread::spawn(move || -> std::io::Result<T> {
            setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
            Ok(body())
        });
        let what = || format!("enter the namespace {}", self.name);
        match entered.join() {
            Ok(done) => done.map_err(|e| LabError::setup(what(), e)),
            Err(_) => Err(LabError::setup(what(), "the thread failed")),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove_namespace(&self.name);
    }
}

fn ip(args: &[&str]) -> Result<(), LabError> {
    let fail = |cause: String| LabError::setup(format!("run `ip {}`", args.join(" ")), cause);
    let done = Command::new("ip").args(args).output().map_err(|e| fail(e.to_string()))?;
    if done.status.success() {
        Ok(())
    } else {
        Err(fail(String::from_utf8_lossy(&done.stderr).trim().to_owned()))
    }
}

/// Ends, by id, whatever still runs in a namespace of ours, and removes the namespace.
fn remove_namespace(name: &str) {
    let pids = Command::new("ip").args(["netns", "pids", name]).output();
    let pids = pids.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    for pid in pids.split_whitespace().filter_map(|p| p.parse::<i32>().ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
}

/// Removes the namespaces of runs whose own process is gone, and ends the processes in them.
pub fn sweep() {
    for name in left_behind(Path::new(NETNS_DIR), PREFIX) {
        eprintln!("imux-lab: removing {name}, left by a run that is gone");
        remove_namespace(&name);
    }
    restore_congestion_after_crash();
    scratch::sweep();
}

const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

/// Keeps the host's original list while it is changed.
fn allowed_backup() -> PathBuf {
    PathBuf::from("/run/imuxlab-allowed-congestion-control")
}

/// Sets the default congestion control of the namespaces. They accept only what the host allows all
/// users, so the host's list is widened briefly and restored at once.
fn set_congestion(namespaces: &[&Namespace], name: &str) -> Result<(), LabError> {
    let fail = |e: std::io::Error| LabError::setup("widen the host's congestion control list", e);
    let available = "/proc/sys/net/ipv4/tcp_available_congestion_control";
    let available = std::fs::read_to_string(available).map_err(fail)?;
    if !available.split_whitespace().any(|a| a == name) {
        return Err(LabError::Usage(format!(
            "this kernel has no congestion control `{name}`; it has {}",
            available.trim()
        )));
    }
    let before = std::fs::read_to_string(ALLOWED).map_err(fail)?;
    let widen = !before.split_whitespace().any(|a| a == name);
    if widen {
        std::fs::write(allowed_backup(), &before).map_err(fail)?;
        std::fs::write(ALLOWED, format!("{} {name}", before.trim())).map_err(fail)?;
    }
    let set = namespaces.iter().try_for_each(|n| n.sysctl("net.ipv4.tcp_congestion_control", name));
    if widen {
        restore_congestion_after_crash();
    }
    set
}

fn restore_congestion_after_crash() {
    if let Ok(before) = std::fs::read_to_string(allowed_backup()) {
        let _ = std::fs::write(ALLOWED, before.trim());
        let _ = std::fs::remove_file(allowed_backup());
    }
}
