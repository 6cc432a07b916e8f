//! A client as the way out of a machine, or of the networks behind it: rules that hand connections
//! to its transparent port.
//!
//! The rules are the client's as long as it runs, and the kernel removes them when it ends. Only a
//! kill switch stays, which refuses.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use imux::lane::{resolve, resolve_as_group};
use imux::tunnel::{self, Listener, UdpPort};
use nix::net::if_::if_nametoindex;
use nix::unistd::geteuid;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::spawn_blocking;

pub(super) mod command;
pub(super) mod delivery;
mod networks;
mod nft;
pub(super) mod plan;
mod process;
mod rules;

use delivery::Delivery;
use networks::{left_alone, way_back_by_mark};
use nft::{Holder, Problem};
use plan::{Net, Plan};
use rules::{DELIVERED, Facts, LOOK_UP_GROUP, LookUps, MARK};

use super::links::Network;

/// What a client needs to be a gateway, found out at its start.
#[derive(Debug)]
pub(super) struct Gateway {
    /// Where it takes what the kernel hands over, at all of its addresses; or why it does not.
    port: Result<u16, &'static str>,
    /// It takes datagrams there as well.
    takes_udp: bool,
    lane_mark: Option<u32>,
    look_ups: LookUps,
    /// The server, as it is dialled.
    server: String,
    up: Mutex<Option<Up>>,
    /// Told when a holder of rules has ended.
    ended: Arc<Notify>,
}

/// Rules in place.
#[derive(Debug)]
struct Up {
    plan: Plan,
    held: Held,
    /// The exceptions, and the server's addresses.
    besides: Vec<Net>,
    left: Vec<Net>,
    in_the_way: Vec<String>,
    /// How many times this client has set rules.
    turn: u64,
}

/// What holds them. The rules go first: what delivers is there as long as they mark anything.
#[derive(Debug)]
struct Held {
    rules: Holder,
    delivery: Option<Delivery>,
}

/// `None` if this process may mark nothing.
fn mark() -> Option<u32> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    mark_as_own(&socket).is_ok().then_some(MARK)
}

/// Marks a socket so that nothing of it is taken.
///
/// # Errors
/// [`PermissionDenied`](io::ErrorKind::PermissionDenied) without `CAP_NET_ADMIN` or `CAP_NET_RAW`.
fn mark_as_own(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_mark(MARK)
}

/// Lets TPROXY hand connections to a listener; returns one for datagrams beside it.
pub(super) fn allow_tproxy(listener: &Listener) -> Option<Listener> {
    if let Err(error) = tunnel::allow_tproxy(listener) {
        tracing::info!(
            at = %listener, %error,
            "connections are taken from REDIRECT alone: for TPROXY, datagrams and `imux gateway` the client needs CAP_NET_ADMIN"
        );
        return None;
    }
    let at = listener.tcp()?.local_addr().ok()?;
    let port = UdpPort::bind(at).and_then(|port| {
        mark_as_own(&port)?;
        let port = Listener::from(port);
        tunnel::allow_tproxy(&port)?;
        Ok(port)
    });
    let told = |error: &io::Error| {
        tracing::warn!(%at, %error, "datagrams are not taken: see whether another program has this port over UDP");
    };
    port.inspect_err(told).ok()
}

/// Has names looked up so that rules can tell it.
fn distinguish_look_ups() -> LookUps {
    match resolve_as_group(LOOK_UP_GROUP) {
        Ok(()) => LookUps::Group,
        Err(_) if geteuid().is_root() => LookUps::Unknown,
        Err(_) => LookUps::User(geteuid().as_raw()),
    }
}

impl Gateway {
    /// For a client that takes what the kernel hands to one of `listeners`, if to any.
    pub(super) fn new(listeners: &[&Listener], server: String) -> Self {
        let addresses = listeners.iter().filter_map(|listener| listener.tcp()?.local_addr().ok());
        let port = usable(addresses);
        let mut udp = listeners.iter().filter_map(|it| it.udp()?.local_addr().ok());
        let takes_udp = udp.any(|at| port == Ok(at.port()));
        let (lane_mark, look_ups) = match port {
            Ok(_) => (mark(), distinguish_look_ups()),
            Err(_) => (None, LookUps::Unknown),
        };
        let (up, ended) = (Mutex::default(), Arc::default());
        Self { port, takes_udp, lane_mark, look_ups, server, up, ended }
    }

    /// What lanes are to be marked with, so that rules can tell them.
    pub(super) fn lane_mark(&self) -> Option<u32> {
        self.lane_mark
    }

