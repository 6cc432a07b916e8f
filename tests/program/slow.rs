//! Links of 64 to 256 kbit/s: a download fills them, an echo beside it is answered, and no lane is
//! given up.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::support::bounded;
use crate::support::namespace::{Host, cannot, in_namespace, shell};
use crate::support::net::{Destination, echo};
use crate::support::process::{Imux, field};
use crate::support::skipped;

/// A link to the far machine, and the lanes on it.
#[derive(Clone, Copy, Debug)]
struct Slow {
    kbit: u64,
    queue_bytes: u32,
    lanes: u32,
}

const LINKS: [Slow; 5] = [
    Slow { kbit: 64, queue_bytes: 16_000, lanes: 1 },
    Slow { kbit: 64, queue_bytes: 32_000, lanes: 4 },
    Slow { kbit: 96, queue_bytes: 12_000, lanes: 2 },
    Slow { kbit: 128, queue_bytes: 64_000, lanes: 3 },
    Slow { kbit: 256, queue_bytes: 128_000, lanes: 4 },
];

/// How long a connection settles before it is measured, and how long it is then.
const BEGIN: Duration = Duration::from_secs(12);
const MEASURED: Duration = Duration::from_secs(16);

/// Number 0 is as fast as it can be.
fn link(far: &Host, number: usize) {
    let pid = far.pid();
    shell(&format!(
        "ip link add near{number} type veth peer name far{number} netns {pid}
         ip link set near{number} up
         ip address add 10.78.{number}.2/24 dev near{number}"
    ));
    far.shell(&format!(
        "ip link set far{number} up; ip address add 10.78.{number}.1/24 dev far{number}"
    ));
}

fn make_slow(far: &Host, number: usize, slow: Slow) {
    let Slow { kbit, queue_bytes, .. } = slow;
    let queue = format!("root tbf rate {kbit}kbit burst 1600 limit {queue_bytes}");
    shell(&format!("tc qdisc add dev near{number} {queue}"));
    far.shell(&format!("tc qdisc add dev far{number} {queue}"));
}

/// Sends without end if asked to, and echoes otherwise.
async fn two_kinds(mut socket: TcpStream) {
    if socket.read_u8().await.is_ok_and(|kind| kind == b's') {
        while socket.write_all(&[5; 8 << 10]).await.is_ok() {}
    } else {
        echo(socket).await;
    }
}

/// Bytes that came while it was measured.
async fn download(client: SocketAddr, begin: Instant) -> u64 {
    let mut socket = TcpStream::connect(client).await.unwrap();
    socket.write_all(b"s").await.unwrap();
    let (mut block, mut bytes) = (vec![0; 16 << 10], 0);
    let (from, until) = (begin + BEGIN, begin + BEGIN + MEASURED);
    while let Ok(read) = timeout_at(until, socket.read(&mut block)).await {
        let read = read.unwrap();
        assert_ne!(read, 0, "the download has ended");
        bytes += if Instant::now() > from { read as u64 } else { 0 };
    }
    bytes
}

/// How long each of some echoes took.
async fn echoes(client: SocketAddr, begin: Instant) -> Vec<Duration> {
    let mut socket = TcpStream::connect(client).await.unwrap();
    let mut took = Vec::new();
    sleep_until(begin + BEGIN).await;
    socket.write_all(b"e").await.unwrap();
    while begin.elapsed() < BEGIN + MEASURED {
        let sent = Instant::now();
        socket.write_all(&[9; 50]).await.unwrap();
        socket.read_exact(&mut [0; 50]).await.unwrap();
        took.push(sent.elapsed());
        sleep_until(sent + Duration::from_millis(400)).await;
    }
    took.sort_unstable();
    took
}

#[test]
fn slow_links_are_filled_and_none_of_their_lanes_is_given_up() {
    let test = "slow::slow_links_are_filled_and_none_of_their_lanes_is_given_up";
    in_namespace(test, || {
        let limited = "tc qdisc add dev lo root tbf rate 1gbit burst 64kb limit 1mb
             tc qdisc del dev lo root";
        if skipped::because(cannot(limited)) {
            return;
        }
        let far = Host::new();
        (0..=LINKS.len()).for_each(|number| link(&far, number));
        (1..).zip(LINKS).for_each(|(number, slow)| make_slow(&far, number, slow));
        bounded(100, async {
            let destination = Destination::start_at("10.78.0.2:0", two_kinds).await;
            let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let to = destination.addr.to_string();
            let args = ["server", "--listen", ":7443", "--dial", &to];
            let server = Imux::start_at(&far, homes[0].path(), &args);
            let key = field(&server.line("server ready"), "key").to_owned();
            let clients = (1..).zip(LINKS).map(|(number, slow): (usize, _)| {
                let dial = format!("10.78.{number}.1:7443");
                let bind = format!("10.78.{number}.2={}", slow.lanes);
                let args = ["client", "--listen", "127.0.0.1:0", "--dial", &dial, "--pin", &key];
                Imux::start(homes[1].path(), &[&args[..], &["--bind", &bind]].concat())
            });
            let clients: Vec<_> = clients.collect();
            let at: Vec<_> = clients.iter().map(Imux::ready).collect();
            let begin = Instant::now();
            let tasks = at
                .iter()
                .map(|at| (tokio::spawn(download(*at, begin)), tokio::spawn(echoes(*at, begin))));
            let tasks: Vec<_> = tasks.collect();
            for ((slow, client), (download, echoes)) in LINKS.iter().zip(&clients).zip(tasks) {
                let bytes = download.await.unwrap() as f64;
                let took = echoes.await.unwrap();
                let share = bytes / MEASURED.as_secs_f64() / (slow.kbit as f64 * 125.0);
                let (usual, most) = (took[took.len() / 2], took[took.len() - 1]);
                let told = format!("{slow:?}: share {share:.2}, echo {usual:.2?}, most {most:.2?}");
                println!("{told}");
                assert!(share > 0.65, "{told}");
                assert!(usual < Duration::from_secs(3), "{told}");
                assert!(most < Duration::from_secs(10), "{told}");
                assert_eq!(client.count("lane timed out"), 0, "{told}\n{}", client.log());
            }
            assert_eq!(server.count("lane timed out"), 0, "{}", server.log());
        });
    });
}
