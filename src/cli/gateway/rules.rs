//! The gateway's rules, in nftables' language. Pure: what is known comes in, a script goes out.
//!
//! All of it is two tables. `imux` takes: it belongs to the process that holds it (`flags owner`)
//! and vanishes with that. `imux_kill_switch` refuses, and stays until it is removed.
//!
//! Connections are taken by REDIRECT, which needs nothing besides; and as the table itself vanishes
//! with the client, none is left that would lead nowhere. Datagrams that were redirected would go
//! on so for as long as they come, as the kernel follows them by itself: they are taken by TPROXY,
//! for which they are marked and [delivered](super::delivery).

use super::plan::{Net, Plan};

/// The table that takes.
pub const TABLE: &str = "imux";

/// The table that refuses.
pub const KILL_SWITCH: &str = "imux_kill_switch";

/// What lanes are marked with. No bit of it is in the masks of Kubernetes, Calico, Cilium or
/// Tailscale, which share the mark with others.
pub const MARK: u32 = 0x2069;

/// What datagrams are marked with that are to be taken.
pub const DELIVERED: u32 = 0x206a;

/// The group of threads that look up names for lanes, by which rules can tell their sockets:
/// those have no other mark. Nobody's, and within what most containers map: systemd's table of
/// group numbers leaves 65520 to 65533 unused.
pub const LOOK_UP_GROUP: u32 = 65_525;

/// By what the client's own look-ups are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookUps {
    /// They have [`LOOK_UP_GROUP`].
    Group,
    /// All that this user asks name servers is taken to be the client's.
    User(u32),
    /// They cannot be told.
    Unknown,
}

/// What the rules depend on besides the plan.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The port that takes.
    pub port: u16,
    /// Stands in the table, so that it can be told from any other; no quotes in it.
    pub holder: &'a str,
    pub look_ups: LookUps,
    /// What goes there is left alone: [`disjoint`](super::plan::disjoint).
    pub left: &'a [Net],
}

/// Before others that rewrite destinations: their priority is -100.
const NAT: i32 = -101;

/// Before others that let pass: their priority is 0.
const FILTER: i32 = -1;

/// Before routes are chosen, and once the kernel knows which way a packet's flow goes.
const MANGLE: i32 = -150;

/// Before the kernel knows that.
const RAW: i32 = -300;

const LOCAL: &str = "fib daddr type { local, broadcast, multicast, anycast }";

/// One line that puts the rules in place of those there were, all or none.
pub fn up(plan: &Plan, facts: &Facts<'_>) -> String {
    let mut script = format!(
        "add table inet {KILL_SWITCH}; delete table inet {KILL_SWITCH}; \
         add table inet {TABLE} {{ flags owner; }}; delete table inet {TABLE}; "
    );
    if plan.kill_switch {
        script.push_str(&table(KILL_SWITCH, "", facts.left, &refusing(plan, facts)));
    }
    let owner = format!("flags owner; comment \"{}\"; ", facts.holder);
    script.push_str(&table(TABLE, &owner, facts.left, &taking(plan, facts)));
    script
}

/// Lines that leave these networks alone instead of those before: one for each table, as the kill
/// switch may be gone by now.
pub fn leave(plan: &Plan, left: &[Net]) -> Vec<String> {
    let tables = [TABLE].into_iter().chain(plan.kill_switch.then_some(KILL_SWITCH));
    let of_table = |table| {
        let of_set = |(set, is_ipv4)| {
            let elements = elements(left, is_ipv4);
            format!(
                "flush set inet {table} {set}; add element inet {table} {set} {{ {elements} }}; "
            )
        };
        [("left4", true), ("left6", false)].map(of_set).concat()
    };
    tables.map(of_table).collect()
}

/// One line after which nothing new is taken, while the kernel goes on translating what connections
/// that were taken before carry: as long as there is a chain that may rewrite, and a rule for which
/// it has to follow connections.
pub fn take_no_more() -> String {
    format!(
        "flush table inet {TABLE}; add chain inet {TABLE} follow; \
         add rule inet {TABLE} follow ct state established accept"
    )
}

