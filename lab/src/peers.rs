//! The contenders: how each starts between the two namespaces, and where its entry is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::clock::{self, now_ns};
use super::error::LabError;
use super::handed::{Redirect, authorize};
use super::proc::{Place, Process, established_to, find_imux, find_program, wait_listening};
use super::scratch::Scratch;
use super::tls_pair::{Ends, TlsPair};
use super::topology::{PathSpec, SERVER_ADDR, Topology, client_addr, device};

/// Where the sink listens, in the server's namespace.
pub const SINK_PORT: u16 = 9000;
/// Where a tunnel's server listens.
const TUNNEL_PORT: u16 = 4430;
/// Where a tunnel's client accepts the load.
const ENTRY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);
/// The lab reads imux's closing report on each session from its log.
const LOGGED: &str = "--debug --log-format json";
/// After imux's name: the kernel hands it the load.
const TRANSPARENT: &str = "-transparent";
const READY_LIMIT: Duration = Duration::from_secs(15);
/// After this long the run starts even with lanes missing, and shows what that is like.
const LANES_LIMIT: Duration = Duration::from_secs(6);

/// Time from connected lanes to lanes in use: handshakes over the longest paths.
const SETTLE: Duration = Duration::from_millis(600);

/// A contender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Kernel TCP on one path; `None`: the best one.
    Tcp(Option<usize>),
    /// Kernel MPTCP over all paths.
    Mptcp,
    /// aggligator's `agg-tunnel`.
    Aggligator,
    /// Two proxies with TLS between them, on the best path.
    TlsPair(TlsPair),
    /// The original imux, written in Go, with this many lanes per path.
    GoImux(u16),
    /// imux with this many lanes per path, and extra arguments for its client.
    Imux {
        /// Lanes per path.
        lanes: u16,
        /// Connections are handed to it by the kernel, instead of made to its port.
        transparent: bool,
        /// A program other than the default, to compare builds.
        program: Option<PathBuf>,
    },
    /// The simulator's imux with this many lanes per path, on the simulator's network.
    Simulated(u16),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(None) => write!(f, "tcp"),
            Self::Tcp(Some(path)) => write!(f, "tcp{path}"),
            Self::Mptcp => write!(f, "mptcp"),
            Self::Aggligator => write!(f, "agg"),
            Self::TlsPair(pair) => write!(f, "{pair}"),
            Self::GoImux(lanes) => write!(f, "goimux:{lanes}"),
            Self::Imux { lanes, transparent, program } => {
                write!(f, "imux{}", if *transparent { TRANSPARENT } else { "" })?;
                if *lanes != 1 {
                    write!(f, ":{lanes}")?;
                }
                program.as_ref().map_or(Ok(()), |p| write!(f, "@{}", p.display()))
            }
            Self::Simulated(1) => write!(f, "sim"),
            Self::Simulated(lanes) => write!(f, "sim:{lanes}"),
        }
    }
}

impl FromStr for Peer {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Self, LabError> {
        let wrong = || {
            LabError::Usage(format!(
                "no contender `{text}`; there are tcp (best path), tcpN (path N), mptcp, agg, \
                 haproxy, stunnel, goimux[:LANES], imux[:LANES][@PROGRAM], \
                 imux-transparent[:LANES][@PROGRAM] and sim[:LANES]"
            ))
        };
        let lanes = |text: &str| match text.strip_prefix(':') {
            Some(number) => number.parse().ok().filter(|n| *n > 0).ok_or_else(wrong),
            None if text.is_empty() => Ok(1),
            None => Err(wrong()),
        };
        match text {
            "tcp" => return Ok(Self::Tcp(None)),
            "mptcp" => return Ok(Self::Mptcp),
            "agg" => return Ok(Self::Aggligator),
            _ => {}
        }
        if let Ok(pair) = text.parse() {
            return Ok(Self::TlsPair(pair));
        }
        if let Some(path) = text.strip_prefix("tcp") {
            return path.parse().map(|p| Self::Tcp(Some(p))).map_err(|_| wrong());
        }
        if let Some(rest) = text.strip_prefix("goimux") {
            return lanes(rest).map(Self::GoImux);
        }
        if let Some(rest) = text.strip_prefix("sim") {
            return lanes(rest).map(Self::Simulated);
        }
        let rest = text.strip_prefix("imux").ok_or_else(wrong)?;
        let (transparent, rest) = match rest.strip_prefix(TRANSPARENT) {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let (number, program) = match rest.split_once('@') {
            Some((number, program)) => (number, Some(PathBuf::from(program))),
            None => (rest, None),
        };
        Ok(Self::Imux { lanes: lanes(number)?, transparent, program })
    }
}

/// A contender ready for load: where and how the load connects, and the processes in between.
#[derive(Debug)]
pub struct Ready {
    /// Where the load connects.
    pub target: SocketAddr,
    /// The address it connects from.
    pub source: Option<IpAddr>,
    /// Whether to use MPTCP sockets.
    pub mptcp: bool,
    /// The contender's processes.
    pub processes: Vec<Process>,
    /// The rules that hand the load to it, if it takes it so.
    pub redirect: Option<Redirect>,
}

/// External programs and their arguments.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    /// The imux program, if given.
    pub imux: Option<PathBuf>,
    /// The original imux, if given.
    pub go_imux: Option<PathBuf>,
    /// More arguments for every `imux client`.
    pub imux_client_args: Vec<String>,
    /// More arguments for every `imux server`.
    pub imux_server_args: Vec<String>,
}

