//! Something on the way that stops TLS's first message for its size.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::bounded;
use crate::support::net::{self, Destination};
use crate::support::process::{self, Imux, field};

/// What happens to a first message that is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stops {
    Reset,
    Close,
    Swallow,
}

/// Lets through what comes from any address but `from`, or begins with at most `most` bytes; counts
/// what it lets through.
async fn middlebox(
    to: SocketAddr,
    from: IpAddr,
    most: usize,
    stops: Stops,
    passed: Arc<AtomicUsize>,
) -> Destination {
    Destination::start(move |mut socket| {
        let passed = passed.clone();
        async move {
            let mut first = [0; 16 << 10];
            // A client that ends may have connected and said nothing.
            let Ok(length @ 1..) = socket.read(&mut first).await else { return };
            if socket.peer_addr().unwrap().ip() == from && length > most {
                match stops {
                    Stops::Reset => net::reset(socket),
                    Stops::Close => drop(socket),
                    Stops::Swallow => while socket.read(&mut first).await.is_ok_and(|n| n > 0) {},
                }
                return;
            }
            passed.fetch_add(1, Ordering::Relaxed);
            let mut to = TcpStream::connect(to).await.unwrap();
            to.write_all(&first[..length]).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut socket, &mut to).await;
        }
    })
    .await
}

async fn echoes(client: &Imux) {
    let mut socket = TcpStream::connect(client.ready()).await.unwrap();
    socket.write_all(b"?").await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'?');
}

const OPTION: &str = "--classical-key-exchange";

#[test]
fn a_network_that_stops_large_messages_is_told_and_nothing_is_weakened() {
    bounded(150, async {
        let destination = Destination::echo().await;
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let to = destination.addr.to_string();
        let server =
            Imux::start(homes[0].path(), &["server", "--listen=127.0.0.1:0", "--dial", &to]);
        let key = field(&server.line("server ready"), "key").to_owned();
        let from = IpAddr::from([127, 0, 0, 6]);
        for (stops, most) in [(Stops::Reset, 1000), (Stops::Close, 1300), (Stops::Swallow, 600)] {
            let passed = Arc::<AtomicUsize>::default();
            let network = middlebox(server.ready(), from, most, stops, passed.clone()).await;
            let at = network.addr.to_string();
            let args = ["client", "--listen=127.0.0.1:0", "--dial", &at, "--pin", &key];
            let args = [&args[..], &["--connect-timeout", "2", "--bind", "127.0.0.6=2"]].concat();
            let before = server.count("lane up");
            let (code, _, told) = process::run(homes[1].path(), &args);
            assert_eq!(code, 5, "{stops:?}: {told}");
            assert!(told.contains(OPTION) && told.contains("smaller"), "{stops:?}: {told}");
            // It was asked, once for both lanes, and no lane was made of it.
            assert_eq!(passed.load(Ordering::Relaxed), 1, "{stops:?}");
            assert_eq!(server.count("lane up"), before, "{stops:?}");

            // Beside a link that lets everything through, it is that link's failure, and logged.
            let both = [&args[..], &["--bind", "127.0.0.5=1"]].concat();
            let client = Imux::start(homes[1].path(), &both);
            echoes(&client).await;
            let told = client.line(OPTION);
            assert!(told.contains("via=127.0.0.6"), "{stops:?}: {told}");
            assert_eq!(client.count("lane up"), 1, "{stops:?}");

            let classical = [&args[..], &[OPTION]].concat();
            echoes(&Imux::start(homes[1].path(), &classical)).await;
        }
    });
}

#[test]
fn a_server_that_answers_nothing_is_not_taken_for_such_a_network() {
    bounded(60, async {
        let home = tempfile::tempdir().unwrap();
        let silent = Destination::start(|mut socket| async move {
            let _ = socket.read(&mut [0; 4096]).await;
            net::reset(socket);
        })
        .await;
        let other = Destination::start(|mut socket| async move {
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = socket.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await;
        })
        .await;
        for at in [silent.addr, other.addr] {
            let at = at.to_string();
            let args =
                ["client", "--listen=127.0.0.1:0", "--dial", &at, "--host-key", "accept-new"];
            let (code, _, told) = process::run(home.path(), &args);
            assert!(code == 5 && !told.contains(OPTION), "{code}: {told}");
        }
    });
}
