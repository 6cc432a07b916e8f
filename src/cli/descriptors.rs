//! Descriptors: how many the process may have, and how many of them connections may take.

use imux::tunnel::Connections;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Files that are read now and then, threads in the middle of a look-up, and the like.
const FILES: usize = 24;

/// A server's clients have lanes, and strangers are at its door: a quarter of the descriptors is
/// for them, up to this.
const LANES_RESERVE_MAX: usize = 8_192;

/// Raises the limit that shells set to what the system allows. What waits in `select` may not have
/// more than 1,024; nothing here does.
pub(super) fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit on descriptors stays as it is (ulimit -n)");
    }
}

/// The connections that a server has descriptors for, beside its lanes. Says how many that are.
pub(super) fn for_server() -> Connections {
    let limit = limit();
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

/// Those that a client has descriptors for, beside so many lanes. Says how many that are.
pub(super) fn for_client(lanes: usize) -> Connections {
    let limit = limit();
    // A lane that is dialled tries several addresses at once.
    let connections = left(limit, in_use(), FILES + 2 * lanes);
    tracing::info!(connections, "so many connections at once for {limit} descriptors");
    Connections::at_most(connections)
}

fn limit() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// How many are open now.
fn in_use() -> usize {
    // Where there is no /proc: standard streams, the runtime's own, listeners.
    std::fs::read_dir("/proc/self/fd").map_or(16, Iterator::count)
}

/// What connections may take, and be it little: with none there is no use in running at all.
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
