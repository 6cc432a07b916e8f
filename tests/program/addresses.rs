//! Where lanes go and connections are accepted: both families, link-local addresses, IPv4 within
//! IPv6.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::bounded;
use crate::support::namespace::{Host, in_namespace, shell};
use crate::support::net::{self, Destination};
use crate::support::process::{self, Imux, field};

async fn echoes(at: SocketAddr) {
    let mut socket = TcpStream::connect(at).await.unwrap();
    socket.write_all(b"?").await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'?', "{at}");
}

/// A server that forwards to an echo; its ready line says its address and key.
fn server(home: &tempfile::TempDir, listen: &str, to: &str) -> (Imux, String) {
    let imux = Imux::start(home.path(), &["server", "--listen", listen, "--dial", to]);
    let key = field(&imux.line("server ready"), "key").to_owned();
    (imux, key)
}

#[test]
fn without_a_bind_lanes_go_where_the_routing_table_sends_them() {
    in_namespace("addresses::without_a_bind_lanes_go_where_the_routing_table_sends_them", || {
        bounded(60, async {
            let destination = Destination::echo().await;
            let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let (_server, key) = server(&homes[0], ":7443", &destination.addr.to_string());
            let all = ["127.0.0.1:7443", "[::1]:7443", "localhost:7443", ":7443"];
            for (at, bind) in all.iter().flat_map(|at| [(at, &[][..]), (at, &["--bind", "any=3"])])
            {
                let args = ["client", "--listen", "127.0.0.1:0", "--dial", at, "--pin", &key];
                let client = Imux::start(homes[1].path(), &[&args, bind].concat());
                echoes(client.ready()).await;
                assert!(client.line("lane up").contains("via=\"any\""), "{at} {bind:?}");
            }
            let args = ["client", "--listen", "127.0.0.1:0", "--dial", "[::1]:7443", "--pin", &key];
            let (code, _, told) =
                process::run(homes[1].path(), &[&args[..], &["--bind", "0.0.0.0"]].concat());
            assert!(code == 5 && told.contains("IP version"), "{code}: {told}");
        });
    });
}

#[test]
fn the_unspecified_address_is_both_families_whatever_the_system_says() {
    let test = "addresses::the_unspecified_address_is_both_families_whatever_the_system_says";
    in_namespace(test, || {
        shell("echo 1 > /proc/sys/net/ipv6/bindv6only");
        bounded(60, async {
            let destination = Destination::echo().await;
            let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            for (number, host) in ["", "[::]"].into_iter().enumerate() {
                let (there, here) = (7000 + number, 8000 + number);
                let listen = format!("{host}:{there}");
                let (server, key) = server(&homes[0], &listen, &destination.addr.to_string());
                for at in [format!("127.0.0.1:{there}"), format!("[::1]:{there}")] {
                    let listen = format!("{host}:{here}");
                    let args = ["client", "--listen", &listen, "--dial", &at, "--pin", &key];
                    let client = Imux::start(homes[1].path(), &args);
                    client.ready();
                    for at in [format!("127.0.0.1:{here}"), format!("[::1]:{here}")] {
                        echoes(at.parse().unwrap()).await;
                    }
                }
                // Clients over IPv4 are told apart, and written, as such.
                assert!(server.line("lane up").contains("from=127.0.0.1:"), "{host}");
            }
            // A port that is half free is taken.
            let _taken = net::Destination::start_at("127.0.0.1:7009", net::echo).await;
            let args = ["server", "--listen", "[::]:7009", "--dial", "localhost:9"];
            let (code, _, told) = process::run(homes[0].path(), &args);
            assert!(code == 4 && told.contains("another program listens there"), "{code}: {told}");
        });
    });
}

#[test]
fn link_local_addresses_work_with_their_interface() {
    in_namespace("addresses::link_local_addresses_work_with_their_interface", || {
        let far = Host::new();
        let pid = far.pid();
        shell(&format!(
            "ip link add near0 type veth peer name far0 netns {pid}
             ip link set near0 addrgenmode none up
             ip address add fe80::21/64 dev near0 nodad"
        ));
        far.shell(
            "ip link set far0 addrgenmode none up; ip address add fe80::22/64 dev far0 nodad",
        );
        bounded(60, async {
            let index = nix::net::if_::if_nametoindex("near0").unwrap();
            let place = format!("[fe80::21%{index}]:7022");
            let _destination = Destination::start_at(&place, net::echo).await;
            let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let args = ["server", "--listen", "[fe80::22%far0]:7443"];
            let args = [&args[..], &["--dial", "[fe80::21%far0]:7022"]].concat();
            let server = Imux::start_at(&far, homes[0].path(), &args);
            let key = field(&server.line("server ready"), "key").to_owned();
            for binds in [&["--bind", "fe80::21%near0=2"][..], &["--bind", "dev:near0=2"], &[]] {
                let args = ["client", "--listen", "[fe80::21%near0]:0", "--pin", &key];
                let dial = ["--dial", "[fe80::22%near0]:7443"];
                let client = Imux::start(homes[1].path(), &[&args[..], &dial, binds].concat());
                echoes(client.ready()).await;
            }
            assert!(server.line("lane up").contains("from=[fe80::21%"), "{}", server.log());
            let args = ["client", "--listen", ":0", "--dial", "[fe80::22%gone0]:1", "--pin", &key];
            let (code, _, told) = process::run(homes[1].path(), &args);
            assert!(code == 5 && told.contains("fe80::22%gone0"), "{code}: {told}");
        });
    });
}

#[test]
fn an_ipv4_address_within_ipv6_is_that_ipv4_address() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mapped = |port: u16| format!("[::ffff:127.0.0.1]:{port}");
        let (server, key) = server(&homes[0], &mapped(0), &mapped(destination.addr.port()));
        assert!(server.ready().is_ipv4());
        let (listen, dial) = (mapped(0), mapped(server.ready().port()));
        for bind in ["::ffff:127.0.0.5=2", "[::ffff:7f00:5]=2", "127.0.0.5=2"] {
            let args = ["client", "--listen", &listen, "--dial", &dial, "--pin", &key];
            let client = Imux::start(homes[1].path(), &[&args[..], &["--bind", bind]].concat());
            assert!(client.ready().is_ipv4());
            echoes(client.ready()).await;
            assert!(client.line("lane up").contains("via=\"127.0.0.5\""), "{}", client.log());
        }
    });
}
