//! What of a machine's and its networks' traffic goes through the tunnel.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::cli::text::escape;

/// Most networks that one plan leaves out: with the longest of them, a request stays a line.
const EXCEPT_MAX: usize = 64;

/// Most interfaces of one plan.
const LAN_MAX: usize = 32;

/// The kernel's longest interface name (`IFNAMSIZ`, less the zero).
const INTERFACE_BYTES_MAX: usize = 15;

/// What `imux gateway up` asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// What comes from the hosts behind these interfaces is taken.
    pub lan: Vec<String>,
    /// What this machine's own programs send is taken.
    pub this_machine: bool,
    /// What goes there is not.
    pub except: Vec<Net>,
    /// Questions to name servers are taken wherever they go.
    pub dns: bool,
    /// What cannot be taken is refused, even once the client is gone.
    pub kill_switch: bool,
    /// QUIC is treated as any other datagrams.
    pub quic: bool,
    /// Datagrams are left to go as they do without a gateway, but for QUIC and questions to name
    /// servers: where those are to be taken, they are refused.
    pub no_udp: bool,
}

impl Plan {
    /// As it stands in a request.
    pub fn to_json(&self) -> Value {
        let except: Vec<_> = self.except.iter().map(ToString::to_string).collect();
        json!({
            "lan": self.lan, "this-machine": self.this_machine, "except": except, "dns": self.dns,
            "kill-switch": self.kill_switch, "quic": self.quic, "no-udp": self.no_udp,
        })
    }

    /// Reads it, or says why it cannot, in words that are safe to show.
    pub fn from_json(value: &Value) -> Result<Self, &'static str> {
        let switch = |name| value.get(name).and_then(Value::as_bool).unwrap_or(false);
        let plan = Self {
            lan: parse_all(value, "lan", |text| interface(text).ok())?,
            this_machine: switch("this-machine"),
            except: parse_all(value, "except", |text| text.parse().ok())?,
            dns: switch("dns"),
            kill_switch: switch("kill-switch"),
            quic: switch("quic"),
            no_udp: switch("no-udp"),
        };
        plan.check()?;
        Ok(plan)
    }

    pub fn check(&self) -> Result<(), &'static str> {
        if self.lan.is_empty() && !self.this_machine {
            return Err("nothing is to be taken: give --lan IFACE or --this-machine");
        }
        if self.lan.len() > LAN_MAX || self.except.len() > EXCEPT_MAX {
            return Err("a gateway has at most 32 interfaces and 64 exceptions");
        }
        Ok(())
    }
}

fn parse_all<T>(
    value: &Value,
    name: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, &'static str> {
    let Some(list) = value.get(name) else { return Ok(Vec::new()) };
    let parsed = list.as_array().and_then(|list| {
        list.iter().map(|it| it.as_str().and_then(&parse)).collect::<Option<Vec<_>>>()
    });
    parsed.ok_or("that is no list of interfaces or networks")
}

impl fmt::Display for Plan {
    /// For people: a part of a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut who: Vec<_> = self.lan.iter().map(|lan| format!("hosts behind {lan}")).collect();
        if self.this_machine {
            who.push("this machine".to_owned());
        }
        f.write_str(&who.join(" and "))?;
        if !self.except.is_empty() {
            let except: Vec<_> = self.except.iter().map(ToString::to_string).collect();
            write!(f, ", except to {}", except.join(", "))?;
        }
        for (set, what) in [
            (self.dns, "name servers included"),
            (self.kill_switch, "with a kill switch"),
            (self.quic, "QUIC included"),
            (self.no_udp, "without datagrams"),
        ] {
            if set {
                write!(f, ", {what}")?;
            }
        }
        Ok(())
    }
}

/// An interface's name. Nothing in it means anything else in a rule.
pub fn interface(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+@:".contains(c);
    if text.is_empty() || text.len() > INTERFACE_BYTES_MAX || !text.chars().all(plain) {
        return Err(format!(
            "`{}` is no name of an interface; write one such as eth1; `ip link` shows them",
            escape(text)
        ));
    }
    Ok(text.to_owned())
}

