//! Bytes through a lane, and its end.

use super::*;

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

    // An end that was announced.
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
    // A lane belongs to one task; here are two halves of one task.
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
async fn a_pacing_limit_holds_where_the_kernel_paces() {
    let (mut client, mut server) = lane().await;
    const LIMIT: u64 = 1_000_000;
    client.set_pacing_limit(LIMIT);
    let data = vec![5; 100_000];
    let mut back = vec![0; data.len()];
    let (sent, got) = tokio::join!(client.write_all(&data), server.read_exact(&mut back));
    sent.and(got.map(|_| ())).unwrap();
    let pacing = client.metrics().and_then(|metrics| metrics.pacing_rate);
    let limited = pacing.is_some_and(|rate| rate <= LIMIT);
    assert_eq!(limited, client.describe().contains("TCP bbr"), "{pacing:?}, {}", client.describe());
}

#[tokio::test]
async fn takes_no_more_than_the_limit_while_the_peer_does_not_read() {
    let (mut client, mut server) = lane().await;
    client.set_unsent_limit(16 * 1024);
    let block = vec![9; 64 * 1024];
    let mut taken = 0;
    // Ready until the kernel has enough, then not: the lane takes nothing that would wait inside
    // it.
    while let Ok(ready) =
        timeout(Duration::from_millis(200), poll_fn(|cx| client.poll_write_ready(cx))).await
    {
        ready.unwrap();
        taken += client.write(&block).await.unwrap();
        assert!(taken < 64 << 20, "never full");
    }
    let unsent = client.metrics().unwrap().unsent_bytes;
    assert!(unsent <= 16 * 1024 + block.len() as u64 + 4096, "{unsent}");
    // What the lane holds still comes out, and readiness is reported.
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
