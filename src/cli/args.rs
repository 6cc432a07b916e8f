//! The options, as clap knows them, and the way from `argv` to an [`Invocation`].

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use imux::SessionLimits;
use imux::lane::Congestion;
use imux::proto::limits;
use imux::trust::{Destination, DestinationRule, Fingerprint, HostKeyPolicy, ProxyHeader};
use imux::tunnel::Dialing;

use super::address::{Endpoint, HostPort};
use super::bind::{self, BindMap, LinkPlan};
use super::config::{self, Invocation};
use super::exit::Exit;
use super::forward::{Forward, ForwardOptions};
use super::go_style::{self, Grammar};
use super::reverse::Reverse;
use super::text::escape;
use super::{identity, logging, units};

mod help;
mod key_exchange;
mod keys;
mod sockets;
mod values;

use self::help::long_help;
use self::key_exchange::KeyExchangeArgs;
use self::sockets::SocketArgs;
use self::values::{
    congestion, connect_timeout, demo_size, destination, drain_timeout, grace, listen_rule, memory,
    number, own_address, proxy_header, scheduler, server_key, window,
};

const EXAMPLES: &str = "\
Examples:
  Near the destination, take lanes on port 443 and hand what they carry to an SSH server:
    imux server --listen 0.0.0.0:443 --dial localhost:22
  At home, offer that SSH server on port 2222, over two links:
    imux client --listen localhost:2222 --dial server.example:443 \\
        --bind dev:eth0 --bind dev:wwan0
  See it work without any network:
    imux demo
  The form of earlier versions works unchanged:
    imux -server --listen=0.0.0.0:443 --dial=localhost:22
    imux -client --binds='{\"0.0.0.0\": 10}' --listen=localhost:22 --dial=server:443";

const SERVER_EXAMPLES: &str = "\
Examples:
  imux server --listen 0.0.0.0:443 --dial localhost:22
  imux server --listen '[::]:443' --dial 192.168.7.20:5432 --grace 10m
  imux server --listen 127.0.0.1:0 --dial localhost:80 --log-format json
Who may connect (any client, as long as none is listed):
  imux authorize SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDmgLVcJ1GyLlBOZnk --comment 'Anna, laptop'
  imux invite server.example:443 --dial db.example:5432";

const CLIENT_EXAMPLES: &str = "\
Examples:
  Wherever the routing table sends its lanes:
    imux client --listen localhost:2222 --dial server.example:443
  Two links by the addresses they have, one by its interface:
    imux client --listen localhost:2222 --dial server.example:443 \\
        --bind 192.168.1.2 --bind '[2001:db8::2]' --bind dev:wwan0
  Two places that the server allows this client, each at a port of its own here:
    imux client --dial server.example:443 -L 5432:db.example:5432 -L 8080:192.168.7.20:80
  A SOCKS and HTTP proxy for all places that the server allows this client:
    imux client --dial server.example:443 -D 1080
  A web server at home, at a port of the server's, which the server has to allow:
    imux client --dial server.example:443 -R 0.0.0.0:8080:localhost:80
  DSL for everything, LTE only while DSL does not answer, and never faster than 20 Mbit/s:
    imux client --listen localhost:2222 --dial server.example:443 \\
        --bind dev:eth0 --bind dev:wwan0,tier=backup,rate=20mbit
  From a script, where nobody can be asked about the server's key:
    imux client --listen localhost:2222 --dial server.example:443 \\
        --pin SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDmgLVcJ1GyLlBOZnk";

const DEMO_EXAMPLES: &str = "\
Examples:
  imux demo
  imux demo --size 256MiB
  imux demo --json --quiet";

