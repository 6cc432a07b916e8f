//! The client's ways in and out.

use std::path::PathBuf;

use clap::Args;
use imux::trust::Destination;

use super::values::destination;
use crate::cli::address::Endpoint;
use crate::cli::config::check_forward;
use crate::cli::forward::{Forward, ForwardOptions};
use crate::cli::reverse::Reverse;

#[derive(Debug, Args)]
#[command(next_help_heading = "Ways in and out")]
pub(super) struct WayArgs {
    /// A place here where programs connect to
    ///
    /// This or another way has to be given. Default of the form of earlier versions: 0.0.0.0:443.
    #[arg(long, value_name = "HOST:PORT", value_parser = Endpoint::to_listen)]
    listen: Option<Endpoint>,
    /// Where --listen leads [default: what the server has set]
    ///
    /// The server has to allow it.
    #[arg(long, value_name = "HOST:PORT", value_parser = destination)]
    to: Option<Destination>,
    /// A port here that leads there from the server, as ssh -L
    ///
    /// The path of a Unix socket will do for either half. `udp:` before it carries datagrams, as in
    /// -L udp:5353:192.0.2.53:53. May be given several times.
    ///
    /// Options follow after commas: `redundant` as --redundant, for these connections alone;
    /// `proxy-protocol` has the server tell the destination who connects, by the PROXY protocol;
    /// for datagrams `deadline=TIME` (default 200ms), after which one that waits is dropped.
    #[arg(long, short = 'L', value_name = "[ADDR:]PORT:HOST:PORT", value_parser = Forward::parse)]
    forward: Vec<Forward>,
    /// A SOCKS and HTTP proxy here, as ssh -D
    ///
    /// It takes SOCKS5, SOCKS4a and HTTP proxy requests, and the server takes each where it says;
    /// with SOCKS5 datagrams as well (UDP ASSOCIATE).
    /// May be given several times.
    ///
    /// Options follow after commas: those of --forward, and `fast` for saying that there is a
    /// connection before the destination has answered.
    #[arg(long, short = 'D', value_name = "[ADDR:]PORT", value_parser = Forward::parse_dynamic)]
    dynamic: Vec<Forward>,
    /// A port for what nftables hands over, as meant
    ///
    /// Takes connections from REDIRECT and TPROXY, and has the server take each where it was meant
    /// to go; `imux gateway` sets rules that do so. May be given several times.
    ///
    /// Options follow after commas: those of --forward.
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = Forward::parse_transparent)]
    transparent: Vec<Forward>,
    /// A port at the server that leads there from here, as ssh -R
    ///
    /// The path of a Unix socket will do for either half, and `udp:` before it takes datagrams, as
    /// in -R udp:51820:localhost:51820. The server has to allow it. With port 0 it chooses one,
    /// which is logged. May be given several times.
    ///
    /// Options follow after commas: `redundant` as --redundant, for these connections alone;
    /// `proxy-protocol` tells HOST:PORT who connects, by the PROXY protocol; `proxy-protocol=v1` in
    /// its text form.
    #[arg(long, short = 'R', value_name = "[ADDR:]PORT:HOST:PORT", value_parser = Reverse::parse)]
    pub(super) reverse: Vec<Reverse>,
    /// Lines USER:PASSWORD; who uses a port of -D has to show one
    #[arg(long, value_name = "FILE", requires = "dynamic")]
    pub(super) proxy_auth: Option<PathBuf>,
    /// Let whoever reaches a port of -D use it
    ///
    /// Where it is not for this machine alone, this or --proxy-auth has to be given.
    #[arg(long, requires = "dynamic", conflicts_with = "proxy_auth")]
    open: bool,
    /// Standard input and output lead to HOST:PORT, as ssh -W
    ///
    /// The program ends with them: for ssh's ProxyCommand.
    #[arg(long, short = 'W', value_name = "HOST:PORT", value_parser = destination)]
    #[arg(conflicts_with_all = ["listen", "to", "forward", "dynamic", "transparent", "reverse"])]
    pub(super) stdio: Option<Destination>,
    /// Every byte on two lanes: least latency, twice the bytes
    ///
    /// Both ways, and on lanes of two binds if there are two.
    #[arg(long)]
    pub(super) redundant: bool,
}

impl WayArgs {
    /// The places here where connections are taken.
    pub(super) fn take_forwards(&mut self, go_style: bool) -> Result<Vec<Forward>, String> {
        let mut forwards = std::mem::take(&mut self.forward);
        forwards.append(&mut self.dynamic);
        forwards.append(&mut self.transparent);
        let others = self.stdio.is_some() || !self.reverse.is_empty();
        let wanted = (forwards.is_empty() && !others) || self.to.is_some();
        let listen = match self.listen.take() {
            // The original's default. Nobody else is to find a port open to the world who did not
            // ask for one.
            None if wanted && go_style => Some(Endpoint::to_listen("0.0.0.0:443")?),
            None if wanted => return Err(nothing_to_take(self.to.as_ref())),
            listen => listen,
        };
        if let Some(listen) = listen {
            let options = ForwardOptions::default();
            forwards.insert(0, Forward { listen, to: self.to.take().into(), options });
        }
        Ok(forwards)
    }

    /// Whether no place is open to people it is not for, and none is to be taken twice; `dial` is
    /// where the server is, and `explain` words what is wrong with it.
    pub(super) fn check(
        &self,
        forwards: &[Forward],
        dial: &Endpoint,
        explain: impl Fn(String) -> String,
    ) -> Result<(), String> {
        let guarded = self.open || self.proxy_auth.is_some();
        if let Some(open) = forwards.iter().find(|it| it.is_open_to_others() && !guarded) {
            return Err(open_to_others(&open.listen));
        }
        for (number, forward) in forwards.iter().enumerate() {
            check_forward(&forward.listen, dial).map_err(&explain)?;
            let same = |other: &&Forward| other.listen.is_same_place(&forward.listen);
            if let Some(other) = forwards[..number].iter().find(same) {
                return Err(format!(
                    "connections at {} are to be taken twice, there and at {}\n\n\
                     Give each forward a port of its own.",
                    forward.listen, other.listen
                ));
            }
        }
        for (number, reverse) in self.reverse.iter().enumerate() {
            let same = |other: &Reverse| other.listen == reverse.listen;
            if !reverse.listen.leaves_port() && self.reverse[..number].iter().any(same) {
                return Err(format!(
                    "the server is to take connections at {} twice\n\n\
                     Give each -R a port of its own.",
                    reverse.listen
                ));
            }
        }
        Ok(())
    }
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
