//! Links whose interfaces vanish, come back, are renamed, get another address or lose their route:
//! lanes follow at once, and streams live on.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::namespace::{Host, in_namespace, shell};
use crate::support::net::{self, Destination};
use crate::support::process::{Imux, field};
use crate::support::{bounded, eventually};

/// A machine with the server and its destination, at 203.0.113.1.
pub(crate) struct Far {
    host: Host,
    key: String,
    server: Imux,
    _destination: Destination,
    homes: [tempfile::TempDir; 2],
}

impl Far {
    pub(crate) fn new() -> Self {
        let host = Host::new();
        host.shell("ip address add 203.0.113.1/32 dev lo");
        let listener = host.run(|| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let to = listener.local_addr().unwrap().to_string();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let args = ["server", "--listen", ":7443", "--dial", &to];
        let server = Imux::start_at(&host, homes[0].path(), &args);
        let key = field(&server.line("server ready"), "key").to_owned();
        let destination = Destination::on(listener, net::echo);
        Self { host, key, server, _destination: destination, homes }
    }

    pub(crate) fn server(&self) -> &Imux {
        &self.server
    }

    /// A link to it; the near end is `near<number>` with the address 10.77.<number>.2.
    pub(crate) fn link(&self, number: u8) {
        let pid = self.host.pid();
        shell(&format!(
            "ip link add near{number} type veth peer name far{number} netns {pid}
             ip link set near{number} up
             ip address add 10.77.{number}.2/24 dev near{number}
             ip route add default via 10.77.{number}.1 dev near{number} metric {number}0"
        ));
        self.host.shell(&format!(
            "ip link set far{number} up; ip address add 10.77.{number}.1/24 dev far{number}"
        ));
    }

    pub(crate) fn client(&self, binds: &[&str]) -> Imux {
        let to = ["--dial", "203.0.113.1:7443", "--pin", &self.key];
        let args = [&["client", "--listen", "127.0.0.1:0"], &to[..], binds].concat();
        Imux::start(self.homes[1].path(), &args)
    }
}

/// A connection that is used all the time; it has to live on.
async fn in_use(client: &Imux) -> tokio::task::JoinHandle<()> {
    let mut socket = TcpStream::connect(client.ready()).await.unwrap();
    tokio::spawn(async move {
        for number in 0u64.. {
            socket.write_u64(number).await.unwrap();
            assert_eq!(socket.read_u64().await.unwrap(), number);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
}

fn ups(client: &Imux, via: &str) -> usize {
    client.lines_with(&["lane up", &format!("via=\"{via}\"")])
}

/// Lanes that have ended because of what netlink said, not because they had fallen silent.
fn changed(client: &Imux, via: &str) -> usize {
    client.lines_with(&[
        "lane down",
        &format!("via=\"{via}\""),
        "its link is paused or has changed",
    ])
}

/// Does something to the network; `via`'s lanes have to end because of it.
async fn loses(client: &Imux, via: &str, script: &str) {
    let before = changed(client, via);
    shell(script);
    eventually(10, script, || changed(client, via) > before).await;
}

/// Does something to the network; `via` has to get lanes because of it.
async fn gains(client: &Imux, via: &str, change: impl FnOnce()) {
    let before = ups(client, via);
    change();
    eventually(10, "lanes are up again", || ups(client, via) > before).await;
}

#[test]
fn lanes_follow_their_interface_and_address() {
    in_namespace("links::lanes_follow_their_interface_and_address", || {
        bounded(120, async {
            let far = Far::new();
            far.link(1);
            far.link(2);
            let (device, address) = ("dev:near1", "10.77.2.2");
            let mut client = far.client(&["--bind", "dev:near1=2", "--bind", "10.77.2.2=2"]);
            let used = in_use(&client).await;
            for via in [device, address] {
                eventually(10, via, || ups(&client, via) >= 2).await;
            }
            loses(&client, device, "ip link delete near1").await;
            gains(&client, device, || far.link(1)).await;
            // Renamed, and back again.
            loses(&client, device, "ip link set near1 down; ip link set near1 name other0").await;
            let back = "ip link set other0 name near1; ip link set near1 up
                        ip route add default via 10.77.1.1 dev near1 metric 10";
            gains(&client, device, || shell(back)).await;
            // Another address: a link that is a device gets its lanes from there.
            let another = "ip address delete 10.77.1.2/24 dev near1
                           ip address add 10.77.1.7/24 dev near1
                           ip route add default via 10.77.1.1 dev near1 metric 10";
            let before = ups(&client, device);
            loses(&client, device, another).await;
            eventually(10, "it has lanes again", || ups(&client, device) > before).await;
            // One that is an address waits for it.
            loses(&client, address, "ip address delete 10.77.2.2/24 dev near2").await;
            let returned = "ip address add 10.77.2.2/24 dev near2
                            ip route add default via 10.77.2.1 dev near2 metric 20";
            gains(&client, address, || shell(returned)).await;
            // No route any more, and a route again; an interface may reach the server without one.
            let route = "default via 10.77.1.1 dev near1 metric 10";
            let before = ups(&client, device);
            loses(&client, device, &format!("ip route delete {route}")).await;
            shell(&format!("ip route add {route}"));
            eventually(10, "it has lanes again", || ups(&client, device) > before).await;
            assert!(!used.is_finished(), "the connection was cut");
            used.abort();
            assert!(client.is_running() && client.count("internal error") == 0);
        });
    });
}

#[test]
fn lanes_without_a_bind_follow_the_default_route() {
    in_namespace("links::lanes_without_a_bind_follow_the_default_route", || {
        bounded(60, async {
            let far = Far::new();
            far.link(1);
            far.link(2);
            let client = far.client(&["--bind", "any=2"]);
            let used = in_use(&client).await;
            eventually(10, "lanes", || ups(&client, "any") >= 2).await;
            let before = ups(&client, "any");
            let moved = "ip route add default via 10.77.2.1 dev near2 metric 5";
            loses(&client, "any", moved).await;
            eventually(10, "they go the other way", || ups(&client, "any") >= before + 2).await;
            // What concerns nobody is no reason.
            let ended = changed(&client, "any");
            shell(
                "ip link add unused type veth peer name unused1; ip link set unused up; ip link delete unused",
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(changed(&client, "any"), ended);
            assert!(!used.is_finished(), "the connection was cut");
            used.abort();
        });
    });
}

/// A connection that carries as much as it can.
async fn bulk(client: &Imux) -> [tokio::task::JoinHandle<()>; 2] {
    let (mut read, mut write) = TcpStream::connect(client.ready()).await.unwrap().into_split();
    let sending = tokio::spawn(async move { while write.write_all(&[7; 16_384]).await.is_ok() {} });
    let receiving = tokio::spawn(async move {
        let mut got = [0; 16_384];
        while read.read(&mut got).await.unwrap() > 0 {
            assert!(got.iter().all(|byte| *byte == 0 || *byte == 7));
        }
    });
    [sending, receiving]
}

fn carried(interface: &str) -> u64 {
    let file = format!("/sys/class/net/{interface}/statistics/rx_bytes");
    std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

#[test]
fn auto_is_every_interface_that_leads_out_and_those_that_come_later() {
    in_namespace("links::auto_is_every_interface_that_leads_out_and_those_that_come_later", || {
        // Another namespace's interfaces are shown by another /sys.
        shell("mount -t sysfs sysfs /sys");
        bounded(90, async {
            let far = Far::new();
            far.link(1);
            far.link(2);
            // What leads nowhere, or over the others.
            shell(
                "ip link add inside type bridge; ip link set inside up
                 ip address add 172.30.0.1/24 dev inside
                 ip route add default via 172.30.0.9 dev inside metric 1000
                 ip link add host0 type veth peer name host1; ip link set host0 up; ip link set host1 up
                 ip address add 172.31.0.1/24 dev host0",
            );
            let mut client = far.client(&["--bind", "auto=2,rate=8mbit"]);
            for via in ["dev:near1", "dev:near2"] {
                eventually(10, via, || ups(&client, via) >= 2).await;
            }
            let transfer = bulk(&client).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            gains(&client, "dev:near3", || far.link(3)).await;
            eventually(10, "it carries its part", || carried("near3") > 1_000_000).await;
            loses(&client, "dev:near1", "ip link delete near1").await;
            let before = carried("near3");
            eventually(10, "the others go on", || carried("near3") > before + 1_000_000).await;
            assert!(transfer.iter().all(|half| !half.is_finished()), "the connection was cut");
            transfer.iter().for_each(tokio::task::JoinHandle::abort);
            for other in ["dev:inside", "dev:host0", "dev:lo"] {
                assert_eq!(client.count(other), 0, "{}", client.log());
            }
            assert!(client.is_running() && client.count("internal error") == 0);
        });
    });
}

#[test]
fn where_nothing_leads_out_it_is_said_or_waited_for() {
    in_namespace("links::where_nothing_leads_out_it_is_said_or_waited_for", || {
        bounded(60, async {
            let far = Far::new();
            let args = ["client", "--listen", "127.0.0.1:0", "--dial", "203.0.113.1:7443"];
            let all = [&args[..], &["--pin", &far.key, "--bind", "auto"]].concat();
            let (code, _, why) = crate::support::process::run(far.homes[1].path(), &all);
            assert_eq!(code, 5, "{why}");
            assert!(why.contains("no interface leads out") && why.contains("dev:eth0"), "{why}");
            let client = far.client(&["--bind", "auto,only=near*", "--keep-trying"]);
            client.line("waiting for one");
            far.link(1);
            client.line("client ready");
            let used = in_use(&client).await;
            far.link(2);
            eventually(10, "the second is used", || ups(&client, "dev:near2") > 0).await;
            assert!(!used.is_finished(), "the connection was cut");
            used.abort();
        });
    });
}
