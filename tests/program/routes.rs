//! Binds to an address whose packets the routing table sends elsewhere.

use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::bounded;
use crate::support::namespace::{Host, in_namespace, shell};
use crate::support::net::Destination;
use crate::support::process::{Imux, field};

/// Two links to one far machine with the addresses 10.77.0.1 and fd77::1; the first is the route
/// there, the second only the second choice.
fn two_links() -> Host {
    let far = Host::new();
    for (number, metric) in [(1, 10), (2, 20)] {
        let pid = far.pid();
        shell(&format!(
            "ip link add near{number} type veth peer name far{number} netns {pid}
             ip link set near{number} up
             ip address add 10.77.{number}.2/24 dev near{number}
             ip address add fd77:{number}::2/64 dev near{number} nodad"
        ));
        far.shell(&format!(
            "ip link set far{number} up
             ip address add 10.77.{number}.1/24 dev far{number}
             ip address add fd77:{number}::1/64 dev far{number} nodad"
        ));
        shell(&format!(
            "ip route add default via 10.77.{number}.1 dev near{number} metric {metric}
             ip -6 route add default via fd77:{number}::1 dev near{number} metric {metric}"
        ));
    }
    far.shell("ip address add 10.77.0.1/32 dev lo; ip address add fd77::1/128 dev lo nodad");
    far
}

#[test]
fn lanes_that_leave_by_another_interface_are_told_with_what_mends_it() {
    let test = "routes::lanes_that_leave_by_another_interface_are_told_with_what_mends_it";
    in_namespace(test, || {
        let far = two_links();
        bounded(60, async {
            let destination = Destination::start_at("10.77.1.2:0", crate::support::net::echo).await;
            let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let to = destination.addr.to_string();
            let args = ["server", "--listen", ":7443", "--dial", &to];
            let server = Imux::start_at(&far, homes[0].path(), &args);
            let key = field(&server.line("server ready"), "key").to_owned();
            let client = |dial: &str, binds: [&str; 2]| {
                let args = ["client", "--listen", "127.0.0.1:0", "--dial", dial, "--pin", &key];
                let binds = ["--bind", binds[0], "--bind", binds[1]];
                Imux::start(homes[1].path(), &[&args[..], &binds].concat())
            };
            for (dial, first, second, ip) in [
                ("10.77.0.1:7443", "10.77.1.2", "10.77.2.2", "ip"),
                ("[fd77::1]:7443", "fd77:1::2", "fd77:2::2", "ip -6"),
            ] {
                let before = client(dial, [first, second]);
                echoes(&before).await;
                let told = before.line("leave by");
                assert!(told.contains(&format!("lanes of {second} leave by near1")), "{told}");
                assert!(told.contains("near2 has that address"), "{told}");
                assert!(told.contains("--bind dev:near2"), "{told}");
                assert_eq!(before.count("leave by"), 1, "{}", before.log());
                // What it says fixes it.
                let commands: Vec<_> = told.split('`').skip(1).step_by(2).collect();
                assert_eq!(commands.len(), 2, "{told}");
                for command in commands {
                    assert!(command.starts_with(&format!("{ip} r")), "{command}");
                    shell(command);
                }
                let way = Command::new("ip")
                    .args([
                        "route",
                        "get",
                        dial.rsplit_once(':').unwrap().0.trim_matches(['[', ']']),
                    ])
                    .args(["from", second])
                    .output()
                    .unwrap();
                assert!(String::from_utf8_lossy(&way.stdout).contains("dev near2"));
                let after = client(dial, [first, second]);
                echoes(&after).await;
                after.line(&format!("via=\"{second}\""));
                assert_eq!(after.count("leave by"), 0, "{}", after.log());
            }
            let devices = client("10.77.0.1:7443", ["dev:near1=1", "dev:near2=1"]);
            echoes(&devices).await;
            assert_eq!(devices.count("leave by"), 0, "{}", devices.log());
        });
    });
}

async fn echoes(client: &Imux) {
    let mut socket = TcpStream::connect(client.ready()).await.unwrap();
    socket.write_all(b"?").await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'?');
}