    /// Sets rules, in place of those there are. Returns what to tell people.
    pub(super) async fn up(&self, mut plan: Plan) -> Result<String, String> {
        let port = self.port?;
        plan.no_udp |= !self.takes_udp;
        if self.lane_mark.is_none() {
            return Err(Problem::NotAllowed.to_string());
        }
        if let Some(lan) = plan.lan.iter().find(|lan| if_nametoindex(lan.as_str()).is_err()) {
            return Err(format!(
                "there is no interface {lan} here; `ip link` shows those there are"
            ));
        }
        let mut state = self.up.lock().await;
        let servers = resolve(&self.server).await.unwrap_or_default();
        let besides = servers.iter().map(|at| Net::only(SocketAddr::ip(at)));
        let besides: Vec<_> = besides.chain(plan.except.iter().copied()).collect();
        let (before, look_ups, ended) = (state.take(), self.look_ups, self.ended.clone());
        let set = move || set(before, plan, besides, port, look_ups, ended);
        let (up, result) = spawn_blocking(set).await.map_err(|error| error.to_string())?;
        *state = up;
        result.map_err(|problem| problem.to_string())?;
        let told = state.as_ref().map(|up| self.told(up)).unwrap_or_default();
        tracing::info!("gateway: {told}");
        Ok(told)
    }

    /// Removes them, the kill switch included. Returns what to tell people.
    pub(super) async fn down(&self) -> Result<String, String> {
        let mut state = self.up.lock().await;
        let before = state.take();
        let was_up = before.is_some();
        let remove = move || {
            // With the rules that take still in place nothing gets past them meanwhile.
            let removed = nft::remove_kill_switch();
            drop(before);
            removed
        };
        let removed = spawn_blocking(remove).await.map_err(|error| error.to_string())?;
        let removed = removed.map_err(|problem| problem.to_string());
        if was_up {
            tracing::info!("gateway: down");
            return removed.map(|_| "it is down".to_owned());
        }
        // A client that may not look has set none.
        Ok(match removed {
            Ok(true) => "the kill switch is gone".to_owned(),
            Ok(false) | Err(_) => "it was not up".to_owned(),
        })
    }

    /// What there is, for people.
    pub(super) async fn show(&self) -> Result<String, String> {
        self.port?;
        let mut state = self.up.lock().await;
        let Some(up) = state.as_mut() else { return Ok("down".to_owned()) };
        Ok(if up.held.is_alive() {
            self.told(up)
        } else {
            "down: a process that held the rules, `nft` or `imux gateway hold`, was ended"
                .to_owned()
        })
    }

    /// Follows the networks this machine is in, until `stopping`; then takes nothing new, and lets
    /// what was taken go on.
    pub(super) async fn keep(
        &self,
        mut networks: watch::Receiver<Network>,
        stopping: impl Future<Output = ()>,
    ) {
        tokio::pin!(stopping);
        loop {
            tokio::select! {
                () = &mut stopping => break,
                Ok(()) = networks.changed() => self.refresh().await,
                () = self.ended.notified() => self.refresh().await,
            }
        }
        if let Some(up) = self.up.lock().await.as_mut() {
            let _ = up.held.rules.run(&rules::take_no_more());
        }
    }

    async fn refresh(&self) {
        let mut state = self.up.lock().await;
        let Some(up) = state.as_mut() else { return };
        if !up.held.is_alive() {
            tracing::warn!(
                "gateway: a process that held the rules, `nft` or `imux gateway hold`, was ended, and they are gone; \
                 say `imux gateway up` again"
            );
            let gone = state.take();
            // It waits for processes to end.
            let _ = spawn_blocking(move || drop(gone)).await;
            return;
        }
        let Ok(left) = left_alone(&up.besides) else { return };
        if left != up.left {
            tracing::debug!("gateway: this machine is in other networks");
            for line in rules::leave(&up.plan, &left) {
                // Should it have ended, we are told.
                let _ = up.held.rules.run(&line);
            }
            up.left = left;
        }
    }

