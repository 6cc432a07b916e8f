//! Many senders at one port.

use super::*;

#[test]
fn many_senders_have_flows_up_to_a_bound_and_the_longest_idle_gives_way() {
    bounded(120, async {
        let echo = Echo::start().await;
        let (pair, client) = pair(&[format!("udp:{}", echo.addr)], &["-L", &to(echo.addr)]);
        let at = place(&client, 1);
        let steady = program(at).await;
        comes_back(&steady, b"steady").await;
        let first = program(at).await;
        comes_back(&first, b"first").await;
        // From many addresses, as far as they count as one source each.
        for number in 0..1_500_u32 {
            let ip = std::net::Ipv4Addr::from_bits(0x7f01_0000 + number);
            let socket = UdpSocket::bind((ip, 0)).await.unwrap();
            socket.connect(at).await.unwrap();
            comes_back(&socket, b"!").await;
            if number % 100 == 0 {
                comes_back(&steady, b"steady").await;
            }
        }
        let open = sockets_to(echo.addr);
        assert!((700..=800).contains(&open), "{open} flows are open");
        // Whoever had to go comes in again.
        comes_back(&first, b"again").await;
        comes_back(&steady, b"steady").await;
        assert_eq!((client.count("WARN"), pair.server.count("WARN")), (0, 0), "{}", client.log());
    });
}

#[test]
fn one_source_has_half_of_all_flows_at_most() {
    bounded(120, async {
        let echo = Echo::start().await;
        let (_pair, client) = pair(&[format!("udp:{}", echo.addr)], &["-L", &to(echo.addr)]);
        let at = place(&client, 1);
        let other = UdpSocket::bind("127.0.0.9:0").await.unwrap();
        other.connect(at).await.unwrap();
        comes_back(&other, b"!").await;
        let (before, mut sockets) = (sockets_to(echo.addr), Vec::new());
        for _ in 0..600 {
            let socket = program(at).await;
            comes_back(&socket, b"!").await;
            sockets.push(socket);
        }
        eventually(20, "half of all flows", || sockets_to(echo.addr) == before + 384).await;
        assert!(!client.log().contains("WARN"));
    });
}

/// Whoever was idle the longest gives way to others at a server that has less room, too.
#[test]
fn a_client_that_may_have_few_flows_serves_many_one_after_the_other() {
    bounded(120, async {
        let echo = Echo::start().await;
        let line = format!("max-streams=4,dial=\"udp:{}\"", echo.addr);
        let pair = Pair::server("127.0.0.1:9", Some(&line));
        let client = pair.client(&["-L", &to(echo.addr)]);
        let at = place(&client, 1);
        for _ in 0..12 {
            comes_back(&program(at).await, b"!").await;
        }
        assert!(sockets_to(echo.addr) <= 4);
    });
}
