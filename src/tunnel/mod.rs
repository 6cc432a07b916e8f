//! Streams into forwarded sockets and back: listen, dial, copy, half-close, reset.
//!
//! [`forward`] is the client's half, [`serve`] the server's. Half-closes, resets and refusals on
//! one side arrive as such on the other.
//!
//! ```
//! use std::sync::Arc;
//!
//! # use imux::lane::memory;
//! # use imux::trust::{Fingerprint, PeerIdentity, PinnedKeys};
//! # use imux::{Client, ClientConfig, Link, Server, ServerConfig};
//! use imux::{StreamKind, tunnel};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use tokio::net::{TcpListener, TcpStream};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let key = Fingerprint::from_bytes([7; 32]);
//! # let identity = PeerIdentity { fingerprint: key, certificate_signature: None };
//! # let (dialer, listener) = memory::network(memory::DEFAULT_CAPACITY);
//! # let dialer = dialer.with_peer(identity);
//! # let mut server = Server::start(listener, ServerConfig::default());
//! # let trust = Arc::new(PinnedKeys::new([key]));
//! # let link = Link::new(Arc::new(dialer), 2);
//! # let client = Client::connect(vec![link], ClientConfig::new(trust));
//! # let client = client.await?;
//! # let (session, _) = server.accept().await.unwrap();
//! // The destination sends back what it gets.
//! let destination = TcpListener::bind("127.0.0.1:0").await?;
//! let address = destination.local_addr()?.to_string();
//! tokio::spawn(async move {
//!     let (mut socket, _) = destination.accept().await?;
//!     let (mut read, mut write) = socket.split();
//!     tokio::io::copy(&mut read, &mut write).await?;
//!     write.shutdown().await
//! });
//! tokio::spawn(tunnel::serve(session, Arc::from(address)));
//!
//! let local = TcpListener::bind("127.0.0.1:0").await?;
//! let address = local.local_addr()?;
//! tokio::spawn(tunnel::forward(local, Arc::new(client), StreamKind::Default));
//!
//! let mut program = TcpStream::connect(address).await?;
//! program.write_all(b"there and back").await?;
//! program.shutdown().await?;
//! let mut back = String::new();
//! program.read_to_string(&mut back).await?;
//! assert_eq!(back, "there and back");
//! # Ok(())
//! # }
//! ```

mod connections;
mod copy;
mod dialers;
mod flows;
mod places;
mod socket;
mod takers;
mod udp_socket;

pub use connections::Connections;
pub use dialers::{
    Dialing, RemoteForward, RemoteForwardError, forward_from_server, forward_from_server_as, serve,
    serve_within,
};
pub use socket::{Keepalive, SocketOptions};
#[cfg(feature = "proxy")]
pub use takers::proxy;
pub use takers::{
    Connected, ConnectionError, Listener, UnixSocket, allow_tproxy, attach_stdio, carry_stdio,
    connect_within, forward, forward_udp_within, forward_within, serve_transparent_within,
};
pub use udp_socket::UdpPort;
