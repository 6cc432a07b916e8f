//! Real TLS over real sockets, on loopback.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{ClientConfig, ClientConnection, ContentType, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::keys::HEADER;
use super::record::KEY_UPDATE;
use super::*;
use crate::lane::{Bind, BindSource, Congestion, DialError, Dialer, Listener, TcpOptions};
use crate::trust::{
    Identity, LANE_EXPORTER_LABEL, SESSION_EXPORTER_LABEL, client_config, client_config_of,
    provider, server_config,
};

mod handshake;
mod records;
mod socket;
mod transfer;

const SOON: Duration = Duration::from_secs(10);

fn any_v4() -> BindSource {
    BindSource::Addr(Ipv4Addr::UNSPECIFIED.into())
}

fn listener_at(ip: IpAddr, config: Arc<ServerConfig>) -> TlsListener {
    TlsListener::bind((ip, 0).into(), config, TcpOptions::default()).unwrap()
}

/// A listener on 127.0.0.1 with an identity of its own.
fn listener() -> (TlsListener, Identity) {
    let identity = Identity::generate().unwrap();
    let config = server_config(&identity).unwrap();
    (listener_at(Ipv4Addr::LOCALHOST.into(), config), identity)
}

fn dialer_from(listener: &TlsListener, bind: BindSource, config: Arc<ClientConfig>) -> TlsDialer {
    let server = listener.local_addr().unwrap().to_string();
    TlsDialer::new(server, bind, config, TcpOptions::default()).unwrap()
}

fn dialer(listener: &TlsListener) -> TlsDialer {
    let config = client_config(&Identity::generate().unwrap()).unwrap();
    dialer_from(listener, any_v4(), config)
}

async fn accept(listener: &TlsListener) -> io::Result<Box<dyn Lane>> {
    listener.accept().await?.handshake().await
}

/// One record of these bytes.
fn record(lane: &mut TlsLane, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    lane.sealer.seal(&OutboundChunks::Single(data), &mut out).unwrap();
    out
}

/// Both ends of a lane: the client's, the server's.
async fn connect(dialer: &TlsDialer, listener: &TlsListener) -> (Box<dyn Lane>, Box<dyn Lane>) {
    let both = async { tokio::join!(dialer.dial(), accept(listener)) };
    let (client, server) = timeout(SOON, both).await.unwrap();
    (client.unwrap(), server.unwrap())
}

async fn lane() -> (Box<dyn Lane>, Box<dyn Lane>) {
    let (listener, _) = listener();
    connect(&dialer(&listener), &listener).await
}

/// As [`lane`], with the types known.
async fn tls_lane() -> (TlsLane, TlsLane) {
    let (listener, _) = listener();
    let dialer = dialer(&listener);
    let server = async {
        let (socket, _) = listener.socket.accept().await.unwrap();
        TlsLane::accept(socket, listener.settings.get()).await.unwrap()
    };
    tokio::join!(async { dialer.dial_tls().await.unwrap() }, server)
}

fn export(lane: &dyn Lane, label: &'static str) -> [u8; 32] {
    let mut out = [0; 32];
    lane.export_keying_material(label, &mut out).unwrap();
    out
}

async fn pass_bytes(from: &mut dyn Lane, to: &mut dyn Lane) {
    from.write_all(b"over and out").await.unwrap();
    from.flush().await.unwrap();
    let mut got = [0; 12];
    timeout(SOON, to.read_exact(&mut got)).await.unwrap().unwrap();
    assert_eq!(&got, b"over and out");
}
