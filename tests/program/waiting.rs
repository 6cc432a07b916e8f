//! Starts that do not go well at once: a server that is away, and links that lead to somebody else.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::bounded;
use crate::support::net::{self, Destination, unused_port};
use crate::support::process::{self, Imux, field};

async fn echoes(client: &Imux) {
    let mut socket = TcpStream::connect(client.ready()).await.unwrap();
    socket.write_all(b"?").await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'?');
}

struct Server {
    _imux: Imux,
    at: SocketAddr,
    key: String,
    home: TempDir,
}

fn server(to: SocketAddr) -> Server {
    server_at(tempfile::tempdir().unwrap(), "127.0.0.1:0", to)
}

fn server_at(home: TempDir, listen: &str, to: SocketAddr) -> Server {
    let args = ["server", "--listen", listen, "--dial", &to.to_string()];
    let imux = Imux::start(home.path(), &args);
    let key = field(&imux.line("server ready"), "key").to_owned();
    Server { at: imux.ready(), _imux: imux, key, home }
}

#[test]
fn a_server_that_is_away_is_waited_for() {
    bounded(90, async {
        let destination = Destination::echo().await;
        let home = tempfile::tempdir().unwrap();
        let at = unused_port().await.to_string();
        let Server { key, home: server_home, _imux, .. } =
            server_at(tempfile::tempdir().unwrap(), &at, destination.addr);
        drop(_imux);
        let wrong = "SHA256:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
        let start = |pin: &str, more: &[&str]| {
            let args = ["client", "--listen=127.0.0.1:0", "--dial", &at, "--pin", pin];
            let binds = ["--bind", "127.0.0.1=2", "--bind", "127.0.0.2=1"];
            Imux::start(home.path(), &[&args[..], &binds, more].concat())
        };
        assert_eq!(start(&key, &[]).exit_code(), Some(5));
        let mut waiting = start(&key, &["--keep-trying"]);
        let mut mistaken = start(wrong, &["--keep-trying"]);
        let mut stopped = start(&key, &["--keep-trying"]);
        for client in [&waiting, &mistaken, &stopped] {
            client.line("waiting for it");
            // Each link has its line.
            assert!(client.line("via=127.0.0.2").contains("could not be made"));
        }
        stopped.signal(Signal::SIGTERM);
        assert_eq!(stopped.exit_code(), Some(143));
        assert!(waiting.is_running());
        let _server = server_at(server_home, &at, destination.addr);
        echoes(&waiting).await;
        // Waiting does not fix what is wrong.
        assert_eq!(mistaken.exit_code(), Some(7), "{}", mistaken.log());
    });
}

/// Where each local address leads, and after how long; nowhere is a reset.
type Routes = BTreeMap<IpAddr, (Option<SocketAddr>, Duration)>;

fn route(to: impl Into<Option<SocketAddr>>, millis: u64) -> (Option<SocketAddr>, Duration) {
    (to.into(), Duration::from_millis(millis))
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}

/// The network: it takes lanes somewhere by the address they come from.
async fn network(routes: Arc<Mutex<Routes>>) -> Destination {
    Destination::start(move |mut from| {
        let routes = routes.clone();
        async move {
            let source = from.peer_addr().unwrap().ip();
            let (to, delay) = routes.lock().unwrap()[&source];
            tokio::time::sleep(delay).await;
            let Some(to) = to else { return net::reset(from) };
            let mut to = TcpStream::connect(to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
        }
    })
    .await
}

fn two_links<'a>(at: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let args = ["client", "--listen", "127.0.0.1:0", "--dial", at];
    let binds = ["--bind", "127.0.0.7=2", "--bind", "127.0.0.8=2"];
    [&args[..], &binds, more].concat()
}

fn known_hosts(home: &Path, host: &str, key: &str) {
    std::fs::write(home.join("known_hosts"), format!("{host} {key}\n")).unwrap();
}

#[test]
fn a_link_that_leads_elsewhere_is_down_and_no_more() {
    bounded(120, async {
        let destination = Destination::echo().await;
        let (right, portal) = (server(destination.addr), server(destination.addr));
        let home = tempfile::tempdir().unwrap();
        let routes = Arc::new(Mutex::new(Routes::new()));
        let network = network(routes.clone()).await;
        let at = network.addr.to_string();
        let go = |first, second| {
            *routes.lock().unwrap() = Routes::from([(ip(7), first), (ip(8), second)]);
        };
        let pin = ["--pin", right.key.as_str()];
        let policies = [&pin[..], &["--host-key", "strict"], &["--host-key", "accept-new"]];
        for policy in policies {
            known_hosts(home.path(), &at, &right.key);
            // Whichever answers first, and whichever is named first.
            for (first, second, wrong) in [
                (route(right.at, 0), route(portal.at, 0), ip(8)),
                (route(portal.at, 0), route(right.at, 1200), ip(7)),
                (route(right.at, 600), route(portal.at, 0), ip(8)),
            ] {
                go(first, second);
                let client = Imux::start(home.path(), &two_links(&at, policy));
                echoes(&client).await;
                let told = client.line(&format!("via={wrong}"));
                assert!(told.contains("another server") && told.contains(&portal.key), "{told}");
            }
            // No link is right, or none that answers.
            for second in [route(portal.at, 300), route(None, 300)] {
                go(route(portal.at, 0), second);
                let (code, _, told) = process::run(home.path(), &two_links(&at, policy));
                assert!(code == 7 && told.contains(&portal.key), "{code}: {told}");
            }
            let file = std::fs::read_to_string(home.path().join("known_hosts")).unwrap();
            assert_eq!(file, format!("{at} {}\n", right.key));
        }
        // A client that waits for a server waits for the link that may lead to it.
        go(route(portal.at, 0), route(None, 0));
        let args = two_links(&at, &["--pin", &right.key, "--keep-trying"]);
        let client = Imux::start(home.path(), &args);
        client.line("waiting for it");
        go(route(portal.at, 0), route(right.at, 0));
        echoes(&client).await;
    });
}

#[test]
fn two_unknown_keys_at_once_end_the_start() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let (one, other) = (server(destination.addr), server(destination.addr));
        let routes = Routes::from([(ip(7), route(one.at, 0)), (ip(8), route(other.at, 500))]);
        let network = network(Arc::new(Mutex::new(routes.clone()))).await;
        let at = network.addr.to_string();
        let home = tempfile::tempdir().unwrap();
        for policy in ["accept-new", "strict", "ask"] {
            let args = two_links(&at, &["--host-key", policy]);
            let (code, _, told) = process::run(home.path(), &args);
            assert_eq!(code, 6, "{policy}: {told}");
            assert!(told.contains(&one.key) && told.contains(&other.key), "{policy}: {told}");
            assert!(!home.path().join("known_hosts").exists(), "{policy}");
        }
        // A link that is down says nothing against the other.
        let routes = Routes::from([(ip(7), route(one.at, 0)), (ip(8), route(None, 300))]);
        let network = self::network(Arc::new(Mutex::new(routes))).await;
        let at = network.addr.to_string();
        let client = Imux::start(home.path(), &two_links(&at, &["--host-key", "accept-new"]));
        echoes(&client).await;
    });
}
