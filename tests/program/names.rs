//! Names: whose look-ups may wait, and for whom; and places with several addresses.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use imux::lane::{BindSource, TcpOptions, TlsDialer};
use imux::trust::{Identity, PinnedKeys, client_config};
use imux::{Client, ClientConfig, Link, StreamKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::namespace::{in_namespace, shell};
use crate::support::net::Destination;
use crate::support::process::{Imux, field};
use crate::support::{bounded, eventually};

/// In a namespace of the test's own: from now on these files say what names mean.
fn names_are(hosts: &str, resolv_conf: &str) {
    let files = tempfile::tempdir().unwrap();
    let nsswitch = "hosts: files dns\n";
    for (name, content) in
        [("hosts", hosts), ("resolv.conf", resolv_conf), ("nsswitch.conf", nsswitch)]
    {
        let file = files.path().join(name);
        std::fs::write(&file, content).unwrap();
        // What is mounted stays when its name is removed.
        shell(&format!("mount --bind {} /etc/{name}", file.display()));
    }
}

/// A client with a key, in the library.
struct Person(Identity);

impl Person {
    fn new() -> Self {
        Self(Identity::generate().unwrap())
    }

    async fn connect(&self, server: &Imux) -> Client {
        let tls = client_config(&self.0).unwrap();
        let ready = server.line("server ready");
        let bind = BindSource::Addr("127.0.0.1".parse().unwrap());
        let dialer = TlsDialer::new(field(&ready, "address"), bind, tls, TcpOptions::default());
        let trust = Arc::new(PinnedKeys::new([field(&ready, "key").parse().unwrap()]));
        let config = ClientConfig::new(trust);
        Client::connect(vec![Link::new(Arc::new(dialer.unwrap()), 2)], config).await.unwrap()
    }

    /// A line of the list of clients.
    fn listed(&self, rules: &str) -> String {
        format!("{rules} {}\n", self.0.fingerprint())
    }
}

fn server(home: &Path, dial: &str, clients: &[String]) -> Imux {
    let list = home.join("authorized_clients");
    std::fs::write(&list, clients.concat()).unwrap();
    std::fs::set_permissions(&list, PermissionsExt::from_mode(0o600)).unwrap();
    Imux::start(home, &["server", "--listen", "127.0.0.1:0", "--dial", dial])
}

/// How long a stream of this kind takes to carry a word there and back.
async fn echo(client: &Client, kind: StreamKind) -> Duration {
    let begun = Instant::now();
    let mut stream = client.open(kind).await.unwrap();
    stream.write_all(b"echo").await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"echo");
    begun.elapsed()
}

/// The names that this name server, which never answers, was asked for.
fn names_asked(server: &UdpSocket) -> BTreeSet<Vec<u8>> {
    let mut names = BTreeSet::new();
    let mut query = [0; 512];
    while let Ok((length, _)) = server.recv_from(&mut query) {
        // Behind the header, up to the empty label (RFC 1035, 4.1.2).
        names.extend(query[12..length].split(|byte| *byte == 0).next().map(<[u8]>::to_vec));
    }
    names
}

#[test]
fn a_name_server_that_never_answers_stops_only_those_who_ask_it() {
    let name = "names::a_name_server_that_never_answers_stops_only_those_who_ask_it";
    in_namespace(name, || {
        let resolv_conf = "nameserver 127.0.0.53\noptions timeout:30 attempts:2\n";
        names_are("127.0.0.1 localhost\n", resolv_conf);
        let silent = UdpSocket::bind("127.0.0.53:53").unwrap();
        silent.set_nonblocking(true).unwrap();
        bounded(100, async {
            let destination = Destination::echo().await;
            let fixed = format!("localhost:{}", destination.addr.port());
            let home = tempfile::tempdir().unwrap();
            let people = [Person::new(), Person::new(), Person::new(), Person::new()];
            let server = server(
                home.path(),
                &fixed,
                &[
                    people[0].listed("dial=\"*:80\""),
                    people[1].listed(""),
                    people[2].listed(&format!("dial=\"{fixed}\"")),
                    people[3].listed("dial=\"0.0.0.0/0:80\",dial=\"127.0.0.1:80\""),
                ],
            );
            let greedy = people[0].connect(&server).await;
            let mut stuck = Vec::new();
            for number in 0..1_500 {
                let name = format!("name-{number}.example:80");
                stuck.push(greedy.open(StreamKind::Named(name)).await.unwrap());
            }
            let mut asked = BTreeSet::new();
            eventually(20, "names are looked up", || {
                asked.append(&mut names_asked(&silent));
                asked.len() >= 16
            })
            .await;

            // A client whose names are here, or who has no say in it, notices nothing.
            let (fixed_only, named) =
                (people[1].connect(&server).await, people[2].connect(&server).await);
            for _ in 0..50 {
                let took = echo(&fixed_only, StreamKind::Default).await;
                assert!(took < Duration::from_secs(5), "{took:?}");
                let took = echo(&named, StreamKind::Named(fixed.clone())).await;
                assert!(took < Duration::from_secs(5), "{took:?}");
            }
            asked.append(&mut names_asked(&silent));
            assert_eq!(asked.len(), 16, "one client has more than its share of threads");

            // A rule about addresses does not look up a name, and the log says which would.
            let nosy = people[3].connect(&server).await;
            let kind = StreamKind::Named("secret.example:80".to_owned());
            let mut refused = nosy.open(kind).await.unwrap();
            assert!(refused.read_u8().await.is_err());
            server.line("add dial=\"secret.example:80\" to its line");
            asked.append(&mut names_asked(&silent));
            assert!(!asked.iter().any(|name| name.starts_with(b"\x06secret")));

            // Those that asked are told in time, not when the name server is given up.
            assert!(stuck[0].read_u8().await.is_err());
        });
    });
}

/// A listener whose queue is full: to those who dial it, nobody is there.
fn black_hole(address: SocketAddr) -> Vec<socket2::Socket> {
    let socket = || {
        let domain = socket2::Domain::for_address(address);
        socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap()
    };
    let listener = socket();
    listener.bind(&address.into()).unwrap();
    listener.listen(0).unwrap();
    let mut all = vec![listener];
    for _ in 0..4 {
        let filler = socket();
        filler.set_nonblocking(true).unwrap();
        // Those that find the queue full stay on their way.
        let _ = filler.connect(&address.into());
        all.push(filler);
    }
    all
}

#[test]
fn a_dead_address_before_a_good_one_costs_a_moment() {
    let name = "names::a_dead_address_before_a_good_one_costs_a_moment";
    in_namespace(name, || {
        names_are("::1 localhost\n127.0.0.1 localhost\n", "");
        bounded(60, async {
            let destination = Destination::echo().await;
            let port = destination.addr.port();
            let dead = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
            let _black_hole = black_hole(dead);
            let silent = tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(dead));
            assert!(silent.await.is_err(), "the black hole answers");
            let place = format!("localhost:{port}");
            let first = tokio::net::lookup_host(&place).await.unwrap().next().unwrap();
            assert_eq!(first, dead, "the dead address is not the first");

            let home = tempfile::tempdir().unwrap();
            let people = [Person::new(), Person::new()];
            let lines = [people[0].listed(""), people[1].listed(&format!("dial=\"{place}\""))];
            let server = server(home.path(), &place, &lines);
            for person in &people {
                let client = person.connect(&server).await;
                for _ in 0..3 {
                    let took = echo(&client, StreamKind::Default).await;
                    // The next address is tried after a quarter second; one after another would
                    // take ten.
                    assert!(took < Duration::from_secs(5), "{took:?}");
                }
            }
        });
    });
}
