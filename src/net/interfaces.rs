//! The addresses of this machine.

use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

/// Those of all interfaces now.
pub(crate) fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let addresses = getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    Ok(addresses.collect())
}

/// Whether what is sent there stays on this machine.
pub(crate) fn is_own_address(ip: IpAddr) -> io::Result<bool> {
    if ip.is_loopback() || ip.is_unspecified() {
        return Ok(true);
    }
    Ok(own_addresses()?.contains(&ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses() {
        assert!(is_own_address([127, 9, 9, 9].into()).unwrap());
        assert!(is_own_address("::1".parse().unwrap()).unwrap());
        // Reserved for documentation.
        assert!(!is_own_address([192, 0, 2, 77].into()).unwrap());
        assert!(!is_own_address("2001:db8::77".parse().unwrap()).unwrap());
    }
}
