//! Options that servers and clients have: how a session behaves, and what it may keep.

use std::time::Duration;

use clap::Args;
use imux::lane::Congestion;

use super::sockets::SocketArgs;
use super::values::{congestion, drain_timeout, grace, memory, number, scheduler, window};
use crate::cli::config::SessionConfig;
use crate::cli::units;

#[derive(Debug, Args)]
#[command(next_help_heading = "Session")]
pub(super) struct SessionArgs {
    /// How long a session waits for lanes when it has none
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = grace)]
    grace: Duration,
    /// How long connections may go on after SIGTERM
    ///
    /// New ones are refused meanwhile.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = drain_timeout)]
    drain_timeout: Duration,
    /// TCP congestion control of the lanes [default: bbr if allowed]
    ///
    /// Such as bbr or cubic; `default` is the system's. By default, bbr where the system allows it.
    #[arg(long, value_name = "NAME", value_parser = congestion)]
    congestion: Option<Congestion>,
    /// Most bytes that wait for the reader of one connection
    ///
    /// Such as 16MiB.
    #[arg(long, value_name = "SIZE", value_parser = window)]
    window: Option<u64>,
    /// Most bytes that wait for the readers of one session
    ///
    /// Of all its connections together, such as 64MiB.
    #[arg(long, value_name = "SIZE", value_parser = window)]
    session_window: Option<u64>,
    /// Most bytes kept for all peers [default: a quarter, 1GiB at most]
    ///
    /// Such as 256MiB. By default, a quarter of the machine's or the control group's memory, and at
    /// most 1GiB.
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<u64>,
    /// How lanes are chosen
    #[arg(long, value_name = "NAME", default_value = "imux", hide = true, value_parser = scheduler)]
    scheduler: imux::SchedulerKind,
    /// Of earlier versions; has no effect
    #[arg(long, value_name = "BYTES", hide = true, value_parser = number)]
    chunk_size: Option<u32>,
    /// Print the file that asks for the same, and end
    ///
    /// For `imux run -c FILE`. Keys and passwords are in files of their own, which it names.
    #[arg(long, help_heading = "Output", display_order = 103)]
    pub(super) print_config: bool,
    #[command(flatten)]
    sockets: SocketArgs,
}

impl SessionArgs {
    pub(super) fn into_config(self, notices: &mut Vec<String>) -> Result<SessionConfig, String> {
        if self.chunk_size.is_some() {
            notices.push(
                "--chunk-size has no effect any more: sizes follow the lanes; it can be left out"
                    .to_owned(),
            );
        }
        let all = self.session_window.unwrap_or(imux::Config::default().session_window);
        if let Some(one) = self.window
            && one > all
        {
            return Err(format!(
                "--window ({}) is larger than --session-window ({}), which bounds all connections \
                 together; raise the one or lower the other",
                units::bytes(one),
                units::bytes(all)
            ));
        }
        Ok(SessionConfig {
            grace: self.grace,
            congestion: self.congestion.unwrap_or_default(),
            window: self.window,
            session_window: self.session_window,
            memory: self.memory,
            scheduler: self.scheduler,
            drain_timeout: self.drain_timeout,
            sockets: self.sockets.into(),
        })
    }
}
