//! The addresses the server dials from, and what destinations are told about who connects.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::net::{Destination, connect};
use crate::support::pair::Pair;
use crate::support::process::{field, run};
use crate::support::{bounded, eventually};

/// What connections began with, and where they came from.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Said>>>);

type Said = (SocketAddr, Vec<u8>);

impl Heard {
    /// A destination that records all it is told.
    async fn at(place: &str) -> (Self, Destination) {
        let heard = Self::default();
        let telling = heard.clone();
        let destination = Destination::start_at(place, move |mut socket: TcpStream| {
            let telling = telling.clone();
            async move {
                let from = socket.peer_addr().unwrap();
                let mut said = Vec::new();
                socket.read_to_end(&mut said).await.unwrap();
                telling.0.lock().unwrap().push((from, said));
            }
        });
        let destination = destination.await;
        (heard, destination)
    }

    async fn next(&self) -> Said {
        eventually(20, "a connection has ended", || !self.0.lock().unwrap().is_empty()).await;
        self.0.lock().unwrap().remove(0)
    }
}

/// Says a word through the client's `number`th port, and ends.
async fn say(client: &crate::support::process::Imux, number: usize) {
    let line = client.nth_line("client ready", number);
    let mut socket = connect(field(&line, "address"));
    socket.write_all(b"word").await.unwrap();
    socket.shutdown().await.unwrap();
    socket.read_to_end(&mut Vec::new()).await.unwrap();
}

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The source named in a version 2 header, the destination, and what follows.
fn v2(said: &[u8]) -> (SocketAddr, SocketAddr, &[u8]) {
    let header = said.strip_prefix(V2).unwrap_or_else(|| panic!("{said:?}"));
    assert_eq!(header[..4], [0x21, 0x11, 0, 12], "a proxied connection over TCP and IPv4");
    let at = |ip: &[u8], port: &[u8]| {
        let ip: [u8; 4] = ip.try_into().unwrap();
        SocketAddr::from((ip, u16::from_be_bytes(port.try_into().unwrap())))
    };
    (at(&header[4..8], &header[12..14]), at(&header[8..12], &header[14..16]), &header[16..])
}