/// One TCP connection over many TLS lanes, each on a link of your choice.
#[derive(Debug, Parser)]
#[command(name = "imux", version, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = EXAMPLES, after_long_help = long_help(EXAMPLES))]
#[command(max_term_width = 100, disable_help_subcommand = false)]
struct Cli {
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take lanes and hand the connections they carry to one destination
    #[command(after_help = SERVER_EXAMPLES, after_long_help = long_help(SERVER_EXAMPLES))]
    Server(ServerArgs),
    /// Take local connections and carry them to a server over many lanes
    #[command(after_help = CLIENT_EXAMPLES, after_long_help = long_help(CLIENT_EXAMPLES))]
    Client(ClientArgs),
    #[command(flatten)]
    Keys(keys::KeysArgs),
    /// Show it working: server, client and destination in one process, over lanes of unlike speed
    #[command(after_help = DEMO_EXAMPLES, after_long_help = long_help(DEMO_EXAMPLES))]
    Demo(DemoArgs),
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
struct Output {
    /// Log what happens to each connection and lane
    #[arg(long, global = true, display_order = 100, conflicts_with = "quiet")]
    debug: bool,
    /// Log only warnings and errors
    #[arg(long, short, global = true, display_order = 101)]
    quiet: bool,
    /// Form of the log on standard error
    #[arg(long, global = true, display_order = 102)]
    #[arg(value_enum, value_name = "FORM", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people: one line an event
    Text,
    /// For machines: one JSON object a line
    Json,
}

#[derive(Debug, Args)]
struct ServerArgs {
    /// Where lanes arrive
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:443")]
    #[arg(value_parser = HostPort::to_listen)]
    listen: HostPort,
    /// The destination that connections are handed to, or the path of its Unix socket; has to be
    /// given [default of the form of earlier versions: 127.0.0.1:443]
    #[arg(long, value_name = "HOST:PORT", value_parser = Endpoint::to_dial)]
    dial: Option<Endpoint>,
    /// Address of this machine that destinations are dialled from; given twice, one for IPv4 and
    /// one for IPv6 [default: the system's choice]
    #[arg(long, value_name = "ADDR", value_parser = own_address)]
    from: Vec<IpAddr>,
    /// Tell destinations who connects, by the PROXY protocol: where the client's first lane comes
    /// from; a line of --authorized-clients may say so for one client
    #[arg(long, value_name = "VERSION", value_parser = proxy_header)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "v2")]
    proxy_protocol: Option<ProxyHeader>,
    /// Name of the server's key, for several servers with one directory of keys
    /// [default: the directory's one server, wherever it listens]
    #[arg(long, value_name = "NAME", value_parser = identity::parse_name)]
    identity: Option<String>,
    /// List of the clients that may connect; changes count at once
    /// [default: authorized_clients in the directory of keys; any client, if there is no such
    /// file]
    #[arg(long, value_name = "FILE")]
    authorized_clients: Option<PathBuf>,
    /// File to which the audit trail is appended, a line of JSON an event: whose sessions and
    /// connections begin and end, and what strangers try; opened again at SIGHUP
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
    /// Without a list let every client in: say so where there has been one, or to have no warning
    #[arg(long)]
    allow_anyone: bool,
    /// Without a list: where the server takes connections for any client that asks for it (imux
    /// client -R), such as 0.0.0.0:8080; may be given several times [default: nowhere]
    #[arg(long, value_name = "HOST:PORT", value_parser = listen_rule)]
    allow_listen: Vec<DestinationRule>,
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    sessions: SessionLimitArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Session")]
struct SessionLimitArgs {
    /// Most sessions at once; one that has lost all its lanes gives way to a new one
    #[arg(long, value_name = "COUNT", default_value_t = count(limits::SESSIONS_MAX))]
    #[arg(value_parser = number)]
    max_sessions: u32,
    /// Of these, from one IPv4 address or IPv6 /64
    #[arg(long, value_name = "COUNT", default_value_t = count(limits::SESSIONS_PER_SOURCE_MAX))]
    #[arg(value_parser = number)]
    max_sessions_per_source: u32,
    /// Of these, with one client's key
    #[arg(long, value_name = "COUNT", default_value_t = count(limits::SESSIONS_PER_CLIENT_MAX))]
    #[arg(value_parser = number)]
    max_sessions_per_key: u32,
}

/// A limit, as an option's number.
fn count(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

impl From<SessionLimitArgs> for SessionLimits {
    fn from(args: SessionLimitArgs) -> Self {
        Self {
            all: args.max_sessions as usize,
            per_source: args.max_sessions_per_source as usize,
            per_client: args.max_sessions_per_key as usize,
        }
    }
}

#[derive(Debug, Args)]
struct ClientArgs {
    /// Where local programs connect to; this or --forward has to be given
    /// [default of the form of earlier versions: 0.0.0.0:443]
    #[arg(help_heading = "Ways in and out")]
    #[arg(long, value_name = "HOST:PORT", value_parser = Endpoint::to_listen)]
    listen: Option<Endpoint>,
    /// Where the server shall take what connects to --listen; it has to allow it
    /// [default: what the server has set]
    #[arg(help_heading = "Ways in and out")]
    #[arg(long, value_name = "HOST:PORT", value_parser = destination)]
    to: Option<Destination>,
    /// Take connections at a port here, and have the server take them to HOST:PORT, as with ssh
    /// -L; the path of a Unix socket will do for either half; may be given several times
    ///
    /// Options follow after commas: `redundant` as --redundant, for these connections alone;
    /// `proxy-protocol` has the server tell the destination who connects, by the PROXY protocol.
    #[arg(help_heading = "Ways in and out")]
    #[arg(long, short = 'L', value_name = "[ADDR:]PORT:HOST:PORT", value_parser = Forward::parse)]
    forward: Vec<Forward>,
    /// Take SOCKS5, SOCKS4a and HTTP proxy requests at a port here, and have the server take each
    /// where it says, as with ssh -D; may be given several times
    ///
    /// Options follow after commas: those of --forward, and `fast` for saying that there is a
    /// connection before the destination has answered.
    #[arg(help_heading = "Ways in and out")]
    #[arg(long, short = 'D', value_name = "[ADDR:]PORT", value_parser = Forward::parse_dynamic)]
    dynamic: Vec<Forward>,
    /// Have the server take connections at a port of its own, and take them to HOST:PORT from
    /// here, as with ssh -R; the path of a Unix socket will do for either half; the server has
    /// to allow it; may be given several times
    ///
    /// An option may follow after a comma: `proxy-protocol` tells HOST:PORT who connects, by the
    /// PROXY protocol; `proxy-protocol=v1` in its text form.
    #[arg(help_heading = "Ways in and out")]
    #[arg(long, short = 'R', value_name = "[ADDR:]PORT:HOST:PORT", value_parser = Reverse::parse)]
    reverse: Vec<Reverse>,
    /// File of lines USER:PASSWORD; who uses a port of --dynamic has to show one of them
    #[arg(help_heading = "Ways in and out")]
    #[arg(long, value_name = "FILE", requires = "dynamic")]
    proxy_auth: Option<PathBuf>,
    /// Let whoever reaches a port of --dynamic use it, where it is not for this machine alone
    #[arg(help_heading = "Ways in and out")]
    #[arg(long, requires = "dynamic", conflicts_with = "proxy_auth")]
    open: bool,
    /// Connect standard input and output to HOST:PORT at the server and end with them, as ssh -W
    /// does: for ssh's ProxyCommand
    #[arg(help_heading = "Ways in and out")]
    #[arg(long, short = 'W', value_name = "HOST:PORT", value_parser = destination)]
    #[arg(conflicts_with_all = ["listen", "to", "forward", "dynamic", "reverse"])]
    stdio: Option<Destination>,
    /// The imux server; all addresses of a name are tried; has to be given
    /// [default of the form of earlier versions: 127.0.0.1:443]
    #[arg(help_heading = "Server")]
    #[arg(long, value_name = "HOST:PORT", value_parser = HostPort::to_dial)]
    dial: Option<HostPort>,
    /// Links to make lanes over, by local address or interface: 192.168.1.2, '[2001:db8::1]',
    /// dev:eth1, or `any` for wherever the routing table sends them; may be given several
    /// times. Leave COUNT out: there are 10 lanes then, and those that are of no use rest
    ///
    /// Options follow after commas: `tier=backup` for lanes that are kept up and carry connections
    /// only while no primary lane answers; `tier=metered` for lanes that cost money by the byte
    /// and are used only when all others are lost; `tier=express` for lanes that carry what is
    /// urgent, and no bulk; `rate=20mbit` for the most that all lanes of the bind carry
    /// together, each way. The server keeps to it as well. If something small has to wait
    /// behind bulk, primary lanes get an express lane beside them, unless `express=no` is
    /// said.
    #[arg(help_heading = "Links")]
    #[arg(long, value_name = "ADDR[=COUNT][,OPTION=VALUE]…", value_parser = bind::parse_bind)]
    bind: Vec<LinkPlan>,
    /// The same as one JSON object of address to number of lanes [default: {"any": 10}]
    ///
    /// Instead of a number there may be an object: {"dev:wwan0": {"lanes": 2, "tier": "backup",
    /// "rate": "20mbit"}}.
    #[arg(help_heading = "Links")]
    #[arg(long, value_name = "JSON")]
    binds: Option<BindMap>,
    /// Send every byte of a connection, both ways, on two lanes, of two binds if there are two:
    /// for connections that want the lowest latency and may cost twice the bytes
    #[arg(help_heading = "Ways in and out")]
    #[arg(long)]
    redundant: bool,
    /// What to do about a server whose key is not known yet; a changed key is never accepted
    /// without asking
    #[arg(help_heading = "Server")]
    #[arg(long, value_enum, value_name = "POLICY", default_value = "ask")]
    host_key: HostKey,
    /// Accept only the server with this key, known or not; may be given several times
    #[arg(help_heading = "Server")]
    #[arg(long, value_name = "SHA256:HASH", value_parser = server_key, conflicts_with = "host_key")]
    pin: Vec<Fingerprint>,
    /// How long one attempt to connect a lane may take
    #[arg(help_heading = "Server")]
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    #[arg(value_parser = connect_timeout)]
    connect_timeout: Duration,
    /// Wait for a server that is away at the start, instead of ending with exit code 5: for
    /// services
    #[arg(help_heading = "Server")]
    #[arg(long)]
    keep_trying: bool,
    #[command(flatten)]
    key_exchange: KeyExchangeArgs,
    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Session")]
struct SessionArgs {
    /// How long a session that has lost all its lanes waits for one to return
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = grace)]
    grace: Duration,
    /// How long open connections may take to finish after SIGTERM; new ones are refused meanwhile
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = drain_timeout)]
    drain_timeout: Duration,
    /// TCP congestion control of the lanes, such as bbr or cubic; `default` is the system's
    /// [default: bbr where the system allows it]
    #[arg(long, value_name = "NAME", value_parser = congestion)]
    congestion: Option<Congestion>,
    /// Most bytes that may wait for the reader of one connection, such as 16MiB
    #[arg(long, value_name = "SIZE", value_parser = window)]
    window: Option<u64>,
    /// Most bytes that may wait for the readers of all connections of a session, such as 64MiB
    #[arg(long, value_name = "SIZE", value_parser = window)]
    session_window: Option<u64>,
    /// Most memory for what is kept for all peers together, such as 256MiB
    /// [default: a quarter of the machine's or the control group's memory, at most 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<u64>,
    /// How lanes are chosen
    #[arg(long, value_name = "NAME", default_value = "imux", hide = true, value_parser = scheduler)]
    scheduler: imux::SchedulerKind,
    /// Of earlier versions; has no effect
    #[arg(long, value_name = "BYTES", hide = true, value_parser = number)]
    chunk_size: Option<u32>,
    #[command(flatten)]
    sockets: SocketArgs,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// How much to send each way
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = demo_size)]
    size: u64,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// `--host-key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HostKey {
    /// Ask on the terminal; refuse where there is none
    Ask,
    /// Refuse
    Strict,
    /// Record it and go on
    AcceptNew,
}

