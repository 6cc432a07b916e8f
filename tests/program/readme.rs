//! Whoever follows the README from its first line has both links in use.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::support::namespace::{Host, in_namespace, shell};
use crate::support::process::Imux;
use crate::support::terminal::OnTerminal;
use crate::support::{bounded, eventually};

/// The README's first command that begins like this: the words after the program's name.
fn first_command(beginning: &str) -> Vec<String> {
    let readme = include_str!("../../README.md").replace("\\\n", " ");
    let line = readme.lines().find(|line| line.starts_with(beginning)).unwrap();
    let command = line.split('#').next().unwrap();
    command.split_whitespace().skip(1).map(str::to_owned).collect()
}

/// This machine is the server's. The other one's two links have the README's names; neither is
/// fast.
fn machine_with_two_links() -> Host {
    let near = Host::new();
    for (number, name) in [(1, "eth0"), (2, "wwan0")] {
        let pid = near.pid();
        shell(&format!(
            "ip link add link{number} type veth peer name {name} netns {pid}
             ip link set link{number} up
             ip address add 10.77.{number}.1/24 dev link{number}"
        ));
        near.shell(&format!(
            "ip link set {name} up
             ip address add 10.77.{number}.2/24 dev {name}
             ip route add default via 10.77.{number}.1 dev {name} metric {number}00
             tc qdisc add dev {name} root tbf rate 80mbit burst 64kb latency 50ms"
        ));
    }
    shell("ip address add 203.0.113.5/32 dev lo");
    near
}

/// Bytes received on an interface of this machine.
fn received(interface: &str) -> u64 {
    let table = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    let line =
        table.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
    line.unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn the_first_example_for_two_machines_uses_both_links() {
    in_namespace("readme::the_first_example_for_two_machines_uses_both_links", || {
        let near = machine_with_two_links();
        bounded(60, async {
            let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let hosts = homes[0].path().join("hosts");
            std::fs::write(&hosts, "127.0.0.1 localhost\n203.0.113.5 server.example\n").unwrap();
            shell(&format!("mount --bind '{}' /etc/hosts", hosts.display()));
            // In sshd's place.
            let destination = TcpListener::bind("127.0.0.1:22").await.unwrap();
            let arrived = Arc::new(AtomicU64::new(0));
            let counting = arrived.clone();
            tokio::spawn(async move {
                let (mut socket, _) = destination.accept().await.unwrap();
                let mut buffer = vec![0; 64 << 10];
                while let Ok(got @ 1..) = socket.read(&mut buffer).await {
                    counting.fetch_add(got as u64, Ordering::Relaxed);
                }
            });

            let args = first_command("imux server ");
            let args: Vec<_> = args.iter().map(String::as_str).collect();
            let server = Imux::start(homes[0].path(), &args);
            let ready = server.line("server ready");
            let mut command = near.command(env!("CARGO_BIN_EXE_imux"));
            command.args(first_command("imux client ")).env("IMUX_HOME", homes[1].path());
            let mut client = OnTerminal::start(command.env_remove("RUST_LOG"));
            client.sees("presents key with fingerprint:");
            let key = ready.split("key=").nth(1).unwrap().split(' ').next().unwrap();
            client.sees(key);
            client.types("yes\n");
            client.sees("client ready");

            let sent = 16 << 20;
            let send = format!("exec 3<>/dev/tcp/localhost/2222; head -c {sent} /dev/zero >&3");
            let mut program: Command = near.command("bash");
            let mut program = program.args(["-c", &send]).spawn().unwrap();
            let all = || arrived.load(Ordering::Relaxed) == sent;
            eventually(40, "all has arrived", all).await;
            assert!(program.wait().unwrap().success());
            for link in ["link1", "link2"] {
                let carried = received(link);
                assert!(carried > sent / 5, "{link} has carried {carried} of {sent} bytes");
            }
        });
    });
}
