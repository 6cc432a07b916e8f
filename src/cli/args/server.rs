//! `imux server`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use imux::SessionLimits;
use imux::proto::limits;
use imux::trust::{DestinationRule, ProxyHeader};
use imux::tunnel::Dialing;

use super::session::SessionArgs;
use super::values::{dialled, listen_rule, number, own_address, proxy_header};
use super::web::WebArgs;
use crate::cli::address::{Endpoint, HostPort};
use crate::cli::config::{ServerConfig, check_forward};
use crate::cli::identity;

pub(super) const SERVER_EXAMPLES: &str = "\
Examples:
  imux server --listen 0.0.0.0:443 --dial localhost:22
  imux server --listen '[::]:443' --dial 192.168.7.20:5432 --grace 10m
  imux server --listen 127.0.0.1:0 --dial localhost:80 --log-format json
Who may connect (any client, as long as none is listed):
  imux authorize SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDmgLVcJ1GyLlBOZnk --comment 'Anna, laptop'
  imux invite server.example:443 --dial db.example:5432";

const NO_DESTINATION: &str = "\
there is nowhere to hand connections to

Give --dial HOST:PORT. The shortest command that offers something, the SSH server of this machine:
    imux server --dial localhost:22";

#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// Where lanes arrive
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:443")]
    #[arg(value_parser = HostPort::to_listen)]
    listen: HostPort,
    /// Where connections lead: an address or the path of a Unix socket; has to be given
    ///
    /// Default of the form of earlier versions: 127.0.0.1:443.
    #[arg(long, value_name = "HOST:PORT", value_parser = Endpoint::to_dial)]
    dial: Option<Endpoint>,
    /// Address to dial destinations from [default: the system's choice]
    ///
    /// Given twice, one for IPv4 and one for IPv6.
    #[arg(long, value_name = "ADDR", value_parser = own_address)]
    from: Vec<IpAddr>,
    /// Tell destinations who connects, by the PROXY protocol
    ///
    /// That is where the client's first lane comes from. A line of --authorized-clients may say so
    /// for one client.
    #[arg(long, value_name = "VERSION", value_parser = proxy_header)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "v2")]
    proxy_protocol: Option<ProxyHeader>,
    /// Name of the server's key, where several servers have one directory of keys
    ///
    /// By default, the directory's one server, wherever it listens.
    #[arg(long, value_name = "NAME", value_parser = identity::parse_name)]
    identity: Option<String>,
    /// List of the clients that may connect; changes count at once
    ///
    /// By default, authorized_clients in the directory of keys; any client, if there is no such
    /// file.
    #[arg(long, value_name = "FILE")]
    authorized_clients: Option<PathBuf>,
    /// File for the audit trail: who comes and goes, and what strangers try
    ///
    /// A line of JSON an event is appended to it: whose sessions and connections begin and end, and
    /// what strangers try. It is opened again at SIGHUP.
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
    /// Without a list let every client in
    ///
    /// Say so where there has been one, or to have no warning.
    #[arg(long)]
    allow_anyone: bool,
    /// Without a list: where any client's -R may listen [default: nowhere]
    ///
    /// The server takes connections there for a client that asks for it (imux client -R). Such as
    /// 0.0.0.0:8080; may be given several times.
    #[arg(long, value_name = "HOST:PORT", value_parser = listen_rule)]
    allow_listen: Vec<DestinationRule>,
    #[command(flatten)]
    pub(super) session: SessionArgs,
    #[command(flatten)]
    sessions: SessionLimitArgs,
    #[command(flatten)]
    web: WebArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Session")]
struct SessionLimitArgs {
    /// Most sessions at once
    ///
    /// One that has lost all its lanes gives way to a new one.
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

impl ServerArgs {
    pub(super) fn audit(&self) -> Option<&Path> {
        self.audit.as_deref()
    }

    pub(super) fn into_config(
        self,
        home: Option<PathBuf>,
        go_style: bool,
        notices: &mut Vec<String>,
    ) -> Result<ServerConfig, String> {
        let given = self.dial.is_some();
        let dial = dialled(self.dial, Endpoint::to_dial, go_style, NO_DESTINATION)?;
        // Where neither was given, neither is what is wrong.
        check_forward(&Endpoint::Network(self.listen.clone()), &dial)
            .map_err(|problem| if given { problem } else { NO_DESTINATION.to_owned() })?;
        let from = self.from;
        if from.iter().filter(|it| it.is_ipv4()).count() > 1
            || from.iter().filter(|it| it.is_ipv6()).count() > 1
        {
            return Err("--from takes one address of IPv4 and one of IPv6".to_owned());
        }
        let dialing = Dialing { from, tell_source: self.proxy_protocol };
        let session = self.session.into_config(notices)?;
        let web = self.web.into_config()?;
        let ServerArgs { listen, identity, authorized_clients, allow_anyone, sessions, .. } = self;
        let (sessions, listen_for_strangers) = (sessions.into(), self.allow_listen);
        Ok(ServerConfig {
            listen,
            dial,
            dialing,
            listen_for_strangers,
            session,
            sessions,
            web,
            identity,
            authorized_clients,
            allow_anyone,
            home,
        })
    }
}
