//! Which local addresses or interfaces carry how many lanes: `--bind` and `--binds`.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use imux::Tier;
use imux::lane::{Bind, BindSource};
use imux::proto::limits::LINK_RATE_MIN;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::text::{escape, meant};
use super::units;

/// Lanes of a bind that does not say how many, as the original's default has it.
pub(crate) const LANES_DEFAULT: u16 = 10;

/// Most lanes of one client. Each costs a socket, a task and buffers at both ends; a number above
/// this is a slip of the finger, not a plan.
pub(crate) const LANES_MAX: u16 = imux::Link::LANES_MAX;

/// Highest cap: no link of today needs one above it.
const RATE_MAX: u64 = 1_000_000_000_000 / 8;

/// A bind, and what its lanes may carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkPlan {
    pub(crate) bind: Bind,
    pub(crate) tier: Tier,
    /// Whether primary lanes have an express lane beside them; they have if nothing is said.
    pub(crate) express: Option<bool>,
    /// Bytes a second of all its lanes together, each way.
    pub(crate) rate_max: Option<u64>,
}

impl LinkPlan {
    pub(crate) fn new(source: BindSource, lanes: u16) -> Self {
        Self { bind: Bind { source, lanes }, tier: Tier::default(), express: None, rate_max: None }
    }

    /// What contradicts itself, once all options are known.
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
    /// As `--bind` takes it.
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

const EXPECTED: &str =
    "expected an address of this machine (192.168.1.2, 2001:db8::1) or an interface (dev:eth1)";

fn parse_device(name: &str) -> Result<BindSource, String> {
    check_device(name).map(|()| BindSource::Device(name.to_owned()))
}

/// Whether an interface may have this name.
pub(super) fn check_device(name: &str) -> Result<(), String> {
    // The kernel's rule: at most IFNAMSIZ - 1 = 15 bytes, no slash, no space, not a dot or two.
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

/// The address before a `%`: no other kind needs an interface.
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

/// `ADDR[=COUNT][,OPTION=VALUE]…`, the value of one `--bind`.
pub(crate) fn parse_bind(text: &str) -> Result<LinkPlan, String> {
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

/// What may follow the address, for messages: one line to extend with each option.
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
    format!("`{}` is no option of a bind{}; {OPTIONS}", escape(name), meant(name, &OPTION_NAMES))
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

/// The value of `--binds`: a JSON object of address to number of lanes, or to an object of options,
/// in the order written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BindMap(pub(crate) Vec<LinkPlan>);

impl FromStr for BindMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut json = serde_json::Deserializer::from_str(text);
        let parsed =
            json.deserialize_map(BindsVisitor).and_then(|binds| json.end().map(|()| binds));
        parsed.map(BindMap).map_err(|error| explain_json(text, &error))
    }
}

struct BindsVisitor;

impl<'de> Visitor<'de> for BindsVisitor {
    type Value = Vec<LinkPlan>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of address to number of lanes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<LinkPlan>, A::Error> {
        let mut binds: Vec<LinkPlan> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let source = parse_source(&key).map_err(de::Error::custom)?;
            let value = map.next_value::<serde_json::Value>()?;
            let mut plan = LinkPlan::new(source, LANES_DEFAULT);
            set_json(&mut plan, &value)
                .map_err(|problem| de::Error::custom(format!("{}: {problem}", plan.bind.source)))?;
            binds.push(plan);
        }
        if binds.is_empty() {
            return Err(de::Error::custom("there is no bind in it, so there would be no lane"));
        }
        Ok(binds)
    }
}

