//! A routing rule and a route by which datagrams that rules have marked come to this machine,
//! wherever they were to go: TPROXY cannot do without.
//!
//! They belong to nobody, and nothing would remove them once their client was killed. So a process
//! of its own sets them, and removes them when its input ends: `imux gateway hold`, the client's
//! child.

use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteMessage, RouteScope, RouteType};
use rtnetlink::packet_route::rule::RuleAction;
use rtnetlink::{Error, Handle, RouteMessageBuilder, RuleAddRequest, new_connection};
use tokio::sync::{Notify, oneshot};

use super::nft::Problem;
use super::process::Process;
use super::rules::DELIVERED;
use crate::cli::exit::{Exit, Failure};
use crate::cli::stopping::Stopping;
use crate::cli::text::{escape, print};

/// The number of the table and of the rule: nobody's, and before the main table's.
const TABLE: u32 = DELIVERED;

/// What the process says once all is in place.
const IN_PLACE: &str = "in place\n";

/// What runs, even if its file was replaced meanwhile.
fn command() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("imux").args(["gateway", "hold"]);
    command
}

/// The process that holds rule and route, as its client knows it. They go with it.
#[derive(Debug)]
pub(super) struct Delivery(Process);

impl Delivery {
    /// Starts it, and waits until all is in place. `ended` is notified when it has ended, by
    /// whatever.
    pub(super) fn start(ended: Arc<Notify>) -> Result<Self, Problem> {
        let mut command = command();
        command.stdout(Stdio::piped());
        let mut process = Process::start(command, ended)?;
        let mut said = String::new();
        if let Some(output) = process.output() {
            BufReader::new(output).read_line(&mut said)?;
        }
        if said == IN_PLACE {
            return Ok(Self(process));
        }
        Err(Problem::NotRouted(escape(process.into_complaint().trim())))
    }

    pub(super) fn is_alive(&mut self) -> bool {
        self.0.is_alive()
    }
}

impl Drop for Delivery {
    /// Waits until they are gone.
    fn drop(&mut self) {
        if !self.0.end().is_ok_and(|status| status.success()) {
            // It was killed, and has left them: another one removes them.
            let mut command = command();
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let _ = command.status();
        }
    }
}

/// The process: holds rule and route until its input ends, or it is told to.
pub async fn hold(mut stopping: Stopping) -> Result<Exit, Failure> {
    let failed = |error: io::Error| Failure::message(Exit::Gateway, error.to_string());
    let (connection, netlink, _) = new_connection().map_err(failed)?;
    tokio::spawn(connection);
    let lo = if_nametoindex("lo").map_err(|error| failed(error.into()))?;
    let families = [Family::v4(lo), Family::v6(lo)];
    // What one left that was killed.
    remove(&netlink, &families).await;
    let set = set(&netlink, &families).await;
    if set.is_ok() && print(IN_PLACE.to_owned()).await.is_ok() {
        tokio::select! {
            _ = input_ends() => {}
            _ = stopping.wait() => {}
        }
    }
    remove(&netlink, &families).await;
    set.map(|()| Exit::Ok).map_err(|error| Failure::message(Exit::Gateway, error.to_string()))
}

/// Resolves when nobody is left who could write to standard input.
fn input_ends() -> oneshot::Receiver<()> {
    let (input, ends) = oneshot::channel();
    // Not one of the runtime's, which waits for its own. Without it, the input counts as ended.
    let _ = std::thread::Builder::new().name("input".to_owned()).spawn(move || {
        // Nobody ever writes anything.
        let _ = io::stdin().lock().read(&mut [0]);
        drop(input);
    });
    ends
}

/// What there is of each family of addresses.
struct Family {
    is_ipv4: bool,
    route: RouteMessage,
}

impl Family {
    fn v4(lo: u32) -> Self {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().table_id(TABLE).output_interface(lo);
        let route = route.kind(RouteType::Local).scope(RouteScope::Host);
        Self { is_ipv4: true, route: route.build() }
    }

    fn v6(lo: u32) -> Self {
        let route = RouteMessageBuilder::<Ipv6Addr>::new().table_id(TABLE).output_interface(lo);
        let route = route.kind(RouteType::Local).scope(RouteScope::Universe);
        Self { is_ipv4: false, route: route.build() }
    }

    /// What to add.
    fn rule(&self, netlink: &Handle) -> RuleAddRequest {
        let rule = netlink.rule().add().fw_mark(DELIVERED).table_id(TABLE).priority(TABLE);
        let mut rule = rule.action(RuleAction::ToTable);
        let family = if self.is_ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        rule.message_mut().header.family = family;
        rule
    }
}

async fn set(netlink: &Handle, families: &[Family]) -> Result<(), Error> {
    for family in families {
        let set = async {
            netlink.route().add(family.route.clone()).execute().await?;
            family.rule(netlink).execute().await
        };
        match set.await {
            // A machine without IPv6 sends none.
            Err(error) if !family.is_ipv4 && !is_refused(&error) => {
                tracing::debug!(%error, "no datagrams are taken over IPv6");
            }
            set => set?,
        }
    }
    Ok(())
}

fn is_refused(error: &Error) -> bool {
    matches!(error, Error::NetlinkError(why) if why.raw_code().abs() == libc::EPERM)
}

/// Whatever is not there need not be removed.
async fn remove(netlink: &Handle, families: &[Family]) {
    for family in families {
        // A rule may be there twice.
        while netlink.rule().del(family.rule(netlink).message_mut().clone()).execute().await.is_ok()
        {
        }
        let _ = netlink.route().del(family.route.clone()).execute().await;
    }
}
