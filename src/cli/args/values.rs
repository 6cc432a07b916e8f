//! What options may say: each parser tells what is wrong, and what to write instead.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use imux::lane::Congestion;
use imux::trust::{Destination, DestinationRule, Fingerprint, ProxyHeader};

use crate::cli::text::escape;
use crate::cli::units;

/// A whole number that is not zero.
pub(super) fn number(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{}` is no whole number; write one from 1, such as 16", escape(text));
    text.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)
}

/// As `FromStr` has it; what is wrong is cut to a line, and followed by what to write.
pub(super) fn parsed<T: FromStr<Err: Display>>(text: &str, advice: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| format!("{}; {advice}", escape(&error.to_string())))
}

pub(super) fn own_address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = parsed(text, "write an address of this machine, such as 192.168.7.2")?;
    let address = address.to_canonical();
    if address.is_unspecified() || address.is_multicast() {
        return Err("nothing is dialled from there; write an address of this machine".to_owned());
    }
    Ok(address)
}

pub(super) fn proxy_header(text: &str) -> Result<ProxyHeader, String> {
    parsed(text, "write --proxy-protocol or --proxy-protocol=v1")
}

pub(super) fn destination(text: &str) -> Result<Destination, String> {
    let to: Destination = parsed(text, "write HOST:PORT, such as db.example:5432")?;
    if to.is_udp() {
        return Err("connections lead there, and no datagrams (UDP): for those there is \
                    -L udp:PORT:HOST:PORT"
            .to_owned());
    }
    Ok(to)
}

pub(super) fn listen_rule(text: &str) -> Result<DestinationRule, String> {
    let advice = "write HOST:PORT, such as 0.0.0.0:8080 or localhost:*";
    let rule: DestinationRule = parsed(text, advice)?;
    if !rule.is_place_to_listen() {
        return Err(format!("that is a name, and an address of the server is meant; {advice}"));
    }
    Ok(rule)
}

pub(super) fn server_key(text: &str) -> Result<Fingerprint, String> {
    parsed(text, "`imux identity --of-server` shows it on the server's machine")
}

pub(super) fn scheduler(text: &str) -> Result<imux::SchedulerKind, String> {
    parsed(text, "leave it out for the usual one")
}

pub(super) fn grace(text: &str) -> Result<Duration, String> {
    at_most(units::parse_duration(text)?, Duration::from_secs(7 * 86_400), "168h")
}

pub(super) fn drain_timeout(text: &str) -> Result<Duration, String> {
    at_most(units::parse_duration(text)?, Duration::from_secs(7 * 86_400), "168h")
}

pub(super) fn connect_timeout(text: &str) -> Result<Duration, String> {
    let time = units::parse_duration(text)?;
    if time < Duration::from_millis(100) {
        return Err("no lane could be connected in that time; write at least 100ms".to_owned());
    }
    at_most(time, Duration::from_secs(300), "300")
}

pub(super) fn at_most(time: Duration, max: Duration, shown: &str) -> Result<Duration, String> {
    if time > max { Err(format!("that is too long; write at most {shown}")) } else { Ok(time) }
}

/// Smallest window: less than one frame of payload could never be credited.
const WINDOW_MIN: u64 = 64 << 10;
/// Largest window: above this it is a typing error for any machine of today.
const WINDOW_MAX: u64 = 64 << 30;

pub(super) fn window(text: &str) -> Result<u64, String> {
    size_within(text, WINDOW_MIN..=WINDOW_MAX, "64KiB to 64GiB")
}

/// Least memory: a few connections that go on, and room to share.
const MEMORY_MIN: u64 = 16 << 20;
const MEMORY_MAX: u64 = 1 << 40;

pub(super) fn memory(text: &str) -> Result<u64, String> {
    size_within(text, MEMORY_MIN..=MEMORY_MAX, "16MiB to 1024GiB")
}

pub(super) fn demo_size(text: &str) -> Result<u64, String> {
    size_within(text, 1 << 20..=16 << 30, "1MiB to 16GiB")
}

fn size_within(text: &str, range: RangeInclusive<u64>, shown: &str) -> Result<u64, String> {
    let size = units::parse_size(text)?;
    let within = range.contains(&size).then_some(size);
    within.ok_or_else(|| format!("{} is out of range; write {shown}", units::bytes(size)))
}

pub(super) fn congestion(text: &str) -> Result<Congestion, String> {
    let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    match text {
        "default" => Ok(Congestion::System),
        // The kernel's TCP_CA_NAME_MAX is 16 with the closing zero.
        _ if (1..=15).contains(&text.len()) && text.bytes().all(valid) => {
            Ok(Congestion::Require(text.to_owned()))
        }
        _ => Err("not a name of a congestion control; see \
                  /proc/sys/net/ipv4/tcp_available_congestion_control, or write `default`"
            .to_owned()),
    }
}

/// What `--dial` says, or the default of the original's form. In the modern form there is none:
/// `missing` says what is.
pub(super) fn dialled<T>(
    given: Option<T>,
    parse: fn(&str) -> Result<T, String>,
    go_style: bool,
    missing: &str,
) -> Result<T, String> {
    match given {
        Some(dial) => Ok(dial),
        None if go_style => parse("127.0.0.1:443"),
        None => Err(missing.to_owned()),
    }
}
