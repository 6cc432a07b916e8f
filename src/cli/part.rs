//! What a server or client is told that may be one of several of its process.

use tokio::sync::{mpsc, oneshot, watch};

use super::bind::Binds;
use super::stopping::Stopping;
use super::taking::{Sockets, Wanted};

/// One server or client of a process.
#[derive(Debug)]
pub(super) struct Part {
    /// It may have one of so many parts of the process's descriptors.
    pub(super) share: usize,
    pub(super) stopping: Stopping,
    /// Whether a file says what it is.
    pub(super) by_file: bool,
    /// What becomes of a client when the file changes.
    pub(super) changes: mpsc::Receiver<ClientChange>,
    /// Of all clients of the process.
    pub(super) sockets: Sockets,
    /// Has a server read its list and its keys again.
    pub(super) rereads: watch::Receiver<()>,
}

impl Part {
    /// The whole process.
    pub(super) fn whole(stopping: Stopping) -> Self {
        // Nobody sends anything.
        let (changes, rereads) = (mpsc::channel(1).1, watch::channel(()).1);
        let sockets = Sockets::default();
        Self { share: 1, stopping, by_file: false, changes, sockets, rereads }
    }
}

/// What a reload changes of a client.
#[derive(Debug)]
pub(super) struct ClientChange {
    pub(super) wanted: Wanted,
    pub(super) binds: Binds,
    /// Told when it is done.
    pub(super) done: oneshot::Sender<()>,
}
