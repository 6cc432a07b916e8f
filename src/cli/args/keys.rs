//! The commands about keys and who may connect.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use imux::lane::Bind;
use imux::trust::{AuthorizedClient, DestinationRule, Fingerprint, Grant, ProxyHeader, TrustError};

use super::super::address::HostPort;
use super::super::bind;
use super::super::config::{KeysCommand, KeysConfig, ServerKey};
use super::super::date::now;
use super::super::{identity, units};
use super::help::long_help;
use super::key_exchange::KeyExchangeArgs;
use super::values::{at_most, connect_timeout, listen_rule, number, parsed, proxy_header};

pub(super) const IDENTITY_EXAMPLES: &str = "\
Examples:
  The key by which servers know this client, for `imux authorize` there:
    imux identity
  The key of this machine's server, for `imux client --pin`:
    imux identity --of-server
  That of one of several servers:
    imux identity --identity office";

pub(super) const ROTATE_KEY_EXAMPLES: &str = "\
Examples:
  Make the server's next key; announce it to its clients (a server that runs: kill -HUP it):
    imux rotate-key
  When all clients have been connected for once, change to it (a server that runs: kill -HUP it):
    imux rotate-key --switch";

pub(super) const AUTHORIZE_EXAMPLES: &str = "\
Examples:
  The server's one destination, for the client that showed this key with `imux identity`:
    imux authorize SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDmgLVcJ1GyLlBOZnk --comment 'Anna, laptop'
  Destinations the client may choose among; the first one where it names none:
    imux authorize SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDmgLVcJ1GyLlBOZnk \\
        --dial db.example:5432 --dial 10.1.0.0/16:22 --max-streams 100";

pub(super) const REVOKE_EXAMPLES: &str = "\
Examples:
  imux revoke SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDmgLVcJ1GyLlBOZnk";

pub(super) const INVITE_EXAMPLES: &str = "\
Examples:
  One line for somebody who is to use the server that others reach at server.example:443:
    imux invite server.example:443 --comment Anna
  For a day, and for one destination:
    imux invite server.example:443 --expires 1d --dial db.example:5432";

pub(super) const ACCEPT_EXAMPLES: &str = "\
Examples:
  echo 'imux://server.example:443/uNiVztksCsDhcc0u9e8BgrJXVGDmgLVcJ1GyLlBOZnk/…' | imux accept
  imux accept < invitation.txt";

#[derive(Debug, Subcommand)]
pub(super) enum KeysArgs {
    /// Show the key by which others know this client, or a server of this machine
    #[command(after_help = IDENTITY_EXAMPLES, after_long_help = long_help(IDENTITY_EXAMPLES))]
    Identity(IdentityArgs),
    /// Give a server another key, announced to its clients before
    #[command(after_help = ROTATE_KEY_EXAMPLES, after_long_help = long_help(ROTATE_KEY_EXAMPLES))]
    RotateKey(RotateKeyArgs),
    /// Let a client connect to the servers of this machine (from the first on: no others)
    #[command(after_help = AUTHORIZE_EXAMPLES, after_long_help = long_help(AUTHORIZE_EXAMPLES))]
    Authorize(AuthorizeArgs),
    /// Let a client connect no more
    #[command(after_help = REVOKE_EXAMPLES, after_long_help = long_help(REVOKE_EXAMPLES))]
    Revoke(RevokeArgs),
    /// Make a line that lets whoever has it authorise a client of theirs, once
    #[command(after_help = INVITE_EXAMPLES, after_long_help = long_help(INVITE_EXAMPLES))]
    Invite(InviteArgs),
    /// Accept an invitation: know the server's key, and have it authorise this client's
    #[command(after_help = ACCEPT_EXAMPLES, after_long_help = long_help(ACCEPT_EXAMPLES))]
    Accept(AcceptArgs),
}

