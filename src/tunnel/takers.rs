//! Accepts connections here, and carries them into streams.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::connections::Connections;
use super::copy::{Ends, copy};
use super::socket::{self, Socket, SocketOptions};
use crate::driver::{Client, OpenError, OpenOptions, StreamKind};

mod handed;
pub(super) mod listener;
pub(super) mod listening;
#[cfg(feature = "proxy")]
pub mod proxy;
mod stdio;
mod transparent;
pub(super) mod udp;
mod unix;

pub use handed::{Connected, ConnectionError, connect_within};
pub use listener::Listener;
pub use stdio::{attach_stdio, carry_stdio};
pub use transparent::{allow_tproxy, serve_transparent_within};
pub use udp::forward_udp_within;
pub use unix::UnixSocket;

/// Pause after an error of the listening socket (no descriptors left, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Forwards every connection that comes in on `listener` through a stream of its own, until the
/// client is [drained](Client::drain) or closed; then stops listening, and returns when its
/// connections have ended. Dropped before, it cuts them off.
pub async fn forward(
    listener: impl Into<Listener>,
    client: Arc<Client>,
    options: impl Into<OpenOptions>,
) {
    forward_within(listener, client, options, Connections::unbounded()).await;
}

/// Like [`forward`], with a bound on connections: any beyond it are reset at once.
pub async fn forward_within(
    listener: impl Into<Listener>,
    client: Arc<Client>,
    options: impl Into<OpenOptions>,
    bound: &Connections,
) {
    let (listener, options) = (listener.into(), options.into());
    let at = listener.to_string();
    let sockets = *bound.sockets();
    let each = |local, from: String| {
        // The peer of a Unix socket has no address.
        let source = from.parse().ok();
        let (client, options) = (client.clone(), OpenOptions { source, ..options.clone() });
        let ends = ends(from, &at, &options);
        async move {
            if let Err(error) = carry(local, &client, options, &sockets, &ends).await {
                let Ends { from, to } = ends;
                tracing::warn!(%from, %to, %error, "connection refused");
            }
        }
    };
    take(listener, &client, bound, each).await;
}

/// Accepts connections until the client is drained or closed, each in a task of its own, then waits
/// for them.
async fn take<F>(
    listener: Listener,
    client: &Client,
    bound: &Connections,
    each: impl Fn(Socket, String) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
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
                    let carried = each(local, from);
                    connections.spawn(async move {
                        let _place = place;
                        carried.await;
                    });
                }
                Err(error) => wait_out(&error).await,
            },
            Some(_) = connections.join_next() => {}
            () = &mut stopping => break,
            () = bound.ended() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Who has connected where, and where that leads.
fn ends(from: String, at: &str, options: &OpenOptions) -> Ends {
    let to = match &options.kind {
        StreamKind::Named(name) => name.as_str(),
        _ => "the server's destination",
    };
    Ends { from, to: format!("{to} by {at}") }
}

async fn carry(
    local: Socket,
    client: &Client,
    options: OpenOptions,
    sockets: &SocketOptions,
    ends: &Ends,
) -> Result<(), OpenError> {
    match client.open(options).await {
        Ok(stream) => {
            copy(local, Bytes::new(), stream, sockets, ends).await;
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