/// `4`, or `{"lanes": 4, "tier": "backup", "rate": "20mbit"}`.
fn set_json(plan: &mut LinkPlan, value: &serde_json::Value) -> Result<(), String> {
    let lanes = |value: &serde_json::Value| check_lanes(value.as_u64(), &value.to_string());
    let Some(options) = value.as_object() else {
        plan.bind.lanes = lanes(value)?;
        return Ok(());
    };
    for (name, value) in options {
        match value.as_str() {
            _ if !OPTION_NAMES.contains(&name.as_str()) => {
                return Err(no_option(name));
            }
            _ if name == "lanes" => plan.bind.lanes = lanes(value)?,
            _ if name == "express" && value.is_boolean() => plan.express = value.as_bool(),
            Some(text) => set_option(plan, name, text)?,
            None => {
                let wanted = match name.as_str() {
                    "express" => "true, false, or \"yes\" or \"no\" in quotes",
                    _ => "text in quotes",
                };
                return Err(format!(
                    "the value of `{}` has to be {wanted}, not {}; {OPTIONS}",
                    escape(name),
                    escape(&value.to_string())
                ));
            }
        }
    }
    plan.check()
}

/// The JSON error with the place it points at shown under the text.
fn explain_json(text: &str, error: &serde_json::Error) -> String {
    let whole = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let problem = whole.strip_suffix(&place).unwrap_or(&whole);
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    // serde_json counts bytes; the column is of the last byte read. Show some 60 characters of it.
    let before = line.bytes().take(error.column().saturating_sub(1)).collect::<Vec<_>>();
    let before = String::from_utf8_lossy(&before).chars().count();
    let start = before.saturating_sub(40);
    let excerpt: String = line.chars().skip(start).take(60).collect();
    let mark = " ".repeat(before - start);
    format!(
        "{problem} (line {}, column {})\n    {excerpt}\n    {mark}^\n\
         Expected a JSON object of address to number of lanes, quoted for the shell, such as\n    \
         --binds='{{\"192.168.1.2\": 20, \"dev:eth1\": {{\"lanes\": 4, \"tier\": \"backup\"}}}}'",
        error.line(),
        error.column(),
    )
}

