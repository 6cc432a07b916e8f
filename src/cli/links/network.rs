//! This machine's interfaces, addresses and default routes, as netlink tells them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::channel::mpsc::UnboundedReceiver;
use futures::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteType,
};
use rtnetlink::sys::SocketAddr;
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection};

/// Those of this machine at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Network {
    pub(super) interfaces: Vec<Interface>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Interface {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) is_up: bool,
    pub(super) has_carrier: bool,
    pub(super) kind: Kind,
    /// It belongs to a bridge, a bond or the like, which has the addresses.
    pub(super) is_part: bool,
    /// Those that may be used: not those whose uniqueness is still being made certain of.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// The networks it is in: all its addresses, with the lengths of their prefixes.
    pub(super) within: BTreeSet<(IpAddr, u8)>,
    pub(super) defaults: BTreeSet<Way>,
}

/// What an interface is, as far as it matters to whom lanes may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) enum Kind {
    /// Ethernet, Wi-Fi, a bond of them, and whatever is not known.
    #[default]
    Usual,
    /// A modem.
    Mobile,
    /// One end of a pair: in a container its way out, at its host the other end.
    Veth,
    Loopback,
    /// It leads nowhere but within this machine.
    Internal,
    /// It goes over other interfaces: TUN, VPN, and tunnels of all kinds.
    Tunnel,
}

/// A default route by an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) struct Way {
    pub(super) is_v6: bool,
    pub(super) gateway: Option<IpAddr>,
    /// It is in the main table; those of other tables are for certain sources.
    pub(super) is_main: bool,
    pub(super) metric: u32,
}

/// News of changes, and the means to look.
pub(super) struct Watch {
    handle: Handle,
    changes: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
}

impl Watch {
    /// `None` if this system has no netlink for us.
    pub(super) fn start() -> Option<Self> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let connection = new_multicast_connection(&groups);
        let told = |error: &std::io::Error| {
            tracing::debug!(%error, "changes of this machine's networks are not noticed");
        };
        let (connection, handle, changes) = connection.inspect_err(told).ok()?;
        tokio::spawn(connection);
        Some(Self { handle, changes })
    }

    /// Waits for a change that may matter to somebody; false if there will be none any more.
    pub(super) async fn changed(&mut self) -> bool {
        while let Some((message, _)) = self.changes.next().await {
            if matters(&message.payload) {
                return true;
            }
        }
        false
    }

    /// Forgets the changes that have come so far.
    pub(super) fn drain(&mut self) {
        while self.changes.try_recv().is_ok() {}
    }

    pub(super) async fn look(&self) -> Result<Network, rtnetlink::Error> {
        let mut interfaces = BTreeMap::new();
        let mut links = self.handle.link().get().execute();
        while let Some(link) = links.try_next().await? {
            let interface = read_link(&link);
            interfaces.insert(interface.index, interface);
        }
        let mut addresses = self.handle.address().get().execute();
        while let Some(address) = addresses.try_next().await? {
            if let Some(interface) = interfaces.get_mut(&address.header.index) {
                let own = own_address(&address);
                interface.within.extend(own.map(|own| (own, address.header.prefix_len)));
                interface.addresses.extend(own.filter(|_| is_usable(&address)));
            }
        }
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for (is_v6, asked) in [(false, v4), (true, v6)] {
            let mut routes = self.handle.route().get(asked).execute();
            while let Some(route) = routes.try_next().await? {
                for (index, way) in read_default(is_v6, &route) {
                    if let Some(interface) = interfaces.get_mut(&index) {
                        interface.defaults.insert(way);
                    }
                }
            }
        }
        Ok(Network { interfaces: interfaces.into_values().collect() })
    }
}

/// Whether it is reason to look. On a router with the internet's routes, those come and go all the
/// time, and there are a million to look at.
fn matters(change: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
    use RouteNetlinkMessage::{DelRoute, NewRoute};
    match change {
        NetlinkPayload::InnerMessage(NewRoute(route) | DelRoute(route)) => {
            route.header.destination_prefix_length == 0
        }
        _ => true,
    }
}

