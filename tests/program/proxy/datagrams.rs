//! SOCKS5's UDP ASSOCIATE.

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::*;

/// A service that sends every datagram back.
async fn udp_echo(place: &str) -> SocketAddr {
    let socket = UdpSocket::bind(place).await.unwrap();
    let addr = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut space = vec![0; 65_536];
        while let Ok((len, from)) = socket.recv_from(&mut space).await {
            let _ = socket.send_to(&space[..len], from).await;
        }
    });
    addr
}

/// The connection, and where datagrams are taken. The program says that it sends from `from`.
async fn associate(proxy: &Proxy, from: SocketAddr) -> (TcpStream, SocketAddr) {
    let mut socket = proxy.connect();
    socket.write_all(&[5, 1, 0]).await.unwrap();
    expect(&mut socket, &[5, 0]).await;
    let mut request = vec![5, 3, 0];
    request.extend(address(from));
    socket.write_all(&request).await.unwrap();
    expect(&mut socket, &[5, 0, 0, 1]).await;
    let mut at = [0; 6];
    socket.read_exact(&mut at).await.unwrap();
    let [a, b, c, d, high, low] = at;
    (socket, SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low]))))
}

/// As SOCKS writes an address.
fn address(at: SocketAddr) -> Vec<u8> {
    let (kind, ip) = match at.ip() {
        std::net::IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        std::net::IpAddr::V6(ip) => (4, ip.octets().to_vec()),
    };
    [&[kind][..], &ip, &at.port().to_be_bytes()].concat()
}

fn name(host: &str, port: u16) -> Vec<u8> {
    let length = u8::try_from(host.len()).unwrap();
    [&[3, length][..], host.as_bytes(), &port.to_be_bytes()].concat()
}

fn datagram(to: &[u8], content: &[u8]) -> Vec<u8> {
    [&[0, 0, 0], to, content].concat()
}

const ANY: SocketAddr =
    SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0));

async fn program(relay: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(relay).await.unwrap();
    socket
}

/// Sends it, and gets it back with the same header.
async fn comes_back(socket: &UdpSocket, whole: &[u8]) {
    socket.send(whole).await.unwrap();
    let mut space = vec![0; 65_536];
    let len = timeout(Duration::from_secs(5), socket.recv(&mut space)).await.unwrap().unwrap();
    assert_eq!(&space[..len], whole);
}

async fn stays_away(socket: &UdpSocket, whole: &[u8]) {
    // Refused where nobody listens.
    let _ = socket.send(whole).await;
    let mut space = vec![0; 65_536];
    let received = timeout(Duration::from_millis(300), socket.recv(&mut space)).await;
    assert!(!received.is_ok_and(|received| received.is_ok()), "{whole:?}");
}

#[test]
fn datagrams_go_to_names_and_addresses_and_answers_say_whence() {
    bounded(60, async {
        let (one, two) = (udp_echo("127.0.0.1:0").await, udp_echo("127.0.0.1:0").await);
        let six = udp_echo("[::1]:0").await;
        let rules = [
            format!("udp:{one}"),
            format!("udp:{two}"),
            format!("udp:{six}"),
            format!("udp:localhost:{}", one.port()),
        ];
        let proxy = Proxy::with(&rules.each_ref().map(String::as_str));
        let (_held, relay) = associate(&proxy, ANY).await;
        assert_eq!(relay.ip(), proxy.addr.ip());
        let socket = program(relay).await;
        let targets = [address(one), address(two), address(six), name("localhost", one.port())];
        for turn in 0..3 {
            for target in &targets {
                comes_back(&socket, &datagram(target, &vec![turn; usize::from(turn) * 700])).await;
            }
        }
        let largest = 65_507 - 10;
        comes_back(&socket, &datagram(&address(one), &vec![1; largest])).await;
        assert_eq!(proxy.client.count("WARN"), 0);
    });
}

#[test]
fn fragments_nonsense_and_what_the_server_forbids_go_nowhere() {
    bounded(60, async {
        let (echo, other) = (udp_echo("127.0.0.1:0").await, udp_echo("127.0.0.1:0").await);
        let proxy = Proxy::with(&[&format!("udp:{echo}")]);
        let (_held, relay) = associate(&proxy, ANY).await;
        let socket = program(relay).await;
        let right = datagram(&address(echo), b"!");
        comes_back(&socket, &right).await;
        let mut fragment = right.clone();
        fragment[2] = 1;
        for wrong in [
            &fragment[..],
            b"",
            &right[..7],
            &datagram(&address(other), b"!"),
            &datagram(&name("a b", 53), b"!"),
            &datagram(&address("224.0.0.251:5353".parse().unwrap()), b"!"),
        ] {
            stays_away(&socket, wrong).await;
        }
        proxy.client.line("datagrams are not carried");
        comes_back(&socket, &right).await;
    });
}

#[test]
fn it_hears_its_program_alone_and_ends_with_its_connection() {
    bounded(60, async {
        let echo = udp_echo("127.0.0.1:0").await;
        let proxy = Proxy::with(&[&format!("udp:{echo}")]);
        let whole = datagram(&address(echo), b"!");
        // The first that comes from its address is the program.
        let (held, relay) = associate(&proxy, ANY).await;
        let foreign = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        foreign.connect(relay).await.unwrap();
        stays_away(&foreign, &whole).await;
        let own = program(relay).await;
        comes_back(&own, &whole).await;
        stays_away(&program(relay).await, &whole).await;
        comes_back(&own, &whole).await;
        drop(held);
        crate::support::eventually(10, "the port is free", || {
            std::net::UdpSocket::bind(relay).is_ok()
        })
        .await;
        // If it says where it will send from, nobody else is the first.
        let own = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (_held, relay) = associate(&proxy, own.local_addr().unwrap()).await;
        stays_away(&program(relay).await, &whole).await;
        own.connect(relay).await.unwrap();
        comes_back(&own, &whole).await;
    });
}

#[test]
fn a_program_at_a_unix_socket_is_told_that_there_is_no_such_thing() {
    bounded(60, async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy");
        let pair = Pair::server("127.0.0.1:9", Some("dial=\"udp:*:*\""));
        let client = pair.client(&["-D", path.to_str().unwrap()]);
        client.line("client ready");
        let mut socket = tokio::net::UnixStream::connect(&path).await.unwrap();
        socket.write_all(&[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
        let mut reply = [0; 12];
        socket.read_exact(&mut reply).await.unwrap();
        assert_eq!(reply[..4], [5, 0, 5, 7]);
    });
}
