//! Local connections into streams.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::copy::copy;
use super::socket;
use crate::driver::{Client, OpenError, StreamKind};

/// After an error of the listening socket (no descriptors left, say) this long is waited.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Forwards every connection that comes in on `listener` through a stream of its own, for ever.
pub async fn forward(listener: TcpListener, client: Arc<Client>, kind: StreamKind) {
    loop {
        match listener.accept().await {
            Ok((local, from)) => {
                let (client, kind) = (client.clone(), kind.clone());
                tokio::spawn(async move {
                    if let Err(error) = carry(local, &client, kind).await {
                        tracing::warn!(%from, %error, "connection refused");
                    }
                });
            }
            Err(error) => wait_out(&error).await,
        }
    }
}

async fn carry(local: TcpStream, client: &Client, kind: StreamKind) -> Result<(), OpenError> {
    match client.open(kind).await {
        Ok(stream) => {
            copy(local, stream).await;
            Ok(())
        }
        Err(error) => {
            socket::reset(&local);
            Err(error)
        }
    }
}

async fn wait_out(error: &io::Error) {
    tracing::warn!(%error, "cannot accept connections for now");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}
