//! The record layer against valid and invalid records.

use super::*;

/// What the server's lane reads from these records and nothing after them.
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
    // Finished and data reach the server before it looks.
    client.write_all(b"first flight").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut server = timeout(SOON, server).await.unwrap().unwrap();
    let mut got = [0; 12];
    timeout(SOON, server.read_exact(&mut got)).await.unwrap().unwrap();
    assert_eq!(&got, b"first flight");
}

/// A lane against rustls and its own record layer, in a thread.
async fn with_plain_rustls(
    talk: impl FnOnce(rustls::StreamOwned<ClientConnection, std::net::TcpStream>) + Send + 'static,
) -> (TlsLane, tokio::task::JoinHandle<()>) {
    with_plain_rustls_of(0, talk).await
}

/// With only one cipher suite, by its index among ours.
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

/// New keys every third record, both ways, against rustls's own record layer, with each cipher.
#[tokio::test]
async fn keys_are_updated_before_they_are_used_up() {
    for suite in 0..3 {
        let data: Vec<u8> = (0..1_000_000_u32).map(|index| ((index * 7) >> 3) as u8).collect();
        let sent = data.clone();
        let (mut lane, thread) = with_plain_rustls_of(suite, move |mut stream| {
            let mut got = vec![0; sent.len()];
            for (out, back) in sent.chunks(50_000).zip(got.chunks_mut(50_000)) {
                // Requests new keys in return.
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

/// Between two lanes, at the smallest possible limit: two records of data per key.
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
    // A record of data between each two is no excuse.
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

/// Records that decrypt but are forbidden.
#[tokio::test]
async fn decrypted_records_that_may_not_be_are_errors() {
    let padding = vec![0; 300];
    // One zero too much padding.
    let mut oversized = vec![1; TLS_RECORD_MAX];
    oversized.extend([ContentType::ApplicationData.into(), 0]);
    let cases: [(ContentType, &[u8], &str); 14] = [
        (ContentType::Handshake, &[24, 0, 0, 1, 2], "handshake message"),
        (ContentType::Handshake, &[24, 0, 0, 1], "handshake message"),
        // With something behind it, which would fall under the old keys.
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

/// From a server, several in a record, ahead of new keys, with any content, but each of them whole.
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

/// Otherwise a lane could be missing what was cut out of its middle.
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
    // The type follows the data, then zeroes: what `seal_as` appends is the last of the padding.
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

/// A stranger has room for one record; a peer that has shaken hands gets more while it sends much.
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
