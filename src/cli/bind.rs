//! How many lanes each local address or interface carries: `--bind` and `--binds`.

mod auto;
mod map;

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use imux::Tier;
use imux::lane::{Bind, BindSource};
use imux::proto::limits::LINK_RATE_MIN;

use super::text::{escape, meant};
use super::units;

pub use auto::AutoPlan;
pub use map::BindMap;

/// Lanes of a bind without a count, as in the original.
pub const LANES_DEFAULT: u16 = 10;

/// Most lanes of one client. Each costs a socket, a task and buffers at both ends; a larger number
/// is a typo, not a plan.
pub const LANES_MAX: u16 = imux::Link::LANES_MAX;

/// Highest cap: no link of today needs a higher one.
const RATE_MAX: u64 = 1_000_000_000_000 / 8;

/// A bind and what its lanes may carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkPlan {
    pub bind: Bind,
    pub tier: Tier,
    /// Whether primary lanes have an express lane beside them; by default they do.
    pub express: Option<bool>,
    /// Bytes a second of all its lanes together, each way.
    pub rate_max: Option<u64>,
}

impl LinkPlan {
    pub fn new(source: BindSource, lanes: u16) -> Self {
        Self { bind: Bind { source, lanes }, tier: Tier::default(), express: None, rate_max: None }
    }

    /// Finds contradictions, once all options are known.
    fn check(&self) -> Result<(), String> {
        if self.express == Some(true) && self.tier != Tier::Primary {
            return Err(format!(
                "express=yes goes with primary lanes, and these are {}; leave one of the two out",
                self.tier
            ));
        }
        Ok(())
    }
}

impl fmt::Display for LinkPlan {
    /// In the form `--bind` takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bind)?;
        if self.tier != Tier::default() {
            write!(f, ",tier={}", self.tier)?;
        }
        if let Some(express) = self.express {
            write!(f, ",express={}", if express { "yes" } else { "no" })?;
        }
        self.rate_max.map_or(Ok(()), |rate| write!(f, ",rate={}bit", u128::from(rate) * 8))
    }
}

/// An address, with or without brackets, or `dev:` and an interface.
fn parse_source(text: &str) -> Result<BindSource, String> {
    let text = text.trim();
    if let Some(name) = text.strip_prefix("dev:") {
        return parse_device(name);
    }
    if text == "any" {
        return Ok(BindSource::Any);
    }
    let unbracketed = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if let Some((addr, device)) = unbracketed.split_once('%') {
        let addr = parse_link_local(addr).ok_or_else(|| not_an_address(text))?;
        check_device(device)?;
        return Ok(BindSource::LinkLocal { addr, device: device.to_owned() });
    }
    let Ok(ip) = unbracketed.parse::<IpAddr>() else {
        return Err(not_an_address(text));
    };
    let ip = ip.to_canonical();
    match ip {
        _ if ip.is_multicast() => Err(format!("{ip} is a multicast address; {EXPECTED}")),
        IpAddr::V4(v4) if v4.is_broadcast() => {
            Err(format!("{ip} is the broadcast address; {EXPECTED}"))
        }
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(format!(
            "{ip} is link-local and says nothing without its interface; \
             write it behind the address, as in {ip}%eth1, or name the interface alone: dev:eth1"
        )),
        _ => Ok(BindSource::Addr(ip)),
    }
}

const EXPECTED: &str = "expected an address of this machine (192.168.1.2, 2001:db8::1), an interface \
                        (dev:eth1), or auto";

fn parse_device(name: &str) -> Result<BindSource, String> {
    check_device(name).map(|()| BindSource::Device(name.to_owned()))
}

/// Whether an interface may have this name.
pub(super) fn check_device(name: &str) -> Result<(), String> {
    // The kernel's rule: at most IFNAMSIZ - 1 = 15 bytes, no slash, no space, not `.` or `..`.
    let valid = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b':';
    match name {
        "" => Err("the interface's name is missing; write it as in dev:eth1".to_owned()),
        "." | ".." => Err(format!("`{name}` is no interface name")),
        _ if name.len() > 15 => {
            Err(format!("`{name}` is no interface name: at most 15 characters"))
        }
        _ if !name.bytes().all(valid) => Err(format!("`{}` is no interface name", escape(name))),
        _ => Ok(()),
    }
}

/// The address before a `%`: only link-local ones need an interface.
pub(super) fn parse_link_local(text: &str) -> Option<Ipv6Addr> {
    text.parse().ok().filter(Ipv6Addr::is_unicast_link_local)
}

fn not_an_address(text: &str) -> String {
    let shown = escape(text);
    if text.is_empty() {
        return format!("the address is missing; {EXPECTED}");
    }
    if text.contains('%') {
        return format!(
            "`{shown}`: an interface stands behind link-local addresses only, as in fe80::1%eth1"
        );
    }
    let name_like = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if name_like && !text.starts_with(|c: char| c.is_ascii_digit()) {
        return format!("`{shown}` is no address; if it is an interface, write dev:{shown}");
    }
    format!("`{shown}` is no address; {EXPECTED}")
}

/// All links of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binds {
    /// Those that are named.
    pub links: Vec<LinkPlan>,
    /// One for each other interface that leads out, as they come and go.
    pub auto: Option<AutoPlan>,
}

