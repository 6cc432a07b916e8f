//! Programs that say nothing, too much, or nonsense.

use super::*;

/// How long the other end puts up with this, sent a byte at a time with pauses.
async fn until_given_up(mut socket: TcpStream, said: &[u8], pause: Duration) -> Duration {
    let begun = Instant::now();
    let (mut read, mut write) = socket.split();
    let talking = async {
        for byte in said.iter().cycle() {
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        std::future::pending::<()>().await;
    };
    let mut rest = Vec::new();
    tokio::select! {
        () = talking => {}
        _ = read.read_to_end(&mut rest) => {}
    }
    begun.elapsed()
}

#[test]
fn whoever_is_slow_to_say_where_it_wants_to_go_is_not_waited_for() {
    bounded(60, async {
        let proxy = Proxy::with(&["*:*"]);
        let slow = Duration::from_millis(700);
        let ever = Duration::from_secs(3600);
        let given_up = [
            until_given_up(proxy.connect(), b"", slow),
            until_given_up(proxy.connect(), b"\x05\xff\0\0\0", slow),
            until_given_up(proxy.connect(), b"\x05", ever),
            until_given_up(proxy.connect(), b"\x04\x01\0\x50\0\0\0\x01name", slow),
            until_given_up(proxy.connect(), b"GET http://a/ HTTP/1.1\r\nX: 1\r\n", slow),
            until_given_up(proxy.connect(), b"CONNECT", ever),
        ];
        let took = futures::future::join_all(given_up).await;
        for (case, took) in took.iter().enumerate() {
            let expected = Duration::from_secs(5)..Duration::from_secs(40);
            assert!(expected.contains(took), "case {case}: {took:?}");
        }
    });
}

#[test]
fn nonsense_and_what_is_too_long_ends_the_connection_and_nothing_else() {
    bounded(60, async {
        let echo = Destination::echo().await;
        let here = echo.addr.to_string();
        let mut proxy = Proxy::with(&[&here]);
        let mut head = b"GET http://127.0.0.1/ HTTP/1.1\r\n".to_vec();
        let many: Vec<_> = (0..1_000).flat_map(|n| format!("X-{n}: 1\r\n").into_bytes()).collect();
        let long = [&head[..], b"X: ", &vec![b'x'; 1 << 20]].concat();
        head.extend_from_slice(&many);
        let line = [b"GET http://127.0.0.1/", &vec![b'x'; 1 << 20][..]].concat();
        let nonsense: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        for said in [
            &[0][..],
            b"\xff\xff\xff\xff",
            b"\x05\x00",
            b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50",
            b"\x05\x01\x00\x05\x04\x00\x01\x7f\x00\x00\x01\x00\x50",
            b"\x05\x01\x00\x05\x01\x00\x09\x7f\x00\x00\x01\x00\x50",
            b"\x05\x01\x00\x04\x01\x00\x01\x7f\x00\x00\x01\x00\x50",
            b"\x05\x01\x00\x05\x01\x00\x03\x02\xff\xfe\x00\x50",
            b"\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50",
            b"\x04\x02\x00\x50\x7f\x00\x00\x01\x00",
            &[&b"\x04\x01\x00\x50\x7f\x00\x00\x01"[..], &[b'u'; 10_000]].concat(),
            &head,
            &long,
            &line,
            &nonsense,
        ] {
            let mut socket = proxy.connect();
            // It may have had enough before everything is said.
            let _ = socket.write_all(said).await;
            let _ = socket.shutdown().await;
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer).await;
            assert!(answer.len() < 1_000, "{said:?}: {answer:?}");
            let reply = answer.strip_prefix(&[5, 0]).unwrap_or(&answer);
            assert!(!reply.starts_with(&[5, 0]) && !reply.starts_with(&[0, 0x5a]), "{said:?}");
        }
        let mut socket = proxy.connect();
        socket.write_all(&connect_to("127.0.0.1", echo.addr.port())).await.unwrap();
        assert!(super::head(&mut socket).await.starts_with("HTTP/1.1 200 "));
        there_and_back(socket, b"").await;
        assert!(proxy.client.is_running() && proxy.pair.server.is_running());
        assert_eq!(proxy.client.count("internal error"), 0);
    });
}
