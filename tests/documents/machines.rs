//! Machines that are named and addressed as in the documents: the server's (this network), a
//! client's with three links, and one with destinations behind the server's.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::namespace::{Host, shell};

/// The client's links: what they are called, the client's address, and the router's.
const LINKS: [(&str, &str, &str); 3] = [
    ("eth0", "192.168.1.2", "192.168.1.1"),
    ("wlan0", "192.168.3.2", "192.168.3.1"),
    ("wwan0", "10.0.0.2", "10.0.0.1"),
];

const NAMES: &str = "127.0.0.1 localhost\n203.0.113.5 server.example\n10.1.0.7 db.example\n";

pub(crate) struct Machines {
    pub(crate) near: Host,
    _behind: Host,
    _files: TempDir,
}

impl Machines {
    /// For use within `in_namespace`.
    pub(crate) fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let hosts = files.path().join("hosts");
        fs::write(&hosts, NAMES).unwrap();
        shell(&format!("mount --bind '{}' /etc/hosts", hosts.display()));
        shell("ip address add 203.0.113.5/32 dev lo");
        let near = Host::new();
        for (number, (name, address, router)) in LINKS.into_iter().enumerate() {
            let pid = near.pid();
            shell(&format!(
                "ip link add link{number} type veth peer name {name} netns {pid}
                 ip link set link{number} up
                 ip address add {router}/24 dev link{number}"
            ));
            near.shell(&format!(
                "ip link set {name} up
                 ip address add {address}/24 dev {name}
                 ip route add default via {router} dev {name} metric {}",
                100 + number
            ));
        }
        // What is behind it, where it is a router.
        near.shell("ip link add eth1 type veth peer name lan; ip link set eth1 up");
        let behind = Host::new();
        shell(&format!(
            "ip link add office type veth peer name office netns {}
             ip link set office up
             ip address add 192.168.7.1/24 dev office
             ip address add 10.1.0.1/16 dev office",
            behind.pid()
        ));
        behind.shell(
            "ip link set office up
             ip address add 192.168.7.20/24 dev office
             ip address add 10.1.0.7/16 dev office",
        );
        serve("127.0.0.1:22");
        near.run(|| serve("127.0.0.1:80"));
        behind.run(|| ["10.1.0.7:5432", "192.168.7.20:80", "192.168.7.20:53"].map(serve));
        behind.run(|| ["192.168.7.20:53", "192.168.7.20:51820"].map(serve_datagrams));
        near.run(|| serve_datagrams("127.0.0.1:27015"));
        Self { near, _behind: behind, _files: files }
    }

    /// Connects from the client's machine, and has it answered: the destination that answered.
    #[track_caller]
    pub(crate) fn destination(&self, at: &str) -> String {
        let socket = self.near.run(|| TcpStream::connect(at));
        let mut socket = socket.unwrap_or_else(|error| panic!("{at}: {error}"));
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.write_all(b"who is there?").unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (destination, echo) = answer.split_once(' ').unwrap_or_default();
        assert_eq!(echo, "who is there?", "{at}");
        destination.to_owned()
    }

    /// Sends datagrams from the client's machine until one is answered: the destination that
    /// answered.
    #[track_caller]
    pub(crate) fn destination_of_datagrams(&self, at: &str) -> String {
        let socket = self.near.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        self.near.run(|| socket.connect(at)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut space = [0; 1_500];
        for _ in 0..100 {
            let sent = socket.send(b"who is there?");
            let Ok(len) = sent.and_then(|_| socket.recv(&mut space)) else { continue };
            let answer = String::from_utf8_lossy(&space[..len]).into_owned();
            let (destination, echo) = answer.split_once(' ').unwrap_or_default();
            assert_eq!(echo, "who is there?", "{at}");
            return destination.to_owned();
        }
        panic!("no datagram came from {at}")
    }

    /// The same as [`destination`](Self::destination), through a SOCKS5 proxy.
    #[track_caller]
    pub(crate) fn by_proxy(&self, at: &str, host: &str, port: u16) -> String {
        let mut socket = self.near.run(|| TcpStream::connect(at)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let length = [u8::try_from(host.len()).unwrap()];
        let request = [&[5, 1, 0, 5, 1, 0, 3], &length[..], host.as_bytes(), &port.to_be_bytes()];
        socket.write_all(&request.concat()).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.get(..4), Some(&[5, 0, 5, 0][..]), "{at}");
        String::from_utf8(answer.split_off(12)).unwrap().trim().to_owned()
    }

    /// A command for a program on the server's machine, or on the client's.
    pub(crate) fn command(&self, near: bool, program: &str, home: &Path) -> std::process::Command {
        let mut command =
            if near { self.near.command(program) } else { std::process::Command::new(program) };
        command.env("IMUX_HOME", home).env_remove("RUST_LOG").stdin(std::process::Stdio::null());
        command
    }
}

/// A destination in the network of this thread: says its address, and then what it was told.
fn serve(address: &'static str) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            std::thread::spawn(move || {
                let mut text = Vec::new();
                let _ = socket.read_to_end(&mut text);
                let _ = socket.write_all(&[address.as_bytes(), b" ", &text].concat());
            });
        }
    });
}

/// The same for datagrams.
fn serve_datagrams(address: &'static str) {
    let socket = UdpSocket::bind(address).unwrap();
    std::thread::spawn(move || {
        let mut space = [0; 1_500];
        loop {
            let (len, from) = socket.recv_from(&mut space).unwrap();
            let answer = [address.as_bytes(), b" ", &space[..len]].concat();
            let _ = socket.send_to(&answer, from);
        }
    });
}
