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

use super::record::{HEADER, KEY_UPDATE};
use super::*;
use crate::lane::{Bind, BindSource, Congestion, DialError, Dialer, Listener, TcpOptions};
use crate::trust::{
    Identity, LANE_EXPORTER_LABEL, SESSION_EXPORTER_LABEL, client_config, client_config_of,
    provider, server_config,
};

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

#[tokio::test]
async fn negotiates_tls13_with_post_quantum_key_exchange() {
    let (mut client, mut server) = tls_lane().await;
    for end in [&client, &server] {
        assert_eq!(end.negotiated.group, Some(NamedGroup::X25519MLKEM768));
        assert_eq!(end.negotiated.suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
    }
    assert!(client.describe().starts_with("TLS 1.3 X25519MLKEM768 AES-128-GCM"), "{client:?}");
    pass_bytes(&mut client, &mut server).await;
    pass_bytes(&mut server, &mut client).await;
}

#[tokio::test]
async fn both_ends_know_each_others_key() {
    let (listener, server_identity) = listener();
    let client_identity = Identity::generate().unwrap();
    let config = client_config(&client_identity).unwrap();
    let (client, server) = connect(&dialer_from(&listener, any_v4(), config), &listener).await;
    assert_eq!(client.peer().unwrap().fingerprint, server_identity.fingerprint());
    assert_eq!(server.peer().unwrap().fingerprint, client_identity.fingerprint());
}

#[tokio::test]
async fn exporter_is_the_lanes_own() {
    let (listener, _) = listener();
    let dialer = dialer(&listener);
    let (client, server) = connect(&dialer, &listener).await;
    let (other, _other_end) = connect(&dialer, &listener).await;
    assert_eq!(export(&*client, SESSION_EXPORTER_LABEL), export(&*server, SESSION_EXPORTER_LABEL));
    assert_ne!(export(&*client, SESSION_EXPORTER_LABEL), export(&*client, LANE_EXPORTER_LABEL));
    assert_ne!(export(&*client, SESSION_EXPORTER_LABEL), export(&*other, SESSION_EXPORTER_LABEL));
    assert_eq!(export(&*client, LANE_EXPORTER_LABEL), export(&*server, LANE_EXPORTER_LABEL));
    let error = client.export_keying_material("EXPORTER-other", &mut [0; 32]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}

/// A key that signs something else than it is asked to: what somebody would have who shows another's certificate.
#[derive(Debug)]
struct WrongSigner(Arc<dyn SigningKey>);

impl SigningKey for WrongSigner {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        self.0.choose_scheme(offered).map(|inner| Box::new(WrongSignature(inner)) as _)
    }

    fn algorithm(&self) -> rustls::SignatureAlgorithm {
        self.0.algorithm()
    }
}

#[derive(Debug)]
struct WrongSignature(Box<dyn Signer>);

impl Signer for WrongSignature {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut other = message.to_vec();
        other[0] ^= 1;
        self.0.sign(&other)
    }

    fn scheme(&self) -> SignatureScheme {
        self.0.scheme()
    }
}

#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl rustls::server::ResolvesServerCert for Shows {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl rustls::client::ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Shows a fresh certificate and cannot sign for it.
fn impostor() -> Arc<Shows> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let der = key.serialize_der().try_into().unwrap();
    let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    Arc::new(Shows(Arc::new(CertifiedKey::new(chain, Arc::new(WrongSigner(signing))))))
}

#[tokio::test]
async fn a_server_that_cannot_sign_for_its_certificate_is_refused() {
    let mut config = (*server_config(&Identity::generate().unwrap()).unwrap()).clone();
    config.cert_resolver = impostor();
    let listener = listener_at(Ipv4Addr::LOCALHOST.into(), Arc::new(config));
    let dialer = dialer(&listener);
    let (client, server) = tokio::join!(dialer.dial(), accept(&listener));
    let error = client.unwrap_err();
    assert!(matches!(error, DialError::Handshake { .. }), "{error}");
    assert!(error.to_string().contains("BadSignature"), "{error}");
    assert!(server.is_err());
}

