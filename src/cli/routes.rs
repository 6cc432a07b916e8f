//! Whether lanes bound to an address leave by the interface that has it: a bind sets a packet's
//! source, but the routing table decides which way it goes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use imux::lane::{BindSource, resolve};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nameindex, if_nametoindex};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, send, socket,
};

// linux/netlink.h and linux/rtnetlink.h.
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const HEADER_BYTES: usize = 16;
const ROUTE_BYTES: usize = 12;

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
    let Ok(servers) = resolve(&server).await else { return };
    // A few messages to the kernel and back, some microseconds each.
    for from in addressed {
        let to = servers.iter().map(SocketAddr::ip).find(|to| to.is_ipv4() == from.is_ipv4());
        let Some(to) = to else { continue };
        match detour(from, to) {
            Ok(Some(detour)) => tracing::warn!("{detour}"),
            Ok(None) => {}
            Err(error) => tracing::debug!(%from, %to, %error, "cannot look its route up"),
        }
    }
}

/// The warning for lanes from `from` to `to` that do not leave by the interface with `from`.
fn detour(from: IpAddr, to: IpAddr) -> io::Result<Option<String>> {
    let Some(own) = interface_of(from)? else { return Ok(None) };
    let out = route(to, Some(from), None)?.interface;
    let own_index = if_nametoindex(own.as_str())?;
    let out = if_nameindex()?
        .iter()
        .find(|interface| interface.index() == out)
        .map(|interface| interface.name().to_string_lossy().into_owned());
    let Some(out) = out.filter(|out| *out != own && out != "lo") else { return Ok(None) };
    // Over a default route of the interface's own, which the main table may have, if only as a
    // second choice.
    let gateway = route(to, None, Some(own_index)).ok().and_then(|route| route.gateway);
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

/// Asks the kernel, as `ip route get` does.
fn route(to: IpAddr, from: Option<IpAddr>, interface: Option<u32>) -> io::Result<Route> {
    let protocol = SockProtocol::NetlinkRoute;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    send(netlink.as_raw_fd(), &question(to, from, interface), MsgFlags::empty())?;
    let mut answer = [0; 4096];
    // The answer is already there: the kernel gives it within the call that asks.
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    read_answer(answer.get(..length).unwrap_or_default())
}

fn question(to: IpAddr, from: Option<IpAddr>, interface: Option<u32>) -> Vec<u8> {
    let bits =
        |address: Option<IpAddr>| address.map_or(0, |it| if it.is_ipv4() { 32 } else { 128 });
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut attributes = Vec::new();
    let mut attribute = |kind: u16, value: &[u8]| {
        // A header of four bytes; all values here are multiples of four, as attributes must be.
        let length = u16::try_from(4 + value.len()).unwrap_or_default();
        attributes.extend_from_slice(&length.to_ne_bytes());
        attributes.extend_from_slice(&kind.to_ne_bytes());
        attributes.extend_from_slice(value);
    };
    attribute(RTA_DST, &octets(to));
    if let Some(from) = from {
        attribute(RTA_SRC, &octets(from));
    }
    if let Some(interface) = interface {
        attribute(RTA_OIF, &interface.to_ne_bytes());
    }
    let length = u32::try_from(HEADER_BYTES + ROUTE_BYTES + attributes.len()).unwrap_or_default();
    let mut message = Vec::new();
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&RTM_GETROUTE.to_ne_bytes());
    message.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    // Sequence and sender: there is one question, and the kernel knows who asks.
    message.extend_from_slice(&[0; 8]);
    let family = u8::try_from(family).unwrap_or_default();
    message.extend_from_slice(&[family, bits(Some(to)), bits(from)]);
    message.extend_from_slice(&[0; ROUTE_BYTES - 3]);
    message.append(&mut attributes);
    message
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn read_answer(answer: &[u8]) -> io::Result<Route> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let kind = answer.get(4..6).and_then(|it| it.try_into().ok()).map(u16::from_ne_bytes);
    let body = answer.get(HEADER_BYTES..).ok_or_else(malformed)?;
    match kind {
        Some(RTM_NEWROUTE) => {}
        Some(NLMSG_ERROR) => {
            let code = body.get(..4).and_then(|it| it.try_into().ok()).map(i32::from_ne_bytes);
            return Err(io::Error::from_raw_os_error(-code.unwrap_or_default()));
        }
        _ => return Err(malformed()),
    }
    let mut rest = body.get(ROUTE_BYTES..).ok_or_else(malformed)?;
    let (mut interface, mut gateway) = (None, None);
    while let Some(header) = rest.first_chunk::<4>() {
        let [l0, l1, k0, k1] = *header;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(4..length).ok_or_else(malformed)?;
        match u16::from_ne_bytes([k0, k1]) {
            RTA_OIF => interface = value.try_into().ok().map(u32::from_ne_bytes),
            RTA_GATEWAY => gateway = address(value),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let interface = interface.ok_or_else(malformed)?;
    Ok(Route { interface, gateway })
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into());
    v4().or_else(|| Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_reached_by_its_loopback_interface() {
        let lo = if_nametoindex("lo").unwrap();
        let to = IpAddr::from([127, 0, 0, 9]);
        assert_eq!(route(to, None, None).unwrap(), Route { interface: lo, gateway: None });
        assert_eq!(route(to, Some(to), None).unwrap().interface, lo);
        assert_eq!(detour(to, to).unwrap(), None);
        // No interface has an address reserved for documentation.
        assert!(route(to, Some([192, 0, 2, 77].into()), None).is_err());
    }

    #[test]
    fn answers_that_are_none() {
        for answer in [&[][..], &[0; 15], &[0; 16], &[0xff; 64]] {
            assert!(read_answer(answer).is_err(), "{answer:?}");
        }
        // An attribute longer than the message.
        let mut answer = question([127, 0, 0, 1].into(), None, None);
        answer[4..6].copy_from_slice(&RTM_NEWROUTE.to_ne_bytes());
        answer[HEADER_BYTES + ROUTE_BYTES] = 200;
        assert!(read_answer(&answer).is_err());
    }
}