struct Chain {
    name: &'static str,
    /// Type, hook and priority.
    place: String,
    rules: Vec<String>,
}

/// A chain that may rewrite destinations.
fn nat(name: &'static str, hook: &str, rules: Vec<String>) -> Chain {
    Chain { name, place: format!("type nat hook {hook} priority {NAT}"), rules }
}

/// A chain that may refuse.
fn filter(name: &'static str, hook: &str, rules: Vec<String>) -> Chain {
    Chain { name, place: format!("type filter hook {hook} priority {FILTER}"), rules }
}

/// A chain that has datagrams handed over.
fn hand_over(name: &'static str, kind: &str, hook: &str, rules: Vec<String>) -> Chain {
    Chain { name, place: format!("type {kind} hook {hook} priority {MANGLE}"), rules }
}

fn table(name: &str, head: &str, left: &[Net], chains: &[Chain]) -> String {
    let mut text = format!("table inet {name} {{ {head}");
    for (set, kind, is_ipv4) in [("left4", "ipv4_addr", true), ("left6", "ipv6_addr", false)] {
        let elements = elements(left, is_ipv4);
        text.push_str(&format!(
            "set {set} {{ type {kind}; flags interval; elements = {{ {elements} }}; }}; "
        ));
    }
    for Chain { name, place, rules } in chains {
        let rules = rules.join("; ");
        text.push_str(&format!("chain {name} {{ {place}; policy accept; {rules}; }}; "));
    }
    text + "}; "
}

