//! What a link stands on: the facts of this machine's networks that its lanes depend on.

use std::collections::BTreeSet;
use std::net::IpAddr;

use imux::lane::BindSource;

use super::network::{Interface, Network};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fact {
    /// An interface that is up, by its number: one of the same name made later is another.
    Up(u32),
    /// It has a carrier. Losing it may be over in a moment; lanes find out by themselves.
    Carrier(u32),
    Address(u32, IpAddr),
    /// A default route, of IPv6 or not, by an interface and perhaps a router.
    Default(bool, u32, Option<IpAddr>),
}

/// What lanes bound to `source` stand on now; nothing if they cannot stand at all, or if it is not
/// known.
pub(super) fn of(source: &BindSource, network: &Network) -> BTreeSet<Fact> {
    let up = |interface: &&Interface| interface.is_up;
    match source {
        BindSource::Any => best_ways(network, |_| true),
        BindSource::Addr(address) if address.is_unspecified() => {
            best_ways(network, |v6| v6 == address.is_ipv6())
        }
        BindSource::Addr(address) => {
            let has = |it: &&Interface| it.addresses.contains(&address.to_canonical());
            let interface = network.interfaces.iter().filter(up).find(has);
            interface.map_or_else(BTreeSet::new, |interface| {
                facts(interface, |it| it.to_canonical() == address.to_canonical())
            })
        }
        BindSource::Device(name) | BindSource::LinkLocal { device: name, .. } => {
            let named = |it: &&Interface| it.name == *name || it.index.to_string() == *name;
            let interface = network.interfaces.iter().filter(up).find(named);
            let address = |address: &IpAddr| match source {
                BindSource::LinkLocal { addr, .. } => *address == IpAddr::V6(*addr),
                _ => !is_link_local(address),
            };
            interface.map_or_else(BTreeSet::new, |interface| facts(interface, address))
        }
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// All of one interface that matters to addresses like this.
fn facts(interface: &Interface, is_used: impl Fn(&IpAddr) -> bool) -> BTreeSet<Fact> {
    let index = interface.index;
    let addresses: Vec<_> = interface.addresses.iter().filter(|it| is_used(it)).copied().collect();
    let family = |v6: bool| addresses.iter().any(|address| address.is_ipv6() == v6);
    let ways = interface.defaults.iter().filter(|way| family(way.is_v6));
    let ways = ways.map(|way| Fact::Default(way.is_v6, index, way.gateway));
    let carrier = interface.has_carrier.then_some(Fact::Carrier(index));
    let own = addresses.iter().map(|address| Fact::Address(index, *address));
    [Fact::Up(index)].into_iter().chain(carrier).chain(own).chain(ways).collect()
}

/// The default routes that are taken, of the families asked for.
fn best_ways(network: &Network, is_used: impl Fn(bool) -> bool) -> BTreeSet<Fact> {
    let all = || network.interfaces.iter().filter(|interface| interface.is_up);
    let ways = || all().flat_map(|it| it.defaults.iter().map(move |way| (it.index, way)));
    let best = |v6: bool| {
        let of_family = || ways().filter(move |(_, way)| way.is_v6 == v6 && way.is_main);
        let least = of_family().map(|(_, way)| way.metric).min();
        of_family().filter(move |(_, way)| Some(way.metric) == least)
    };
    let used = [false, true].into_iter().filter(|v6| is_used(*v6));
    used.flat_map(best).map(|(index, way)| Fact::Default(way.is_v6, index, way.gateway)).collect()
}

/// What has happened to what a link stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Something that lanes may use is gone, or another.
    Lost,
    /// There is more than before.
    Gained,
}

/// What it means to lanes that one set has become the other.
pub(super) fn change(before: &BTreeSet<Fact>, now: &BTreeSet<Fact>) -> Option<Change> {
    let is_carrier = |fact: &&Fact| matches!(fact, Fact::Carrier(_));
    let mut lost = before.difference(now).filter(|fact| !is_carrier(fact));
    if lost.next().is_some() {
        return Some(Change::Lost);
    }
    now.difference(before).next().map(|_| Change::Gained)
}

#[cfg(test)]
mod tests {
    use super::super::network::{Kind, Way};
    use super::*;

    fn interface(index: u32, name: &str, addresses: &[&str]) -> Interface {
        let way = |gateway: &str| Way {
            is_v6: false,
            gateway: Some(gateway.parse().unwrap()),
            is_main: true,
            metric: index,
        };
        Interface {
            index,
            name: name.to_owned(),
            is_up: true,
            has_carrier: true,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            kind: Kind::Usual,
            is_part: false,
            defaults: [way(&format!("10.0.{index}.1"))].into(),
            ..Interface::default()
        }
    }

    fn network() -> Network {
        let wlan = interface(2, "wlan0", &["10.0.2.7", "fe80::2"]);
        Network { interfaces: vec![wlan, interface(3, "wwan0", &["10.0.3.7"])] }
    }

    fn told(source: &BindSource, alter: impl Fn(&mut Network)) -> Option<Change> {
        let mut now = network();
        alter(&mut now);
        change(&of(source, &network()), &of(source, &now))
    }

    fn device(name: &str) -> BindSource {
        BindSource::Device(name.to_owned())
    }

    #[test]
    fn what_lanes_do_not_use_is_no_matter_of_theirs() {
        let address = BindSource::Addr([10, 0, 2, 7].into());
        for source in [&device("wlan0"), &address, &BindSource::Any] {
            assert_eq!(told(source, |_| {}), None);
            assert_eq!(told(source, |now| now.interfaces.truncate(1)), None, "{source}");
        }
        let of_link = |now: &mut Network| {
            now.interfaces[0].addresses.remove(&"fe80::2".parse().unwrap());
        };
        assert_eq!(told(&device("wlan0"), of_link), None);
    }

    #[test]
    fn what_they_use_and_what_is_gone() {
        let address = BindSource::Addr([10, 0, 2, 7].into());
        let alterations: [fn(&mut Network); 6] = [
            |now| drop(now.interfaces.remove(0)),
            |now| now.interfaces[0].is_up = false,
            |now| now.interfaces[0].index = 9,
            |now| now.interfaces[0].addresses.clear(),
            |now| now.interfaces[0].addresses = ["10.0.2.8".parse().unwrap()].into(),
            |now| now.interfaces[0].defaults.clear(),
        ];
        for (number, alter) in alterations.into_iter().enumerate() {
            for source in [&device("wlan0"), &address] {
                assert_eq!(told(source, alter), Some(Change::Lost), "{number} {source}");
            }
        }
        // The interface is renamed; its address is still there.
        let renamed = |now: &mut Network| now.interfaces[0].name = "wlan7".to_owned();
        assert_eq!(told(&device("wlan0"), renamed), Some(Change::Lost));
        assert_eq!(told(&address, renamed), None);
        assert_eq!(told(&device("2"), renamed), None);
        let without = |now: &mut Network| now.interfaces[0].has_carrier = false;
        assert_eq!(told(&device("wlan0"), without), None);
    }

    #[test]
    fn what_comes_is_reason_to_try_again() {
        let gained = |now: &mut Network| {
            now.interfaces[0].addresses.insert("2001:db8::7".parse().unwrap());
        };
        assert_eq!(told(&device("wlan0"), gained), Some(Change::Gained));
        let none = Network::default();
        for source in [device("wlan0"), BindSource::Any, BindSource::Addr([10, 0, 2, 7].into())] {
            let (before, now) = (of(&source, &none), of(&source, &network()));
            assert_eq!(change(&before, &now), Some(Change::Gained), "{source}");
        }
        let (mut without, with) = (network(), network());
        without.interfaces[0].has_carrier = false;
        let (without, with) = (of(&device("wlan0"), &without), of(&device("wlan0"), &with));
        assert_eq!(change(&without, &with), Some(Change::Gained));
    }

    #[test]
    fn the_default_route_that_is_taken_is_followed() {
        let moved = |now: &mut Network| {
            now.interfaces[1].defaults = now.interfaces[1]
                .defaults
                .iter()
                .map(|way| Way { metric: 1, ..way.clone() })
                .collect();
        };
        assert_eq!(told(&BindSource::Any, moved), Some(Change::Lost));
        assert_eq!(told(&BindSource::Addr([0, 0, 0, 0].into()), moved), Some(Change::Lost));
        let v6 = BindSource::Addr("::".parse().unwrap());
        assert_eq!(told(&v6, moved), None);
    }
}
