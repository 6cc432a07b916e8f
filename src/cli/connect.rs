//! `imux client`: takes local connections and carries them to the server.

use std::sync::Arc;

use imux::lane::{TcpOptions, TlsDialer};
use imux::trust::{Identity, client_config};
use imux::{Client, Code, ConnectError, Link, StreamKind, tunnel};

use super::config::{ClientConfig, require_home};
use super::exit::{Exit, Failure};
use super::run::{Stopping, listen_locally};
use super::trust::{dial_failure, host_trust, trust_failure};

/// Takes connections at `config.listen` and carries them to the server at `config.dial`, until a
/// signal.
pub(super) async fn run_client(
    config: ClientConfig,
    mut stopping: Stopping,
) -> Result<Exit, Failure> {
    // Before anything is dialled: a port that is taken should not cost a prompt.
    let listeners = listen_locally(&config.listen).await?;
    let home = require_home(config.home)?;
    let server = config.dial.as_written();
    let identity = Identity::load_or_create(&home, "client").map_err(|e| trust_failure(&e))?;
    let tls = client_config(&identity).map_err(|error| trust_failure(&error))?;
    let options = TcpOptions {
        dial_timeout: config.connect_timeout,
        congestion: config.session.congestion.clone(),
        ..TcpOptions::default()
    };
    let link = |bind: &imux::lane::Bind| {
        let dialer = TlsDialer::new(server, bind.source.clone(), tls.clone(), options.clone())?;
        Ok(Link { dialer: Arc::new(dialer), lanes: bind.lanes })
    };
    let links = config.binds.iter().map(link).collect::<Result<Vec<_>, _>>();
    let links = links.map_err(|error| dial_failure(server, &error))?;
    let settings = imux::ClientConfig {
        session: config.session.for_library(),
        trust: host_trust(config.trust, server, &home),
    };
    let client = Client::connect(links, settings).await;
    let client = Arc::new(client.map_err(|error| connect_failure(server, &error))?);
    let mut forwards = tokio::task::JoinSet::new();
    for listener in listeners {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, %server, "client ready");
        }
        forwards.spawn(tunnel::forward(listener, client.clone(), StreamKind::Default));
    }
    tokio::select! {
        _ = forwards.join_next() => Err(Failure::message(Exit::Internal, "a listener has ended")),
        () = stopping.wait() => {
            client.close(Code::SHUTDOWN).await;
            Ok(Exit::Ok)
        }
    }
}

/// The exit code of a client that could not begin, and what to do about it.
fn connect_failure(server: &str, error: &ConnectError) -> Failure {
    match error {
        ConnectError::Dial(error) => dial_failure(server, error),
        ConnectError::Trust(error) => trust_failure(error),
        ConnectError::Refused { .. } => Failure::message(
            Exit::Refused,
            format!("{server} does not take this client: {error}; ask who runs the server"),
        ),
        _ => Failure::message(
            Exit::Unreachable,
            format!("cannot reach {server}: {error}; check that it is an imux server"),
        ),
    }
}