fn elements(left: &[Net], is_ipv4: bool) -> String {
    let of_family = left.iter().filter(|net| net.is_ipv4() == is_ipv4);
    of_family.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Rules, of which some depend on something.
fn rules<const N: usize>(rules: [(bool, String); N]) -> Vec<String> {
    rules.into_iter().filter(|(wanted, _)| *wanted).map(|(_, rule)| rule).collect()
}

/// What is to be left alone goes back to the others' rules.
fn left_alone() -> [String; 2] {
    ["ip daddr @left4 accept".to_owned(), "ip6 daddr @left6 accept".to_owned()]
}

/// Matches what comes from elsewhere than the networks of the plan.
fn not_of_lan(plan: &Plan) -> String {
    let lan: Vec<_> = plan.lan.iter().map(|lan| format!("\"{lan}\"")).collect();
    format!("iifname != {{ {} }} accept", lan.join(", "))
}

/// Lets the client's own packets pass, and what never leaves the machine.
fn own(facts: &Facts<'_>) -> Vec<String> {
    let mut own = vec![format!("meta mark {{ {MARK:#x}, {DELIVERED:#x} }} accept")];
    match facts.look_ups {
        LookUps::Group => own.push(format!("meta skgid {LOOK_UP_GROUP} accept")),
        LookUps::User(user) => own.push(format!(
            "meta skuid {user} meta l4proto {{ tcp, udp }} th dport {{ 53, 853 }} accept"
        )),
        LookUps::Unknown => {}
    }
    own.push(format!("{LOCAL} accept"));
    own
}

fn taking(plan: &Plan, facts: &Facts<'_>) -> Vec<Chain> {
    let mut chains = Vec::new();
    if !plan.lan.is_empty() {
        let before = vec![not_of_lan(plan), format!("{LOCAL} accept")];
        let taken = connections(plan, facts, true);
        chains.push(nat("lan", "prerouting", [before.clone(), taken].concat()));
        if !plan.no_udp {
            let tproxy = format!("tproxy to :{} meta mark set {DELIVERED:#x} accept", facts.port);
            let taken = datagrams(plan, &tproxy, true);
            let taken = [before, vec![REPLIES.to_owned()], taken].concat();
            chains.push(hand_over("lan_udp", "filter", "prerouting", taken));
        }
        let refused = refused_datagrams(plan, true);
        chains.push(filter("lan_refused", "forward", [vec![not_of_lan(plan)], refused].concat()));
    }
    let mine = plan.this_machine;
    if mine || plan.dns {
        let taken = connections(plan, facts, mine);
        chains.push(nat("machine", "output", [own(facts), taken].concat()));
        if !plan.no_udp {
            chains.extend(machines_datagrams(plan, facts));
        }
        let refused = refused_datagrams(plan, mine);
        chains.push(filter("machine_refused", "output", [own(facts), refused].concat()));
    }
    if !plan.no_udp {
        // Late ones would be a flow that somebody else has begun; what is sent next, its replies.
        let untracked = format!("meta mark {MARK:#x} meta l4proto udp notrack");
        let place = format!("type filter hook output priority {RAW}");
        chains.push(Chain { name: "answers", place, rules: vec![untracked] });
    }
    chains
}

/// Takes those of this machine: marked, they are routed to it, where they come in once more.
fn machines_datagrams(plan: &Plan, facts: &Facts<'_>) -> [Chain; 3] {
    let mark = format!("meta mark set {DELIVERED:#x} accept");
    let before = [REPLIES, DHCP].map(str::to_owned);
    let taken = datagrams(plan, &mark, plan.this_machine);
    let port = facts.port;
    let back = format!(
        "iifname \"lo\" meta mark {DELIVERED:#x} meta l4proto udp tproxy to :{port} accept"
    );
    [
        hand_over("machine_udp", "route", "output", [own(facts), before.into(), taken].concat()),
        hand_over("machine_back", "filter", "prerouting", vec![back]),
        delivered(),
    ]
}

/// Should the route be gone that delivers what is marked, that leaves by no other.
fn delivered() -> Chain {
    let stray = format!("meta mark {DELIVERED:#x} oifname != \"lo\" drop");
    filter("delivered", "postrouting", vec![stray])
}

/// Whoever has sent first, from elsewhere, gets his answers the way that he came.
const REPLIES: &str = "ct direction reply accept";

/// How a link gets its address.
const DHCP: &str = "udp sport 68 udp dport 67 accept";

/// Takes connections: all, or those to name servers alone.
fn connections(plan: &Plan, facts: &Facts<'_>, all: bool) -> Vec<String> {
    let redirect = |what: &str| format!("{what} redirect to :{}", facts.port);
    let [left4, left6] = left_alone();
    rules([
        (plan.dns, redirect("tcp dport 53")),
        (all, left4),
        (all, left6),
        (all, redirect("meta l4proto tcp")),
    ])
}

/// Takes datagrams: all but what is refused, or those to name servers alone.
fn datagrams(plan: &Plan, take: &str, all: bool) -> Vec<String> {
    let [left4, left6] = left_alone();
    rules([
        (plan.dns, format!("udp dport 53 {take}")),
        (all, left4),
        (all, left6),
        (all && !plan.quic, "udp dport 443 accept".to_owned()),
        (all, format!("meta l4proto udp {take}")),
    ])
}

/// Refuses datagrams that were not taken, and would go another way than they should.
fn refused_datagrams(plan: &Plan, all: bool) -> Vec<String> {
    let [left4, left6] = left_alone();
    rules([
        (plan.dns, "udp dport 53 reject".to_owned()),
        (all, left4),
        (all, left6),
        (all && !plan.quic, "udp dport 443 reject".to_owned()),
    ])
}

/// What has not been taken by then comes by here: it would leave by another way.
fn refusing(plan: &Plan, facts: &Facts<'_>) -> Vec<Chain> {
    let names = || "meta l4proto { tcp, udp } th dport 53 reject".to_owned();
    let tcp = || "meta l4proto tcp reject with tcp reset".to_owned();
    let [left4, left6] = left_alone();
    let mut chains = Vec::new();
    if !plan.lan.is_empty() {
        let refused = rules([
            (true, not_of_lan(plan)),
            (plan.dns, names()),
            (true, left4.clone()),
            (true, left6.clone()),
            (true, tcp()),
            (true, "reject".to_owned()),
        ]);
        chains.push(filter("lan", "forward", refused));
    }
    let mine = plan.this_machine;
    if mine || plan.dns {
        let refused = rules([
            (plan.dns, names()),
            // Whoever has come from elsewhere, over ssh say, is not cut off.
            (mine, REPLIES.to_owned()),
            (mine, DHCP.to_owned()),
            (mine, left4),
            (mine, left6),
            (mine, tcp()),
            (mine, "reject".to_owned()),
        ]);
        chains.push(filter("machine", "output", [own(facts), refused].concat()));
        chains.push(delivered());
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left() -> Vec<Net> {
        ["10.8.0.0/24", "fe80::/10"].map(|net| net.parse().unwrap()).to_vec()
    }

    fn facts(left: &[Net]) -> Facts<'_> {
        Facts { port: 7070, holder: "imux 1", look_ups: LookUps::Group, left }
    }

    #[test]
    fn a_lan_is_taken_and_nothing_of_the_machine_itself() {
        let plan = Plan { lan: vec!["eth1".to_owned()], ..Plan::default() };
        let left = left();
        let script = up(&plan, &facts(&left));
        assert!(script.contains("iifname != { \"eth1\" } accept"), "{script}");
        assert!(script.contains("meta l4proto tcp redirect to :7070"), "{script}");
        assert!(script.contains("udp dport 443 reject"), "{script}");
        assert!(!script.contains("chain machine") && !script.contains("dport 53"), "{script}");
        let tproxy = "meta l4proto udp tproxy to :7070 meta mark set 0x206a accept";
        assert!(script.contains(tproxy), "{script}");
        let without = up(&Plan { no_udp: true, ..plan }, &facts(&left));
        assert!(!without.contains("tproxy") && without.contains("443 reject"), "{without}");
        assert!(!script.contains(&format!("table inet {KILL_SWITCH} {{")), "{script}");
        // Nothing is taken for an instant only: the table is put in place of the one before.
        assert!(!script.contains('\n') && script.contains("flags owner"), "{script}");
    }

    #[test]
    fn what_is_the_clients_own_comes_before_what_is_taken() {
        let plan = Plan { this_machine: true, dns: true, quic: true, ..Plan::default() };
        let left = left();
        let of = |look_ups| up(&plan, &Facts { look_ups, ..facts(&left) });
        let script = of(LookUps::Group);
        let at = |text: &str| script.find(text).unwrap_or_else(|| panic!("{text}: {script}"));
        assert!(at("meta mark { 0x2069, 0x206a } accept") < at("meta skgid 65525 accept"));
        assert!(at("meta skgid 65525 accept") < at("tcp dport 53 redirect to :7070"));
        assert!(at("tcp dport 53 redirect") < at("ip daddr @left4 accept"));
        assert!(at("ip daddr @left4 accept") < at("meta l4proto tcp redirect"));
        assert!(!script.contains("dport 443"), "{script}");
        assert!(of(LookUps::User(998)).contains("meta skuid 998 meta l4proto { tcp, udp }"));
        assert!(!of(LookUps::Unknown).contains("meta sk"));
    }

    #[test]
    fn a_kill_switch_refuses_in_a_table_without_an_owner() {
        let plan = Plan { lan: vec!["a".to_owned()], kill_switch: true, ..Plan::default() };
        let left = left();
        let script = up(&plan, &facts(&left));
        let (refuses, takes) = script.split_once("flags owner; comment").unwrap();
        let table = refuses.split_once(&format!("table inet {KILL_SWITCH} {{")).unwrap().1;
        assert!(table.contains("tcp reset; reject; }") && !table.contains("owner"), "{table}");
        assert!(!takes.contains("reject with"), "{takes}");
        let leaving = leave(&plan, &left);
        assert!(leaving[0].contains("inet imux left4 { 10.8.0.0/24 }"), "{leaving:?}");
        assert!(leaving[1].contains("inet imux_kill_switch left6 { fe80::/10 }"), "{leaving:?}");
        assert_eq!(leave(&Plan::default(), &left).len(), 1);
    }
}