impl From<HostKey> for HostKeyPolicy {
    fn from(policy: HostKey) -> Self {
        match policy {
            HostKey::Ask => HostKeyPolicy::Ask,
            HostKey::Strict => HostKeyPolicy::Strict,
            HostKey::AcceptNew => HostKeyPolicy::AcceptNew,
        }
    }
}

/// Why there is nothing to run: help or version was asked for, or the arguments are wrong.
#[derive(Debug)]
pub struct Early(clap::Error);

impl Early {
    /// Prints it where it belongs and says how the program shall end.
    pub fn report(&self) -> Exit {
        // Nothing can be done about a closed standard output.
        let _ = self.0.print();
        if !self.0.use_stderr() {
            return Exit::Ok;
        }
        if self.0.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            let _ = writeln!(io::stderr(), "Nothing was started.");
        }
        Exit::Usage
    }

    /// What would be printed.
    #[cfg(any(test, fuzzing))]
    pub(super) fn text(&self) -> String {
        self.0.render().to_string()
    }
}

impl From<clap::Error> for Early {
    fn from(mut error: clap::Error) -> Self {
        for kind in
            [ContextKind::InvalidValue, ContextKind::InvalidArg, ContextKind::InvalidSubcommand]
        {
            if let Some(ContextValue::String(text)) = error.get(kind) {
                let shown = ContextValue::String(escape(text));
                error.insert(kind, shown);
            }
        }
        Self(error)
    }
}

