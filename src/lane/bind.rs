//! What a lane is bound to: a local address or a device.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The local end of some lanes, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bind {
    /// What they are bound to.
    pub source: BindSource,
    /// How many lanes.
    pub lanes: u16,
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.source, self.lanes)
    }
}

/// A local address or a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BindSource {
    /// Whatever the routing table chooses, of either family.
    Any,
    /// A local address; a family's unspecified address (`0.0.0.0`, `::`) means any of that family,
    /// and an IPv4 address mapped into IPv6 means that IPv4 address.
    Addr(IpAddr),
    /// An address that is valid on one device only (`fe80::1%eth0`).
    LinkLocal {
        /// The address.
        addr: Ipv6Addr,
        /// The device's name, or its index in digits.
        device: String,
    },
    /// A network device by name (`SO_BINDTODEVICE`): whichever address it has, and no other route.
    Device(String),
}

impl BindSource {
    /// Whether a lane bound to this can reach `remote`: an address reaches only its own family.
    #[must_use]
    pub fn reaches(&self, remote: &SocketAddr) -> bool {
        match self {
            Self::Addr(local) => {
                local.to_canonical().is_ipv4() == remote.ip().to_canonical().is_ipv4()
            }
            Self::LinkLocal { .. } => remote.ip().to_canonical().is_ipv6(),
            Self::Any | Self::Device(_) => true,
        }
    }
}

impl fmt::Display for BindSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Addr(addr) => write!(f, "{addr}"),
            Self::LinkLocal { addr, device } => write!(f, "{addr}%{device}"),
            Self::Device(name) => write!(f, "dev:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_what_the_command_line_takes() {
        let v4 = Bind { source: BindSource::Addr([10, 0, 0, 2].into()), lanes: 20 };
        assert_eq!(v4.to_string(), "10.0.0.2=20");
        let v6 = Bind { source: BindSource::Addr("2001:db8::1".parse().unwrap()), lanes: 1 };
        assert_eq!(v6.to_string(), "2001:db8::1=1");
        let device = Bind { source: BindSource::Device("eth1".into()), lanes: 4 };
        assert_eq!(device.to_string(), "dev:eth1=4");
        let link_local =
            BindSource::LinkLocal { addr: "fe80::2".parse().unwrap(), device: "eth1".into() };
        assert_eq!(Bind { source: link_local, lanes: 4 }.to_string(), "fe80::2%eth1=4");
        assert_eq!(Bind { source: BindSource::Any, lanes: 4 }.to_string(), "any=4");
    }

    #[test]
    fn an_address_reaches_only_its_family() {
        let v4: SocketAddr = "192.0.2.1:443".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:443".parse().unwrap();
        let any_v4 = BindSource::Addr([0, 0, 0, 0].into());
        let any_v6 = BindSource::Addr("::".parse().unwrap());
        assert!(any_v4.reaches(&v4) && !any_v4.reaches(&v6));
        assert!(any_v6.reaches(&v6) && !any_v6.reaches(&v4));
        let device = BindSource::Device("lo".into());
        assert!(device.reaches(&v4) && device.reaches(&v6));
        assert!(BindSource::Any.reaches(&v4) && BindSource::Any.reaches(&v6));
        let mapped = BindSource::Addr("::ffff:192.0.2.7".parse().unwrap());
        assert!(mapped.reaches(&v4) && !mapped.reaches(&v6));
        let link_local =
            BindSource::LinkLocal { addr: "fe80::2".parse().unwrap(), device: "lo".into() };
        assert!(!link_local.reaches(&v4) && link_local.reaches(&v6));
    }
}
