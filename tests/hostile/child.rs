//! The honest process: a server, or a client, with small windows, that tells on standard output
//! what becomes of it.

use std::io::BufRead;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use imux::lane::{BindSource, Listener, TcpOptions, TlsDialer, TlsListener};
use imux::trust::{Fingerprint, Identity, PinnedKeys, client_config, server_config};
use imux::{
    Client, ClientConfig, Config, Flow, Incoming, Link, Server, ServerConfig, Session, StreamKind,
};
use tokio::io::AsyncWriteExt;

/// In the environment: `server`, or `client <address> <fingerprint>`.
pub(crate) const ROLE: &str = "IMUX_HOSTILE_ROLE";

pub(crate) const STREAM_WINDOW: u64 = 256 << 10;
/// What every stream begins with.
pub(crate) const FIRST_WINDOW: u64 = 2 << 10;
pub(crate) const SESSION_WINDOW: u64 = 4 << 20;
pub(crate) const STREAMS_MAX: u64 = 1_000;

fn config() -> Config {
    let mut config = Config::default();
    config.stream_window = STREAM_WINDOW;
    config.stream_window_max = 2 * STREAM_WINDOW;
    config.session_window = SESSION_WINDOW;
    config.send_buffer_max = 1 << 20;
    config.streams_max = STREAMS_MAX;
    config
}

/// A line for the parent. The test harness prints on the same pipe.
macro_rules! tell {
    ($($word:tt)*) => { println!("\n@ {}", format_args!($($word)*)) };
}

pub(crate) fn run(role: &str) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    let words: Vec<&str> = role.split(' ').collect();
    let client = match words[..] {
        ["server"] => {
            runtime.spawn(serve());
            None
        }
        ["client", address, key] => {
            let (address, key) = (address.parse().unwrap(), key.parse().unwrap());
            runtime.block_on(connect(address, key))
        }
        _ => panic!("no such role: {role}"),
    };
    // Until the parent is gone.
    for line in std::io::stdin().lock().lines() {
        match line.unwrap().as_str() {
            "heap" => {
                let heap = &super::HEAP;
                tell!("heap {} {}", heap.current_usage(), heap.peak_usage());
                heap.reset_peak_usage();
            }
            "lanes" => {
                let stats = client.as_ref().and_then(Client::stats);
                tell!("lanes {}", stats.map_or(0, |stats| stats.lanes.len()));
            }
            other => panic!("no such command: {other}"),
        }
    }
    std::process::exit(0);
}

async fn serve() {
    let identity = Identity::generate().unwrap();
    let tls = server_config(&identity).unwrap();
    let listener = TlsListener::bind("127.0.0.1:0".parse().unwrap(), tls, TcpOptions::default());
    let listener = listener.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = Server::start(listener, ServerConfig::default().with_session(config()));
    tell!("ready {address} {}", identity.fingerprint());
    while let Some((session, _)) = server.accept().await {
        tokio::spawn(attend(session));
    }
}

async fn connect(address: SocketAddr, key: Fingerprint) -> Option<Client> {
    let tls = client_config(&Identity::generate().unwrap()).unwrap();
    let bind = BindSource::Addr("0.0.0.0".parse().unwrap());
    let dialer = TlsDialer::new(address.to_string(), bind, tls, TcpOptions::default()).unwrap();
    let link = Link::new(Arc::new(dialer), 2);
    let trust = Arc::new(PinnedKeys::new([key]));
    match Client::connect(vec![link], ClientConfig::new(trust).with_session(config())).await {
        Ok(client) => {
            if let Some(session) = client.session() {
                tokio::spawn(attend(session));
            }
            tell!("connected");
            Some(client)
        }
        Err(error) => {
            tell!("failed {error}");
            None
        }
    }
}

async fn attend(session: Session) {
    let over = loop {
        match session.accept().await {
            Ok(incoming) => drop(tokio::spawn(handle(incoming))),
            Err(over) => break over,
        }
    };
    tell!("over {over}");
}

/// Sends back what comes; or never reads, or writes without end, as the stream's opener likes.
async fn handle(incoming: Incoming) {
    let Incoming { stream, kind, .. } = match incoming.into_flow() {
        Ok((flow, kind)) => return carry(flow, kind).await,
        Err(stream) => stream,
    };
    let (mut read, mut write) = tokio::io::split(stream);
    match kind {
        StreamKind::Default => {
            if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                let _ = write.shutdown().await;
            }
        }
        StreamKind::Named(_) => {
            let block = vec![7; 8 << 10];
            while write.write_all(&block).await.is_ok() {}
        }
        _ => std::future::pending().await,
    }
}

/// The same with datagrams: back, without end, or not even read.
async fn carry(mut flow: Flow, kind: StreamKind) {
    let _ = flow.answer().await;
    match kind {
        StreamKind::Default => {
            while let Ok(datagram) = flow.recv().await {
                let _ = flow.send(datagram);
            }
        }
        StreamKind::Named(_) => {
            let some = vec![Bytes::from_static(&[7; 1_200]); 64];
            while flow.send_all(some.clone()).is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        _ => std::future::pending().await,
    }
}
