//! Accepting an invitation: creates a session with its secret, and closes it again.

use crate::lane::{DialError, Dialer};
use crate::proto::limits::HANDSHAKE_TIMEOUT;
use crate::proto::wire::Frame;
use crate::proto::{Code, Config, LanePolicy};
use crate::trust::{HostTrust, InvitationSecret};

use super::client::Client;
use super::error::ConnectError;
use super::greeting;

impl Client {
    /// Has the server authorise the key of `dialer`'s lanes, in exchange for an invitation's
    /// secret.
    ///
    /// The secret is sent only once `trust` has accepted the server: pin the key that the
    /// invitation names.
    ///
    /// # Errors
    /// The server cannot be reached, is not trusted, or refuses: with UNAUTHORIZED if there is no
    /// such invitation (any more).
    pub async fn accept_invitation(
        dialer: &dyn Dialer,
        trust: &dyn HostTrust,
        secret: &InvitationSecret,
    ) -> Result<(), ConnectError> {
        let mut lane = match dialer.dial().await {
            Err(DialError::KeyRefused { presented }) => {
                trust.decide(&presented).await?;
                return Err(ConnectError::OtherKey(presented.fingerprint));
            }
            dialled => dialled?,
        };
        trust.decide(&lane.peer().ok_or(ConnectError::NoKey)?).await?;
        let params = Config::default().params();
        let created = greeting::create(&mut lane, params, LanePolicy::default(), Some(secret));
        let created = tokio::time::timeout(HANDSHAKE_TIMEOUT, created).await;
        created.unwrap_or_else(|_| {
            Err(ConnectError::Handshake(std::io::ErrorKind::TimedOut.into()))
        })?;
        // Only the key mattered. A server that does not hear this keeps the session for a while.
        let close = Frame::Close { code: Code::NONE, reason: bytes::Bytes::new() };
        if greeting::write_frame(&mut lane, &close).await.is_ok() {
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut lane).await;
        }
        Ok(())
    }
}
