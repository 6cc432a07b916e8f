//! The command about which of the machine's traffic a client takes.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::help::long_help;
use crate::cli::config::{GatewayConfig, Task};
use crate::cli::control::GatewayRequest;
use crate::cli::gateway::plan::{Net, Plan, interface};

pub(super) const GATEWAY_EXAMPLES: &str = "\
Examples:
  A router: what hosts behind eth1 connect to goes through this client's tunnel:
    imux client --dial server.example:443 --bind dev:eth0 --bind dev:wwan0 --transparent 7070
    imux gateway up --lan eth1
  A laptop: what its own programs connect to, and nothing by another way:
    imux gateway up --this-machine --kill-switch
  All as it was before:
    imux gateway down";

#[derive(Debug, Args)]
pub(super) struct GatewayArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Have a running client take connections of this machine or of hosts behind it, as long as it
    /// runs; what was up before gives way
    #[command(after_help = GATEWAY_EXAMPLES, after_long_help = long_help(GATEWAY_EXAMPLES))]
    Up(UpArgs),
    /// Have all go as it does without a gateway; the kill switch goes as well
    #[command(after_help = GATEWAY_EXAMPLES, after_long_help = long_help(GATEWAY_EXAMPLES))]
    Down,
    /// Show what is taken, and the rules
    #[command(after_help = GATEWAY_EXAMPLES, after_long_help = long_help(GATEWAY_EXAMPLES))]
    Show,
    /// Hold what a client needs to be handed datagrams, until the input ends; clients run it
    #[command(hide = true)]
    Hold,
}

#[derive(Debug, Args)]
struct UpArgs {
    /// Take what hosts behind this interface connect to; may be given several times
    #[arg(long, value_name = "IFACE", value_parser = interface)]
    lan: Vec<String>,
    /// Take what this machine's own programs connect to
    #[arg(long, required_unless_present = "lan")]
    this_machine: bool,
    /// Leave what goes to this network alone, as the machine's own networks are; may be given
    /// several times
    #[arg(long, value_name = "NET", value_parser = str::parse::<Net>)]
    except: Vec<Net>,
    /// Take what goes to port 53 of any machine, this machine's own questions and networks
    /// included
    #[arg(long)]
    dns: bool,
    /// Refuse what could not be taken, also while the client is away, until `imux gateway down`
    #[arg(long)]
    kill_switch: bool,
    /// Take QUIC as other datagrams: without this, UDP to port 443 is refused, so that browsers use
    /// TCP, which can use several links at once
    #[arg(long)]
    quic: bool,
    /// Leave UDP alone: it goes as it does without a gateway, but for QUIC, and for port 53 with
    /// --dns, which are refused
    #[arg(long)]
    no_udp: bool,
}

impl GatewayArgs {
    pub(super) fn into_task(self, home: Option<PathBuf>) -> Result<Task, String> {
        let request = match self.action {
            Action::Up(args) => {
                let UpArgs { lan, this_machine, except, dns, kill_switch, quic, no_udp } = args;
                let plan = Plan { lan, this_machine, except, dns, kill_switch, quic, no_udp };
                plan.check()?;
                GatewayRequest::Up(plan)
            }
            Action::Down => GatewayRequest::Down,
            Action::Show => GatewayRequest::Show,
            Action::Hold => return Ok(Task::HoldDelivery),
        };
        Ok(Task::Gateway(GatewayConfig { request, home }))
    }
}
