//! What to run: the validated configuration, independent of how it was written.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use imux::lane::{BindSource, Congestion};
use imux::trust::{
    AuthorizedClient, Destination, DestinationRule, Fingerprint, Grant, HostKeyPolicy, Invitation,
};
use imux::tunnel::{Dialing, SocketOptions};
use imux::{SchedulerKind, SessionLimits};

use super::address::{Endpoint, HostPort};
use super::bind::{self, BindArg, BindMap, Binds, LinkPlan};
use super::control::{Change, GatewayRequest};
use super::exit::{Exit, Failure};
use super::forward::Forward;
use super::logging;
use super::reverse::Reverse;

/// One run of the program.
#[derive(Debug)]
pub struct Invocation {
    pub task: Task,
    pub logging: logging::Options,
    /// What the user should know about the given options; logged once, as notices.
    pub notices: Vec<String>,
}

#[derive(Debug)]
pub enum Task {
    Server(ServerConfig),
    Client(ClientConfig),
    Demo(DemoConfig),
    Keys(KeysConfig),
    Gateway(GatewayConfig),
    Init(InitConfig),
    /// Hold what delivers datagrams to a gateway.
    HoldDelivery,
    File(FileConfig),
    /// Have what runs by a file read it again; the home is as in [`ServerConfig`].
    Reload(Option<PathBuf>),
    /// Print this, and end.
    Print(String),
    Status(StatusConfig),
    /// Show live what they do.
    Top(TopConfig),
}

impl Task {
    /// Whether SIGHUP makes the task reload what it can; it ends any other task.
    pub fn reloads(&self) -> bool {
        matches!(self, Task::Server(_) | Task::Client(_) | Task::File(_))
    }

    /// How long open connections may take to finish when a signal asks for the end.
    pub fn drain_timeout(&self) -> Duration {
        match self {
            Task::Server(ServerConfig { session, .. })
            | Task::Client(ClientConfig { session, .. }) => session.drain_timeout,
            Task::File(config) => config.drain_timeout(),
            Task::Demo(_)
            | Task::Keys(_)
            | Task::Gateway(_)
            | Task::Init(_)
            | Task::HoldDelivery
            | Task::Reload(_)
            | Task::Print(_)
            | Task::Status(_)
            | Task::Top(_) => Duration::ZERO,
        }
    }
}

/// Where servers and clients stand, and what counts beside it.
#[derive(Clone, Debug)]
pub struct Origin {
    pub file: PathBuf,
    /// Options of the command line, which count instead of the file's.
    pub over: Vec<String>,
    /// As in [`ServerConfig`].
    pub home: Option<PathBuf>,
}

/// Servers and clients that one process is.
#[derive(Debug)]
pub struct FileConfig {
    pub origin: Origin,
    pub logging: logging::Options,
    /// Together not empty.
    pub servers: Vec<ServerConfig>,
    pub clients: Vec<ClientConfig>,
}

impl FileConfig {
    fn drain_timeout(&self) -> Duration {
        let sessions = self.servers.iter().map(|it| &it.session);
        let sessions = sessions.chain(self.clients.iter().map(|it| &it.session));
        sessions.map(|it| it.drain_timeout).max().unwrap_or_default()
    }
}

#[derive(Debug)]
pub struct ServerConfig {
    pub listen: HostPort,
    pub dial: Endpoint,
    pub dialing: Dialing,
    /// Where connections are accepted for unknown clients.
    pub listen_for_strangers: Vec<DestinationRule>,
    pub session: SessionConfig,
    pub sessions: SessionLimits,
    pub web: Option<WebConfig>,
    /// The name of its key, if it is not the directory's only server.
    pub identity: Option<String>,
    /// The list of authorised clients, if it is not in `home`.
    pub authorized_clients: Option<PathBuf>,
    /// Without a list any client may connect, even if there used to be one.
    pub allow_anyone: bool,
    /// Directory of keys; None if neither IMUX_HOME nor a home directory is known.
    pub home: Option<PathBuf>,
}

