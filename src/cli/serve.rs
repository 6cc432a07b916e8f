//! `imux server`: takes lanes and hands their streams to the destination.

use std::io;
use std::sync::Arc;

use anyhow::anyhow;
use imux::lane::{TcpOptions, TlsListener};
use imux::trust::{Identity, server_config};
use imux::{Code, Server, tunnel};

use super::address::HostPort;
use super::config::{ServerConfig, SessionConfig, require_home};
use super::exit::{Exit, Failure};
use super::run::{Stopping, listen_addresses, listen_failure};
use super::trust::trust_failure;

/// Takes lanes at `config.listen` and hands their streams to `config.dial`, until a signal.
pub(super) async fn run_server(
    config: ServerConfig,
    mut stopping: Stopping,
) -> Result<Exit, Failure> {
    let home = require_home(config.home)?;
    let identity = Identity::load_or_create(&home, config.listen.as_written());
    let identity = identity.map_err(|error| trust_failure(&error))?;
    let tls = server_config(&identity).map_err(|error| trust_failure(&error))?;
    let options =
        TcpOptions { congestion: config.session.congestion.clone(), ..TcpOptions::default() };
    let listener =
        listen(&config.listen, |address| TlsListener::bind(address, tls.clone(), options.clone()))
            .await?;
    let settings = imux::ServerConfig { session: config.session.for_library() };
    let mut server = Server::start(listener, settings);
    let address = server.local_addr().map_err(|error| listen_failure(&config.listen, &error))?;
    tracing::warn!(
        "any client may use this server, for its one destination {}: \
         who reaches {address} reaches that",
        config.dial
    );
    tracing::info!(
        %address,
        key = %identity.fingerprint(),
        destination = %config.dial,
        "server ready"
    );
    let destination: Arc<str> = config.dial.as_written().into();
    loop {
        tokio::select! {
            accepted = server.accept() => match accepted {
                Some((session, _)) => drop(tokio::spawn(tunnel::serve(session, destination.clone()))),
                None => return Err(Failure::message(Exit::Internal, "the listener has ended")),
            },
            () = stopping.wait() => {
                server.close(Code::SHUTDOWN).await;
                return Ok(Exit::Ok);
            }
        }
    }
}

/// Listens at the first of the addresses `place` stands for that works.
async fn listen<T>(
    place: &HostPort,
    bind: impl Fn(std::net::SocketAddr) -> io::Result<T>,
) -> Result<T, Failure> {
    let mut first_error = None;
    for address in listen_addresses(place).await? {
        match bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(match first_error {
        Some(error) => listen_failure(place, &error),
        None => Failure::new(Exit::Listen, anyhow!("cannot listen on {place}: no address")),
    })
}

impl SessionConfig {
    /// In the library's terms.
    pub(super) fn for_library(&self) -> imux::Config {
        let default = imux::Config::default();
        let window_max = self.window.unwrap_or(default.stream_window_max);
        imux::Config {
            stream_window: default.stream_window.min(window_max),
            stream_window_max: window_max,
            session_window: self.session_window.unwrap_or(default.session_window),
            grace: self.grace,
            scheduler: self.scheduler,
            ..default
        }
    }
}
