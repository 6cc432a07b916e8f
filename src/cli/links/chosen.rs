//! Which interfaces `--bind auto` makes links of.

use std::net::IpAddr;

use imux::lane::{Bind, BindSource};

use super::network::{Interface, Kind, Network};
use crate::cli::bind::{AutoPlan, Binds, LinkPlan, check_all};

/// The links that are named and, if asked for, those of the other interfaces that lead out.
pub(in crate::cli) fn links(binds: &Binds, network: &Network) -> Vec<LinkPlan> {
    let mut links = binds.links.clone();
    if let Some(plan) = &binds.auto {
        for link in automatic(plan, network, &binds.links) {
            links.push(link);
            if check_all(&links).is_err() {
                links.pop();
                tracing::warn!(
                    "there are more interfaces than lanes: some carry nothing; give --bind auto fewer lanes"
                );
                break;
            }
        }
    }
    links
}

/// A link for each interface that leads out, except for those that have one of their own. IPv4 and
/// IPv6 of one interface are one link.
fn automatic(plan: &AutoPlan, network: &Network, others: &[LinkPlan]) -> Vec<LinkPlan> {
    let is_taken = |interface: &Interface| {
        others.iter().any(|other| match &other.bind.source {
            BindSource::Device(name) => *name == interface.name,
            BindSource::Addr(address) => interface.addresses.contains(address),
            BindSource::LinkLocal { device, .. } => *device == interface.name,
            BindSource::Any => false,
        })
    };
    let chosen = network.interfaces.iter().filter(|interface| {
        let wanted = plan.wants(&interface.name);
        wanted != Some(false) && leads_out(interface, wanted.is_some()) && !is_taken(interface)
    });
    let link = |interface: &Interface| LinkPlan {
        bind: Bind { source: source(interface), lanes: plan.lanes },
        tier: plan.tier(&interface.name, interface.kind == Kind::Mobile),
        express: plan.express,
        rate_max: plan.rate_max,
    };
    chosen.map(link).collect()
}

/// Whether lanes may go out by it; `is_named`: of whatever kind it is.
fn leads_out(interface: &Interface, is_named: bool) -> bool {
    let usual = match interface.kind {
        Kind::Usual | Kind::Mobile => true,
        // In a container it is the way out; on the container's host it is not.
        Kind::Veth => has_default(interface),
        Kind::Loopback | Kind::Internal | Kind::Tunnel => false,
    };
    interface.is_up
        && !interface.is_part
        && (usual || is_named)
        && (has_default(interface) || interface.addresses.iter().any(is_public))
}

/// Whether it has a default route of a family of which it has an address.
fn has_default(interface: &Interface) -> bool {
    interface.defaults.iter().any(|way| usable(interface, way.is_v6).next().is_some())
}

fn usable(interface: &Interface, v6: bool) -> impl Iterator<Item = &IpAddr> {
    let link_local = |address: &IpAddr| match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    interface.addresses.iter().filter(move |it| it.is_ipv6() == v6 && !link_local(it))
}

/// Addresses that routers of the internet know (RFC 6890; of IPv6 those that are handed out).
fn is_public(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let benchmarks = a == 198 && (18..20).contains(&b);
            let special = address.is_private() || address.is_loopback() || address.is_link_local();
            !(special || address.is_documentation() || shared || benchmarks || a == 0 || a >= 224)
        }
        IpAddr::V6(address) => {
            let [a, b, ..] = address.segments();
            (0x2000..0x4000).contains(&a) && !(a == 0x2001 && b == 0xdb8)
        }
    }
}