/// The path with the highest rate; among equals the one with the least delay, then the first.
#[must_use]
pub fn best_path(paths: &[PathSpec]) -> usize {
    let better = |a: &PathSpec, b: &PathSpec| {
        a.mbit > b.mbit || (a.mbit.total_cmp(&b.mbit).is_eq() && a.rtt_ms < b.rtt_ms)
    };
    (1..paths.len()).fold(0, |best, i| if better(&paths[i], &paths[best]) { i } else { best })
}

impl Peer {
    /// Whether it leaves this machine untouched.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        matches!(self, Self::Simulated(_))
    }

    /// Fails with what is missing, unless this contender can run here.
    pub fn check(&self, programs: &Programs) -> Result<(), LabError> {
        match self {
            Self::Tcp(_) | Self::Simulated(_) => Ok(()),
            Self::Mptcp => match std::fs::read_to_string("/proc/sys/net/mptcp/enabled") {
                Ok(_) => Ok(()),
                Err(_) => Err(LabError::Unsupported("this kernel has no MPTCP".to_owned())),
            },
            _ => self.program(programs).map(drop),
        }
    }

    fn program(&self, programs: &Programs) -> Result<PathBuf, LabError> {
        let (found, program, fix) = match self {
            Self::Tcp(_) | Self::Mptcp | Self::Simulated(_) => (None, "", ""),
            Self::Aggligator => {
                let fix =
                    "install it with `cargo install --locked aggligator-util`, or leave `agg` out";
                (find_program("agg-tunnel"), "agg-tunnel", fix)
            }
            Self::TlsPair(pair) => (pair.program(), pair.name(), "install it, or leave it out"),
            Self::GoImux(_) => {
                let found = programs.go_imux.clone().or_else(|| find_program("imux-go"));
                (found, "imux-go", "name the program with --go-imux, or leave `goimux` out")
            }
            Self::Imux { program, .. } => {
                let told = program.as_deref().or(programs.imux.as_deref());
                (find_imux(told), "imux", "build it beside this program, or name it with --imux")
            }
        };
        found.ok_or_else(|| LabError::MissingProgram {
            program: program.to_owned(),
            fix: fix.to_owned(),
        })
    }

    /// Starts everything between load and sink, and waits until it is ready.
    pub fn start(
        &self,
        topology: &Topology,
        programs: &Programs,
        scratch: &Scratch,
    ) -> Result<Ready, LabError> {
        let sink = SocketAddr::from((SERVER_ADDR, SINK_PORT));
        let best = best_path(topology.paths());
        let direct = |path: usize, mptcp: bool| Ready {
            target: sink,
            source: Some(client_addr(path).into()),
            mptcp,
            processes: Vec::new(),
            redirect: None,
        };
        match self {
            Self::Tcp(path) => Ok(direct(path.unwrap_or(best), false)),
            Self::Mptcp => {
                topology.client_ip("mptcp limits set subflow 8 add_addr_accepted 8")?;
                topology.server_ip("mptcp limits set subflow 8 add_addr_accepted 8")?;
                for i in 0..topology.paths().len() {
                    let (addr, dev) = (client_addr(i), device(i));
                    topology.client_ip(&format!("mptcp endpoint add {addr} dev {dev} subflow"))?;
                }
                Ok(direct(best, true))
            }
            Self::TlsPair(pair) => {
                let ends = Ends {
                    client: &topology.client(),
                    server: &topology.server(),
                    entry: ENTRY,
                    middle: SocketAddr::from((SERVER_ADDR, TUNNEL_PORT)),
                    sink: SocketAddr::from((Ipv4Addr::LOCALHOST, SINK_PORT)),
                    source: Some(client_addr(best).into()),
                };
                let processes = pair.start(&self.program(programs)?, &ends, scratch)?;
                Ok(Ready { target: ENTRY, source: None, mptcp: false, processes, redirect: None })
            }
            Self::Aggligator | Self::GoImux(_) | Self::Imux { .. } => {
                let program = self.program(programs)?;
                self.start_tunnel(&program, topology, programs, scratch)
            }
            Self::Simulated(_) => {
                Err(LabError::Unsupported("the simulator runs on no kernel's network".to_owned()))
            }
        }
    }

    fn start_tunnel(
        &self,
        program: &Path,
        topology: &Topology,
        programs: &Programs,
        scratch: &Scratch,
    ) -> Result<Ready, LabError> {
        let paths = topology.paths().len();
        let start = |end: &str, place: &Place, args: &[String]| {
            let home = scratch.file(&format!("home-{end}"));
            std::fs::create_dir_all(&home)
                .map_err(|e| LabError::setup("make a home directory", e))?;
            let home = home.display().to_string();
            let env = [("HOME".to_owned(), home.clone()), ("IMUX_HOME".to_owned(), home)];
            let log = scratch.file(&format!("{end}.log"));
            Process::start(&format!("{self} {end}"), place, program, args, &env, Some(&log))
        };
        let (server_args, client_args) = self.tunnel_args(paths, programs);
        let sink = SocketAddr::from((SERVER_ADDR, SINK_PORT));
        let transparent = matches!(self, Self::Imux { transparent: true, .. });
        let mut redirect = None;
        if transparent {
            authorize(program, &[&sink.to_string()], scratch)?;
            redirect = Some(Redirect::new(topology.client(), sink, ENTRY)?);
        }
        let mut server = start("server", &topology.server(), &server_args)?;
        wait_listening(&mut server, SocketAddr::from((SERVER_ADDR, TUNNEL_PORT)), READY_LIMIT)?;
        let mut client = start("client", &topology.client(), &client_args)?;
        wait_listening(&mut client, ENTRY, READY_LIMIT)?;
        self.wait_lanes(&mut client, paths)?;
        let target = if transparent { sink } else { ENTRY };
        let processes = vec![server, client];
        Ok(Ready { target, source: None, mptcp: false, processes, redirect })
    }

    fn tunnel_args(&self, paths: usize, programs: &Programs) -> (Vec<String>, Vec<String>) {
        let listen = format!("{SERVER_ADDR}:{TUNNEL_PORT}");
        let sink = format!("127.0.0.1:{SINK_PORT}");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        match self {
            Self::Tcp(_) | Self::Mptcp | Self::TlsPair(_) | Self::Simulated(_) => {
                (Vec::new(), Vec::new())
            }
            Self::Aggligator => (
                words(&format!("server --no-monitor --tcp {TUNNEL_PORT} --port {SINK_PORT}")),
                words(&format!(
                    "client --no-monitor --ipv4 --tcp-link-filter interface-ip \
                     --port {SINK_PORT}:{} --tcp {listen}",
                    ENTRY.port()
                )),
            ),
            Self::GoImux(lanes) => {
                let binds: Vec<String> =
                    (0..paths).map(|i| format!("\"{}\":{lanes}", client_addr(i))).collect();
                let mut client = words(&format!("-client --listen={ENTRY} --dial={listen}"));
                client.push(format!("--binds={{{}}}", binds.join(",")));
                (words(&format!("-server --listen={listen} --dial={sink}")), client)
            }
            Self::Imux { lanes, transparent, .. } => {
                let taking = if *transparent { "--transparent" } else { "--listen" };
                let mut server = words(&format!("server {LOGGED} --listen {listen} --dial {sink}"));
                server.extend(programs.imux_server_args.iter().cloned());
                let mut client = words(&format!(
                    "client {LOGGED} {taking} {ENTRY} --dial {listen} --host-key accept-new"
                ));
                for i in 0..paths {
                    client.extend(["--bind".to_owned(), format!("{}={lanes}", client_addr(i))]);
                }
                client.extend(programs.imux_client_args.iter().cloned());
                (server, client)
            }
        }
    }

    /// Waits for lanes that stay open between connections; aggligator opens new ones for each.
    fn wait_lanes(&self, client: &mut Process, paths: usize) -> Result<(), LabError> {
        let per_path = match self {
            Self::Imux { lanes, .. } | Self::GoImux(lanes) => usize::from(*lanes),
            _ => 0,
        };
        let deadline = now_ns() + LANES_LIMIT.as_nanos() as u64;
        while established_to(client.pid(), TUNNEL_PORT) < per_path * paths && now_ns() < deadline {
            client.check_alive()?;
            clock::sleep(Duration::from_millis(10))?;
        }
        // The last lanes' handshakes; an early death is clearer here than as a refused connection.
        clock::sleep(SETTLE)?;
        client.check_alive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        let imux = ["imux", "imux:10", "imux:2@/x/imux", "imux-transparent:3", "sim", "sim:10"];
        for name in ["tcp", "tcp3", "mptcp", "agg", "haproxy", "stunnel", "goimux:4"]
            .into_iter()
            .chain(imux)
        {
            assert_eq!(name.parse::<Peer>().unwrap().to_string(), name);
        }
        for bad in ["", "tcpx", "imux:0", "imux10", "mptcp2", "goimux:", "sim3"] {
            assert_eq!(bad.parse::<Peer>().unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn the_best_path_is_the_widest_then_the_shortest() {
        let p = PathSpec::new;
        assert_eq!(best_path(&[p(10.0, 5.0), p(50.0, 90.0), p(50.0, 80.0)]), 2);
        assert_eq!(best_path(&[p(50.0, 5.0), p(50.0, 5.0)]), 0);
    }
}
