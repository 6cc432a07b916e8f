//! Who is let in, who is refused, and what both ends know of each other.

use super::*;

#[tokio::test]
async fn negotiates_tls13_with_post_quantum_key_exchange() {
    let (mut client, mut server) = tls_lane().await;
    for end in [&client, &server] {
        assert_eq!(end.group, Some(NamedGroup::X25519MLKEM768));
        assert_eq!(end.suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
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

/// A key that signs something other than asked: all that somebody showing another's certificate
/// has.
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
    // The client's part of the handshake ends before the server judges it; the client learns at its
    // first read.
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
