//! Lanes that could not be made: which are reported, and which end a client's start.

use std::io;

use crate::driver::error::ConnectError;
use crate::lane::DialError;
use crate::proto::Code;

/// A lane that could not be made.
pub(super) struct Failed {
    /// The link's number.
    pub(super) link: usize,
    pub(super) via: String,
    pub(super) error: ConnectError,
}

impl Failed {
    pub(super) fn tell(&self) {
        tracing::warn!(via = %self.via, error = %self.error, "a lane could not be made; trying again");
    }

    /// Whether it is of the same link and kind as `other`: only one of them is reported.
    fn is_like(&self, other: &Self) -> bool {
        let kind = |failed: &Self| std::mem::discriminant(&failed.error);
        self.link == other.link && kind(self) == kind(other)
    }
}

/// Failures before the first lane was up: reported together when there is nothing left to wait for,
/// each kind once per link.
#[derive(Default)]
pub(super) struct Failures {
    untold: Vec<Failed>,
    told: Vec<Failed>,
}

impl Failures {
    pub(super) fn add(&mut self, failed: Failed) {
        let mut known = self.untold.iter().chain(&self.told);
        if !known.any(|known| known.is_like(&failed)) {
            self.untold.push(failed);
        }
    }

    pub(super) fn tell(&mut self) {
        self.untold.iter().for_each(Failed::tell);
        self.told.append(&mut self.untold);
    }
}

pub(super) fn panicked() -> ConnectError {
    ConnectError::Handshake(io::Error::other("internal error: a panic"))
}

/// Whether trying again would not help. A client that `keeps_trying` also waits for a busy or
/// restarting server.
pub(super) fn is_final(error: &ConnectError, keeps_trying: bool) -> bool {
    match error {
        ConnectError::Refused { code: Code::SHUTDOWN | Code::EXCESSIVE_LOAD, .. } => !keeps_trying,
        ConnectError::Trust(_) | ConnectError::SeveralKeys(..) | ConnectError::Refused { .. } => {
            true
        }
        ConnectError::Dial(error) => {
            matches!(error, DialError::InvalidAddress(..) | DialError::Congestion { .. })
        }
        _ => false,
    }
}
