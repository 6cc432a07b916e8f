//! Names to addresses, by the system's resolver.
//!
//! It honours /etc/hosts, nsswitch and address preference (RFC 6724), and it blocks: for half a
//! minute where a name server does not answer. So it runs in threads of its own, of which there is
//! a bounded number for each purpose.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::unistd::{Gid, setfsgid};
use tokio::sync::{AcquireError, Semaphore, oneshot};

/// How long one look-up may take, waiting for a thread included.
const DEADLINE: Duration = Duration::from_secs(10);

/// The group of threads that look names up, if it is not the process's.
static GROUP: OnceLock<u32> = OnceLock::new();

/// From now on, has names looked up by threads of this group, by which a firewall can tell the
/// resolver's sockets from others. Linux keeps it for each thread: the rest of the process stays as
/// it is.
///
/// # Errors
/// [`PermissionDenied`](io::ErrorKind::PermissionDenied) without `CAP_SETGID`;
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if it is another group's turn by now.
pub(crate) fn look_up_as_group(group: u32) -> io::Result<()> {
    // Each call says what was set before, and nothing of success.
    let try_it = move || {
        let group = Gid::from_raw(group);
        setfsgid(group);
        setfsgid(group) == group
    };
    let tried = std::thread::Builder::new().spawn(try_it)?.join();
    if !tried.is_ok_and(|worked| worked) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    if *GROUP.get_or_init(|| group) == group {
        Ok(())
    } else {
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

/// The threads for look-ups of one purpose: made as they are needed, and never more than so many.
#[derive(Debug)]
pub(crate) struct LookUps {
    threads: Semaphore,
}

/// How many of the threads one party may keep busy.
#[derive(Clone, Debug)]
pub(crate) struct Share(Arc<Semaphore>);

impl Share {
    pub(crate) fn of(threads: usize) -> Self {
        Self(Arc::new(Semaphore::new(threads)))
    }
}

impl LookUps {
    pub(crate) const fn new(threads: usize) -> Self {
        Self { threads: Semaphore::const_new(threads) }
    }

    /// All addresses of `host`, in the resolver's order; never none. An address is its own, and one
    /// of IPv4 within IPv6 that of IPv4; a link-local one has its interface behind a `%`.
    ///
    /// Cancel safe; a thread that the resolver does not let go of is missed until it does.
    ///
    /// # Errors
    /// The name has no address, nobody could be asked, or it took too long.
    pub(crate) async fn look_up(
        &'static self,
        host: &str,
        port: u16,
        share: Option<&Share>,
    ) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![as_ipv4(SocketAddr::new(ip, port))]);
        }
        let asking = tokio::time::timeout(DEADLINE, self.ask(host.to_owned(), port, share));
        let found = asking.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
        }
        Ok(found.into_iter().map(as_ipv4).collect())
    }

    async fn ask(
        &'static self,
        host: String,
        port: u16,
        share: Option<&Share>,
    ) -> io::Result<Vec<SocketAddr>> {
        // Who has used up its share waits for that, and not in front of others.
        let of_share = match share {
            Some(share) => Some(share.0.clone().acquire_owned().await.map_err(closed)?),
            None => None,
        };
        let of_all = self.threads.acquire().await.map_err(closed)?;
        let (tell, told) = oneshot::channel();
        let resolving = move || {
            if let Some(group) = GROUP.get() {
                setfsgid(Gid::from_raw(*group));
            }
            let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
            drop((of_share, of_all));
            // Whoever asked may have gone.
            let _ = tell.send(found);
        };
        std::thread::Builder::new().name("imux-look-up".to_owned()).spawn(resolving)?;
        told.await.unwrap_or_else(|_| Err(io::Error::other("the look-up has failed")))
    }
}

/// Never: nobody closes these.
fn closed(error: AcquireError) -> io::Error {
    io::Error::other(error)
}

/// The IPv4 address that an address of IPv6 stands for; of others the address itself, with the
/// interface it may have.
pub(crate) fn as_ipv4(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

/// Splits `host:port`, `[v6]:port`. The host comes without brackets, and may be empty.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn split_host_port(host_port: &str) -> Result<(&str, u16), &'static str> {
    let (host, port) = host_port.rsplit_once(':').ok_or("the port is missing")?;
    let port = port.parse().map_err(|_| "the port is not a number from 0 to 65535")?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or("a bracket is not closed")?,
        None if host.contains(':') => return Err("an IPv6 address goes in brackets"),
        None => host,
    };
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_names_and_both_families() {
        assert_eq!(split_host_port("localhost:22"), Ok(("localhost", 22)));
        assert_eq!(split_host_port("192.0.2.1:443"), Ok(("192.0.2.1", 443)));
        assert_eq!(split_host_port("[2001:db8::1]:443"), Ok(("2001:db8::1", 443)));
        assert_eq!(split_host_port("[fe80::1%eth0]:1"), Ok(("fe80::1%eth0", 1)));
    }

    #[test]
    fn says_what_is_wrong_with_an_address() {
        for (input, why) in [
            ("", "the port is missing"),
            ("localhost:", "not a number"),
            ("localhost:65536", "not a number"),
            ("localhost:ssh", "not a number"),
            ("::1:22", "goes in brackets"),
            ("[::1:22", "not closed"),
        ] {
            let error = split_host_port(input).unwrap_err();
            assert!(error.contains(why), "{input:?}: {error}");
        }
    }

    #[tokio::test]
    async fn addresses_are_their_own_and_unknown_names_have_none() {
        static LOOK_UPS: LookUps = LookUps::new(1);
        let look_up = async |host| LOOK_UPS.look_up(host, 7, None).await;
        assert_eq!(look_up("127.0.0.1").await.unwrap(), ["127.0.0.1:7".parse().unwrap()]);
        assert_eq!(look_up("::1").await.unwrap(), ["[::1]:7".parse().unwrap()]);
        assert!(look_up("localhost").await.unwrap().iter().all(|found| found.ip().is_loopback()));
        // RFC 6761: `.invalid` never resolves.
        assert!(look_up("no-such-host.invalid").await.is_err());
    }

    /// Threads that a name server keeps are held here by hand.
    #[tokio::test(start_paused = true)]
    async fn who_has_used_up_its_share_waits_alone() {
        static LOOK_UPS: LookUps = LookUps::new(3);
        let (greedy, other) = (Share::of(2), Share::of(2));
        let kept = greedy.0.clone().acquire_many_owned(2).await.unwrap();
        let _threads = LOOK_UPS.threads.acquire_many(2).await.unwrap();
        let waited = LOOK_UPS.look_up("localhost", 7, Some(&greedy)).await.unwrap_err();
        assert_eq!(waited.kind(), io::ErrorKind::TimedOut);
        let threads = &LOOK_UPS.threads;
        assert_eq!(threads.available_permits(), 1, "it has waited in front of others");
        drop(kept);
        // The clock stands still only while nobody waits for a thread of the system.
        tokio::time::resume();
        LOOK_UPS.look_up("localhost", 7, Some(&other)).await.unwrap();
        LOOK_UPS.look_up("localhost", 7, Some(&greedy)).await.unwrap();
    }
}
