//! The command about which of the machine's traffic a client takes.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::help::long_help;
use crate::cli::config::GatewayConfig;
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
    /// included; over UDP, which is not carried, it is refused
    #[arg(long)]
    dns: bool,
    /// Refuse what could not be taken, also while the client is away, until `imux gateway down`
    #[arg(long)]
    kill_switch: bool,
    /// Leave QUIC alone: without this, UDP to port 443 is refused, so that browsers use TCP
    #[arg(long)]
    quic: bool,
}

impl GatewayArgs {
    pub(super) fn into_config(self, home: Option<PathBuf>) -> Result<GatewayConfig, String> {
        let request = match self.action {
            Action::Up(UpArgs { lan, this_machine, except, dns, kill_switch, quic }) => {
                let plan = Plan { lan, this_machine, except, dns, kill_switch, quic };
                plan.check()?;
                GatewayRequest::Up(plan)
            }
            Action::Down => GatewayRequest::Down,
            Action::Show => GatewayRequest::Show,
        };
        Ok(GatewayConfig { request, home })
    }
}