#[derive(Debug)]
pub struct ClientConfig {
    /// Empty only if `stdio` or `reverse` is set.
    pub forwards: Vec<Forward>,
    /// Where the server accepts connections for this client.
    pub reverse: Vec<Reverse>,
    /// Where standard input and output lead.
    pub stdio: Option<Destination>,
    /// The file of those who may use ports for all destinations.
    pub proxy_auth: Option<PathBuf>,
    pub dial: HostPort,
    /// Not empty; no source twice; at most [`bind::LANES_MAX`] lanes in all.
    pub binds: Binds,
    /// Send every byte on two lanes.
    pub redundant: bool,
    pub trust: Trust,
    pub connect_timeout: Duration,
    /// Wait for a server that is away at the start.
    pub keep_trying: bool,
    pub key_exchange: KeyExchange,
    pub session: SessionConfig,
    pub web: Option<WebConfig>,
    /// As in [`ServerConfig`].
    pub home: Option<PathBuf>,
}

/// Where a process shows what it does over HTTP.
#[derive(Debug)]
pub struct WebConfig {
    /// An address of this machine alone, unless there is a token.
    pub listen: HostPort,
    /// The file with the token.
    pub token: Option<PathBuf>,
}

/// A command about which of the machine's traffic a client takes.
#[derive(Debug)]
pub struct GatewayConfig {
    pub request: GatewayRequest,
    /// As in [`ServerConfig`].
    pub home: Option<PathBuf>,
}

/// What `imux init` is to set up, and how.
#[derive(Debug)]
pub struct InitConfig {
    pub role: InitRole,
    /// Whether to write a systemd unit; None leaves it to be asked, as in all that follows.
    pub unit: Option<bool>,
    /// What would be proposed counts where nothing is said.
    pub yes: bool,
    pub force: bool,
    pub print: bool,
    /// As in [`ServerConfig`].
    pub home: Option<PathBuf>,
}

#[derive(Debug)]
pub enum InitRole {
    Server(InitServer),
    Client(InitClient),
}

#[derive(Debug)]
pub struct InitServer {
    /// How clients reach it.
    pub server: Option<HostPort>,
    /// None: at the port of `server`.
    pub listen: Option<HostPort>,
    /// What its first client may reach; empty if that is to be asked.
    pub dial: Vec<DestinationRule>,
    /// Who that is.
    pub comment: Option<String>,
}

#[derive(Debug)]
pub struct InitClient {
    pub introduction: Introduction,
    /// Options of `imux client`, checked with the file; empty if they are to be asked.
    pub bind: Vec<String>,
    pub ways: Vec<String>,
}

/// How client and server come to know each other.
#[derive(Debug)]
pub enum Introduction {
    Invited(Box<Invitation>),
    /// By an invitation from the terminal or standard input.
    ToBeRead,
    /// They do already, or it needs no more than the server's key.
    Known {
        server: HostPort,
        pins: Vec<String>,
    },
}

/// A command about what running processes do.
#[derive(Debug)]
pub struct StatusConfig {
    pub command: StatusCommand,
    /// The one process that is meant; None means all.
    pub process: Option<u32>,
    /// As in [`ServerConfig`].
    pub home: Option<PathBuf>,
}

#[derive(Debug)]
pub struct TopConfig {
    /// As in [`StatusConfig`].
    pub process: Option<u32>,
    /// As in [`ServerConfig`].
    pub home: Option<PathBuf>,
}

#[derive(Debug)]
pub enum StatusCommand {
    /// Print what they do, once or each second.
    Show { json: bool, watch: bool },
    /// Have one do something differently.
    Change(Change),
}

/// A command about keys and who may connect.
#[derive(Debug)]
pub struct KeysConfig {
    pub command: KeysCommand,
    pub json: bool,
    /// As in [`ServerConfig`].
    pub home: Option<PathBuf>,
}

#[derive(Debug)]
pub enum KeysCommand {
    /// Show the client's key, or a server's.
    Identity { server: Option<ServerKey> },
    /// Prepare the next key of a server, or change to it.
    RotateKey { server: ServerKey, switch: bool },
    /// List a client.
    Authorize { file: Option<PathBuf>, client: AuthorizedClient },
    /// Take a client off the list.
    Revoke { file: Option<PathBuf>, client: Fingerprint },
    /// Make an invitation to the server reached at `server`, which has this key.
    Invite {
        file: Option<PathBuf>,
        server: HostPort,
        key: ServerKey,
        grant: Grant,
        expires: Duration,
        comment: String,
    },
    /// Accept one; None means to read it from standard input.
    Accept {
        invitation: Option<Invitation>,
        bind: Option<BindSource>,
        connect_timeout: Duration,
        key_exchange: KeyExchange,
    },
}

