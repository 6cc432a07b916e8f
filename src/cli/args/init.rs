//! `imux init`: what would be asked, as options.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use imux::trust::{DestinationRule, TrustError};

use super::help::long_help;
use super::keys::rule;
use crate::cli::address::HostPort;
use crate::cli::config::{InitClient, InitConfig, InitRole, InitServer, Introduction};

pub(super) const INIT_EXAMPLES: &str = "\
Examples:
  Near the destination, as root or as an ordinary user; it asks four questions:
    imux init server
  The same without any question, from a script:
    imux init server server.example:443 --dial localhost:22 --comment laptop --unit
  On the other side it asks for the invitation that the server's side has printed:
    imux init client
  Without any question:
    imux init client --listen localhost:2222 --bind auto --unit < invitation.txt
  What would be written:
    imux init server --yes --print";

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Write a server's file and unit, and invite its first client
    #[command(after_help = INIT_EXAMPLES, after_long_help = long_help(INIT_EXAMPLES))]
    Server(ServerArgs),
    /// Accept an invitation, and write a client's file and unit
    #[command(after_help = INIT_EXAMPLES, after_long_help = long_help(INIT_EXAMPLES))]
    Client(ClientArgs),
}

#[derive(Debug, Args)]
struct ServerArgs {
    /// This server, as clients reach it
    #[arg(value_name = "HOST:PORT", value_parser = HostPort::to_dial)]
    server: Option<HostPort>,
    /// Where lanes arrive [default: that port, at all addresses of this machine]
    #[arg(long, value_name = "HOST:PORT", value_parser = HostPort::to_listen)]
    listen: Option<HostPort>,
    /// Where the client may have connections made to: a name, address or network and a port, either
    /// may be `*`; may be given several times
    #[arg(long, value_name = "HOST:PORT", value_parser = rule)]
    dial: Vec<DestinationRule>,
    /// Who the first client is, for whoever reads the list
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct ClientArgs {
    /// The invitation; asked for, or read from standard input, if it is left out, where no other
    /// user of the machine sees it
    // Read later than by clap, which would repeat what it cannot read, and with it the secret.
    #[arg(value_name = "INVITATION", default_value = "-", hide_default_value = true)]
    invitation: String,
    /// A server that needs no invitation, or has been given this client's key
    #[arg(long, value_name = "HOST:PORT", value_parser = HostPort::to_dial)]
    #[arg(conflicts_with = "invitation")]
    dial: Option<HostPort>,
    /// Its key, if it is not known here yet
    #[arg(long, value_name = "SHA256:HASH", requires = "dial")]
    pin: Vec<String>,
    /// A link, as with imux client; may be given several times
    #[arg(long, value_name = "ADDR[=COUNT][,OPTION=VALUE]…")]
    bind: Vec<String>,
    /// A place here that leads to what the server has set
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// A port here that leads there from the server; may be given several times
    #[arg(long, short = 'L', value_name = "[ADDR:]PORT:HOST:PORT")]
    forward: Vec<String>,
    /// A SOCKS and HTTP proxy here; may be given several times
    #[arg(long, short = 'D', value_name = "[ADDR:]PORT")]
    dynamic: Vec<String>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("service"))]
struct CommonArgs {
    /// Write a systemd unit: the system's if this is root, else the user's own
    #[arg(long, group = "service")]
    unit: bool,
    /// Write none
    #[arg(long, group = "service")]
    no_unit: bool,
    /// Ask nothing: what is left out is as it would be proposed
    #[arg(long, short)]
    yes: bool,
    /// Replace the file and the unit if they are there; keys stay
    #[arg(long)]
    force: bool,
    /// Print what would be written, and do nothing
    #[arg(long)]
    print: bool,
}

impl InitArgs {
    pub(super) fn into_config(self, home: Option<PathBuf>) -> Result<InitConfig, String> {
        let (role, common) = match self.role {
            Role::Server(args) => {
                let ServerArgs { server, listen, dial, comment, common } = args;
                (InitRole::Server(InitServer { server, listen, dial, comment }), common)
            }
            Role::Client(args) => {
                let ClientArgs { dial, pin, bind, listen, forward, dynamic, .. } = args;
                let introduction = match (dial, args.invitation.as_str()) {
                    (Some(server), _) => Introduction::Known { server, pins: pin },
                    (None, "-") => Introduction::ToBeRead,
                    (None, text) => Introduction::Invited(Box::new(
                        text.parse().map_err(|error: TrustError| error.to_string())?,
                    )),
                };
                let mut ways = Vec::new();
                ways.extend(listen.map(|it| format!("--listen={it}")));
                ways.extend(forward.iter().map(|it| format!("--forward={it}")));
                ways.extend(dynamic.iter().map(|it| format!("--dynamic={it}")));
                (InitRole::Client(InitClient { introduction, bind, ways }), args.common)
            }
        };
        let CommonArgs { unit, no_unit, yes, force, print } = common;
        let unit = (unit || no_unit).then_some(unit);
        Ok(InitConfig { role, unit, yes, force, print, home })
    }
}