/// A network's address and the length of its prefix. The other bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Net {
    address: IpAddr,
    prefix: u8,
}

impl Net {
    /// The network of this address; a prefix that is too long is the address alone.
    pub fn new(address: IpAddr, prefix: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let prefix = prefix.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Self { address: IpAddr::V4((u32::from(v4) & mask).into()), prefix }
            }
            IpAddr::V6(v6) => {
                let prefix = prefix.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Self { address: IpAddr::V6((u128::from(v6) & mask).into()), prefix }
            }
        }
    }

    /// One address.
    pub fn only(address: IpAddr) -> Self {
        Self::new(address, u8::MAX)
    }

    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// Whether all of `other` is in it.
    pub fn contains(&self, other: &Self) -> bool {
        let same_family = self.is_ipv4() == other.is_ipv4();
        same_family && self.prefix <= other.prefix && Self::new(other.address, self.prefix) == *self
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || {
            let text = escape(text);
            format!(
                "`{text}` is no network; write one such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7"
            )
        };
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let Some(prefix) = prefix else { return Ok(Self::only(address)) };
        let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|prefix| digits && *prefix <= most);
        Ok(Self::new(address, prefix.ok_or_else(form)?))
    }
}

/// Each network once, and none that is within another: what nftables takes as a set.
pub fn disjoint(nets: impl IntoIterator<Item = Net>) -> Vec<Net> {
    let mut nets: Vec<_> = nets.into_iter().collect();
    // Wider ones stand before those within them.
    nets.sort_unstable();
    let mut kept: Vec<Net> = Vec::new();
    for net in nets {
        if !kept.last().is_some_and(|last| last.contains(&net)) {
            kept.push(net);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Net {
        text.parse().unwrap()
    }

    #[test]
    fn networks_as_people_write_them() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8:1::9/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(net(text).to_string(), shown);
        }
        for text in ["", "x", "10.0.0.0/33", "10/8", "::/129", "10.0.0.0/", "10.0.0.0/+8", "a/8"] {
            assert!(text.parse::<Net>().unwrap_err().contains("such as 10.0.0.0/8"), "{text}");
        }
    }

    #[test]
    fn of_networks_within_others_the_widest_is_kept() {
        let nets = ["10.1.0.0/16", "10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8", "::/0", "fe80::/10"];
        let kept = disjoint(nets.map(net));
        assert_eq!(kept, ["10.0.0.0/8", "11.0.0.0/8", "::/0"].map(net));
        assert!(!net("0.0.0.0/0").contains(&net("::1")));
    }

    #[test]
    fn interfaces_contain_nothing_that_a_rule_could_read() {
        for name in ["eth1", "wlp3s0", "br-lan", "eth0.100", "veth1@if2"] {
            assert_eq!(interface(name).unwrap(), name);
        }
        for name in ["", "eth*", "a b", "a\"", "a;b", "a{", "abcdefghijklmnop", "a\\b", "ä"] {
            assert!(interface(name).unwrap_err().contains("ip link"), "{name}");
        }
    }

    #[test]
    fn a_plan_is_the_same_when_it_has_been_asked_for() {
        let plan = Plan {
            lan: vec!["eth1".to_owned()],
            this_machine: true,
            except: vec![net("10.0.0.0/8"), net("::1")],
            dns: true,
            kill_switch: true,
            quic: false,
            no_udp: true,
        };
        assert_eq!(Plan::from_json(&plan.to_json()), Ok(plan.clone()));
        assert_eq!(
            plan.to_string(),
            "hosts behind eth1 and this machine, except to 10.0.0.0/8, ::1/128, name servers \
             included, with a kill switch, without datagrams"
        );
        for wrong in [
            json!({}),
            json!({"lan": []}),
            json!({"lan": ["a b"]}),
            json!({"lan": "eth1"}),
            json!({"lan": ["eth1"], "except": [1]}),
            json!({"this-machine": true, "except": ["x"]}),
            json!({"lan": vec!["eth1"; 33]}),
        ] {
            Plan::from_json(&wrong).expect_err(&wrong.to_string());
        }
    }
}
