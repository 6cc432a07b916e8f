//! One port for all destinations: what programs say in SOCKS and HTTP, byte by byte, and what they
//! are told.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::bounded;
use crate::support::namespace::in_namespace;
use crate::support::net::{Destination, connect};
use crate::support::pair::Pair;
use crate::support::process::{Imux, field, run};

mod datagrams;
mod hostile;
mod http;
mod trips;

/// A server that lets its client go where `rules` say, and that client's port.
struct Proxy {
    pair: Pair,
    client: Imux,
    addr: SocketAddr,
}

impl Proxy {
    fn start(rules: &[&str], how: &[&str]) -> Self {
        let dial: Vec<_> = rules.iter().map(|rule| format!("dial=\"{rule}\"")).collect();
        let pair = Pair::server("127.0.0.1:9", Some(&dial.join(",")));
        let client = pair.client(how);
        let addr = field(&client.line("client ready"), "address").parse().unwrap();
        Self { pair, client, addr }
    }

    fn with(rules: &[&str]) -> Self {
        Self::start(rules, &["-D", "127.0.0.1:0"])
    }

    fn connect(&self) -> TcpStream {
        connect(self.addr)
    }
}

/// SOCKS5's request for a name, or for an address written as one.
fn socks5(host: &str, port: u16) -> Vec<u8> {
    let mut request = vec![5, 1, 0, 3, u8::try_from(host.len()).unwrap()];
    request.extend_from_slice(host.as_bytes());
    request.extend_from_slice(&port.to_be_bytes());
    request
}

fn socks4a(host: &str, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    let mut request = vec![4, 1, high, low, 0, 0, 0, 1];
    request.extend_from_slice(b"user\0");
    request.extend_from_slice(host.as_bytes());
    request.push(0);
    request
}

fn connect_to(host: &str, port: u16) -> Vec<u8> {
    format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n").into_bytes()
}

async fn expect(socket: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    socket.read_exact(&mut got).await.unwrap();
    assert_eq!(got, expected, "{}", String::from_utf8_lossy(&got));
}

/// The head of an HTTP response.
async fn head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

const SOCKS5_DONE: [u8; 10] = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
const SOCKS4_DONE: [u8; 8] = [0, 0x5a, 0, 0, 0, 0, 0, 0];

/// Sends something and its end, and reads it back.
async fn there_and_back(mut socket: TcpStream, already: &[u8]) {
    socket.write_all(b" and more").await.unwrap();
    socket.shutdown().await.unwrap();
    let mut back = Vec::new();
    socket.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, [already, b" and more"].concat());
}

#[test]
fn each_protocol_leads_to_names_and_addresses_and_loses_nothing_that_comes_with_the_request() {
    bounded(60, async {
        let echo = Destination::echo().await;
        let six = Destination::start_at("[::1]:0", crate::support::net::echo).await;
        let rules = [
            format!("localhost:{}", echo.addr.port()),
            echo.addr.to_string(),
            six.addr.to_string(),
        ];
        let proxy = Proxy::with(&rules.each_ref().map(String::as_str));
        let port = echo.addr.port();
        let [high, low] = port.to_be_bytes();
        let greeting = [5, 2, 0, 2];
        let mut requests = vec![
            socks5("localhost", port),
            socks5("127.0.0.1", port),
            vec![5, 1, 0, 1, 127, 0, 0, 1, high, low],
            socks5("::1", six.addr.port()),
        ];
        let mut by_address = vec![5, 1, 0, 4];
        by_address.extend_from_slice(&std::net::Ipv6Addr::LOCALHOST.octets());
        by_address.extend_from_slice(&six.addr.port().to_be_bytes());
        requests.push(by_address);
        for request in requests {
            // As intended, and all at once.
            let mut socket = proxy.connect();
            socket.write_all(&greeting).await.unwrap();
            expect(&mut socket, &[5, 0]).await;
            socket.write_all(&request).await.unwrap();
            expect(&mut socket, &SOCKS5_DONE).await;
            there_and_back(socket, b"").await;
            let mut socket = proxy.connect();
            let all = [&greeting[..], &request, b"early"].concat();
            socket.write_all(&all).await.unwrap();
            expect(&mut socket, &[&[5, 0], &SOCKS5_DONE[..]].concat()).await;
            there_and_back(socket, b"early").await;
        }
        for request in [socks4a("localhost", port), vec![4, 1, high, low, 127, 0, 0, 1, 0]] {
            let mut socket = proxy.connect();
            socket.write_all(&[&request[..], b"early"].concat()).await.unwrap();
            expect(&mut socket, &SOCKS4_DONE).await;
            there_and_back(socket, b"early").await;
        }
        for (host, port) in [("localhost", port), ("127.0.0.1", port), ("[::1]", six.addr.port())] {
            let mut socket = proxy.connect();
            socket.write_all(&[&connect_to(host, port)[..], b"early"].concat()).await.unwrap();
            let head = head(&mut socket).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            assert!(!head.to_ascii_lowercase().contains("content-length"), "{head}");
            there_and_back(socket, b"early").await;
        }
    });
}

