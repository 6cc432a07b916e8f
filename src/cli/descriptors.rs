//! Descriptors: how many the process may have, and how many of them are for connections.

use imux::tunnel::Connections;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Files read now and then, threads in the middle of a lookup, and the like.
const FILES: usize = 24;

/// The most descriptors reserved for a server's lanes and for strangers at its door: a quarter, up
/// to this.
const LANES_RESERVE_MAX: usize = 8_192;

/// Raises the limit set by shells to what the system allows. Only programs that use `select` need
/// to stay within 1,024; nothing here does.
pub(super) fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit on descriptors stays as it is (ulimit -n)");
    }
}

/// The connections a server has descriptors for, beside its lanes, if it may have one of `share`
/// parts of them. Logs how many.
pub(super) fn for_server(share: usize) -> Connections {
    let limit = limit() / share.max(1);
    let connections = left(limit, in_use(), FILES + (limit / 4).min(LANES_RESERVE_MAX));
    let bound = Connections::at_most(connections);
    let of_one_client = bound.of_one_client();
    tracing::info!(
        connections,
        of_one_client,
        "so many connections at once for {limit} descriptors"
    );
    bound
}

/// The connections a client has descriptors for, beside this many lanes; `share` as for a server.
/// Logs how many.
pub(super) fn for_client(lanes: usize, share: usize) -> Connections {
    let limit = limit() / share.max(1);
    // Dialling a lane tries several addresses at once.
    let connections = left(limit, in_use(), FILES + 2 * lanes);
    tracing::info!(connections, "so many connections at once for {limit} descriptors");
    Connections::at_most(connections)
}

fn limit() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// How many descriptors are open now.
fn in_use() -> usize {
    // If there is no /proc: standard streams, the runtime's own, listeners.
    std::fs::read_dir("/proc/self/fd").map_or(16, Iterator::count)
}

/// What connections may take, however little: with none, running would be pointless.
fn left(limit: usize, in_use: usize, reserve: usize) -> usize {
    limit.saturating_sub(in_use.saturating_add(reserve)).max(limit / 8).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_left_for_connections_and_for_lanes() {
        assert_eq!(left(1_024, 16, 280), 728);
        assert_eq!(left(48, 12, 36), 6);
        assert_eq!(left(64, 20, 600), 8);
        assert_eq!(left(1, 16, 24), 1);
        assert_eq!(left(usize::MAX, 16, 24), usize::MAX - 40);
    }
}
