//! As many connections at once as a busy network has, each handed over by the kernel.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::namespace::{in_namespace, shell};
use crate::support::process::{Imux, field, run};
use crate::support::{alone, net, skipped};

/// What each gateway takes. All have the same server, which grants one client half of what the
/// others leave of its descriptors: with the usual 20,000 three can have 3,741 at once.
const EACH: usize = 3_400;
const GATEWAYS: [&str; 3] = ["127.0.0.5", "127.0.0.6", "127.0.0.7"];
const SERVERS: &str = "127.0.0.8";
/// As for any other connection that rests (`memory.rs`).
const EACH_KIB_MAX: u64 = 24;

/// Sends back what it gets; a process of its own, with descriptors of its own.
const ECHO: &str = "
import selectors, socket
wanted = selectors.DefaultSelector()
listener = socket.create_server(('0.0.0.0', 0), backlog=4096)
wanted.register(listener, selectors.EVENT_READ)
print(listener.getsockname()[1], flush=True)
while True:
    for key, _ in wanted.select():
        if key.fileobj is listener:
            wanted.register(listener.accept()[0], selectors.EVENT_READ)
        else:
            said = key.fileobj.recv(4096)
            if said:
                key.fileobj.sendall(said)
            else:
                wanted.unregister(key.fileobj)
                key.fileobj.close()
";

struct Echo(Child, u16);

impl Echo {
    fn start() -> Self {
        use std::io::BufRead;
        let mut python = Command::new("python3");
        python.args(["-c", ECHO]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = python.spawn().unwrap();
        let mut port = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self(child, port.trim().parse().unwrap())
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client that takes what is meant for `place`.
fn gateway(place: SocketAddr, server: &Imux, at: &str, key: &str, homes: [&TempDir; 2]) -> Imux {
    let (code, own, _) = run(homes[1].path(), &["identity"]);
    assert_eq!(code, 0);
    let place_text = place.to_string();
    let (code, _, why) = run(homes[0].path(), &["authorize", own.trim(), "--dial", &place_text]);
    assert_eq!(code, 0, "{why}");
    assert_eq!(server.count("internal error"), 0);
    let args = ["client", "--dial", at, "--pin", key, "--bind=any=2", "--transparent=127.0.0.1:0"];
    let client = Imux::start(homes[1].path(), &args);
    let line = client.line("client ready");
    let taker: SocketAddr = field(&line, "address").parse().unwrap();
    shell(&format!(
        "nft 'add table ip taken
         add chain ip taken out {{ type nat hook output priority -100; }}
         add rule ip taken out ip daddr {} ip saddr != {SERVERS} tcp dport {} redirect to :{}'",
        place.ip(),
        place.port(),
        taker.port()
    ));
    client
}

#[test]
fn ten_thousand_connections_that_the_kernel_hands_over() {
    let missing = ["nft", "python3"]
        .into_iter()
        .find(|program| Command::new(program).arg("--version").output().is_err());
    if skipped::because(missing.map(|program| format!("not installed: {program}"))) {
        return;
    }
    let test = "handed::ten_thousand_connections_that_the_kernel_hands_over";
    in_namespace(test, || alone(240, ten_thousand()));
}

async fn ten_thousand() {
    let echo = Echo::start();
    let homes = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let args = ["server", "--listen=127.0.0.1:0", "--dial=127.0.0.1:9", "--from", SERVERS];
    let key = run(homes[0].path(), &["identity"]);
    assert_eq!(key.0, 0);
    // A list from the beginning, or the server would take anyone.
    let (code, _, why) =
        run(homes[0].path(), &["authorize", key.1.trim(), "--dial", "127.0.0.1:9"]);
    assert_eq!(code, 0, "{why}");
    let mut server = Imux::start(homes[0].path(), &args);
    let ready = server.line("server ready");
    let (at, key) = (field(&ready, "address").to_owned(), field(&ready, "key").to_owned());
    let places = GATEWAYS.map(|gateway| SocketAddr::new(gateway.parse().unwrap(), echo.1));
    let mut clients = [1, 2]
        .map(|number| gateway(places[number - 1], &server, &at, &key, [&homes[0], &homes[number]]));
    let before = clients.each_ref().map(Imux::rss_kib);
    let start = tokio::time::Instant::now();
    let mut open = Vec::new();
    for number in 0..EACH {
        for place in places {
            let mut socket = net::connect(place);
            socket.write_u32(u32::try_from(number).unwrap()).await.unwrap();
            open.push((number, socket));
        }
    }
    for round in 0..2 {
        for (number, socket) in &mut open {
            assert_eq!(socket.read_u32().await.unwrap() as usize, *number);
            if round == 0 {
                socket.write_u32(u32::try_from(*number).unwrap()).await.unwrap();
            }
        }
    }
    let after = clients.each_ref().map(Imux::rss_kib);
    println!(
        "{} connections at once, each heard twice: {:.1} s; KiB of the clients {before:?}, {after:?}",
        open.len(),
        start.elapsed().as_secs_f64()
    );
    for (before, after) in before.into_iter().zip(after) {
        let each = after.saturating_sub(before) / EACH as u64;
        assert!(each <= EACH_KIB_MAX, "{each} KiB for each connection");
    }
    for end in clients.iter_mut().chain([&mut server]) {
        assert!(end.is_running() && end.count("internal error") == 0);
    }
}