fn read_link(link: &LinkMessage) -> Interface {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    let is_part = link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::Controller(of) => *of != 0,
        _ => false,
    });
    Interface {
        kind: kind(link),
        is_part,
        index: link.header.index,
        name: name.unwrap_or_default(),
        is_up: link.header.flags.contains(LinkFlags::Up),
        has_carrier: link.header.flags.contains(LinkFlags::LowerUp),
        ..Interface::default()
    }
}

fn kind(link: &LinkMessage) -> Kind {
    let told = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(all) => all.iter().find_map(|info| match info {
            LinkInfo::Kind(kind) => Some(kind),
            _ => None,
        }),
        _ => None,
    });
    match told {
        Some(InfoKind::Veth | InfoKind::Netkit) => Kind::Veth,
        Some(InfoKind::Wwan | InfoKind::RmNet) => Kind::Mobile,
        Some(
            InfoKind::Bridge
            | InfoKind::Dummy
            | InfoKind::Ifb
            | InfoKind::Nlmon
            | InfoKind::Vrf
            | InfoKind::Vcan
            | InfoKind::Vxcan
            | InfoKind::Can,
        ) => Kind::Internal,
        Some(
            InfoKind::Tun
            | InfoKind::Wireguard
            | InfoKind::Vxlan
            | InfoKind::Geneve
            | InfoKind::GreTap
            | InfoKind::GreTap6
            | InfoKind::GreTun
            | InfoKind::GreTun6
            | InfoKind::ErSpan
            | InfoKind::Ip6ErSpan
            | InfoKind::IpIp
            | InfoKind::Ip6Tnl
            | InfoKind::SitTun
            | InfoKind::Vti
            | InfoKind::Vti6
            | InfoKind::Xfrm
            | InfoKind::BareUdp
            | InfoKind::BatAdv
            | InfoKind::Amt
            | InfoKind::Gtp
            | InfoKind::Pfcp,
        ) => Kind::Tunnel,
        _ if link.header.link_layer_type == LinkLayerType::Loopback => Kind::Loopback,
        _ => Kind::Usual,
    }
}

fn is_usable(address: &AddressMessage) -> bool {
    let unusable = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
    !address.header.flags.intersects(unusable)
}

fn own_address(address: &AddressMessage) -> Option<IpAddr> {
    // On a point-to-point interface `Address` is the other end's.
    let own = address.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(own) => Some(*own),
        _ => None,
    });
    own.or_else(|| {
        address.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(own) => Some(*own),
            _ => None,
        })
    })
}

/// A default route, once for each interface that it leads by.
fn read_default(is_v6: bool, route: &RouteMessage) -> Vec<(u32, Way)> {
    let header = &route.header;
    if header.destination_prefix_length != 0 || header.kind != RouteType::Unicast {
        return Vec::new();
    }
    let (mut table, mut metric) = (u32::from(header.table), 0);
    let (mut index, mut gateway, mut hops) = (None, None, &[][..]);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Table(it) => table = *it,
            RouteAttribute::Priority(it) => metric = *it,
            RouteAttribute::Oif(it) => index = Some(*it),
            RouteAttribute::Gateway(it) => gateway = ip(it),
            RouteAttribute::MultiPath(it) => hops = it,
            _ => {}
        }
    }
    let is_main = table == u32::from(RouteHeader::RT_TABLE_MAIN);
    let way = |gateway| Way { is_v6, gateway, is_main, metric };
    let hop_gateway = |hop: &RouteNextHop| {
        hop.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(it) => ip(it),
            _ => None,
        })
    };
    let several = hops.iter().map(|hop| (hop.interface_index, way(hop_gateway(hop))));
    several.chain(index.map(|index| (index, way(gateway)))).collect()
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_routes_only_those_for_everything_are_looked_at() {
        let mut route = RouteMessage::default();
        let told = |route: &RouteMessage| {
            let route = RouteNetlinkMessage::NewRoute(route.clone());
            matters(&NetlinkPayload::InnerMessage(route))
        };
        assert!(told(&route));
        route.header.destination_prefix_length = 24;
        assert!(!told(&route));
        let link = RouteNetlinkMessage::DelLink(LinkMessage::default());
        assert!(matters(&NetlinkPayload::InnerMessage(link)));
    }
}
