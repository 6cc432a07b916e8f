//! Server, relay and client, up and running.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::net::connect;
use super::process::{self, Imux, field};
use super::relay::Relay;

/// `imux client` -> relay -> `imux server`, each with a home of its own. Fields are dropped in
/// this order.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) client: Imux,
    pub(crate) server: Imux,
    pub(crate) relay: Relay,
    /// Where the client accepts connections.
    pub(crate) addr: SocketAddr,
    pub(crate) homes: [TempDir; 2],
}

impl Tunnel {
    /// Ten lanes, on two paths.
    pub(crate) async fn start(destination: SocketAddr) -> Self {
        Self::with(destination, &["--bind", "127.0.0.2=5", "--bind", "127.0.0.3=5"], &[]).await
    }

    pub(crate) async fn with(
        destination: SocketAddr,
        client_args: &[&str],
        server_args: &[&str],
    ) -> Self {
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        Self::at_homes(homes, destination, client_args, server_args).await
    }

    /// Like [`with`](Self::with); if there are any others, the server admits only them and this
    /// client.
    pub(crate) async fn among(
        others: &[String],
        destination: SocketAddr,
        client_args: &[&str],
        server_args: &[&str],
    ) -> Self {
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        if !others.is_empty() {
            let (_, own, _) = process::run(homes[1].path(), &["identity"]);
            let list = homes[0].path().join("authorized_clients");
            std::fs::write(&list, format!("{own}{}\n", others.join("\n"))).unwrap();
            std::fs::set_permissions(&list, Permissions::from_mode(0o600)).unwrap();
        }
        Self::at_homes(homes, destination, client_args, server_args).await
    }

    async fn at_homes(
        homes: [TempDir; 2],
        destination: SocketAddr,
        client_args: &[&str],
        server_args: &[&str],
    ) -> Self {
        let destination = destination.to_string();
        let mut args = vec!["server", "--listen", "127.0.0.1:0", "--dial", &destination];
        args.extend_from_slice(server_args);
        let server = Imux::start(homes[0].path(), &args);
        let relay = Relay::start(server.ready()).await;
        let key = server.line("server ready");
        let at = relay.addr.to_string();
        let mut args =
            vec!["client", "--listen", "127.0.0.1:0", "--dial", &at, "--pin", field(&key, "key")];
        args.extend_from_slice(client_args);
        let client = Imux::start(homes[1].path(), &args);
        let addr = client.ready();
        Self { client, server, relay, addr, homes }
    }

    /// A connection through the tunnel.
    pub(crate) async fn connect(&self) -> TcpStream {
        connect(self.addr)
    }

    /// Neither end has died or logged that it is at fault.
    #[track_caller]
    pub(crate) fn assert_healthy(&mut self) {
        for end in [&mut self.client, &mut self.server] {
            assert!(end.is_running(), "a program has ended");
            assert_eq!(end.count("internal error"), 0, "a program has panicked");
            assert_eq!(end.count("misbehaved"), 0, "the ends disagree");
        }
    }
}
