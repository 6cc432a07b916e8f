//! DNS: unbound, asked by dig, and through SOCKS.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::support::net::{connect, unused_port};
use crate::support::pair::Pair;
use crate::support::process::field;
use crate::{Daemon, bounded, command, installed, run};

/// More than a datagram of DNS: dig asks again over TCP.
const LONG: usize = 40;

async fn name_server() -> Daemon {
    Daemon::start(tempfile::tempdir().unwrap(), |folder, addr| {
        let long = (0..LONG).map(|number| {
            format!("  local-data: 'long.example. TXT \"{}\"'\n", number.to_string().repeat(60))
        });
        let text = format!(
            "server:
  interface: {}@{}
  chroot: \"\"
  username: \"\"
  directory: \"{}\"
  pidfile: \"\"
  use-syslog: no
  do-daemonize: no
  num-threads: 1
  module-config: iterator
  local-zone: \"example.\" static
  local-data: \"short.example. A 192.0.2.77\"
  local-data: \"short.example. AAAA 2001:db8::77\"
{}
remote-control:
  control-enable: no
",
            addr.ip(),
            addr.port(),
            folder.display(),
            long.collect::<String>()
        );
        let file = folder.join("unbound.conf");
        fs::write(&file, text).unwrap();
        let mut unbound = command("unbound");
        unbound.arg("-d").arg("-c").arg(file).stdout(Stdio::null());
        unbound
    })
    .await
}

/// What dig is answered: the records, sorted.
async fn dig(port: u16, how: &[&str]) -> Vec<String> {
    let mut dig = command("dig");
    dig.args(["@127.0.0.1", "-p", &port.to_string(), "+tries=5", "+timeout=2", "+noall"]);
    dig.args(["+answer"]).args(how);
    let said = String::from_utf8(run(dig).await.stdout).unwrap();
    let mut lines: Vec<_> =
        said.lines().filter(|line| line.contains("\tIN\t")).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn dig_is_answered_as_it_is_directly() {
    if !installed(&["unbound", "dig"]) {
        return;
    }
    bounded(async {
        let daemon = name_server().await;
        let there = daemon.addr;
        let pair =
            Pair::server("127.0.0.1:9", Some(&format!("dial=\"{there}\",dial=\"udp:{there}\"")));
        // One number for both.
        let here = unused_port().await;
        let forwards = [format!("{here}:{there}"), format!("udp:{here}:{there}")];
        let client = pair.client(&["-L", &forwards[0], "-L", &forwards[1]]);
        client.nth_line("client ready", 2);
        for (how, count) in [
            (&["short.example", "A"][..], 1),
            (&["short.example", "AAAA"], 1),
            (&["+tcp", "short.example", "A"], 1),
            (&["+notcp", "long.example", "TXT"], LONG),
            (&["none.example", "A"], 0),
        ] {
            let [direct, through] = [dig(there.port(), how).await, dig(here.port(), how).await];
            assert_eq!((direct.len(), &through), (count, &direct), "{how:?}");
        }
        let many = (0..50).map(|_| dig(here.port(), &["short.example", "A"]));
        for answer in futures::future::join_all(many).await {
            assert_eq!(answer.len(), 1);
        }
        assert_eq!((client.count("WARN"), pair.server.count("WARN")), (0, 0));
    });
}

/// A question for the address of `short.example`.
const QUESTION: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x05short\x07example\0\0\x01\0\x01";

#[test]
fn a_name_server_answers_through_socks() {
    if !installed(&["unbound"]) {
        return;
    }
    bounded(async {
        let daemon = name_server().await;
        let there = daemon.addr;
        let pair = Pair::server("127.0.0.1:9", Some(&format!("dial=\"udp:{there}\"")));
        let client = pair.client(&["-D", "127.0.0.1:0"]);
        let proxy = field(&client.line("client ready"), "address").to_owned();
        let mut held = connect(proxy);
        held.write_all(&[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
        let mut reply = [0; 12];
        held.read_exact(&mut reply).await.unwrap();
        assert_eq!(reply[..10], [5, 0, 5, 0, 0, 1, 127, 0, 0, 1]);
        let relay = ("127.0.0.1", u16::from_be_bytes([reply[10], reply[11]]));
        let [high, low] = there.port().to_be_bytes();
        let header = [0, 0, 0, 1, 127, 0, 0, 1, high, low];
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&[&header, QUESTION].concat(), relay).await.unwrap();
        let mut space = [0; 1_500];
        let answer = timeout(Duration::from_secs(20), socket.recv(&mut space)).await;
        let answer = &space[..answer.unwrap().unwrap()];
        let (front, answer) = answer.split_at(header.len());
        assert_eq!((front, &answer[..2]), (&header[..], &QUESTION[..2]));
        // One record, which ends with the address.
        assert_eq!((&answer[6..8], answer.ends_with(&[192, 0, 2, 77])), (&[0, 1][..], true));
    });
}
