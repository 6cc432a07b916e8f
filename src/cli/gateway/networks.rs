//! Which networks a gateway leaves alone.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use super::plan::{Net, disjoint};
use crate::cli::routes::ip;

/// Nobody's and everybody's: what is sent there never leaves the networks at hand.
const ALWAYS: [&str; 8] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::1/128",
    "fe80::/10",
    "ff00::/8",
];

/// These, the networks that this machine is in now, and those that are left out besides.
pub(super) fn left_alone(besides: &[Net]) -> nix::Result<Vec<Net>> {
    let always = ALWAYS.iter().filter_map(|net| net.parse().ok());
    Ok(disjoint(always.chain(own()?).chain(besides.iter().copied())))
}

/// The networks of this machine's addresses.
fn own() -> nix::Result<impl Iterator<Item = Net>> {
    Ok(getifaddrs()?.filter_map(|interface| {
        let address = ip(interface.address.as_ref()?)?;
        let prefix = match ip(interface.netmask.as_ref()?)? {
            IpAddr::V4(mask) => u32::from(mask).count_ones(),
            IpAddr::V6(mask) => u128::from(mask).count_ones(),
        };
        // A network of everything would leave everything alone.
        let prefix = u8::try_from(prefix).ok().filter(|prefix| *prefix > 0)?;
        Some(Net::new(address, prefix))
    }))
}

/// The kernel's setting, if there is one, by which it drops datagrams of IPv4 that are taken from
/// these interfaces: it looks for the way back by the mark, which leads here.
pub(super) fn way_back_by_mark(lan: &[String]) -> Option<String> {
    let mut names = std::iter::once("all").chain(lan.iter().map(String::as_str));
    let is_set = |name: &&str| {
        let file = format!("/proc/sys/net/ipv4/conf/{name}/src_valid_mark");
        std::fs::read_to_string(file).is_ok_and(|value| value.trim() != "0")
    };
    let name = names.find(is_set)?;
    // In its names of settings dots and slashes change places.
    Some(format!("net.ipv4.conf.{}.src_valid_mark", name.replace('.', "/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_left_alone_and_what_is_named() {
        let besides: Net = "198.51.100.0/24".parse().unwrap();
        let left = left_alone(&[besides]).unwrap();
        let covers = |text: &str| left.iter().any(|net| net.contains(&text.parse().unwrap()));
        assert!(covers("127.0.0.1") && covers("::1") && covers("198.51.100.7"));
        for interface in getifaddrs().unwrap() {
            let address = interface.address.as_ref().and_then(ip);
            assert!(address.is_none_or(|it| covers(&it.to_string())), "{address:?}: {left:?}");
        }
        assert!(!covers("0.0.0.0/0") && !covers("::/0"), "{left:?}");
    }
}
