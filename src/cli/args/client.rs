//! `imux client`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use imux::trust::{Fingerprint, HostKeyPolicy};

use super::key_exchange::KeyExchangeArgs;
use super::session::SessionArgs;
use super::values::{connect_timeout, dialled, server_key};
use super::ways::WayArgs;
use super::web::WebArgs;
use crate::cli::address::{Endpoint, HostPort};
use crate::cli::bind::{BindArg, BindMap};
use crate::cli::config::{self, ClientConfig, Trust};

/// Of a page: `--help` has more.
pub(super) const CLIENT_EXAMPLES_SHORT: &str = "\
Examples:
  imux client --dial server.example:443 --listen localhost:2222
  imux client --dial server.example:443 -L 5432:db.example:5432 -D 1080
  imux client --dial server.example:443 -R 0.0.0.0:8080:localhost:80
  imux client --dial server.example:443 -D 1080 --bind dev:eth0 --bind dev:wwan0,tier=backup
More of each option, and more examples: imux client --help";

pub(super) const CLIENT_EXAMPLES: &str = "\
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

const NO_SERVER: &str = "\
there is no server to carry connections to

Give --dial HOST:PORT. The shortest command that does something:
    imux client --listen localhost:2222 --dial server.example:443";

#[derive(Debug, Args)]
pub(super) struct ClientArgs {
    // First, as it is of no group: what follows a group belongs to it.
    #[command(flatten)]
    key_exchange: KeyExchangeArgs,
    #[command(flatten)]
    ways: WayArgs,
    #[command(flatten)]
    server: DialArgs,
    #[command(flatten)]
    links: LinkArgs,
    #[command(flatten)]
    pub(super) session: SessionArgs,
    #[command(flatten)]
    web: WebArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
struct DialArgs {
    /// The imux server; has to be given
    ///
    /// All addresses of a name are tried. Default of the form of earlier versions: 127.0.0.1:443.
    #[arg(long, value_name = "HOST:PORT", value_parser = HostPort::to_dial)]
    dial: Option<HostPort>,
    /// What to do about a key that is not known yet
    ///
    /// A changed key is never accepted without asking.
    #[arg(long, value_enum, value_name = "POLICY", default_value = "ask")]
    host_key: HostKey,
    /// Accept only the server with this key, known or not
    ///
    /// May be given several times.
    #[arg(long, value_name = "SHA256:HASH", value_parser = server_key, conflicts_with = "host_key")]
    pin: Vec<Fingerprint>,
    /// How long one attempt to connect a lane may take
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    #[arg(value_parser = connect_timeout)]
    connect_timeout: Duration,
    /// Wait for a server that is away at the start: for services
    ///
    /// Without it, the client ends with exit code 5.
    #[arg(long)]
    keep_trying: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Links")]
struct LinkArgs {
    /// A link, by its address or interface, such as dev:eth1
    ///
    /// Lanes are made over it: 192.168.1.2, '[2001:db8::1]', dev:eth1, or `any` for wherever the
    /// routing table sends them. May be given several times. Leave COUNT out: there are 10 lanes
    /// then, and those not needed stand by.
    ///
    /// Options follow after commas: `tier=backup` for lanes that are kept up and carry connections
    /// only while no primary lane answers; `tier=metered` for lanes that cost money by the byte
    /// and are used only when all others are lost; `tier=express` for lanes that carry what is
    /// urgent, and no bulk; `rate=20mbit` for the most that all lanes of the bind carry
    /// together, each way. The server keeps to it as well. If something small has to wait
    /// behind bulk, primary lanes get an express lane beside them, unless `express=no` is
    /// said.
    ///
    /// `auto` is every interface that leads out, now and later: not loopback, bridges, tunnels and
    /// what belongs to containers. `auto,only=en*;wl*` takes only these, of whatever kind;
    /// `auto,not=eth1` leaves some out; `auto,tier=wwan*=backup` says the tier of some. Without
    /// it wwan*, ppp* and usb* are metered.
    #[arg(long, value_name = "ADDR[=COUNT][,OPTION=VALUE]…", value_parser = BindArg::parse)]
    bind: Vec<BindArg>,
    /// All links as one JSON object [default: {"any": 10}]
    ///
    /// Of address to number of lanes.
    ///
    /// Instead of a number there may be an object: {"dev:wwan0": {"lanes": 2, "tier": "backup",
    /// "rate": "20mbit"}}.
    #[arg(long, value_name = "JSON")]
    binds: Option<BindMap>,
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

impl ClientArgs {
    /// What they ask for, as far as it can be checked before anything is started.
    pub(super) fn into_config(
        mut self,
        home: Option<PathBuf>,
        go_style: bool,
        notices: &mut Vec<String>,
    ) -> Result<ClientConfig, String> {
        let given = self.server.dial.is_some();
        let dial = dialled(self.server.dial, HostPort::to_dial, go_style, NO_SERVER)?;
        let forwards = self.ways.take_forwards(go_style)?;
        // Where neither was given, neither is what is wrong.
        let explain = |problem| if given { problem } else { NO_SERVER.to_owned() };
        self.ways.check(&forwards, &Endpoint::Network(dial.clone()), explain)?;
        let WayArgs { reverse, stdio, proxy_auth, redundant, .. } = self.ways;
        Ok(ClientConfig {
            forwards,
            reverse,
            stdio,
            proxy_auth,
            dial,
            binds: config::binds(self.links.binds, self.links.bind)?,
            redundant,
            trust: if self.server.pin.is_empty() {
                Trust::KnownHosts(self.server.host_key.into())
            } else {
                Trust::Pinned(self.server.pin)
            },
            connect_timeout: self.server.connect_timeout,
            keep_trying: self.server.keep_trying,
            key_exchange: self.key_exchange.get(),
            session: self.session.into_config(notices)?,
            web: self.web.into_config()?,
            home,
        })
    }
}