/// How a client agrees on keys with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyExchange {
    /// X25519MLKEM768.
    PostQuantum,
    /// X25519 alone.
    Classical,
}

/// Which server's key is meant: the one with this name, of the server that listens there, or the
/// only one.
#[derive(Debug, Default)]
pub struct ServerKey {
    pub identity: Option<String>,
    pub listen: Option<HostPort>,
}

/// How a client decides about the server's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// By known_hosts, with this policy for servers not in it.
    KnownHosts(HostKeyPolicy),
    /// One of these keys and no other; not empty.
    Pinned(Vec<Fingerprint>),
}

/// What client and server each decide about a session.
#[derive(Debug)]
pub struct SessionConfig {
    pub grace: Duration,
    pub congestion: Congestion,
    /// Bytes that may wait for one stream's reader; None leaves it to the library.
    pub window: Option<u64>,
    /// Bytes that may wait for the readers of all streams; None leaves it to the library.
    pub session_window: Option<u64>,
    /// Bytes kept for all peers together; None leaves it to the library.
    pub memory: Option<u64>,
    pub scheduler: SchedulerKind,
    /// How long open connections may take to finish once the program is told to end.
    pub drain_timeout: Duration,
    pub sockets: SocketOptions,
}

#[derive(Debug)]
pub struct DemoConfig {
    /// Bytes to send each way.
    pub bytes: u64,
    pub json: bool,
    /// No progress, only the result.
    pub quiet: bool,
}

/// The directory of keys and known servers.
pub fn home(imux_home: Option<OsString>, user_home: Option<PathBuf>) -> Option<PathBuf> {
    let set = |path: &PathBuf| !path.as_os_str().is_empty();
    let chosen = imux_home.map(PathBuf::from).filter(set);
    chosen.or_else(|| user_home.filter(set).map(|home| home.join(".imux")))
}

/// The directory of keys, or why there is none.
pub fn require_home(home: Option<&Path>) -> Result<&Path, Failure> {
    home.ok_or_else(|| {
        Failure::message(
            Exit::Config,
            "there is no place for keys: neither IMUX_HOME nor a home directory is set; \
             nothing was started; set IMUX_HOME to a directory only you can read, or give a client \
             the server's key with --pin",
        )
    })
}

/// Refuses a forward that would connect to itself forever.
pub fn check_forward(listen: &Endpoint, dial: &Endpoint) -> Result<(), String> {
    if listen.is_reached_by(dial) {
        return Err(format!(
            "--listen {listen} and --dial {dial} are the same place: imux would forward to itself\n\n\
             Give --dial the address of something else, or --listen another port."
        ));
    }
    Ok(())
}

/// All binds, those of `--binds` first; if there are none, ten lanes wherever the routing table
/// sends them. And `--bind auto`.
pub fn binds(map: Option<BindMap>, list: Vec<BindArg>) -> Result<Binds, String> {
    let mut links = map.map(|map| map.0).unwrap_or_default();
    let mut auto = None;
    for bind in list {
        match bind {
            BindArg::Link(link) => links.push(link),
            BindArg::Auto(_) if auto.is_some() => {
                return Err(
                    "`--bind auto` is given twice; one says what all of them may carry, as \
                            in auto,tier=wwan*=backup"
                        .to_owned(),
                );
            }
            BindArg::Auto(plan) => auto = Some(plan),
        }
    }
    if links.is_empty() && auto.is_none() {
        links.push(LinkPlan::new(BindSource::Any, bind::LANES_DEFAULT));
    }
    bind::check_all(&links)?;
    Ok(Binds { links, auto })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_directory() {
        let user = || Some(PathBuf::from("/home/u"));
        assert_eq!(home(None, user()), Some("/home/u/.imux".into()));
        assert_eq!(home(Some("/keys".into()), user()), Some("/keys".into()));
        assert_eq!(home(Some("".into()), user()), Some("/home/u/.imux".into()));
        assert_eq!(home(None, Some("".into())), None);
        assert_eq!(home(None, None), None);
        assert_eq!(require_home(user().as_deref()).unwrap(), Path::new("/home/u"));
        assert_eq!(require_home(None).unwrap_err().exit, Exit::Config);
    }
}