/// What a program is told, in SOCKS5, SOCKS4a and HTTP.
async fn told(proxy: &Proxy, host: &str, port: u16) -> (u8, u8, String) {
    let mut socket = proxy.connect();
    // What follows the request keeps nobody from reading the answer.
    let all = [&[5, 1, 0][..], &socks5(host, port), b"early"].concat();
    socket.write_all(&all).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.len(), 12, "{answer:?}");
    let five = answer[3];
    let mut socket = proxy.connect();
    socket.write_all(&[&socks4a(host, port)[..], b"early"].concat()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.len(), 8, "{answer:?}");
    let four = answer[1];
    let mut socket = proxy.connect();
    socket.write_all(&connect_to(host, port)).await.unwrap();
    let head = head(&mut socket).await;
    let status = head.split(' ').nth(1).unwrap();
    let kind = head.lines().find_map(|line| line.strip_prefix("proxy-status: imux; error="));
    (five, four, format!("{status} {}", kind.unwrap_or_default()))
}

#[test]
fn each_protocol_says_why_there_is_no_connection() {
    in_namespace("proxy::each_protocol_says_why_there_is_no_connection", || {
        bounded(120, async {
            let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let closed = taken.local_addr().unwrap().port();
            drop(taken);
            // Nobody accepts connections here, and the queue is full.
            let full = tokio::net::TcpSocket::new_v4().unwrap();
            full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let full = full.listen(1).unwrap();
            let at = full.local_addr().unwrap();
            let waiting: Vec<_> = (0..2).map(|_| connect(at)).collect();
            let rules = ["127.0.0.1:*".to_owned(), "*:*".to_owned()];
            let proxy = Proxy::with(&rules.each_ref().map(String::as_str));
            for (host, port, expected) in [
                ("127.0.0.1", closed, (5, 0x5b, "502 connection_refused")),
                ("127.0.0.2", closed, (2, 0x5b, "403 http_request_denied")),
                ("169.254.169.254", 80, (2, 0x5b, "403 http_request_denied")),
                ("localhost", closed, (2, 0x5b, "403 http_request_denied")),
                ("nowhere.invalid", 80, (4, 0x5b, "502 dns_error")),
                ("no-name_at..all", 80, (4, 0x5b, "502 dns_error")),
                // There is no way out of here.
                ("203.0.113.9", 80, (3, 0x5b, "502 destination_ip_unroutable")),
                ("127.0.0.1", at.port(), (6, 0x5b, "504 connection_timeout")),
            ] {
                let (five, four, http) = told(&proxy, host, port).await;
                assert_eq!((five, four, &*http), expected, "{host}:{port}");
            }
            drop(waiting);
            // Once at each end.
            assert!(proxy.client.line("destination not allowed").contains("127.0.0.2"));
            assert!(proxy.pair.server.line("not among the destinations").contains("127.0.0.2"));
        });
    });
}