/// Reads the command line and the environment, and checks everything that can be checked before
/// anything is started.
pub fn parse(argv: impl Iterator<Item = OsString>) -> Result<Invocation, Early> {
    let home = config::home(std::env::var_os("IMUX_HOME"), std::env::home_dir());
    parse_with(argv.collect(), home)
}

pub(super) fn parse_with(argv: Vec<OsString>, home: Option<PathBuf>) -> Result<Invocation, Early> {
    let mut command = Cli::command();
    command.build();
    let form = go_style::normalise(argv, &Grammar::of(&command))
        .map_err(|error| command.error(ErrorKind::MissingSubcommand, error))?;
    // The last of several wins in the original; in the modern form a repetition is a mistake.
    let mut command = Cli::command().args_override_self(form.go_style);
    let matches = command.try_get_matches_from_mut(form.argv)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let name = matches.subcommand_name().unwrap_or_default().to_owned();
    to_invocation(cli, home, form.go_style).map_err(|problem| {
        let sub = command.find_subcommand_mut(&name);
        // What was parsed has a sub-command of that name; any command would do to print an error.
        let error = match sub {
            Some(sub) => sub.error(ErrorKind::ValueValidation, problem),
            None => clap::Error::raw(ErrorKind::ValueValidation, problem),
        };
        Early(error)
    })
}

