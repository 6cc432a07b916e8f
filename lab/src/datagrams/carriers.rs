//! What carries the datagrams.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::helpers::{HELPER_LIMIT, words};
use crate::clock::{self, now_ns};
use crate::error::LabError;
use crate::handed::authorize;
use crate::peers::SINK_PORT;
use crate::proc::{Helper, Place, Process, established_to, find_imux, wait_listening};
use crate::scratch::Scratch;
use crate::topology::{SERVER_ADDR, Topology, client_addr};

/// Where datagrams are sent back, in the server's namespace.
const ECHO_PORT: u16 = 9001;
/// Where iperf3 listens there.
pub(super) const IPERF_PORT: u16 = 9002;
const TUNNEL_PORT: u16 = 4430;
const ENTRY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);
const IPERF_ENTRY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5001);
/// Lanes of each path.
const LANES: usize = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Carrier {
    /// Nobody: UDP on one path.
    Plain(usize),
    /// imux over all paths; `redundant`: each datagram on two lanes.
    Imux { redundant: bool },
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(path) => write!(f, "plain UDP, path {path}"),
            Self::Imux { redundant: false } => write!(f, "imux"),
            Self::Imux { redundant: true } => write!(f, "imux, redundant"),
        }
    }
}

/// Ready for load.
#[derive(Debug)]
pub(super) struct Carrying {
    /// Where datagrams go.
    pub(super) datagrams: SocketAddr,
    /// Where bulk goes, to the lab's sink.
    pub(super) bulk: SocketAddr,
    /// Where iperf3 goes.
    pub(super) iperf: SocketAddr,
    pub(super) source: Option<IpAddr>,
    /// Ended when dropped.
    pub(super) processes: Vec<Process>,
}

/// Sends datagrams back, at all addresses.
pub(super) fn start_echo(place: &Place) -> Result<Helper, LabError> {
    let args = words(&["datagram-echo", "--listen", &format!("0.0.0.0:{ECHO_PORT}")]);
    let mut echo = Helper::start("echo", place, &args)?;
    echo.hear(HELPER_LIMIT)?;
    Ok(echo)
}

impl Carrier {
    pub(super) fn start(
        &self,
        topology: &Topology,
        imux: Option<&Path>,
        scratch: &Scratch,
    ) -> Result<Carrying, LabError> {
        let redundant = match *self {
            Self::Plain(path) => {
                let at = |port| SocketAddr::from((SERVER_ADDR, port));
                let source = Some(client_addr(path).into());
                let (datagrams, bulk, iperf) = (at(ECHO_PORT), at(SINK_PORT), at(IPERF_PORT));
                return Ok(Carrying { datagrams, bulk, iperf, source, processes: Vec::new() });
            }
            Self::Imux { redundant } => redundant,
        };
        let places = Places {
            client: topology.client(),
            server: topology.server(),
            middle: SocketAddr::from((SERVER_ADDR, TUNNEL_PORT)),
            binds: (0..topology.paths().len()).map(|path| client_addr(path).into()).collect(),
        };
        let how = if redundant { ",redundant" } else { "" };
        start_imux(&places, how, imux, scratch)
    }
}

/// Where the two ends of imux are, and how they reach each other.
pub(super) struct Places {
    pub(super) client: Place,
    pub(super) server: Place,
    pub(super) middle: SocketAddr,
    pub(super) binds: Vec<IpAddr>,
}

/// imux with ways for the load, bulk and iperf3; `how`: the datagrams' forward.
pub(super) fn start_imux(
    places: &Places,
    how: &str,
    imux: Option<&Path>,
    scratch: &Scratch,
) -> Result<Carrying, LabError> {
    let program = find_imux(imux).ok_or_else(|| LabError::MissingProgram {
        program: "imux".to_owned(),
        fix: "build it beside this program, or name it with --imux".to_owned(),
    })?;
    let (to, sink) = (format!("127.0.0.1:{ECHO_PORT}"), format!("127.0.0.1:{SINK_PORT}"));
    let iperf = format!("127.0.0.1:{IPERF_PORT}");
    authorize(&program, &[&sink, &iperf, &format!("udp:{to}"), &format!("udp:{iperf}")], scratch)?;
    let start = |end: &str, place: &Place, args: &[String]| {
        let home = scratch.file(&format!("home-{end}")).display().to_string();
        let log = scratch.file(&format!("{end}.log"));
        let env = [("IMUX_HOME".to_owned(), home)];
        Process::start(&format!("imux {end}"), place, &program, args, &env, Some(&log))
    };
    let middle = places.middle.to_string();
    let server_args = words(&["server", "--listen", &middle, "--dial", &sink]);
    let mut server = start("server", &places.server, &server_args)?;
    wait_listening(&mut server, places.middle, HELPER_LIMIT)?;
    let mut args = words(&["client", "--dial", &middle, "--host-key", "accept-new"]);
    args.extend(words(&["--listen", &ENTRY.to_string(), "-L", &format!("udp:{ENTRY}:{to}{how}")]));
    args.extend(words(&["-L", &format!("{IPERF_ENTRY}:{iperf}")]));
    args.extend(words(&["-L", &format!("udp:{IPERF_ENTRY}:{iperf}{how}")]));
    args.extend(places.binds.iter().map(|bind| format!("--bind={bind}={LANES}")));
    let mut client = start("client", &places.client, &args)?;
    wait_listening(&mut client, ENTRY, HELPER_LIMIT)?;
    let deadline = now_ns() + HELPER_LIMIT.as_nanos() as u64;
    let lanes = LANES * places.binds.len();
    while established_to(client.pid(), places.middle.port()) < lanes && now_ns() < deadline {
        client.check_alive()?;
        clock::sleep(Duration::from_millis(10))?;
    }
    // The last lanes' handshakes.
    clock::sleep(Duration::from_millis(600))?;
    client.check_alive()?;
    let processes = vec![server, client];
    Ok(Carrying { datagrams: ENTRY, bulk: ENTRY, iperf: IPERF_ENTRY, source: None, processes })
}

/// Two relays of socat, one at each end, as imux has two: no encryption, no lanes.
pub(super) fn start_socat(program: &Path) -> Result<Carrying, LabError> {
    let between = SocketAddr::from((Ipv4Addr::LOCALHOST, TUNNEL_PORT));
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, ECHO_PORT));
    let relay = |from: SocketAddr, to: SocketAddr| {
        let args = words(&[
            &format!("UDP4-LISTEN:{},bind={}", from.port(), from.ip()),
            &format!("UDP4:{to}"),
        ]);
        Process::start("socat", &Place::Host, program, &args, &[], None)
    };
    let processes = vec![relay(between, to)?, relay(ENTRY, between)?];
    clock::sleep(Duration::from_millis(300))?;
    Ok(Carrying { datagrams: ENTRY, bulk: ENTRY, iperf: ENTRY, source: None, processes })
}

/// imux on loopback.
pub(super) fn start_on_loopback(
    imux: Option<&Path>,
    scratch: &Scratch,
) -> Result<Carrying, LabError> {
    let places = Places {
        client: Place::Host,
        server: Place::Host,
        middle: SocketAddr::from((Ipv4Addr::LOCALHOST, TUNNEL_PORT)),
        binds: vec![Ipv4Addr::LOCALHOST.into()],
    };
    start_imux(&places, "", imux, scratch)
}