#[test]
fn with_fast_success_is_said_before_the_destination_was_asked_and_a_failure_is_a_reset() {
    bounded(60, async {
        let echo = Destination::echo().await;
        let here = echo.addr.to_string();
        let proxy = Proxy::start(&[&here], &["-D", "127.0.0.1:0,fast"]);
        let mut socket = proxy.connect();
        socket
            .write_all(&[&[5, 1, 0][..], &socks5("127.0.0.1", echo.addr.port())].concat())
            .await
            .unwrap();
        expect(&mut socket, &[&[5, 0], &SOCKS5_DONE[..]].concat()).await;
        there_and_back(socket, b"").await;
        for (request, done) in [
            (
                [&[5, 1, 0][..], &socks5("127.0.0.1", 1)].concat(),
                [&[5, 0], &SOCKS5_DONE[..]].concat(),
            ),
            (socks4a("127.0.0.1", 1), SOCKS4_DONE.to_vec()),
            (connect_to("127.0.0.1", 1), b"HTTP/1.1 200 OK\r\n".to_vec()),
        ] {
            let mut socket = proxy.connect();
            socket.write_all(&request).await.unwrap();
            expect(&mut socket, &done).await;
            let error = socket.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    });
}

fn credentials(proxy_home: &Pair, mode: u32) -> String {
    let file = proxy_home.path("users");
    fs::write(&file, "# who\nanna:secret:word\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn where_users_are_listed_nobody_else_is_served() {
    bounded(60, async {
        let echo = Destination::echo().await;
        let pair = Pair::server("127.0.0.1:9", Some(&format!("dial=\"{}\"", echo.addr)));
        let users = credentials(&pair, 0o600);
        // On another address than this machine's own, too.
        let client = pair.client(&["-D", "0.0.0.0:0", "--proxy-auth", &users]);
        let port =
            field(&client.line("client ready"), "address").rsplit_once(':').unwrap().1.to_owned();
        let addr: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
        let to = echo.addr.port();
        let login = |password: &str| {
            let mut login = vec![1, 4];
            login.extend_from_slice(b"anna");
            login.push(u8::try_from(password.len()).unwrap());
            login.extend_from_slice(password.as_bytes());
            login
        };
        let mut socket = connect(addr);
        let all = [&[5, 2, 0, 2][..], &login("secret:word"), &socks5("127.0.0.1", to), b"early"];
        socket.write_all(&all.concat()).await.unwrap();
        expect(&mut socket, &[&[5, 2, 1, 0], &SOCKS5_DONE[..]].concat()).await;
        there_and_back(socket, b"early").await;

        let mut refused = Vec::new();
        for (said, answer) in [
            (
                [&[5, 1, 2][..], &login("secret"), &socks5("127.0.0.1", to)].concat(),
                vec![5, 2, 1, 1],
            ),
            ([&[5, 1, 0][..], &socks5("127.0.0.1", to)].concat(), vec![5, 0xff]),
            (socks4a("127.0.0.1", to), vec![0, 0x5d, 0, 0, 0, 0, 0, 0]),
        ] {
            let mut socket = connect(addr);
            socket.write_all(&said).await.unwrap();
            refused.clear();
            socket.read_to_end(&mut refused).await.unwrap();
            assert_eq!(refused, answer);
        }
        // anna:secret:word, and anna:wrong.
        for (shown, expected) in [
            ("Proxy-Authorization: Basic YW5uYTpzZWNyZXQ6d29yZA==\r\n", "200 "),
            ("proxy-authorization: basic YW5uYTpzZWNyZXQ6d29yZA==\r\n", "200 "),
            ("Proxy-Authorization: Basic YW5uYTp3cm9uZw==\r\n", "407 "),
            ("Proxy-Authorization: Basic !!!\r\n", "407 "),
            ("Authorization: Basic YW5uYTpzZWNyZXQ6d29yZA==\r\n", "407 "),
            ("", "407 "),
        ] {
            let mut socket = connect(addr);
            let request = format!("CONNECT 127.0.0.1:{to} HTTP/1.1\r\nHost: x\r\n{shown}\r\n");
            socket.write_all(request.as_bytes()).await.unwrap();
            let head = head(&mut socket).await;
            assert!(head[9..].starts_with(expected), "{shown}: {head}");
            assert_eq!(head.contains("proxy-authenticate: Basic"), expected == "407 ", "{head}");
        }
        client.line("user and password are not right");
        assert_eq!(client.count("secret"), 0);
    });
}

#[test]
fn a_port_that_others_reach_needs_users_or_to_be_called_open() {
    bounded(60, async {
        let pair = Pair::server("127.0.0.1:9", Some("dial=\"*:*\""));
        let to = ["client", "--dial", &pair.at, "--pin", &pair.key, "--bind=any=2"];
        let refused = |how: &[&str]| run(pair.folder.path(), &[&to[..], how].concat());
        for place in ["0.0.0.0:0", ":0", "[::]:0", "192.0.2.7:0"] {
            let (code, _, told) = refused(&["-D", place]);
            assert!(
                code == 2 && told.contains("--proxy-auth") && told.contains("--open"),
                "{told}"
            );
        }
        let readable = credentials(&pair, 0o644);
        let (code, _, told) = refused(&["-D", "0.0.0.0:0", "--proxy-auth", &readable]);
        assert!(code == 3 && told.contains("chmod 600"), "{code} {told}");
        let (code, _, told) = refused(&["-D", "0", "--proxy-auth", "/nowhere"]);
        assert!(code == 3 && told.contains("/nowhere"), "{code} {told}");
        let (code, _, told) = refused(&["-L", "0:db:1", "--open"]);
        assert!(code == 2 && told.contains("--dynamic"), "{code} {told}");
        let open = pair.client(&["-D", "0.0.0.0:0", "--open"]);
        open.line("client ready");
        // On the port alone, this machine's programs are asked for nothing.
        let own = pair.client(&["-D", "0"]);
        let at = own.line("client ready");
        assert!(field(&at, "address").starts_with("127.0.0.1:"), "{at}");
    });
}