impl Binds {
    /// Lanes to reserve descriptors for. Each link may have an express lane besides.
    pub fn lanes(&self) -> usize {
        /// More interfaces that lead out have few machines.
        const AUTO_LINKS: usize = 8;
        let of_links =
            self.links.iter().map(|plan| usize::from(plan.bind.lanes) + 1).sum::<usize>();
        let of_auto = self.auto.as_ref().map_or(0, |plan| usize::from(plan.lanes) + 1);
        of_links + (of_auto * AUTO_LINKS).min(usize::from(LANES_MAX))
    }
}

/// The value of one `--bind`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindArg {
    Link(LinkPlan),
    Auto(AutoPlan),
}

impl BindArg {
    pub fn parse(text: &str) -> Result<Self, String> {
        match AutoPlan::parse(text) {
            Some(plan) => plan.map(Self::Auto),
            None => parse_bind(text).map(Self::Link),
        }
    }
}

/// `ADDR[=COUNT][,OPTION=VALUE]…`, one link.
pub fn parse_bind(text: &str) -> Result<LinkPlan, String> {
    let mut parts = text.split(',');
    // split() always yields a first part, if only an empty one.
    let head = parts.next().unwrap_or_default();
    let (source, count) = match head.split_once('=') {
        Some((source, count)) => (source, Some(count)),
        None => (head, None),
    };
    let mut plan = LinkPlan::new(parse_source(source)?, LANES_DEFAULT);
    if let Some(count) = count {
        plan.bind.lanes = parse_lanes(count)?;
    }
    let mut given = BTreeSet::new();
    for option in parts {
        let (name, value) = option.split_once('=').ok_or_else(|| no_option(option))?;
        if !given.insert(name) || (name == "lanes" && count.is_some()) {
            return Err(format!("`{}` is given twice", escape(name)));
        }
        set_option(&mut plan, name, value)?;
    }
    plan.check().map(|()| plan)
}

/// What may follow the address, for messages: extend this line with each new option.
const OPTIONS: &str =
    "known: lanes=COUNT, tier=primary|express|backup|metered, express=yes|no, rate=RATE";

const OPTION_NAMES: [&str; 4] = ["lanes", "tier", "express", "rate"];

fn set_option(plan: &mut LinkPlan, name: &str, value: &str) -> Result<(), String> {
    match name {
        "lanes" => plan.bind.lanes = parse_lanes(value)?,
        "tier" => plan.tier = parse_tier(value)?,
        "express" => plan.express = Some(parse_yes_no(value)?),
        "rate" => plan.rate_max = Some(parse_rate(value)?),
        _ => return Err(no_option(name)),
    }
    Ok(())
}

fn no_option(name: &str) -> String {
    no_option_of("a bind", name, &OPTION_NAMES, OPTIONS)
}

fn no_option_of(what: &str, name: &str, names: &[&str], options: &str) -> String {
    format!("`{}` is no option of {what}{}; {options}", escape(name), meant(name, names))
}

fn parse_tier(text: &str) -> Result<Tier, String> {
    text.parse().map_err(|_| {
        let meant = meant(text, &["primary", "express", "backup", "metered"]);
        let shown = escape(text);
        format!("`{shown}` is no tier{meant}; there are primary, express, backup and metered")
    })
}

fn parse_yes_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("`{}` is neither yes nor no", escape(text))),
    }
}

fn parse_rate(text: &str) -> Result<u64, String> {
    let rate = units::parse_rate(text)?;
    if rate < LINK_RATE_MIN {
        return Err(format!(
            "`{}` is too slow a cap to tell a living lane from a dead one; write at least 64kbit, \
             or leave the bind out",
            escape(text)
        ));
    }
    if rate > RATE_MAX {
        return Err(format!("`{}` is no cap for any link; leave rate= out", escape(text)));
    }
    Ok(rate)
}

fn parse_lanes(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // A number too long for u64 is still a number, and too many.
    let count = digits.then(|| text.parse().unwrap_or(u64::MAX));
    check_lanes(count, &format!("`{}`", escape(text)))
}

fn check_lanes(count: Option<u64>, shown: &str) -> Result<u16, String> {
    match count {
        None => Err(format!(
            "the number of lanes must be a whole number from 1 to {LANES_MAX}, not {shown}"
        )),
        Some(0) => {
            Err("0 lanes carry nothing; leave this bind out, or write at least 1".to_owned())
        }
        Some(count) => u16::try_from(count).ok().filter(|n| *n <= LANES_MAX).ok_or_else(|| {
            format!("{shown} lanes are too many; at most {LANES_MAX}; leave the number out for {LANES_DEFAULT}")
        }),
    }
}

/// Checks all binds of a client together: no source twice, no more than [`LANES_MAX`] lanes.
pub fn check_all(plans: &[LinkPlan]) -> Result<(), String> {
    let mut sources = HashSet::new();
    let binds = || plans.iter().map(|plan| &plan.bind);
    for bind in binds() {
        if !sources.insert(&bind.source) {
            return Err(format!(
                "{} is bound twice; give it once, with the number of lanes it shall have",
                bind.source
            ));
        }
    }
    let total: u64 = binds().map(|bind| u64::from(bind.lanes)).sum();
    if total > u64::from(LANES_MAX) {
        return Err(format!(
            "all binds together ask for {total} lanes; at most {LANES_MAX} are possible"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
