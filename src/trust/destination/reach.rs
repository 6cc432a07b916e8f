//! Networks, and the addresses that a rule must name: no mere name or network stands for them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How explicit a rule must be to reach an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Ordinary,
    /// Whatever listens there trusts this machine's own users.
    Loopback,
    /// Whatever answers there trusts anybody on the link, inside the cloud or on this machine; or
    /// it is not a single machine's address at all.
    Reserved,
}

impl Reach {
    /// `own` are the addresses of this machine's interfaces.
    pub(super) fn of(ip: IpAddr, own: &[IpAddr]) -> Self {
        let is_own = |ip: IpAddr| own.iter().any(|own| own.to_canonical() == ip);
        let reach = match ip {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => {
                let embeds_own = embedded_v4(ip).into_iter().flatten().any(|ip| is_own(ip.into()));
                if embeds_own { Self::Reserved } else { Self::of_v6(ip) }
            }
        };
        if reach == Self::Ordinary && is_own(ip) { Self::Reserved } else { reach }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        // Alibaba's, Oracle's and Azure's metadata services; all others use 169.254/16.
        const METADATA: [Ipv4Addr; 3] = [
            Ipv4Addr::new(100, 100, 100, 200),
            Ipv4Addr::new(192, 0, 0, 192),
            Ipv4Addr::new(168, 63, 129, 16),
        ];
        let first = ip.octets()[0];
        if ip.is_loopback() {
            Self::Loopback
        } else if first == 0 || first >= 224 || ip.is_link_local() || METADATA.contains(&ip) {
            // 0/8 is this host on this network; 224 and up: multicast, reserved, broadcast.
            Self::Reserved
        } else {
            Self::Ordinary
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        // Cloud metadata services. AWS has a whole network of them and keeps adding.
        const METADATA: [(Ipv6Addr, u8); 7] = [
            (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32),
            (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128),
            (Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42), 128),
            (Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe), 128),
            (Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1), 128),
            (Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200), 128),
            // A network's own NAT64 (RFC 8215): only its gateway knows at which bit the IPv4
            // address begins.
            (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48),
        ];
        let metadata =
            || METADATA.iter().any(|(base, len)| contains((*base).into(), *len, ip.into()));
        if ip.is_loopback() {
            return Self::Loopback;
        }
        if ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local() || metadata() {
            return Self::Reserved;
        }
        // No honest client means even loopback when it writes it this way.
        let plain = |ip: Ipv4Addr| Self::of_v4(ip) == Self::Ordinary;
        if embedded_v4(ip).into_iter().flatten().all(plain) {
            Self::Ordinary
        } else {
            Self::Reserved
        }
    }
}

/// The IPv4 addresses that a gateway, a tunnel or the kernel would read out of an IPv6 address:
/// mapped, translated and compatible (RFC 4291, RFC 7915), NAT64 (RFC 6052), 6to4 (RFC 3056);
/// Teredo's server and its client, whose bits are inverted (RFC 4380); ISATAP's (RFC 5214), in any
/// network.
fn embedded_v4(ip: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let v4 =
        |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match ip.segments() {
        [0x2001, 0, high, low, _, _, turned_high, turned_low] => {
            [v4(high, low), v4(!turned_high, !turned_low)]
        }
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..]
        | [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => [v4(high, low), None],
        _ => [None, None],
    }
}

/// Whether more than one machine would get what is sent there.
pub(super) fn is_many(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether an address is in the network.
pub(super) fn contains(base: IpAddr, length: u8, ip: IpAddr) -> bool {
    masked(ip, length) == Some(base)
}

/// The address with all but its first `length` bits zero; `None` if it has fewer.
pub(super) fn masked(ip: IpAddr, length: u8) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => {
            let host_bits = 32_u32.checked_sub(length.into())?;
            let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
            Some(Ipv4Addr::from_bits(ip.to_bits() & mask).into())
        }
        IpAddr::V6(ip) => {
            let host_bits = 128_u32.checked_sub(length.into())?;
            let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
            Some(Ipv6Addr::from_bits(ip.to_bits() & mask).into())
        }
    }
}
