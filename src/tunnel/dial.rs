//! Streams into connections to the destination.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::copy::copy;
use crate::driver::{Code, Incoming, Session, SessionError, StreamKind};

/// How long a destination may take to answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Carries every stream the peer opens to `destination` (`host:port`, resolved at each dial), until
/// the session is over. A stream for any other destination is refused.
pub async fn serve(session: Session, destination: Arc<str>) -> SessionError {
    loop {
        match session.accept().await {
            Ok(incoming) => {
                tokio::spawn(carry(incoming, destination.clone()));
            }
            Err(over) => return over,
        }
    }
}

async fn carry(incoming: Incoming, destination: Arc<str>) {
    let Incoming { stream, kind } = incoming;
    if kind != StreamKind::Default {
        tracing::warn!(?kind, "refused: this server has one destination");
        stream.reset(Code::DIAL_FORBIDDEN);
        return;
    }
    match dial(&destination).await {
        Ok(socket) => copy(socket, stream).await,
        Err((code, error)) => {
            tracing::warn!(%destination, %error, "cannot reach the destination");
            stream.reset(code);
        }
    }
}

/// Connects to the first address of the destination that answers.
async fn dial(destination: &str) -> Result<TcpStream, (Code, io::Error)> {
    let addresses = tokio::net::lookup_host(destination).await;
    let addresses: Vec<_> = addresses.map_err(|error| (Code::DIAL_NAME, error))?.collect();
    let connecting = TcpStream::connect(addresses.as_slice());
    match tokio::time::timeout(DIAL_TIMEOUT, connecting).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) => Err((meaning(&error), error)),
        Err(_) => Err((Code::DIAL_TIMEOUT, io::ErrorKind::TimedOut.into())),
    }
}

/// What the far end is told of it.
fn meaning(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Code::DIAL_REFUSED,
        io::ErrorKind::TimedOut => Code::DIAL_TIMEOUT,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Code::DIAL_UNREACHABLE
        }
        io::ErrorKind::InvalidInput => Code::DIAL_NAME,
        _ => Code::DIAL_RESOURCES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failures_are_told_apart() {
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        drop(taken);
        let refused = dial(&address.to_string()).await.unwrap_err();
        assert_eq!(refused.0, Code::DIAL_REFUSED);
        let unknown = dial("nowhere.invalid:22").await.unwrap_err();
        assert_eq!(unknown.0, Code::DIAL_NAME);
    }
}