/// All binds of a client together: no source twice, no more lanes than [`LANES_MAX`].
pub(crate) fn check_all(plans: &[LinkPlan]) -> Result<(), String> {
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
mod tests {
    use super::*;

    fn addr(text: &str, lanes: u16) -> LinkPlan {
        LinkPlan::new(BindSource::Addr(text.parse().unwrap()), lanes)
    }

    fn device(name: &str, lanes: u16) -> LinkPlan {
        LinkPlan::new(BindSource::Device(name.to_owned()), lanes)
    }

    fn link_local(addr: &str, device: &str, lanes: u16) -> LinkPlan {
        let (addr, device) = (addr.parse().unwrap(), device.to_owned());
        LinkPlan::new(BindSource::LinkLocal { addr, device }, lanes)
    }

    #[test]
    fn single_binds() {
        for (text, expected) in [
            ("0.0.0.0", addr("0.0.0.0", LANES_DEFAULT)),
            ("192.168.1.2=4", addr("192.168.1.2", 4)),
            ("[2001:db8::1]=4", addr("2001:db8::1", 4)),
            ("2001:db8::1=4", addr("2001:db8::1", 4)),
            ("[2001:db8::1]", addr("2001:db8::1", LANES_DEFAULT)),
            ("::1", addr("::1", LANES_DEFAULT)),
            ("::ffff:10.0.0.1=2", addr("10.0.0.1", 2)),
            ("dev:eth1=4", device("eth1", 4)),
            ("dev:wlp0s20f3", device("wlp0s20f3", LANES_DEFAULT)),
            ("dev:eth0.100=1", device("eth0.100", 1)),
            ("10.0.0.2,lanes=3", addr("10.0.0.2", 3)),
            ("10.0.0.2=256", addr("10.0.0.2", 256)),
            ("any=3", LinkPlan::new(BindSource::Any, 3)),
            ("fe80::2%eth1=4", link_local("fe80::2", "eth1", 4)),
            ("[fe80::2%eth0.100]", link_local("fe80::2", "eth0.100", LANES_DEFAULT)),
        ] {
            assert_eq!(parse_bind(text).as_ref(), Ok(&expected), "{text}");
        }
    }

    #[test]
    fn tiers_and_caps() {
        let plan = parse_bind("10.0.0.2=3,tier=backup,rate=20mbit").unwrap();
        assert_eq!((plan.tier, plan.rate_max), (Tier::Backup, Some(2_500_000)));
        assert_eq!(plan.to_string(), "10.0.0.2=3,tier=backup,rate=20000000bit");
        assert_eq!(parse_bind(&plan.to_string()).as_ref(), Ok(&plan));
        let plan = parse_bind("dev:wwan0,rate=64kbit,tier=metered,lanes=1").unwrap();
        assert_eq!((plan.bind.lanes, plan.tier, plan.rate_max), (1, Tier::Metered, Some(8_000)));
        let map: BindMap =
            r#"{"10.0.0.2": {"lanes": 3, "tier": "backup", "rate": "20mbit"}, "dev:wwan0": {}}"#
                .parse()
                .unwrap();
        let expected = parse_bind("10.0.0.2=3,tier=backup,rate=20mbit").unwrap();
        assert_eq!(map.0, [expected, device("wwan0", LANES_DEFAULT)]);
    }

    #[test]
    fn express_lanes() {
        let plan = parse_bind("10.0.0.2=3,express=no").unwrap();
        assert_eq!((plan.express, plan.to_string()), (Some(false), "10.0.0.2=3,express=no".into()));
        assert_eq!(parse_bind("10.0.0.2=3,express=yes").unwrap().express, Some(true));
        assert_eq!(parse_bind("10.0.0.2=3,tier=express").unwrap().tier, Tier::Express);
        let both = r#"{"10.0.0.2": {"express": "no"}, "dev:wwan0": {"express": false}}"#;
        let BindMap(plans) = both.parse().unwrap();
        assert!(plans.iter().all(|plan| plan.express == Some(false)), "{plans:?}");
    }

    #[test]
    fn binds_that_cannot_be() {
        for (text, expected) in [
            ("10.0.0.1,express=maybe", "neither yes nor no"),
            ("10.0.0.1,tier=backup,express=yes", "leave one of the two out"),
            ("", "address is missing"),
            ("=4", "address is missing"),
            ("eth1", "write dev:eth1"),
            ("eth1=4", "write dev:eth1"),
            ("10.0.0.300", "no address"),
            ("10.0.0.1:443", "no address"),
            ("fe80::1", "dev:eth1"),
            ("2001:db8::1%eth1", "link-local addresses only"),
            ("10.0.0.1%eth1", "link-local addresses only"),
            ("[fe80::1%]", "name is missing"),
            ("fe80::1%e/h", "no interface name"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("10.0.0.1=", "whole number from 1 to 256"),
            ("10.0.0.1=0", "0 lanes"),
            ("10.0.0.1=-1", "whole number"),
            ("10.0.0.1=1.5", "whole number"),
            ("10.0.0.1=1001", "too many"),
            ("10.0.0.1=99999999999999999999999", "too many"),
            ("10.0.0.1=4,colour=red", "`colour` is no option of a bind; known: lanes=COUNT, tier="),
            ("10.0.0.1=4,tier=", "`` is no tier; there are primary, express, backup and metered"),
            ("10.0.0.1=4,tier=Backup", "`Backup` is no tier"),
            ("10.0.0.1=4,tier", "`tier` is no option of a bind"),
            ("10.0.0.1=4,tier=backup,tier=backup", "`tier` is given twice"),
            ("10.0.0.1=4,rate=20", "has no unit; write a rate such as"),
            ("10.0.0.1=4,rate=20M", "`M` is no unit of rate"),
            ("10.0.0.1=4,rate=0mbit", "at least 64kbit"),
            ("10.0.0.1=4,rate=63kbit", "at least 64kbit"),
            ("10.0.0.1=4,rate=-5mbit", "less than nothing"),
            ("10.0.0.1=4,rate=2000gbit", "leave rate= out"),
            ("10.0.0.1=4,rate=99999999999999999999gbit", "is too large"),
            ("10.0.0.1=4,", "no option"),
            ("10.0.0.1=4,lanes=5", "twice"),
            ("10.0.0.1,lanes=4,lanes=5", "twice"),
            ("dev:", "name is missing"),
            ("dev:..", "no interface name"),
            ("dev:a/b", "no interface name"),
            ("dev:abcdefghijklmnop", "15 characters"),
            ("dev:e\x1b", "\\u{1b}"),
        ] {
            let error = parse_bind(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn json_keeps_the_order_and_takes_devices() {
        let map: BindMap =
            r#" {"10.0.0.2": 20, "0.0.0.0": 1, "dev:eth1": 4, "::1": 2} "#.parse().unwrap();
        let expected =
            [addr("10.0.0.2", 20), addr("0.0.0.0", 1), device("eth1", 4), addr("::1", 2)];
        assert_eq!(map.0, expected);
    }

    #[test]
    fn json_errors_show_the_place() {
        for (text, expected) in [
            ("", "EOF while parsing"),
            ("{}", "no bind"),
            ("[]", "expected an object"),
            ("{\"0.0.0.0\" 10}", "line 1, column 12"),
            ("{\"0.0.0.0\": 10", "EOF"),
            ("{\"0.0.0.0\": 10} x", "trailing characters (line 1, column 17)"),
            ("{\"0.0.0.0\": \"10\"}", "0.0.0.0: the number of lanes must be"),
            ("{\"0.0.0.0\": 1.5}", "not 1.5"),
            ("{\"0.0.0.0\": -1}", "not -1"),
            ("{\"0.0.0.0\": null}", "not null"),
            ("{\"0.0.0.0\": 0}", "0 lanes"),
            ("{\"0.0.0.0\": {\"lanes\": 0}}", "0 lanes"),
            ("{\"0.0.0.0\": {\"tier\": \"gold\"}}", "0.0.0.0: `gold` is no tier"),
            (
                "{\"0.0.0.0\": {\"lane\": 2}}",
                "`lane` is no option of a bind (did you mean `lanes`?); known: lanes",
            ),
            ("{\"0.0.0.0\": {\"rate\": 20}}", "has to be text in quotes, not 20"),
            (
                "{\"0.0.0.0\": {\"express\": 3}}",
                "has to be true, false, or \"yes\" or \"no\" in quotes, not 3",
            ),
            ("{\"0.0.0.0\": {\"speed\": \"20\"}}", "`speed` is no option"),
            ("{\"0.0.0.0\": 100000}", "too many"),
            ("{\"eth0\": 1}", "write dev:eth0"),
            ("{\n  \"0.0.0.0\": 10,\n  oops\n}", "line 3"),
            ("{0.0.0.0: 10}", "key must be a string"),
        ] {
            let error = text.parse::<BindMap>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(error.contains("--binds='{"), "{text}: {error}");
        }
    }

    #[test]
    fn the_caret_points_at_the_mistake() {
        let error = "{\"0.0.0.0\" 10}".parse::<BindMap>().unwrap_err();
        let lines: Vec<_> = error.lines().collect();
        assert_eq!(lines[1], "    {\"0.0.0.0\" 10}");
        assert_eq!(lines[2], "               ^");
        // Far into a long line.
        let binds: Vec<_> = (1..100).map(|n| format!("\"10.0.0.{n}\": 1,")).collect();
        let long = format!("{{{} \"10.0.1.1\" 1}}", binds.concat());
        let error = long.parse::<BindMap>().unwrap_err();
        let lines: Vec<_> = error.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() < 100), "{error}");
        let mark = lines[2].find('^').unwrap();
        assert_eq!(lines[1].as_bytes()[mark], b'1', "{error}");
        let error = "{\"ü\" 1}".parse::<BindMap>().unwrap_err();
        assert!(error.contains("`ü` is no address"), "{error}");
    }

    #[test]
    fn all_binds_together() {
        assert_eq!(check_all(&[addr("10.0.0.1", 156), addr("10.0.0.2", 100)]), Ok(()));
        let twice = check_all(&[addr("::1", 1), device("eth0", 1), addr("::1", 2)]).unwrap_err();
        assert!(twice.starts_with("::1 is bound twice"), "{twice}");
        let many = check_all(&[addr("10.0.0.1", 200), addr("10.0.0.2", 101)]).unwrap_err();
        assert!(many.contains("301 lanes"), "{many}");
    }
}
