//! Several addresses of one place: all are tried, a little apart, and the first that answers is
//! taken (RFC 8305).

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

/// How long an attempt is alone before the next one joins it (RFC 8305, section 8: "Connection
/// Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// What hindered an attempt: ourselves, whatever the address, or this address.
#[derive(Debug)]
pub(crate) enum AttemptError<E> {
    Local(E),
    Remote(io::Error),
}

impl<E> From<E> for AttemptError<E> {
    fn from(error: E) -> Self {
        Self::Local(error)
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum RaceError<E> {
    /// This end's fault, whatever the address.
    Local(E),
    /// No address answered.
    Remote(Vec<(SocketAddr, io::Error)>),
}

/// Tries `addresses` in the manner of RFC 8305. Dropping the future drops every attempt.
pub(crate) async fn race<T, E, F>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<(SocketAddr, T), RaceError<E>>
where
    F: Future<Output = Result<T, AttemptError<E>>>,
{
    let mut waiting = VecDeque::from(interleave(addresses));
    let mut running = FuturesUnordered::new();
    let mut failed = Vec::new();
    let mut next_start = Instant::now();
    loop {
        tokio::select! {
            biased;
            Some((addr, result)) = running.next(), if !running.is_empty() => match result {
                Ok(connection) => return Ok((addr, connection)),
                Err(AttemptError::Local(error)) => return Err(RaceError::Local(error)),
                Err(AttemptError::Remote(error)) => {
                    failed.push((addr, error));
                    // An answer, though a bad one: no reason to wait with the next address.
                    next_start = Instant::now();
                }
            },
            () = sleep_until(next_start), if !waiting.is_empty() => {
                if let Some(addr) = waiting.pop_front() {
                    let attempt = connect(addr);
                    running.push(async move { (addr, attempt.await) });
                }
                next_start = Instant::now() + ATTEMPT_DELAY;
            }
            else => return Err(RaceError::Remote(failed)),
        }
    }
}

/// The families in turn, beginning with the resolver's first choice; within a family its order (RFC
/// 8305, section 4).
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else { return addresses };
    let first_is_ipv4 = first.is_ipv4();
    let total = addresses.len();
    let (preferred, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|addr| addr.is_ipv4() == first_is_ipv4);
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    let mut out = Vec::with_capacity(total);
    while out.len() < total {
        out.extend(preferred.next());
        out.extend(other.next());
    }
    out
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::convert::Infallible;

    use super::*;

    type Attempt = Result<(), AttemptError<Infallible>>;

    fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let given = addrs(&["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1", "1.0.0.2:1"]);
        let want = addrs(&["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "[::3]:1"]);
        assert_eq!(interleave(given), want);
        assert_eq!(interleave(addrs(&["1.0.0.1:1"])), addrs(&["1.0.0.1:1"]));
        assert!(interleave(Vec::new()).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_costs_a_quarter_second() {
        let begin = Instant::now();
        let (winner, ()) = race(addrs(&["1.0.0.1:1", "1.0.0.2:1"]), |addr| async move {
            if addr.port() == 1 && addr.to_string().starts_with("1.0.0.1") {
                std::future::pending::<()>().await;
            }
            Attempt::Ok(())
        })
        .await
        .unwrap();
        assert_eq!(winner, addrs(&["1.0.0.2:1"])[0]);
        assert_eq!(begin.elapsed(), ATTEMPT_DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_starts_the_next_at_once_and_all_are_reported() {
        let begin = Instant::now();
        let tried = RefCell::new(Vec::new());
        let targets = addrs(&["1.0.0.1:1", "1.0.0.2:1", "1.0.0.3:1"]);
        let result = race(targets.clone(), |addr| {
            tried.borrow_mut().push(addr);
            async { Attempt::Err(AttemptError::Remote(io::ErrorKind::ConnectionRefused.into())) }
        })
        .await;
        let Err(RaceError::Remote(failed)) = result else { panic!("{result:?}") };
        assert_eq!(failed.iter().map(|(addr, _)| *addr).collect::<Vec<_>>(), targets);
        assert_eq!(*tried.borrow(), targets);
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_address_still_wins_over_a_slower_second() {
        let (winner, ()) = race(addrs(&["1.0.0.1:1", "1.0.0.2:1"]), |addr| async move {
            let first = addr.to_string().starts_with("1.0.0.1");
            let takes = if first { Duration::from_millis(300) } else { Duration::from_secs(1) };
            tokio::time::sleep(takes).await;
            Attempt::Ok(())
        })
        .await
        .unwrap();
        assert_eq!(winner, addrs(&["1.0.0.1:1"])[0]);
    }

    #[tokio::test]
    async fn no_address_is_no_connection() {
        let result = race(Vec::new(), |_| async { Attempt::Ok(()) }).await;
        assert!(matches!(result, Err(RaceError::Remote(failed)) if failed.is_empty()));
    }
}
