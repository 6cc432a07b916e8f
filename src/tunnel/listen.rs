//! Local connections into streams.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::connections::Connections;
use super::copy::{Ends, copy};
use super::socket::{self, SocketOptions};
use crate::driver::{Client, OpenError, OpenOptions, StreamKind};
use crate::net::as_ipv4;

/// After an error of the listening socket (no descriptors left, say) this long is waited.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Forwards every connection that comes in on `listener` through a stream of its own, until the
/// client is [drained](Client::drain) or closed; then stops listening, and returns when its
/// connections have ended. Dropped before, it cuts them off.
pub async fn forward(listener: TcpListener, client: Arc<Client>, options: impl Into<OpenOptions>) {
    forward_within(listener, client, options, Connections::unbounded()).await;
}

/// As [`forward`], with a bound on the connections: what comes beyond it is reset at once.
pub async fn forward_within(
    listener: TcpListener,
    client: Arc<Client>,
    options: impl Into<OpenOptions>,
    bound: &Connections,
) {
    let options = options.into();
    let mut connections = JoinSet::new();
    let stopping = client.stopping();
    tokio::pin!(stopping);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((local, from)) => {
                    let Some(place) = bound.enter() else {
                        bound.tell_full();
                        socket::reset(&local);
                        continue;
                    };
                    let from = as_ipv4(from);
                    let (client, options) = (client.clone(), options.clone());
                    let sockets = *bound.sockets();
                    drop(connections.spawn(async move {
                        let _place = place;
                        let ends = ends(&local, from, &options);
                        if let Err(error) = carry(local, &client, options, &sockets, &ends).await {
                            let Ends { from, to } = ends;
                            tracing::warn!(%from, %to, %error, "connection refused");
                        }
                    }));
                }
                Err(error) => wait_out(&error).await,
            },
            Some(_) = connections.join_next() => {}
            () = &mut stopping => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Who has connected where, and where that leads.
fn ends(local: &TcpStream, from: SocketAddr, options: &OpenOptions) -> Ends {
    let at =
        local.local_addr().map_or_else(|error| error.to_string(), |at| as_ipv4(at).to_string());
    let to = match &options.kind {
        StreamKind::Named(name) => name.as_str(),
        _ => "the server's destination",
    };
    Ends { from: from.to_string(), to: format!("{to} by {at}") }
}

async fn carry(
    local: TcpStream,
    client: &Client,
    options: OpenOptions,
    sockets: &SocketOptions,
    ends: &Ends,
) -> Result<(), OpenError> {
    match client.open(options).await {
        Ok(stream) => {
            copy(local, stream, sockets, ends).await;
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