    fn told(&self, up: &Up) -> String {
        let port = self.port.unwrap_or_default();
        let mut told = format!("up for {}, at port {port}", up.plan);
        for chain in &up.in_the_way {
            told.push_str(&format!(
                "; the chain {chain} drops what it does not accept, and what is taken comes in by it: if that does not \
                 arrive, say `nft insert rule {chain} tcp dport {port} ct status dnat accept`"
            ));
            if !up.plan.no_udp {
                told.push_str(&format!(
                    " and `nft insert rule {chain} meta mark {MARK:#x}-{DELIVERED:#x} accept`"
                ));
            }
        }
        let takes_lans_udp = !up.plan.no_udp && !up.plan.lan.is_empty();
        if let Some(set) = takes_lans_udp.then(|| way_back_by_mark(&up.plan.lan)).flatten() {
            told.push_str(&format!(
                "; {set} is 1, with which the kernel drops datagrams of IPv4 that are taken from other hosts: \
                 say `sysctl -w {set}=0`, or leave them alone with --no-udp"
            ));
        }
        let named = self.server.parse::<SocketAddr>().is_err();
        if named && self.look_ups == LookUps::Unknown && up.plan.this_machine {
            told.push_str(
                "; the client's own look-ups cannot be told from others' without CAP_SETGID: give --dial an address, not a name",
            );
        }
        told
    }
}

impl Held {
    /// Of rules that there are not yet, if nobody else holds some.
    fn start(ended: Arc<Notify>) -> Result<Self, Problem> {
        Ok(Self { rules: Holder::start(ended)?, delivery: None })
    }

    /// Whether all is still held.
    fn is_alive(&mut self) -> bool {
        self.rules.is_alive() && self.delivery.as_mut().is_none_or(Delivery::is_alive)
    }

    /// Puts rules in place of those there are; `sign` is in them. If that fails, these stay.
    fn put(
        &mut self,
        script: &str,
        sign: &str,
        takes_udp: bool,
        ended: Arc<Notify>,
    ) -> Result<(), Problem> {
        if takes_udp && !self.delivery.as_mut().is_some_and(Delivery::is_alive) {
            self.delivery = None;
            self.delivery = Some(Delivery::start(ended)?);
        }
        self.rules.run_until(script, sign)?;
        if !takes_udp {
            self.delivery = None;
        }
        Ok(())
    }
}

/// The port that takes what REDIRECT hands over, by whichever address it comes in.
fn usable(addresses: impl Iterator<Item = SocketAddr>) -> Result<u16, &'static str> {
    let addresses: Vec<_> = addresses.collect();
    let everywhere = addresses.iter().find(|at| at.ip().is_unspecified());
    match everywhere {
        Some(at) => Ok(at.port()),
        None if addresses.is_empty() => Err("this client takes nothing transparently"),
        None => Err(
            "this client takes what the kernel hands it at one address only; start it with --transparent PORT",
        ),
    }
}

/// Sets rules in place of those of `before`; these stay if that fails.
fn set(
    before: Option<Up>,
    plan: Plan,
    besides: Vec<Net>,
    port: u16,
    look_ups: LookUps,
    ended: Arc<Notify>,
) -> (Option<Up>, Result<(), Problem>) {
    let left = match left_alone(&besides) {
        Ok(left) => left,
        Err(error) => return (before, Err(Problem::Broken(error.into()))),
    };
    let turn = before.as_ref().map_or(1, |up| up.turn + 1);
    let holder = format!("imux client, process {}, {turn}", std::process::id());
    let facts = Facts { port, holder: &holder, look_ups, left: &left };
    let (script, takes_udp) = (rules::up(&plan, &facts), !plan.no_udp);
    let mut up = match before.and_then(|mut up| up.held.rules.is_alive().then_some(up)) {
        Some(mut up) => {
            if let Err(problem) = up.held.put(&script, &holder, takes_udp, ended) {
                return (Some(up), Err(problem));
            }
            Up { plan, besides, left, turn, ..up }
        }
        None => {
            let started = Held::start(ended.clone()).and_then(|mut it| {
                it.put(&script, &holder, takes_udp, ended)?;
                Ok(it)
            });
            match started {
                Ok(held) => Up { plan, held, besides, left, in_the_way: Vec::new(), turn },
                Err(problem) => return (None, Err(problem)),
            }
        }
    };
    up.in_the_way = nft::dropping_chains().unwrap_or_default();
    (Some(up), Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_takes_what_comes_by_any_address() {
        let of = |places: &[&str]| usable(places.iter().map(|place| place.parse().unwrap()));
        assert_eq!(of(&["127.0.0.1:7070", "[::]:7071"]), Ok(7071));
        assert_eq!(of(&["0.0.0.0:7070"]), Ok(7070));
        assert!(of(&["127.0.0.1:7070"]).unwrap_err().contains("--transparent PORT"));
        assert!(of(&[]).unwrap_err().contains("nothing transparently"));
    }
}
