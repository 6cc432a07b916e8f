//! The commands that show what running processes do, and change a little of it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use imux::Tier;

use super::help::long_help;
use crate::cli::config::{StatusCommand, StatusConfig, TopConfig};
use crate::cli::control::Change;
use crate::cli::status::source::LinkChange;

pub(super) const STATUS_EXAMPLES: &str = "\
Examples:
  What this user's clients and servers do now:
    imux status
  The same each second, and for programs:
    imux status --watch
    imux status --json";

pub(super) const TOP_EXAMPLES: &str = "\
Examples:
  Links, their graphs and the busiest connections, each second; ? lists the keys:
    imux top
  Of one process:
    imux top --process 4711";

pub(super) const SESSIONS_EXAMPLES: &str = "\
Examples:
  End a session, as `imux status` calls it:
    imux sessions close 5f0c3a91";

pub(super) const LANES_EXAMPLES: &str = "\
Examples:
  Use the mobile link no more for now, and again:
    imux lanes pause dev:wwan0
    imux lanes resume dev:wwan0
  Use it only while no other answers:
    imux lanes tier dev:wwan0 backup";

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Print one JSON object, as docs/status.schema.json describes it
    #[arg(long)]
    json: bool,
    /// Look again each second, until a signal
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    which: WhichArgs,
}

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    which: WhichArgs,
}

#[derive(Debug, Args)]
struct WhichArgs {
    /// Only the process with this number [default: all of this user's]
    #[arg(long, value_name = "PID")]
    process: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct SessionsArgs {
    #[command(subcommand)]
    action: SessionAction,
}

#[derive(Debug, Subcommand)]
enum SessionAction {
    /// End a session; its connections are cut off
    #[command(after_help = SESSIONS_EXAMPLES, after_long_help = long_help(SESSIONS_EXAMPLES))]
    Close {
        /// As `imux status` calls it
        #[arg(value_name = "ID", value_parser = session_id)]
        id: String,
        #[command(flatten)]
        which: WhichArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct LanesArgs {
    #[command(subcommand)]
    action: LaneAction,
}

#[derive(Debug, Subcommand)]
enum LaneAction {
    /// Give up a link's lanes, and make none until it is resumed
    #[command(after_help = LANES_EXAMPLES, after_long_help = long_help(LANES_EXAMPLES))]
    Pause(LinkArgs),
    /// Make lanes on a link again
    #[command(after_help = LANES_EXAMPLES, after_long_help = long_help(LANES_EXAMPLES))]
    Resume(LinkArgs),
    /// Have a link's lanes carry connections as another tier; they are dialled anew
    #[command(after_help = LANES_EXAMPLES, after_long_help = long_help(LANES_EXAMPLES))]
    Tier {
        #[command(flatten)]
        link: LinkArgs,
        /// primary, express, backup or metered
        #[arg(value_name = "TIER")]
        tier: Tier,
    },
}

#[derive(Debug, Args)]
struct LinkArgs {
    /// As in --bind, and in `imux status`
    #[arg(value_name = "LINK", value_parser = link_name)]
    link: String,
    #[command(flatten)]
    which: WhichArgs,
}

/// Names of sessions are made of hexadecimal digits.
fn session_id(text: &str) -> Result<String, String> {
    if !Change::is_session_id(text) {
        return Err("write it as `imux status` does, such as 5f0c3a91".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

fn link_name(text: &str) -> Result<String, String> {
    if !Change::is_link_name(text) {
        return Err("write it as `imux status` does, such as dev:wwan0".to_owned());
    }
    Ok(text.to_owned())
}

impl StatusArgs {
    pub(super) fn into_config(self, home: Option<PathBuf>) -> StatusConfig {
        let Self { json, watch, which } = self;
        StatusConfig { command: StatusCommand::Show { json, watch }, process: which.process, home }
    }
}

impl TopArgs {
    pub(super) fn into_config(self, home: Option<PathBuf>) -> TopConfig {
        TopConfig { process: self.which.process, home }
    }
}

impl SessionsArgs {
    pub(super) fn into_config(self, home: Option<PathBuf>) -> StatusConfig {
        let SessionAction::Close { id, which } = self.action;
        let command = StatusCommand::Change(Change::CloseSession { id });
        StatusConfig { command, process: which.process, home }
    }
}

impl LanesArgs {
    pub(super) fn into_config(self, home: Option<PathBuf>) -> StatusConfig {
        let (LinkArgs { link, which }, change) = match self.action {
            LaneAction::Pause(link) => (link, LinkChange::Pause),
            LaneAction::Resume(link) => (link, LinkChange::Resume),
            LaneAction::Tier { link, tier } => (link, LinkChange::Tier(tier)),
        };
        let command = StatusCommand::Change(Change::Link { name: link, change });
        StatusConfig { command, process: which.process, home }
    }
}
