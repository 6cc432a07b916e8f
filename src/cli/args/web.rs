//! Where a process shows what it does.

use std::path::PathBuf;

use clap::Args;

use crate::cli::address::{Host, HostPort};
use crate::cli::config::WebConfig;

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct WebArgs {
    /// Show metrics for Prometheus and a page for a browser at this address
    ///
    /// Read-only: /metrics, /livez, /readyz, and the page at /. On this machine alone, such as
    /// 127.0.0.1:9100, unless there is a --metrics-token.
    #[arg(long, value_name = "HOST:PORT", value_parser = HostPort::to_listen)]
    metrics: Option<HostPort>,
    /// File with the token that --metrics asks for
    ///
    /// One word of at least 16 characters in a file that nobody else can read. It is shown as
    /// `Authorization: Bearer TOKEN`, or as the password of any user. Nothing is encrypted.
    #[arg(long, value_name = "FILE", requires = "metrics")]
    metrics_token: Option<PathBuf>,
}

impl WebArgs {
    pub(super) fn into_config(self) -> Result<Option<WebConfig>, String> {
        let Some(listen) = self.metrics else { return Ok(None) };
        let here = match &listen.host {
            Host::Ip(ip) => ip.is_loopback(),
            Host::Name(name) => name.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
            Host::Any | Host::LinkLocal { .. } => false,
        };
        if !here && self.metrics_token.is_none() {
            return Err(format!(
                "--metrics {listen} could be reached from other machines; give it --metrics-token FILE, or an address \
                 of this machine alone, such as 127.0.0.1:{}",
                listen.port
            ));
        }
        Ok(Some(WebConfig { listen, token: self.metrics_token }))
    }
}
