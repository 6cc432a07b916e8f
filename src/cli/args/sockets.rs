//! Options of forwarded connections' sockets.

use std::time::Duration;

use clap::Args;
use imux::tunnel::{Keepalive, SocketOptions};

use super::values::at_most;
use crate::cli::text::escape;
use crate::cli::units;

#[derive(Debug, Args)]
#[command(next_help_heading = "Connections")]
pub(super) struct SocketArgs {
    /// Probe quiet connections, or `off`
    ///
    /// Ask whether the other end is still there: after how long, then how often, and how many times
    /// in vain before the connection is broken.
    #[arg(long, value_name = "TIME[,INTERVAL[,PROBES]]", default_value = "60,10,6")]
    #[arg(value_parser = keepalive)]
    keepalive: KeepaliveArg,
    /// Reset those that carry nothing [default: never]
    ///
    /// After this long.
    #[arg(long, value_name = "SECONDS", value_parser = idle_timeout)]
    idle_timeout: Option<Duration>,
}

/// `--keepalive`; None is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KeepaliveArg(Option<Keepalive>);

impl From<SocketArgs> for SocketOptions {
    fn from(args: SocketArgs) -> Self {
        Self { keepalive: args.keepalive.0, idle_timeout: args.idle_timeout }
    }
}

fn keepalive(text: &str) -> Result<KeepaliveArg, String> {
    if text == "off" {
        return Ok(KeepaliveArg(None));
    }
    let mut keepalive = Keepalive::default();
    let mut parts = text.split(',');
    keepalive.idle = keepalive_time(parts.next().unwrap_or_default())?;
    if let Some(interval) = parts.next() {
        keepalive.interval = keepalive_time(interval)?;
    }
    if let Some(probes) = parts.next() {
        let number = probes.parse().ok().filter(|probes| (1..=127).contains(probes));
        let wrong = || format!("`{}` is no number of probes; write 1 to 127", escape(probes));
        keepalive.probes = number.ok_or_else(wrong)?;
    }
    match parts.next() {
        None => Ok(KeepaliveArg(Some(keepalive))),
        Some(_) => Err("write at most TIME,INTERVAL,PROBES, such as 60,10,6".to_owned()),
    }
}

/// The kernel's bounds: whole seconds, fifteen bits.
fn keepalive_time(text: &str) -> Result<Duration, String> {
    let time = units::parse_duration(text)?;
    if time.subsec_nanos() != 0 || !(1..=32_767).contains(&time.as_secs()) {
        return Err("write whole seconds, 1 to 32767, or `off`".to_owned());
    }
    Ok(time)
}

fn idle_timeout(text: &str) -> Result<Duration, String> {
    let time = units::parse_duration(text)?;
    if time < Duration::from_secs(1) {
        return Err("connections would hardly begin; write at least 1".to_owned());
    }
    at_most(time, Duration::from_secs(365 * 86_400), "365d")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keepalive_is_up_to_three_numbers_or_off() {
        let of = |idle, interval, probes| {
            let (idle, interval) = (Duration::from_secs(idle), Duration::from_secs(interval));
            Ok(KeepaliveArg(Some(Keepalive { idle, interval, probes })))
        };
        assert_eq!(keepalive("60,10,6"), of(60, 10, 6));
        assert_eq!(keepalive("5m"), of(300, 10, 6));
        assert_eq!(keepalive("1,2s,127"), of(1, 2, 127));
        assert_eq!(keepalive("off"), Ok(KeepaliveArg(None)));
        for text in
            ["", "0", "1.5", "10h", "1,", "1,0", "1,1,0", "1,1,128", "1,1,x", "1,1,1,1", "no"]
        {
            assert!(keepalive(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_idle_timeout_is_a_second_at_least() {
        assert_eq!(idle_timeout("90s"), Ok(Duration::from_secs(90)));
        for text in ["0", "999ms", "366d", "soon"] {
            assert!(idle_timeout(text).is_err(), "{text}");
        }
    }
}