fn to_invocation(cli: Cli, home: Option<PathBuf>, go_style: bool) -> Result<Invocation, String> {
    let mut notices = Vec::new();
    let audit = match &cli.command {
        Command::Server(args) => args.audit.clone(),
        _ => None,
    };
    let task = match cli.command {
        Command::Server(args) => {
            config::Task::Server(server_config(args, home, go_style, &mut notices)?)
        }
        Command::Client(args) => {
            config::Task::Client(client_config(args, home, go_style, &mut notices)?)
        }
        Command::Keys(args) => config::Task::Keys(args.into_config(home)?),
        Command::Demo(args) => {
            let quiet = cli.output.quiet;
            config::Task::Demo(config::DemoConfig { bytes: args.size, json: args.json, quiet })
        }
    };
    let logging = logging::Options {
        level: match (cli.output.debug, cli.output.quiet) {
            (true, _) => logging::Level::Debug,
            (_, true) => logging::Level::Quiet,
            // Its progress says what happens.
            _ if matches!(task, config::Task::Demo(_)) => logging::Level::Quiet,
            // It is a part of another program's connection.
            _ if matches!(&task, config::Task::Client(it) if it.stdio.is_some()) => {
                logging::Level::Quiet
            }
            _ => logging::Level::Normal,
        },
        json: cli.output.log_format == LogFormat::Json,
        audit,
    };
    Ok(Invocation { task, logging, notices })
}

/// What `--dial` says, or the default of the original's form. In the modern form there is none:
/// `missing` says what is.
fn dialled<T>(
    given: Option<T>,
    parse: fn(&str) -> Result<T, String>,
    go_style: bool,
    missing: &str,
) -> Result<T, String> {
    match given {
        Some(dial) => Ok(dial),
        None if go_style => parse("127.0.0.1:443"),
        None => Err(missing.to_owned()),
    }
}

const NO_DESTINATION: &str = "\
there is nowhere to hand connections to

Give --dial HOST:PORT. The shortest command that offers something, the SSH server of this machine:
    imux server --dial localhost:22";

const NO_SERVER: &str = "\
there is no server to carry connections to

Give --dial HOST:PORT. The shortest command that does something:
    imux client --listen localhost:2222 --dial server.example:443";

fn server_config(
    args: ServerArgs,
    home: Option<PathBuf>,
    go_style: bool,
    notices: &mut Vec<String>,
) -> Result<config::ServerConfig, String> {
    let given = args.dial.is_some();
    let dial = dialled(args.dial, Endpoint::to_dial, go_style, NO_DESTINATION)?;
    // Where neither was given, neither is what is wrong.
    config::check_forward(&Endpoint::Network(args.listen.clone()), &dial)
        .map_err(|problem| if given { problem } else { NO_DESTINATION.to_owned() })?;
    let from = args.from;
    if from.iter().filter(|it| it.is_ipv4()).count() > 1
        || from.iter().filter(|it| it.is_ipv6()).count() > 1
    {
        return Err("--from takes one address of IPv4 and one of IPv6".to_owned());
    }
    let dialing = Dialing { from, tell_source: args.proxy_protocol };
    let session = session_config(args.session, notices)?;
    let ServerArgs { listen, identity, authorized_clients, allow_anyone, sessions, .. } = args;
    let (sessions, listen_for_strangers) = (sessions.into(), args.allow_listen);
    Ok(config::ServerConfig {
        listen,
        dial,
        dialing,
        listen_for_strangers,
        session,
        sessions,
        identity,
        authorized_clients,
        allow_anyone,
        home,
    })
}

