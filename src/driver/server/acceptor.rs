//! Accepts connections, within bounds; each becomes a lane or is hung up on.

use std::sync::Arc;
use std::time::Duration;

use super::reception::{Reception, place};
use crate::driver::clock;
use crate::driver::door::{Door, Source};
use crate::driver::handshake_rate::Turn;
use crate::lane::{Listener, PendingLane};
use crate::proto::limits;

/// Pause after an error of the listening socket before the next connection is accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pause after descriptors ran out and a lane in its handshake has given up its own.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(5);

/// Accepts connections for a server while it is polled.
pub(super) struct Acceptor {
    reception: Arc<Reception>,
    door: Door,
}

impl Acceptor {
    pub(super) fn new(reception: Arc<Reception>) -> Self {
        Self { reception, door: Door::default() }
    }

    pub(super) async fn take_lanes(self, listener: impl Listener) {
        loop {
            match listener.accept().await {
                Ok(pending) => self.take_lane(pending),
                Err(error) => {
                    let short = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
                    // Strangers may hold the missing descriptors: whichever lane gives way frees
                    // one.
                    if short && self.door.make_way() {
                        tracing::debug!(%error, "a lane in its handshake gave way");
                        tokio::time::sleep(DESCRIPTOR_PAUSE).await;
                    } else {
                        tracing::warn!(%error, "cannot accept lanes for now");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    /// Lets a connection in, for as long as a handshake may take; or hangs up at once.
    fn take_lane(&self, pending: Box<dyn PendingLane>) {
        let remote = pending.remote();
        let source = Source::of(remote.map(|remote| remote.ip()));
        if let Turn::Refused { first } = self.reception.handshakes.take(source, clock::now()) {
            if first {
                let from = place(remote);
                tracing::info!(%from, "too many handshakes from this address: no more for a while");
            }
            return;
        }
        let place = self.door.enter(source);
        let reception = self.reception.clone();
        tokio::spawn(async move {
            let greeted = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, reception.greet(pending));
            let greeted = tokio::select! {
                biased;
                greeted = greeted => greeted,
                () = place.taken_away() => {
                    tracing::debug!(?remote, "no lane: too many in their handshake");
                    return;
                }
            };
            drop(place);
            match greeted {
                Ok(Ok(greeted)) => greeted.run(remote).await,
                Ok(Err(error)) => tracing::debug!(?remote, %error, "no lane"),
                Err(_) => tracing::debug!(?remote, "no lane: handshake timed out"),
            }
        });
    }
}