#[test]
fn destinations_are_told_where_the_clients_first_lane_comes_from() {
    bounded(60, async {
        let (heard, destination) = Heard::at("127.0.0.1:0").await;
        let to = destination.addr.to_string();
        let pair = Pair::server_with(&to, None, &["--proxy-protocol"]);
        let client = pair.client(&["--listen", "127.0.0.1:0", "--bind", "127.0.0.7=1"]);
        say(&client, 1).await;
        let (_, said) = heard.next().await;
        let (source, named, rest) = v2(&said);
        assert!(["127.0.0.1", "127.0.0.7"].contains(&&*source.ip().to_string()), "{source}");
        assert_eq!((named, rest), (destination.addr, &b"word"[..]));

        let pair = Pair::server_with(&to, None, &["--proxy-protocol=v1"]);
        let client = pair.client(&["--listen", "127.0.0.1:0"]);
        say(&client, 1).await;
        let (_, said) = heard.next().await;
        let said = String::from_utf8(said).unwrap();
        let (line, rest) = said.split_once("\r\n").unwrap();
        assert!(line.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "), "{line}");
        assert!(line.ends_with(&format!(" {}", destination.addr.port())), "{line}");
        assert_eq!(rest, "word");
    });
}

#[test]
fn a_line_or_a_forward_asks_for_it_alone() {
    bounded(60, async {
        let (heard, destination) = Heard::at("127.0.0.1:0").await;
        let to = destination.addr;
        let forward = |options: &str| format!("127.0.0.1:0:{to}{options}");
        let pair = Pair::server("127.0.0.1:9", Some(&format!("dial=\"{to}\"")));
        let client =
            pair.client(&["-L", &forward(""), "-L", &forward(",proxy-protocol,redundant")]);
        say(&client, 1).await;
        assert_eq!(heard.next().await.1, b"word");
        say(&client, 2).await;
        assert_eq!(v2(&heard.next().await.1).2, b"word");

        let pair = Pair::server("127.0.0.1:9", Some(&format!("proxy-protocol,dial=\"{to}\"")));
        let client = pair.client(&["-L", &forward("")]);
        say(&client, 1).await;
        assert_eq!(v2(&heard.next().await.1).2, b"word");
        let pair = Pair::server("127.0.0.1:9", Some(&format!("dial=\"{to}\",proxy-protocol=v1")));
        let client = pair.client(&["-L", &forward("")]);
        say(&client, 1).await;
        assert!(heard.next().await.1.starts_with(b"PROXY TCP4 127.0.0.1 "));
    });
}

#[test]
fn what_a_client_claims_is_told_only_where_its_line_trusts_it() {
    bounded(60, async {
        let (heard, destination) = Heard::at("127.0.0.1:0").await;
        let to = destination.addr;
        let forward = format!("127.0.0.1:0:{to},proxy-protocol");
        // Connects to the client, from an address that the server never sees.
        let visit = async |client: &crate::support::process::Imux, from: &str| {
            let line = client.line("client ready");
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
            let mut socket =
                socket.connect(field(&line, "address").parse().unwrap()).await.unwrap();
            socket.write_all(b"word").await.unwrap();
            socket.shutdown().await.unwrap();
            socket.read_to_end(&mut Vec::new()).await.unwrap();
        };
        for (line, told) in [
            (format!("dial=\"{to}\""), "127.0.0.1"),
            (format!("dial=\"{to}\",proxy-protocol"), "127.0.0.1"),
            (format!("trust-source,dial=\"{to}\""), "127.0.0.44"),
        ] {
            let pair = Pair::server("127.0.0.1:9", Some(&line));
            let client = pair.client(&["-L", &forward]);
            visit(&client, "127.0.0.44").await;
            let (_, said) = heard.next().await;
            let (source, _, rest) = v2(&said);
            assert_eq!((source.ip().to_string().as_str(), rest), (told, &b"word"[..]), "{line}");
        }
        // A client that does not ask for it claims nothing.
        let line = format!("trust-source,proxy-protocol,dial=\"{to}\"");
        let pair = Pair::server("127.0.0.1:9", Some(&line));
        let client = pair.client(&["-L", &format!("127.0.0.1:0:{to}")]);
        visit(&client, "127.0.0.44").await;
        assert_eq!(v2(&heard.next().await.1).0.ip().to_string(), "127.0.0.1");
        let key = "SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDmgLVcJ1GyLlBOZnk";
        assert_eq!(run(pair.folder.path(), &["authorize", key, "--trust-source"]).0, 0);
        let list = std::fs::read_to_string(pair.path("authorized_clients")).unwrap();
        assert!(list.contains(&format!("\ntrust-source {key}")), "{list}");
    });
}

#[test]
fn destinations_are_dialled_from_the_address_that_is_said() {
    bounded(60, async {
        let (heard, destination) = Heard::at("127.0.0.1:0").await;
        let to = destination.addr.to_string();
        let pair = Pair::server_with(&to, None, &["--from", "127.0.0.23"]);
        let client = pair.client(&["--listen", "127.0.0.1:0"]);
        say(&client, 1).await;
        let (from, said) = heard.next().await;
        assert_eq!((from.ip().to_string().as_str(), &said[..]), ("127.0.0.23", &b"word"[..]));

        // An address not on this machine: the connection is reset, and the server says why.
        let pair = Pair::server_with(&to, None, &["--from=192.0.2.77"]);
        let client = pair.client(&["--listen", "127.0.0.1:0"]);
        let line = client.line("client ready");
        let mut socket = connect(field(&line, "address"));
        socket.read_to_end(&mut Vec::new()).await.unwrap_err();
        pair.server.line("cannot reach the destination");

        let home = tempfile::tempdir().unwrap();
        for (args, expected) in [
            (&["--from", "0.0.0.0"][..], "nothing is dialled from there"),
            (&["--from", "somewhere"], "an address of this machine"),
            (&["--from", "127.0.0.1", "--from", "127.0.0.2"], "one address of IPv4"),
            (&["--proxy-protocol=v3"], "v1 and v2"),
        ] {
            let all = [&["server", "--listen", "127.0.0.1:0", "--dial", &to], args].concat();
            let (code, _, told) = run(home.path(), &all);
            assert!(code == 2 && told.contains(expected), "{args:?}: {code} {told}");
        }
    });
}
