//! Whether lanes bound to an address leave by the interface that has it: a bind sets a packet's
//! source, but the routing table decides which way it goes.

use std::io;
use std::net::{IpAddr, SocketAddr};

use futures::TryStreamExt;
use imux::lane::{BindSource, resolve};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nameindex, if_nametoindex};
use nix::sys::socket::SockaddrStorage;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};

/// Warns about each bind whose lanes to `server` leave by an interface other than the one with its
/// address. Skips what it cannot find out.
pub(super) async fn check(binds: Vec<BindSource>, server: String) {
    let addressed = binds.into_iter().filter_map(|bind| match bind {
        BindSource::Addr(addr) if !addr.is_unspecified() => Some(addr),
        _ => None,
    });
    let addressed: Vec<_> = addressed.collect();
    if addressed.is_empty() {
        return;
    }
    let (Ok(servers), Ok(netlink)) = (resolve(&server).await, netlink()) else { return };
    for from in addressed {
        let to = servers.iter().map(SocketAddr::ip).find(|to| to.is_ipv4() == from.is_ipv4());
        let Some(to) = to else { continue };
        match detour(&netlink, from, to).await {
            Ok(Some(detour)) => tracing::warn!("{detour}"),
            Ok(None) => {}
            Err(error) => tracing::debug!(%from, %to, %error, "cannot look its route up"),
        }
    }
}

/// The means to ask the kernel, as long as they are kept.
fn netlink() -> io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

/// The warning for lanes from `from` to `to` that do not leave by the interface with `from`.
async fn detour(netlink: &Handle, from: IpAddr, to: IpAddr) -> anyhow::Result<Option<String>> {
    let Some(own) = interface_of(from)? else { return Ok(None) };
    let Some(Route { interface: out, .. }) = route(netlink, to, Some(from), None).await? else {
        return Ok(None);
    };
    let own_index = if_nametoindex(own.as_str())?;
    let out = if_nameindex()?
        .iter()
        .find(|interface| interface.index() == out)
        .map(|interface| interface.name().to_string_lossy().into_owned());
    let Some(out) = out.filter(|out| *out != own && out != "lo") else { return Ok(None) };
    // Over a default route of the interface's own, which the main table may have, if only as a
    // second choice.
    let own_route = route(netlink, to, None, Some(own_index)).await.ok().flatten();
    let gateway = own_route.and_then(|route| route.gateway);
    let via = gateway.map_or_else(|| "GATEWAY".to_owned(), |gateway| gateway.to_string());
    let ip = if from.is_ipv4() { "ip" } else { "ip -6" };
    let table = 100 + own_index;
    Ok(Some(format!(
        "lanes of {from} leave by {out}, though {own} has that address, and share it with what else goes there; for a way of \
         their own, give the address a table of its own: `{ip} route add default via {via} dev {own} table {table}` and \
         `{ip} rule add from {from} table {table}`; or bind to the interface: --bind dev:{own}"
    )))
}

/// The name of the interface with this address, unless it is the loopback.
fn interface_of(address: IpAddr) -> io::Result<Option<String>> {
    let found = getifaddrs()?.find(|interface| {
        let has = interface.address.as_ref().and_then(ip);
        has == Some(address) && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    });
    Ok(found.map(|interface| interface.interface_name))
}

/// The address of an interface, or its mask, if it is one of IP.
pub fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|at| IpAddr::V4(at.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|at| IpAddr::V6(at.ip())))
}

/// The route to an address.
#[derive(Debug, PartialEq, Eq)]
struct Route {
    /// The index of the interface it leaves by.
    interface: u32,
    gateway: Option<IpAddr>,
}

/// Asks the kernel, as `ip route get` does. `None` if it has none.
async fn route(
    netlink: &Handle,
    to: IpAddr,
    from: Option<IpAddr>,
    interface: Option<u32>,
) -> Result<Option<Route>, rtnetlink::Error> {
    let bits = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
    let mut question = RouteMessage::default();
    let header = &mut question.header;
    header.address_family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    header.destination_prefix_length = bits(to);
    header.source_prefix_length = from.map(bits).unwrap_or_default();
    question.attributes.push(RouteAttribute::Destination(to.into()));
    question.attributes.extend(from.map(|from| RouteAttribute::Source(from.into())));
    question.attributes.extend(interface.map(RouteAttribute::Oif));
    let answer = netlink.route().get(question).execute();
    let Some(answer) = std::pin::pin!(answer).try_next().await? else { return Ok(None) };
    let (mut interface, mut gateway) = (None, None);
    for attribute in &answer.attributes {
        match attribute {
            RouteAttribute::Oif(it) => interface = Some(*it),
            RouteAttribute::Gateway(RouteAddress::Inet(it)) => gateway = Some((*it).into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(it)) => gateway = Some((*it).into()),
            _ => {}
        }
    }
    Ok(interface.map(|interface| Route { interface, gateway }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_is_reached_by_its_loopback_interface() {
        let netlink = netlink().unwrap();
        let lo = if_nametoindex("lo").unwrap();
        let to = IpAddr::from([127, 0, 0, 9]);
        let there = route(&netlink, to, None, None).await.unwrap();
        assert_eq!(there, Some(Route { interface: lo, gateway: None }));
        assert_eq!(route(&netlink, to, Some(to), None).await.unwrap().unwrap().interface, lo);
        assert_eq!(detour(&netlink, to, to).await.unwrap(), None);
        // No interface has an address reserved for documentation.
        let nobodys = Some([192, 0, 2, 77].into());
        assert!(route(&netlink, to, nobodys, None).await.is_err());
    }
}