#[tokio::test]
async fn a_client_that_cannot_sign_for_its_certificate_is_refused() {
    let (listener, _) = listener();
    let mut config = (*client_config(&Identity::generate().unwrap()).unwrap()).clone();
    config.client_auth_cert_resolver = impostor();
    let dialer = dialer_from(&listener, any_v4(), Arc::new(config));
    let (client, server) = tokio::join!(dialer.dial(), accept(&listener));
    let error = server.unwrap_err();
    assert!(error.to_string().contains("BadSignature"), "{error}");
    // The client's part of the handshake ends before the server judges it; it learns at its first read.
    let mut client = client.unwrap();
    assert!(timeout(SOON, client.read_u8()).await.unwrap().is_err());
}

#[tokio::test]
async fn a_client_without_a_certificate_is_nobody() {
    let (listener, _) = listener();
    let mut config = (*client_config(&Identity::generate().unwrap()).unwrap()).clone();
    #[derive(Debug)]
    struct Nothing;
    impl rustls::client::ResolvesClientCert for Nothing {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            None
        }
        fn has_certs(&self) -> bool {
            false
        }
    }
    config.client_auth_cert_resolver = Arc::new(Nothing);
    let dialer = dialer_from(&listener, any_v4(), Arc::new(config));
    let (_client, server) = connect(&dialer, &listener).await;
    assert_eq!(server.peer(), None);
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let (listener, _) = listener();
    for alpn in [vec![b"h2".to_vec()], vec![]] {
        let mut config = (*client_config(&Identity::generate().unwrap()).unwrap()).clone();
        config.alpn_protocols = alpn;
        let dialer = dialer_from(&listener, any_v4(), Arc::new(config));
        let (client, server) = tokio::join!(dialer.dial(), accept(&listener));
        assert!(server.is_err());
        assert!(client.is_err());
    }
}

#[tokio::test]
async fn tls12_is_refused() {
    let (listener, _) = listener();
    let addr = listener.local_addr().unwrap();
    // A ClientHello of TLS 1.2 by hand: no supported_versions extension, one ECDHE suite.
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2f, 1, 0]);
    let mut hello = vec![1, 0, 0, body.len() as u8];
    hello.extend(body);
    let mut record = vec![22, 3, 1, 0, hello.len() as u8];
    record.extend(hello);
    let old = async {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        socket.write_all(&record).await.unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        answer
    };
    let (answer, server) =
        timeout(SOON, async { tokio::join!(old, accept(&listener)) }).await.unwrap();
    assert!(server.is_err());
    assert_eq!(answer[0], 21, "an alert, not a handshake: {answer:?}");
}