fn client_config(
    args: ClientArgs,
    home: Option<PathBuf>,
    go_style: bool,
    notices: &mut Vec<String>,
) -> Result<config::ClientConfig, String> {
    let given = args.dial.is_some();
    let dial = dialled(args.dial, HostPort::to_dial, go_style, NO_SERVER)?;
    let server = Endpoint::Network(dial.clone());
    let mut forwards = [args.forward, args.dynamic].concat();
    let others = args.stdio.is_some() || !args.reverse.is_empty();
    let wanted = (forwards.is_empty() && !others) || args.to.is_some();
    let listen = match args.listen {
        // The original's default. Nobody else is to find a port open to the world who did not ask
        // for one.
        None if wanted && go_style => Some(Endpoint::to_listen("0.0.0.0:443")?),
        None if wanted => return Err(nothing_to_take(args.to.as_ref())),
        listen => listen,
    };
    if let Some(listen) = listen {
        let options = ForwardOptions::default();
        forwards.insert(0, Forward { listen, to: args.to.into(), options });
    }
    let guarded = args.open || args.proxy_auth.is_some();
    if let Some(open) = forwards.iter().find(|it| it.is_open_to_others() && !guarded) {
        return Err(open_to_others(&open.listen));
    }
    for (number, forward) in forwards.iter().enumerate() {
        config::check_forward(&forward.listen, &server)
            .map_err(|problem| if given { problem } else { NO_SERVER.to_owned() })?;
        let same = |other: &&Forward| other.listen.is_same_place(&forward.listen);
        if let Some(other) = forwards[..number].iter().find(same) {
            return Err(format!(
                "connections at {} are to be taken twice, there and at {}\n\n\
                 Give each forward a port of its own.",
                forward.listen, other.listen
            ));
        }
    }
    for (number, reverse) in args.reverse.iter().enumerate() {
        if args.reverse[..number].iter().any(|other| other.listen == reverse.listen) {
            return Err(format!(
                "the server is to take connections at {} twice\n\nGive each -R a port of its own.",
                reverse.listen
            ));
        }
    }
    Ok(config::ClientConfig {
        forwards,
        reverse: args.reverse,
        stdio: args.stdio,
        proxy_auth: args.proxy_auth,
        dial,
        binds: config::binds(args.binds, args.bind)?,
        redundant: args.redundant,
        trust: if args.pin.is_empty() {
            config::Trust::KnownHosts(args.host_key.into())
        } else {
            config::Trust::Pinned(args.pin)
        },
        connect_timeout: args.connect_timeout,
        keep_trying: args.keep_trying,
        key_exchange: args.key_exchange.get(),
        session: session_config(args.session, notices)?,
        home,
    })
}

/// A proxy for whoever reaches it.
fn open_to_others(listen: &Endpoint) -> String {
    format!(
        "who reaches {listen} could go wherever the server lets this client go\n\n\
         Give --proxy-auth FILE with lines USER:PASSWORD, or take connections of this machine only, with the port alone; if \
         anybody may use it, say --open."
    )
}

/// A client that would take no connections.
fn nothing_to_take(to: Option<&Destination>) -> String {
    let place = to.map_or_else(|| "HOST:PORT".to_owned(), ToString::to_string);
    format!(
        "there is nothing that takes connections here\n\n\
         Give --listen HOST:PORT, such as --listen localhost:2222, or -L PORT:{place}, such as -L 5432:{place}, or -D PORT, such \
         as -D 1080, or -R PORT:HOST:PORT for connections that the server takes."
    )
}

fn session_config(
    args: SessionArgs,
    notices: &mut Vec<String>,
) -> Result<config::SessionConfig, String> {
    if args.chunk_size.is_some() {
        notices.push(
            "--chunk-size has no effect any more: sizes follow the lanes; it can be left out"
                .to_owned(),
        );
    }
    let all = args.session_window.unwrap_or(imux::Config::default().session_window);
    if let Some(one) = args.window
        && one > all
    {
        return Err(format!(
            "--window ({}) is larger than --session-window ({}), which bounds all connections \
             together; raise the one or lower the other",
            units::bytes(one),
            units::bytes(all)
        ));
    }
    Ok(config::SessionConfig {
        grace: args.grace,
        congestion: args.congestion.unwrap_or_default(),
        window: args.window,
        session_window: args.session_window,
        memory: args.memory,
        scheduler: args.scheduler,
        drain_timeout: args.drain_timeout,
        sockets: args.sockets.into(),
    })
}

#[cfg(test)]
mod tests;
