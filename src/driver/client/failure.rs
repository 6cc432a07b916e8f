//! Lanes that could not be made: what is told of them, and what ends a client's start.

use std::io;

use crate::driver::error::ConnectError;
use crate::lane::DialError;
use crate::proto::Code;

/// A lane that could not be made.
pub(super) struct Failed {
    pub(super) via: String,
    pub(super) error: ConnectError,
}

impl Failed {
    pub(super) fn tell(&self) {
        tracing::warn!(via = %self.via, error = %self.error, "a lane could not be made; trying again");
    }
}

/// Tells of each link once for each kind of failure.
pub(super) fn tell_failures(failures: &[Failed]) {
    let same = |a: &Failed, b: &Failed| {
        a.via == b.via && std::mem::discriminant(&a.error) == std::mem::discriminant(&b.error)
    };
    for (number, failure) in failures.iter().enumerate() {
        if !failures[..number].iter().any(|before| same(before, failure)) {
            failure.tell();
        }
    }
}

pub(super) fn panicked() -> ConnectError {
    ConnectError::Handshake(io::Error::other("internal error: a panic"))
}

/// Trying again would not help. Who `keeps_trying` waits for a server that is busy or being started
/// again, too.
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