#[tokio::test]
async fn garbage_is_an_error_of_the_lane() {
    let (listener, _) = listener();
    let addr = listener.local_addr().unwrap();
    let stranger = async {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
        socket
    };
    let (_socket, server) =
        timeout(SOON, async { tokio::join!(stranger, accept(&listener)) }).await.unwrap();
    assert_eq!(server.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_peer_gone_in_the_handshake_is_an_error() {
    let (listener, _) = listener();
    let addr = listener.local_addr().unwrap();
    let (stranger, server) = tokio::join!(TcpStream::connect(addr), async {
        let pending = listener.accept().await.unwrap();
        assert!(pending.remote().unwrap().ip().is_loopback());
        pending
    });
    drop(stranger);
    let error = timeout(SOON, server.handshake()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_cut_connection_is_an_error_and_an_end_is_not() {
    // Cut: everything arrives, then TCP's FIN without close_notify.
    let (mut client, mut server) = tls_lane().await;
    let wire = record(&mut client, b"last words");
    let TlsLane { mut socket, .. } = client;
    socket.write_all(&wire).await.unwrap();
    drop(socket);
    let mut got = Vec::new();
    let error = timeout(SOON, server.read_to_end(&mut got)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(got, b"last words");

    // Cut within a record.
    let (mut client, mut server) = tls_lane().await;
    let wire = record(&mut client, b"last words");
    let TlsLane { mut socket, .. } = client;
    socket.write_all(&wire[..wire.len() - 1]).await.unwrap();
    drop(socket);
    let error = timeout(SOON, server.read_to_end(&mut Vec::new())).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);

    // An end that was told.
    let (mut client, mut server) = lane().await;
    client.write_all(b"last words").await.unwrap();
    client.shutdown().await.unwrap();
    got.clear();
    timeout(SOON, server.read_to_end(&mut got)).await.unwrap().unwrap();
    assert_eq!(got, b"last words");
    // It stays an end.
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_changed_byte_is_an_error() {
    let (mut client, mut server) = tls_lane().await;
    let mut wire = record(&mut client, b"pay 1 to bob");
    let TlsLane { mut socket, .. } = client;
    wire[10] ^= 1;
    socket.write_all(&wire).await.unwrap();
    let error = timeout(SOON, server.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn after_shutdown_the_other_direction_goes_on() {
    let (mut client, mut server) = lane().await;
    client.shutdown().await.unwrap();
    client.shutdown().await.unwrap();
    let error = client.write(b"more").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
    pass_bytes(&mut *server, &mut *client).await;
    server.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn an_aborted_lane_is_reset() {
    let (client, mut server) = lane().await;
    client.abort();
    drop(client);
    let error = timeout(SOON, server.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn carries_much_both_ways_at_once_vectored() {
    const TOTAL: usize = 24 << 20;
    fn byte_at(offset: usize) -> u8 {
        (offset.wrapping_mul(0x9e37_79b9) >> 11) as u8
    }
    async fn send(lane: &mut (impl AsyncWrite + Unpin)) {
        let mut sent = 0;
        while sent < TOTAL {
            // Slices of uneven length, empty ones among them.
            let lengths = [0, 1, 7, 9000, 16384, 16385, 70_000, 200_000];
            let mut at = sent;
            let parts: Vec<Vec<u8>> = lengths
                .iter()
                .map(|&length| {
                    let end = TOTAL.min(at + length);
                    let part = (at..end).map(byte_at).collect();
                    at = end;
                    part
                })
                .collect();
            let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
            let n = lane.write_vectored(&slices).await.unwrap();
            assert!(n > 0 && n <= at - sent);
            sent += n;
        }
        lane.flush().await.unwrap();
        lane.shutdown().await.unwrap();
    }
    async fn receive(lane: &mut (impl AsyncBufRead + Unpin)) {
        use tokio::io::AsyncBufReadExt;
        let mut at = 0;
        loop {
            let filled = lane.fill_buf().await.unwrap();
            if filled.is_empty() {
                break;
            }
            // Leave something behind now and then.
            let amount = if at % 3 == 0 { filled.len() } else { filled.len().div_ceil(2) };
            for (index, &byte) in filled[..amount].iter().enumerate() {
                assert_eq!(byte, byte_at(at + index), "at {}", at + index);
            }
            at += amount;
            lane.consume(amount);
        }
        assert_eq!(at, TOTAL);
    }
    let (client, server) = lane().await;
    // A lane belongs to one task; two halves of one task here.
    async fn both(lane: Box<dyn Lane>) {
        let (mut read, mut write) = tokio::io::split(lane);
        let (_, ()) = tokio::join!(send(&mut write), async {
            let mut buffered = tokio::io::BufReader::with_capacity(40_000, &mut read);
            receive(&mut buffered).await;
        });
    }
    let all = async { tokio::join!(both(client), both(server)) };
    timeout(Duration::from_secs(60), all).await.unwrap();
}

#[tokio::test]
async fn records_are_handed_out_whole() {
    use tokio::io::AsyncBufReadExt;
    let (mut client, mut server) = lane().await;
    let data = vec![3; TLS_RECORD_MAX + 100];
    client.write_all(&data).await.unwrap();
    let first = server.fill_buf().await.unwrap().len();
    assert_eq!(first, TLS_RECORD_MAX);
    server.consume(first);
    assert_eq!(server.fill_buf().await.unwrap().len(), 100);
}

#[tokio::test]
async fn takes_no_more_than_the_limit_while_the_peer_does_not_read() {
    let (mut client, mut server) = lane().await;
    client.set_unsent_limit(16 * 1024);
    let block = vec![9; 64 * 1024];
    let mut taken = 0;
    // Ready says yes until the kernel has enough, and then no: nothing is taken that waits in the lane.
    while let Ok(ready) =
        timeout(Duration::from_millis(200), poll_fn(|cx| client.poll_write_ready(cx))).await
    {
        ready.unwrap();
        taken += client.write(&block).await.unwrap();
        assert!(taken < 64 << 20, "never full");
    }
    let unsent = client.metrics().unwrap().unsent_bytes;
    assert!(unsent <= 16 * 1024 + block.len() as u64 + 4096, "{unsent}");
    // What the lane holds still comes out, and room is told.
    let reader = async {
        let mut all = vec![0; taken];
        server.read_exact(&mut all).await.unwrap();
        assert!(all.iter().all(|&byte| byte == 9));
    };
    let writer = async { poll_fn(|cx| client.poll_write_ready(cx)).await.unwrap() };
    timeout(SOON, async { tokio::join!(reader, writer) }).await.unwrap();
}

#[tokio::test]
async fn metrics_are_the_kernels() {
    let (mut client, mut server) = lane().await;
    let data = vec![1; 1 << 20];
    let mut sink = vec![0; 1 << 20];
    for _ in 0..4 {
        let (sent, got) = tokio::join!(client.write_all(&data), server.read_exact(&mut sink));
        sent.unwrap();
        got.unwrap();
        client.flush().await.unwrap();
    }
    let metrics = client.metrics().unwrap();
    assert!(metrics.rtt > Duration::ZERO && metrics.rtt < Duration::from_secs(1), "{metrics:?}");
    assert!(metrics.rtt_min.unwrap() <= metrics.rtt * 2, "{metrics:?}");
    assert!(metrics.delivery_rate > 1 << 20, "{metrics:?}");
    assert!((500..=65_536).contains(&metrics.mss), "{metrics:?}");
    assert!(metrics.cwnd_bytes >= u64::from(metrics.mss), "{metrics:?}");
    assert_eq!(metrics.unsent_bytes, 0, "{metrics:?}");
}

#[tokio::test]
async fn bound_to_an_address_it_comes_from_there() {
    let (listener, _) = listener();
    let config = client_config(&Identity::generate().unwrap()).unwrap();
    let source = Ipv4Addr::new(127, 0, 0, 2).into();
    let dialer = dialer_from(&listener, BindSource::Addr(source), config);
    assert_eq!(dialer.name(), "127.0.0.2");
    let (client, server) = connect(&dialer, &listener).await;
    assert_eq!(server.peer_addr().unwrap().ip(), source);
    assert_eq!(client.local_addr(), server.peer_addr());
    assert_eq!(client.peer_addr(), server.local_addr());
}

#[tokio::test]
async fn bound_to_a_device_it_goes_out_there() {
    let (listener, _) = listener();
    let config = client_config(&Identity::generate().unwrap()).unwrap();
    let bind = Bind { source: BindSource::Device("lo".to_owned()), lanes: 1 };
    let dialer = dialer_from(&listener, bind.source, config.clone());
    assert_eq!(dialer.name(), "dev:lo");
    let (mut client, mut server) = connect(&dialer, &listener).await;
    pass_bytes(&mut *client, &mut *server).await;

    let missing = BindSource::Device("no-such-dev0".to_owned());
    let error = dialer_from(&listener, missing, config).dial().await.unwrap_err();
    assert!(matches!(error, DialError::Bind { .. }), "{error}");
    assert!(error.to_string().contains("dev:no-such-dev0"), "{error}");
}

#[tokio::test]
async fn ipv6_works_and_families_do_not_mix() {
    let identity = Identity::generate().unwrap();
    let listener = listener_at(Ipv6Addr::LOCALHOST.into(), server_config(&identity).unwrap());
    let config = client_config(&Identity::generate().unwrap()).unwrap();
    for bind in [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST] {
        let dialer = dialer_from(&listener, BindSource::Addr(bind.into()), config.clone());
        let (mut client, mut server) = connect(&dialer, &listener).await;
        assert_eq!(server.peer_addr().unwrap().ip(), Ipv6Addr::LOCALHOST);
        pass_bytes(&mut *client, &mut *server).await;
    }
    let error = dialer_from(&listener, any_v4(), config).dial().await.unwrap_err();
    assert!(matches!(error, DialError::NoAddressOfFamily { .. }), "{error}");
}

#[tokio::test]
async fn an_address_that_is_not_ours_cannot_be_bound() {
    let (listener, _) = listener();
    let config = client_config(&Identity::generate().unwrap()).unwrap();
    // RFC 5737: for documentation, nobody's.
    let foreign = BindSource::Addr(Ipv4Addr::new(192, 0, 2, 77).into());
    let error = dialer_from(&listener, foreign, config).dial().await.unwrap_err();
    assert!(matches!(error, DialError::Bind { .. }), "{error}");
    assert!(error.to_string().contains("192.0.2.77"), "{error}");
}

#[tokio::test]
async fn a_refused_connection_says_where() {
    let (listener, _) = listener();
    let dialer = dialer(&listener);
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let error = dialer.dial().await.unwrap_err();
    let DialError::Connect { attempts, .. } = &error else { panic!("{error}") };
    assert_eq!(attempts[0].0, addr);
    assert_eq!(attempts[0].1.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_silent_server_costs_the_timeout() {
    // It accepts connections and never says a word.
    let (listener, _) = listener();
    let mut dialer = dialer(&listener);
    dialer.options.dial_timeout = Duration::from_millis(300);
    let begin = Instant::now();
    let error = timeout(SOON, dialer.dial()).await.unwrap().unwrap_err();
    assert!(matches!(error, DialError::Timeout { .. }), "{error}");
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn congestion_control_is_preferred_required_or_left() {
    let (listener, _) = listener();
    let mut dialer = dialer(&listener);
    let nonsense = "no_such_cc".to_owned();
    dialer.options.congestion = Congestion::Prefer(nonsense.clone());
    let (client, _server) = connect(&dialer, &listener).await;
    assert!(!client.describe().contains(&nonsense), "{}", client.describe());
    dialer.options.congestion = Congestion::Require(nonsense.clone());
    let error = dialer.dial().await.unwrap_err();
    assert!(matches!(&error, DialError::Congestion { name, .. } if *name == nonsense), "{error}");
    // reno is in every kernel and allowed to everybody.
    dialer.options.congestion = Congestion::Require("reno".to_owned());
    let (client, _server) = connect(&dialer, &listener).await;
    assert!(client.describe().ends_with("TCP reno"), "{}", client.describe());
}

#[tokio::test]
async fn a_taken_port_is_an_error() {
    let (listener, identity) = listener();
    let addr = listener.local_addr().unwrap();
    let again = TlsListener::bind(addr, server_config(&identity).unwrap(), TcpOptions::default());
    assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

/// What `lane` makes of these records, after which nothing comes.
async fn read_records(wire: Vec<Vec<u8>>, mut client: TlsLane, mut server: TlsLane) -> io::Error {
    client.outbound.bytes = wire.concat();
    client.flush().await.unwrap();
    let mut got = Vec::new();
    let error = timeout(SOON, server.read_to_end(&mut got)).await.unwrap().unwrap_err();
    assert!(got.is_empty());
    error
}

#[tokio::test]
async fn records_that_may_not_be_are_errors() {
    type Make = fn(&mut TlsLane) -> Vec<Vec<u8>>;
    let cases: [(Make, io::ErrorKind); 7] = [
        // Unencrypted, though well formed: an alert.
        (|_| vec![vec![21, 3, 3, 0, 2, 1, 0]], io::ErrorKind::InvalidData),
        (|_| vec![vec![99, 3, 3, 0, 2, 1, 0]], io::ErrorKind::InvalidData),
        (|_| vec![vec![23, 3, 3, 0x41, 1]], io::ErrorKind::InvalidData),
        (|_| vec![vec![23, 3, 3, 0, 0]], io::ErrorKind::InvalidData),
        // Twice, and out of order.
        (
            |lane| {
                let (_first, second) = (record(lane, b"first"), record(lane, b"second"));
                vec![second]
            },
            io::ErrorKind::InvalidData,
        ),
        (
            |lane| {
                let mut out = Vec::new();
                lane.sealer.seal_alert(AlertDescription::InternalError, &mut out).unwrap();
                vec![out]
            },
            io::ErrorKind::ConnectionAborted,
        ),
        // Without end and without data.
        (|lane| (0..40).map(|_| record(lane, b"")).collect(), io::ErrorKind::InvalidData),
    ];
    for (index, (make, kind)) in cases.into_iter().enumerate() {
        let (mut client, server) = tls_lane().await;
        let records = make(&mut client);
        let error = read_records(records, client, server).await;
        assert_eq!(error.kind(), kind, "case {index}: {error}");
    }
}

#[tokio::test]
async fn a_few_records_without_data_are_fine() {
    let (mut client, mut server) = tls_lane().await;
    for _ in 0..100 {
        for _ in 0..20 {
            let empty = record(&mut client, b"");
            client.outbound.bytes.extend(empty);
        }
        pass_bytes(&mut client, &mut server).await;
    }
}

#[tokio::test]
async fn data_right_behind_the_handshake_is_kept() {
    let (listener, _) = listener();
    let dialer = dialer(&listener);
    let mut server = pin!(accept(&listener));
    let mut client = tokio::select! {
        biased;
        client = dialer.dial() => client.unwrap(),
        _ = &mut server => panic!("the server cannot be done before the client"),
    };
    // Finished and data are with the server before it looks.
    client.write_all(b"first flight").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut server = timeout(SOON, server).await.unwrap().unwrap();
    let mut got = [0; 12];
    timeout(SOON, server.read_exact(&mut got)).await.unwrap().unwrap();
    assert_eq!(&got, b"first flight");
}

/// A lane against rustls with its own record layer, in a thread.
async fn with_plain_rustls(
    talk: impl FnOnce(rustls::StreamOwned<ClientConnection, std::net::TcpStream>) + Send + 'static,
) -> (TlsLane, tokio::task::JoinHandle<()>) {
    with_plain_rustls_of(0, talk).await
}

/// With one cipher suite only, by its place among ours.
async fn with_plain_rustls_of(
    suite: usize,
    talk: impl FnOnce(rustls::StreamOwned<ClientConnection, std::net::TcpStream>) + Send + 'static,
) -> (TlsLane, tokio::task::JoinHandle<()>) {
    let (listener, _) = listener();
    let addr = listener.local_addr().unwrap();
    let thread = tokio::task::spawn_blocking(move || {
        let socket = std::net::TcpStream::connect(addr).unwrap();
        let mut provider = provider();
        provider.cipher_suites = vec![provider.cipher_suites[suite]];
        let config = client_config_of(&Identity::generate().unwrap(), provider).unwrap();
        let mut tls = ClientConnection::new(config, "imux".try_into().unwrap()).unwrap();
        let mut socket = socket;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).unwrap();
        }
        talk(rustls::StreamOwned::new(tls, socket));
    });
    let (socket, _) = listener.socket.accept().await.unwrap();
    let lane =
        timeout(SOON, TlsLane::accept(socket, listener.settings.get())).await.unwrap().unwrap();
    (lane, thread)
}

#[tokio::test]
async fn rustls_understands_us_and_we_it() {
    let data: Vec<u8> = (0..3_000_000_u32).map(|index| ((index * 7) >> 3) as u8).collect();
    let sent = data.clone();
    let (mut lane, thread) = with_plain_rustls(move |mut stream| {
        stream.write_all(&sent).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert!(back == sent);
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    })
    .await;
    let mut got = vec![0; data.len()];
    timeout(SOON, lane.read_exact(&mut got)).await.unwrap().unwrap();
    assert!(got == data);
    lane.write_all(&got).await.unwrap();
    lane.shutdown().await.unwrap();
    // Its close_notify is an end, not an error.
    assert_eq!(timeout(SOON, lane.read(&mut got)).await.unwrap().unwrap(), 0);
    thread.await.unwrap();
}

/// Every third record new keys, over and over, both ways, against rustls's own record layer, with each cipher.
#[tokio::test]
async fn keys_are_updated_before_they_are_used_up() {
    for suite in 0..3 {
        let data: Vec<u8> = (0..1_000_000_u32).map(|index| ((index * 7) >> 3) as u8).collect();
        let sent = data.clone();
        let (mut lane, thread) = with_plain_rustls_of(suite, move |mut stream| {
            let mut got = vec![0; sent.len()];
            for (out, back) in sent.chunks(50_000).zip(got.chunks_mut(50_000)) {
                // Asks for new keys in return.
                stream.conn.refresh_traffic_keys().unwrap();
                stream.write_all(out).unwrap();
                stream.read_exact(back).unwrap();
            }
            assert!(got == sent);
            stream.conn.send_close_notify();
            stream.flush().unwrap();
        })
        .await;
        lane.sealer.limit(5);
        let mut got = vec![0; 50_000];
        for part in data.chunks(50_000) {
            timeout(SOON, lane.read_exact(&mut got)).await.unwrap().unwrap();
            assert!(got == part);
            lane.write_all(&got).await.unwrap();
            lane.flush().await.unwrap();
        }
        assert_eq!(timeout(SOON, lane.read(&mut got)).await.unwrap().unwrap(), 0);
        thread.await.unwrap();
    }
}

/// Between two lanes, at the least limit there is: two records of data a key.
#[tokio::test]
async fn many_keys_one_after_the_other_lose_nothing() {
    let (mut client, mut server) = tls_lane().await;
    client.sealer.limit(4);
    let data: Vec<u8> = (0..40 * TLS_RECORD_MAX).map(|index| (index / 7) as u8).collect();
    let sending = async {
        client.write_all(&data).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let (read, ()) =
        timeout(SOON, async { tokio::join!(server.read_to_end(&mut got), sending) }).await.unwrap();
    read.unwrap();
    assert!(got == data);
}

#[tokio::test]
async fn requests_for_new_keys_are_answered_once_before_the_next_data() {
    let (mut lane, thread) = with_plain_rustls(|mut stream| {
        for _ in 0..20 {
            stream.conn.refresh_traffic_keys().unwrap();
        }
        stream.write_all(b"now").unwrap();
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer");
    })
    .await;
    let mut got = [0; 3];
    timeout(SOON, lane.read_exact(&mut got)).await.unwrap().unwrap();
    assert_eq!(lane.sealer.used(), 0, "nothing is said before there is data");
    lane.write_all(b"answer").await.unwrap();
    lane.flush().await.unwrap();
    assert_eq!(lane.sealer.used(), 1, "the data is the first under new keys");
    thread.await.unwrap();
}

#[tokio::test]
async fn floods_of_key_updates_end_the_lane() {
    // Between each two a record of data, which is no excuse.
    let (mut client, mut server) = tls_lane().await;
    client.sealer.limit(3);
    let sending = async {
        for _ in 0..200 {
            if client.write_all(b"x").await.is_err() {
                return;
            }
        }
        client.flush().await.unwrap();
        let told = client.read_u8().await.unwrap_err();
        assert!(told.to_string().contains("UnexpectedMessage"), "{told}");
    };
    let reading = async {
        let mut got = Vec::new();
        let error = server.read_to_end(&mut got).await.unwrap_err();
        assert!(error.to_string().contains("too many key updates"), "{error}");
        assert_eq!(got.len(), 33, "one for each that was allowed, and the first");
    };
    timeout(SOON, async { tokio::join!(sending, reading) }).await.unwrap();
}

/// Records that decrypt, and still may not be.
#[tokio::test]
async fn decrypted_records_that_may_not_be_are_errors() {
    let padding = vec![0; 300];
    // One zero of padding too many.
    let mut oversized = vec![1; TLS_RECORD_MAX];
    oversized.extend([ContentType::ApplicationData.into(), 0]);
    let cases: [(ContentType, &[u8], &str); 14] = [
        (ContentType::Handshake, &[24, 0, 0, 1, 2], "handshake message"),
        (ContentType::Handshake, &[24, 0, 0, 1], "handshake message"),
        // With something behind it, which would be under the old keys.
        (ContentType::Handshake, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0], "handshake message"),
        // A ClientHello, and a Finished: no second handshake.
        (ContentType::Handshake, &[1, 0, 0, 0], "handshake message"),
        (ContentType::Handshake, &[20, 0, 0, 0], "handshake message"),
        (ContentType::ChangeCipherSpec, &[1], "unknown type"),
        // No message at all; a ticket to a server, alone and before new keys.
        (ContentType::Handshake, &[], "handshake message"),
        (ContentType::Handshake, &[4, 0, 0, 1, 9], "handshake message"),
        (ContentType::Handshake, &[4, 0, 0, 0, 24, 0, 0, 1, 0], "handshake message"),
        (ContentType::Alert, &[1], "unknown type"),
        (ContentType::Alert, &[1, 0, 1, 0], "unknown type"),
        // Of type 0: padding alone.
        (ContentType::Unknown(0), &padding, "padding"),
        (ContentType::Unknown(0), &oversized, "record size"),
        (ContentType::ApplicationData, &oversized, "record size"),
    ];
    for (typ, payload, what) in cases {
        let (mut client, server) = tls_lane().await;
        let records = vec![client.sealer.seal_as(typ, payload)];
        let error = read_records(records, client, server).await;
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains(what), "{typ:?} {payload:?}: {error}");
    }
}

/// From a server, several in a record, in front of new keys: whatever they say. But whole, each of them.
#[tokio::test]
async fn session_tickets_are_ignored() {
    let ticket = |length: u8| [vec![4, 0, 0, length], vec![9; length.into()]].concat();
    let (mut client, mut server) = tls_lane().await;
    for records in [ticket(7), [ticket(200), ticket(0)].concat()] {
        server.outbound.bytes = server.sealer.seal_as(ContentType::Handshake, &records);
        pass_bytes(&mut server, &mut client).await;
    }
    let last = [ticket(3), KEY_UPDATE.to_vec()].concat();
    server.outbound.bytes = server.sealer.seal_as(ContentType::Handshake, &last);
    server.sealer.update();
    pass_bytes(&mut server, &mut client).await;
    pass_bytes(&mut client, &mut server).await;

    for broken in [vec![4, 0, 0], vec![4, 0, 0, 2, 9], [ticket(1), vec![20, 0, 0, 0]].concat()] {
        let (client, mut server) = tls_lane().await;
        let records = vec![server.sealer.seal_as(ContentType::Handshake, &broken)];
        let error = read_records(records, server, client).await;
        assert!(error.to_string().contains("handshake message"), "{broken:?}: {error}");
    }
}

/// Otherwise what was cut out of a lane would be missing in the middle.
#[tokio::test]
async fn nothing_behind_an_error_is_handed_out() {
    let (mut client, mut server) = tls_lane().await;
    let mut wire = vec![record(&mut client, b"one"), record(&mut client, b"lost")];
    wire[1][HEADER] ^= 1;
    wire.push(record(&mut client, b"three"));
    client.outbound.bytes = wire.concat();
    client.shutdown().await.unwrap();
    let mut got = [0; 8];
    assert_eq!(timeout(SOON, server.read(&mut got)).await.unwrap().unwrap(), 3);
    for _ in 0..3 {
        assert!(timeout(SOON, server.read(&mut got)).await.unwrap().is_err());
    }
    assert_eq!(server.write(b"on").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

/// The alert says what it was.
#[tokio::test]
async fn a_peer_is_told_what_was_wrong_with_its_records() {
    type Spoil = fn(&mut TlsLane) -> Vec<u8>;
    let cases: [(Spoil, &str); 3] = [
        (|_| vec![23, 3, 3, 0x41, 1], "RecordOverflow"),
        (|_| [&[23, 3, 3, 0, 17][..], &[0; 17]].concat(), "BadRecordMac"),
        (|lane| lane.sealer.seal_as(ContentType::Handshake, &[20, 0, 0, 0]), "UnexpectedMessage"),
    ];
    for (spoil, alert) in cases {
        let (mut client, mut server) = tls_lane().await;
        client.outbound.bytes = spoil(&mut client);
        client.flush().await.unwrap();
        assert!(timeout(SOON, server.read_u8()).await.unwrap().is_err());
        let told = timeout(SOON, client.read_u8()).await.unwrap().unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::ConnectionAborted);
        assert!(told.to_string().contains(alert), "{told}");
    }
}

#[tokio::test]
async fn padding_is_taken_off() {
    let (mut client, mut server) = tls_lane().await;
    // The type behind the data, and then zeroes: what `seal_as` appends is the last of the padding.
    let mut padded = b"padded".to_vec();
    padded.push(ContentType::ApplicationData.into());
    padded.extend([0; 1000]);
    client.outbound.bytes = client.sealer.seal_as(ContentType::Unknown(0), &padded);
    client.flush().await.unwrap();
    let mut got = [0; 6];
    timeout(SOON, server.read_exact(&mut got)).await.unwrap().unwrap();
    assert_eq!(&got, b"padded");
    pass_bytes(&mut client, &mut server).await;
}

/// A stranger has room for one record; whoever has shaken hands gets more while it sends much.
#[test]
fn the_read_buffer_grows_with_what_comes() {
    let mut buffer = RecordBuffer::new();
    let before = buffer.capacity();
    assert!(before < TLS_RECORD_MAX + 1024);
    for grows in [false, true] {
        for _ in 0..5 {
            buffer.fill_up();
        }
        assert_eq!(buffer.capacity() > before, grows);
        buffer.may_grow();
    }
    assert_eq!(buffer.capacity(), 256 * 1024);
}
