//! Datagrams that the server takes for a client: `-R udp:`.

use super::*;

const TAKEN: &str = "the server takes connections for this client";

/// Where the server takes datagrams for it.
fn place_there(client: &Imux, number: usize) -> SocketAddr {
    let line = client.nth_line(TAKEN, number);
    field(&line, "address").strip_prefix("udp:").expect(&line).parse().unwrap()
}

fn listening(rule: &str, how: &[&str]) -> (Pair, Imux) {
    let pair = Pair::server("127.0.0.1:9", Some(rule));
    let client = pair.client(how);
    (pair, client)
}

fn any_port(to: SocketAddr) -> String {
    format!("udp:127.0.0.1:0:{to}")
}

#[test]
fn the_server_takes_datagrams_and_the_client_takes_them_on() {
    bounded(60, async {
        let echo = Echo::start().await;
        let rule = "listen=\"udp:127.0.0.1:*\",listen=\"udp:0.0.0.0:*\"";
        let everywhere = format!("udp:0.0.0.0:0:{}", echo.addr);
        let (pair, client) = listening(rule, &["-R", &any_port(echo.addr), "-R", &everywhere]);
        client.nth_line(TAKEN, 2);
        let ports = [1, 2].map(|number| place_there(&client, number));
        let (one, all) = if ports[0].ip().is_unspecified() { (1, 0) } else { (0, 1) };
        let socket = program(ports[one]).await;
        for len in [0, 1, 1_200, 65_507] {
            socket.send(&vec![7; len]).await.unwrap();
            assert_eq!(next(&socket).await, Some(vec![7; len]), "{len} bytes");
        }
        // The answer comes from the address that was asked.
        for asked in ["127.0.0.1", "127.0.0.8"] {
            let to = SocketAddr::new(asked.parse().unwrap(), ports[all].port());
            comes_back(&program(to).await, b"there").await;
        }
        assert_eq!((client.count("WARN"), pair.server.count("WARN")), (0, 0));
    });
}

#[test]
fn only_a_rule_about_udp_lets_the_server_take_datagrams() {
    bounded(60, async {
        let echo = Echo::start().await;
        for rule in ["listen=\"127.0.0.1:*\"", "listen=\"*:*\"", "listen=\"udp:127.0.0.2:*\""] {
            let (pair, mut client) = listening(rule, &["-R", &any_port(echo.addr)]);
            assert_eq!(client.exit_code(), Some(8), "{rule}");
            client.line("listen=\"udp:127.0.0.1:*\"");
            pair.server.line("add listen=\"udp:127.0.0.1:*\"");
        }
        // Nor does one about UDP let it take connections.
        let (_pair, mut client) =
            listening("listen=\"udp:127.0.0.1:*\"", &["-R", &format!("127.0.0.1:0:{}", echo.addr)]);
        assert_eq!(client.exit_code(), Some(8));
    });
}

#[test]
fn a_place_that_is_lost_is_closed_and_flows_end_with_it() {
    bounded(60, async {
        let echo = Echo::start().await;
        let (pair, mut client) =
            listening("listen=\"udp:127.0.0.1:*\"", &["-R", &any_port(echo.addr)]);
        let at = place_there(&client, 1);
        let socket = program(at).await;
        comes_back(&socket, b"!").await;
        assert_eq!(sockets_to(echo.addr), 1);
        // The owner of the server takes it back.
        let list = pair.path("authorized_clients");
        let without = fs::read_to_string(&list).unwrap().replace("127.0.0.1", "127.0.0.2");
        fs::write(&list, without).unwrap();
        pair.server.signal(Signal::SIGHUP);
        eventually(20, "the flow has ended", || sockets_to(echo.addr) == 0).await;
        eventually(20, "the port is free", || std::net::UdpSocket::bind(at).is_ok()).await;
        client.signal(Signal::SIGTERM);
        assert_eq!(client.exit_code(), Some(143));
    });
}

#[test]
fn a_flood_of_senders_gets_flows_up_to_a_bound_and_who_was_there_goes_on() {
    bounded(120, async {
        let echo = Echo::start().await;
        let rule = "listen=\"udp:127.0.0.1:*\"";
        let (pair, mut client) = listening(rule, &["-R", &any_port(echo.addr)]);
        let at = place_there(&client, 1);
        let steady = program(at).await;
        comes_back(&steady, b"steady").await;
        let before = pair.server.rss_kib();
        let flood = tokio::task::spawn_blocking(move || {
            for number in 0..20_000_u32 {
                let ip = std::net::Ipv4Addr::from_bits(0x7f02_0000 + number);
                let socket = std::net::UdpSocket::bind((ip, 0)).unwrap();
                socket.send_to(&[0; 1_000], at).unwrap();
            }
        });
        while !flood.is_finished() {
            comes_back(&steady, b"steady").await;
        }
        flood.await.unwrap();
        comes_back(&steady, b"steady").await;
        assert!(sockets_to(echo.addr) <= 800, "{} flows", sockets_to(echo.addr));
        assert!(pair.server.rss_kib() < before + 100_000, "{} KiB", pair.server.rss_kib());
        assert!(client.is_running());
        assert_eq!(client.count("misbehaved") + pair.server.count("misbehaved"), 0);
    });
}