/// By the interface where the main table has a route by it, which the kernel finds for whoever is
/// bound to it. Where only a table for certain sources has one, the address has to be said.
fn source(interface: &Interface) -> BindSource {
    let by_source = |v6: bool| {
        let of_family = || interface.defaults.iter().filter(move |way| way.is_v6 == v6);
        let only_there = of_family().next().is_some() && !of_family().any(|way| way.is_main);
        usable(interface, v6).next().filter(|_| only_there)
    };
    let is_main = interface.defaults.iter().any(|way| way.is_main);
    match by_source(false).or_else(|| by_source(true)).filter(|_| !is_main) {
        Some(address) => BindSource::Addr(*address),
        None => BindSource::Device(interface.name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::network::Way;
    use super::*;

    fn interface(name: &str, kind: Kind, addresses: &[&str]) -> Interface {
        let way = |address: &&str| Way {
            is_v6: address.contains(':'),
            gateway: None,
            is_main: true,
            metric: 100,
        };
        Interface {
            index: 7,
            name: name.to_owned(),
            is_up: true,
            has_carrier: true,
            kind,
            is_part: false,
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
            defaults: addresses.iter().map(way).collect(),
            ..Interface::default()
        }
    }

    fn without_default(name: &str, kind: Kind, addresses: &[&str]) -> Interface {
        Interface { defaults: [].into(), ..interface(name, kind, addresses) }
    }

    fn chosen(plan: &str, interfaces: Vec<Interface>, others: &[LinkPlan]) -> Vec<String> {
        let plan = AutoPlan::parse(plan).unwrap().unwrap();
        let links = automatic(&plan, &Network { interfaces }, others);
        links.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_interface_that_leads_out_is_one_link() {
        let interfaces = vec![
            interface("lo", Kind::Loopback, &["127.0.0.1"]),
            interface("eth0", Kind::Usual, &["192.168.1.2", "fd00::2"]),
            interface("wwan0", Kind::Mobile, &["10.0.0.2"]),
            interface("wlan0", Kind::Usual, &["192.168.3.2"]),
            without_default("eth1", Kind::Usual, &["10.1.0.1"]),
            without_default("eth2", Kind::Usual, &["198.51.100.7", "9.9.9.9"]),
            without_default("eth3", Kind::Usual, &["2600::7"]),
            interface("br0", Kind::Internal, &["192.168.9.1"]),
            interface("docker0", Kind::Internal, &["172.17.0.1"]),
            without_default("veth1", Kind::Veth, &["9.9.9.10"]),
            interface("tun0", Kind::Tunnel, &["10.8.0.2"]),
            interface("wg0", Kind::Tunnel, &["10.9.0.2"]),
            Interface { is_part: true, ..interface("en1", Kind::Usual, &["10.3.0.2"]) },
            Interface { is_up: false, ..interface("en2", Kind::Usual, &["10.3.0.2"]) },
            interface("en3", Kind::Usual, &["fe80::1"]),
        ];
        let all = chosen("auto=2", interfaces.clone(), &[]);
        assert_eq!(
            all,
            ["dev:eth0=2", "dev:wwan0=2,tier=metered", "dev:wlan0=2", "dev:eth2=2", "dev:eth3=2"]
        );
        assert_eq!(
            chosen("auto=2,only=tun*;br0", interfaces.clone(), &[]),
            ["dev:br0=2", "dev:tun0=2"]
        );
        assert_eq!(chosen("auto=2,not=e*;wwan*", interfaces.clone(), &[]), ["dev:wlan0=2"]);
        let others = [
            LinkPlan::new(BindSource::Device("eth0".into()), 1),
            LinkPlan::new(BindSource::Addr("2600::7".parse().unwrap()), 1),
        ];
        let rest = chosen("auto=2,not=w*", interfaces, &others);
        assert_eq!(rest, ["dev:eth2=2"], "those with a bind of their own have one");
    }

    #[test]
    fn in_a_container_its_own_interface_counts() {
        let inside = vec![interface("eth0", Kind::Veth, &["172.17.0.2"])];
        assert_eq!(chosen("auto", inside, &[]), ["dev:eth0=10"]);
    }

    #[test]
    fn where_only_certain_sources_have_a_route_the_address_is_bound() {
        let mut eth = interface("eth0", Kind::Usual, &["192.168.1.2"]);
        eth.defaults =
            eth.defaults.iter().map(|way| Way { is_main: false, ..way.clone() }).collect();
        assert_eq!(chosen("auto=3", vec![eth], &[]), ["192.168.1.2=3"]);
    }
}