#[derive(Debug, Args)]
pub(super) struct IdentityArgs {
    /// Show the key of the server whose keys are here
    #[arg(long)]
    of_server: bool,
    #[command(flatten)]
    key: ServerKeyArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct RotateKeyArgs {
    #[command(flatten)]
    key: ServerKeyArgs,
    /// Change to the key that was made before; the old one is gone then
    #[arg(long)]
    switch: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct AuthorizeArgs {
    /// The client's key, as `imux identity` shows it
    #[arg(value_name = "SHA256:HASH", value_parser = client_key)]
    client: Fingerprint,
    #[command(flatten)]
    granted: GrantArgs,
    /// How long, such as 30d; for ever if left out
    #[arg(long, value_name = "TIME", value_parser = expires)]
    expires: Option<Duration>,
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The client's key
    #[arg(value_name = "SHA256:HASH", value_parser = client_key)]
    client: Fingerprint,
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct InviteArgs {
    /// The server as the invited person reaches it
    #[arg(value_name = "HOST:PORT", value_parser = HostPort::to_dial)]
    server: HostPort,
    #[command(flatten)]
    key: ServerKeyArgs,
    /// How long it can be accepted, such as 15m or 1d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = expires)]
    expires: Duration,
    #[command(flatten)]
    granted: GrantArgs,
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct AcceptArgs {
    /// The invitation; read from standard input if left out, where no other user of the machine
    /// sees it
    // Read later than by clap, which would repeat what it cannot read, and with it the secret.
    #[arg(value_name = "INVITATION", default_value = "-", hide_default_value = true)]
    invitation: String,
    /// Local address or interface to go out by, such as 192.168.1.2 or dev:eth1
    #[arg(long, value_name = "ADDR", value_parser = bind::parse_bind)]
    bind: Option<Bind>,
    /// How long the attempt to connect may take
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = connect_timeout)]
    connect_timeout: Duration,
    #[command(flatten)]
    key_exchange: KeyExchangeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Which server is meant.
#[derive(Debug, Args)]
struct ServerKeyArgs {
    /// The --identity that the server is started with, if it is
    #[arg(long, value_name = "NAME", value_parser = identity::parse_name)]
    identity: Option<String>,
    /// The --listen that the server is started with; of use if earlier versions have made keys for
    /// several
    #[arg(long, value_name = "HOST:PORT", value_parser = HostPort::to_listen)]
    listen: Option<HostPort>,
}

impl ServerKeyArgs {
    fn into_key(self) -> ServerKey {
        ServerKey { identity: self.identity, listen: self.listen }
    }
}

/// What a client may do.
#[derive(Debug, Args)]
struct GrantArgs {
    /// Where the client may have connections made to: a name, address or network and a port,
    /// either may be `*`; may be given several times [default: the server's one destination]
    #[arg(long, value_name = "HOST:PORT", value_parser = rule)]
    dial: Vec<DestinationRule>,
    /// Where the server may take connections for the client (imux client -R): an address of the
    /// server, `localhost` or `*`, and a port; may be given several times [default: nowhere]
    #[arg(long, value_name = "HOST:PORT", value_parser = listen_rule)]
    allow_listen: Vec<DestinationRule>,
    /// How many connections it may have open at once
    #[arg(long, value_name = "COUNT", value_parser = number)]
    max_streams: Option<u32>,
    /// Tell its destinations who connects, by the PROXY protocol
    #[arg(long, value_name = "VERSION", value_parser = proxy_header)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "v2")]
    proxy_protocol: Option<ProxyHeader>,
    /// Believe the client who connects to it, and tell that instead of its own address, for what
    /// its forwards say `proxy-protocol`
    #[arg(long)]
    trust_source: bool,
    /// Whose key it is, for whoever reads the list
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,
}

#[derive(Debug, Args)]
struct FileArgs {
    /// List of clients [default: authorized_clients in the directory of keys]
    #[arg(long, value_name = "FILE")]
    authorized_clients: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct OutputArgs {
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

fn client_key(text: &str) -> Result<Fingerprint, String> {
    parsed(text, "`imux identity` shows it on the client's machine")
}

pub(super) fn rule(text: &str) -> Result<DestinationRule, String> {
    parsed(text, "write HOST:PORT, such as db.example:5432, 10.1.0.0/16:22 or localhost:*")
}

fn expires(text: &str) -> Result<Duration, String> {
    let time = units::parse_duration(text)?;
    if time < Duration::from_secs(1) {
        return Err("that is over before anybody can use it; write at least 1s".to_owned());
    }
    at_most(time, Duration::from_secs(3650 * 86_400), "3650d")
}

impl KeysArgs {
    pub(super) fn into_config(self, home: Option<PathBuf>) -> Result<KeysConfig, String> {
        let (command, OutputArgs { json }) = match self {
            Self::Identity(args) => {
                let key = args.key.into_key();
                let of_server = args.of_server || key.identity.is_some() || key.listen.is_some();
                (KeysCommand::Identity { server: of_server.then_some(key) }, args.output)
            }
            Self::RotateKey(args) => {
                let (server, switch) = (args.key.into_key(), args.switch);
                (KeysCommand::RotateKey { server, switch }, args.output)
            }
            Self::Authorize(args) => {
                let expires = args.expires.and_then(|time| now().checked_add(time));
                let comment = args.granted.comment.clone();
                let grant = Grant { expires, ..args.granted.into_grant() };
                let client = AuthorizedClient { key: args.client, grant, comment };
                let file = args.file.authorized_clients;
                (KeysCommand::Authorize { file, client }, args.output)
            }
            Self::Revoke(args) => {
                let (file, client) = (args.file.authorized_clients, args.client);
                (KeysCommand::Revoke { file, client }, args.output)
            }
            Self::Invite(args) => {
                let invite = KeysCommand::Invite {
                    file: args.file.authorized_clients,
                    server: args.server,
                    key: args.key.into_key(),
                    expires: args.expires,
                    comment: args.granted.comment.clone(),
                    grant: args.granted.into_grant(),
                };
                (invite, args.output)
            }
            Self::Accept(args) => {
                let accept = KeysCommand::Accept {
                    invitation: match args.invitation.as_str() {
                        "-" => None,
                        text => Some(text.parse().map_err(|error: TrustError| error.to_string())?),
                    },
                    bind: args.bind.map(|bind| bind.source),
                    connect_timeout: args.connect_timeout,
                    key_exchange: args.key_exchange.get(),
                };
                (accept, args.output)
            }
        };
        Ok(KeysConfig { command, json, home })
    }
}

impl GrantArgs {
    fn into_grant(self) -> Grant {
        Grant {
            destinations: self.dial,
            listen: self.allow_listen,
            streams_max: self.max_streams,
            expires: None,
            tell_source: self.proxy_protocol,
            trust_source: self.trust_source,
        }
    }
}
