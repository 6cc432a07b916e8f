//! Whole machines and networks through the tunnel: a LAN host, a gateway with two links, a machine
//! with the server, and one that stands for the internet.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::namespace::{Host, in_namespace, in_namespace_of_root, shell};
use crate::support::process::{self, Imux, field};
use crate::support::{bytes::Pattern, eventually};
use crate::{assert_same, bounded, file, find, installed};

mod datagrams;
mod refusals;
mod rules;

/// The internet's addresses.
const INTERNET: [&str; 2] = ["198.51.100.7", "[2001:db8:7::7]"];

/// Those of the server's machine by which it goes there: what comes by the tunnel comes from these.
const SERVERS: [&str; 2] = ["198.51.100.1", "2001:db8:7::1"];

/// The LAN host's.
const LAN: [&str; 2] = ["10.88.0.2", "fd88::2"];

/// What the gateway's machine has of its own towards the internet.
const LINKS: [&str; 2] = ["10.77.1.2", "fd77:1::2"];

/// A web server that tells who asks, and has files; one at port 53 that tells the same; and some
/// that tell who sends them datagrams, and of how many bytes: that of port 53 as name servers do.
const WEB: &str = "
import functools, http.server, socket, sys, threading, time
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path != '/who':
            return super().do_GET()
        who = self.client_address[0].removeprefix('::ffff:').encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(who)))
        self.end_headers()
        self.wfile.write(who)
    def log_message(self, *args):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 1024
    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()
def told(who, asked, port):
    who = who[0].removeprefix('::ffff:').encode()
    if port != 53:
        return who + b' %d' % len(asked)
    # The name that was asked about has a text.
    question = asked[12:asked.index(0, 12) + 5]
    head = asked[:2] + bytes([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0])
    text = bytes([len(who)]) + who
    return head + question + bytes([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0, 0, len(text)]) + text
def datagrams(port):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('::', port))
    while True:
        asked, who = s.recvfrom(65536)
        if asked.startswith(b'later'):
            time.sleep(3)
        s.sendto(told(who, asked, port), who)
for port in map(int, sys.argv[2:]):
    threading.Thread(target=datagrams, args=[port], daemon=True).start()
handler = functools.partial(Handler, directory=sys.argv[1])
names = Server(('::', 53), handler)
threading.Thread(target=names.serve_forever, daemon=True).start()
Server(('::', 80), handler).serve_forever()
";

/// The four machines; the gateway is the test's own. Fields are dropped in this order.
struct World {
    _web: [Running; 2],
    server: Option<Imux>,
    lan: Host,
    far: Host,
    internet: Host,
    key: String,
    homes: [TempDir; 2],
    files: TempDir,
}

/// A program that is ended when dropped.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn here() -> bool {
    installed(&["nft", "ip", "curl", "git", "python3", "dig"])
}

/// Runs a test in a world of its own; `test` is its full name.
#[track_caller]
fn in_world(test: &str, body: impl AsyncFnOnce(World)) {
    if here() {
        in_namespace(test, || bounded(async { body(World::new().await).await }));
    }
}

fn link(near: &str, far: &str, host: &Host, addresses: [[&str; 2]; 2]) {
    let pid = host.pid();
    let [[v4, v6], [far_v4, far_v6]] = addresses;
    shell(&format!(
        "ip link add {near} type veth peer name {far} netns {pid}
         ip link set {near} up
         ip address add {v4} dev {near}
         ip address add {v6} dev {near} nodad"
    ));
    host.shell(&format!(
        "ip link set {far} up
         ip address add {far_v4} dev {far}
         ip address add {far_v6} dev {far} nodad"
    ));
}

const FORWARDS: &str = "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1";

/// Of the gateway, to the server's machine.
fn two_links(far: &Host) {
    for (number, metric) in [(1, 10), (2, 20)] {
        let (near, other) = (format!("near{number}"), format!("far{number}"));
        let end = |end| [format!("10.77.{number}.{end}/24"), format!("fd77:{number}::{end}/64")];
        let (ours, theirs) = (end(2), end(1));
        let (ours, theirs) = ([&*ours[0], &*ours[1]], [&*theirs[0], &*theirs[1]]);
        link(&near, &other, far, [ours, theirs]);
        shell(&format!(
            "ip route add default via 10.77.{number}.1 dev {near} metric {metric}
             ip -6 route add default via fd77:{number}::1 dev {near} metric {metric}"
        ));
    }
}

/// Makes the other machines and their links; each forwards what is for others.
fn machines() -> (Host, Host, Host) {
    let (lan, far, internet) = (Host::new(), Host::new(), Host::new());
    // Addresses that are still being made certain of would be changes of the state.
    let certain = "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0";
    shell(certain);
    shell("sysctl -qw net.ipv4.conf.all.src_valid_mark=0");
    for host in [&lan, &far, &internet] {
        host.shell(certain);
    }
    link("lan0", "eth0", &lan, [["10.88.0.1/24", "fd88::1/64"], ["10.88.0.2/24", "fd88::2/64"]]);
    two_links(&far);
    shell(&format!(
        "{FORWARDS}; ip link add nowhere0 type veth peer name nowhere1; ip link set nowhere0 up; ip link set nowhere1 up"
    ));
    let (far_pid, internet_pid) = (far.pid(), internet.pid());
    far.shell(&format!(
        "{FORWARDS}
         ip address add 203.0.113.1/32 dev lo
         ip address add 2001:db8:1::1/128 dev lo nodad
         ip route add 10.88.0.0/24 via 10.77.1.2
         ip -6 route add fd88::/64 via fd77:1::2
         ip link add out type veth peer name in0
         ip link set out up
         ip address add 198.51.100.1/24 dev out
         ip address add 2001:db8:7::1/64 dev out nodad
         nft 'table inet seen {{ counter beside {{}}; counter names {{}}; chain seen {{
             type filter hook prerouting priority raw; iifname != {{ far1, far2 }} accept;
             udp dport 53 counter name names; tcp dport 53 counter name names;
             ip daddr {{ 203.0.113.1, 10.77.0.0/16, 224.0.0.0/4 }} accept;
             ip6 daddr {{ 2001:db8:1::1, fd77::/16, fe80::/10, ff00::/8 }} accept;
             counter name beside; }}; }}'"
    ));
    shell(&format!("nsenter --net=/proc/{far_pid}/ns/net ip link set in0 netns {internet_pid}"));
    internet.shell(
        "ip link set in0 up
         ip address add 198.51.100.7/24 dev in0
         ip address add 2001:db8:7::7/64 dev in0 nodad
         ip route add default via 198.51.100.1
         ip -6 route add default via 2001:db8:7::1",
    );
    lan.shell("ip route add default via 10.88.0.1; ip -6 route add default via fd88::1");
    (lan, far, internet)
}

impl World {
    async fn new() -> Self {
        let (lan, far, internet) = machines();
        let files = tempfile::tempdir().unwrap();
        file(files.path().join("large"), 1, 12_000_000);
        let web = [&internet, &far].map(|host| {
            let mut python = host.command("python3");
            python.args(["-c", WEB]).arg(files.path()).args(["53", "443", "9000"]);
            python.stdin(Stdio::null()).stderr(Stdio::null());
            Running(python.spawn().unwrap())
        });
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (_, own, _) = process::run(homes[1].path(), &["identity"]);
        let (code, _, why) = process::run(
            homes[0].path(),
            &["authorize", own.trim(), "--dial", "*:*", "--dial", "udp:*:*"],
        );
        assert_eq!(code, 0, "{why}");
        let mut world =
            Self { _web: web, server: None, lan, far, internet, key: String::new(), homes, files };
        world.start_server();
        for host in [&world.internet, &world.far] {
            let answers = || {
                let args = ["-s", "-o", "/dev/null", "--max-time", "5", "http://127.0.0.1:53/who"];
                host.command("curl").args(args).status().unwrap().success()
            };
            eventually(30, "the web server answers", answers).await;
        }
        world
    }

    fn start_server(&mut self) {
        let args = ["server", "--listen", ":7443", "--dial", "127.0.0.1:80"];
        let server = Imux::start_at(&self.far, self.homes[0].path(), &args);
        self.key = field(&server.line("server ready"), "key").to_owned();
        self.server = Some(server);
    }

    fn client_args(&self) -> [String; 10] {
        [
            "client",
            "--dial",
            "203.0.113.1:7443",
            "--transparent",
            "7070",
            "--bind",
            "dev:near1=2",
            "--bind",
            "dev:near2=2",
            "--pin",
        ]
        .map(str::to_owned)
    }

    fn start_client(&self) -> Imux {
        let args = self.client_args();
        let args: Vec<_> = args.iter().map(String::as_str).chain([&*self.key]).collect();
        let client = Imux::start(self.homes[1].path(), &args);
        client.line("client ready");
        client
    }

    /// `imux gateway`, which has to succeed.
    #[track_caller]
    fn gateway(&self, args: &[&str]) -> String {
        let (code, out, err) = process::run(self.homes[1].path(), &[&["gateway"], args].concat());
        assert_eq!(code, 0, "{out}{err}");
        out
    }

    /// `imux gateway`, which has to fail because of the rules.
    #[track_caller]
    fn gateway_fails(&self, args: &[&str]) -> String {
        let (code, out, err) = process::run(self.homes[1].path(), &[&["gateway"], args].concat());
        assert_eq!(code, 11, "{out}{err}");
        err
    }

    /// As whom the internet sees a program, at each of its addresses.
    fn seen_as(&self, from: Option<&Host>) -> [String; 2] {
        INTERNET.map(|at| who(from, &format!("{at}:80")).unwrap_or_else(|why| why))
    }

    /// How many packets have come over the links for others than the server's machine.
    fn beside(&self) -> String {
        self.count("beside")
    }

    /// How many of them were for name servers.
    fn names(&self) -> String {
        self.count("names")
    }

    fn count(&self, counter: &str) -> String {
        let mut nft = self.far.command("nft");
        let shown = nft.args(["list", "counter", "inet", "seen", counter]).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        let count = shown.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
        count.unwrap_or_else(|| panic!("{shown}")).to_owned()
    }

    /// Loses whatever goes over a link, both ways, and tells nobody.
    fn cut(&self, number: u8) {
        self.far.shell(&format!(
            "nft 'table inet cut {{ chain i {{ type filter hook prerouting priority -400; iifname far{number} drop; }};
             chain o {{ type filter hook postrouting priority 400; oifname far{number} drop; }}; }}'"
        ));
    }

    fn mend(&self) {
        self.far.shell("nft delete table inet cut");
    }

    /// Downloads with one of the links dying in the middle of it, over each IP version; then clones
    /// a repository.
    async fn programs_survive_the_death_of_a_link(&self, from: Option<&Host>) {
        for (at, dying) in INTERNET.into_iter().zip([1, 2]) {
            let got = tempfile::tempdir().unwrap();
            let into = got.path().join("large");
            let mut curl = at_host(from, "curl");
            curl.args(["-sS", "--fail", "--max-time", "60", "--limit-rate", "4M", "-o"]);
            let curl = curl.arg(&into).arg(format!("http://{at}/large"));
            let mut curl = Running(curl.spawn().unwrap());
            let has = || std::fs::metadata(&into).map_or(0, |file| file.len());
            eventually(30, "it is under way", || has() > 1_000_000).await;
            let whole = std::fs::metadata(self.files.path().join("large")).unwrap().len();
            assert!(has() < whole, "it was over too soon");
            self.cut(dying);
            let ended = || curl.0.try_wait().unwrap().is_some();
            eventually(60, "the download ends", ended).await;
            assert!(curl.0.wait().unwrap().success(), "{at}");
            assert_same(&self.files.path().join("large"), &into);
            self.mend();
        }
        self.clones_a_repository(from);
    }

    fn clones_a_repository(&self, from: Option<&Host>) {
        let repository = self.files.path().join("repository");
        let work = tempfile::tempdir().unwrap();
        if !repository.exists() {
            file(work.path().join("file"), 2, 100_000);
            let git = |args: &[&str]| {
                let status = git(None).arg("-C").arg(work.path()).args(args).status().unwrap();
                assert!(status.success(), "{args:?}");
            };
            git(&["init", "-q", "."]);
            git(&["add", "file"]);
            let who = ["-c", "user.name=a", "-c", "user.email=a@example"];
            git(&[&who[..], &["commit", "-q", "-m", "one"]].concat());
            let bare = repository.display().to_string();
            git(&["clone", "-q", "--bare", ".", &bare]);
            git(&["--git-dir", &bare, "update-server-info"]);
        }
        for at in INTERNET {
            let got = tempfile::tempdir().unwrap();
            let mut git = git(from);
            git.args(["clone", "-q"]).arg(format!("http://{at}/repository"));
            assert!(git.arg(got.path().join("it")).status().unwrap().success(), "{at}");
            let expected = Pattern::new(2).bytes(100_000);
            assert!(std::fs::read(got.path().join("it/file")).unwrap() == expected, "{at}");
        }
    }
}

/// A program on one of the machines, or on the gateway itself.
fn at_host(host: Option<&Host>, program: &str) -> Command {
    let path = find(program).unwrap();
    let mut command = match host {
        Some(host) => host.command(path.to_str().unwrap()),
        None => Command::new(path),
    };
    command.stdin(Stdio::null()).env_remove("http_proxy").env_remove("all_proxy");
    command
}

fn git(host: Option<&Host>) -> Command {
    let mut git = at_host(host, "git");
    git.env("HOME", "/nonexistent").env("GIT_TERMINAL_PROMPT", "0");
    git.env("GIT_CONFIG_NOSYSTEM", "1");
    git
}

/// As whom `address` sees a program; or how curl has failed.
fn who(from: Option<&Host>, address: &str) -> Result<String, String> {
    let mut curl = at_host(from, "curl");
    curl.args(["-sS", "--fail", "--max-time", "10"]).arg(format!("http://{address}/who"));
    let output = curl.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// All that a gateway could have changed.
fn state() -> String {
    let commands = "nft list ruleset; ip rule; ip -6 rule; ip route show table all; \
                    ip -6 route show table all; ip link; ip address; \
                    sysctl net.ipv4.ip_forward net.ipv4.conf.all.rp_filter";
    let mut shell = Command::new("sh");
    let path = std::env::var("PATH").unwrap_or_default();
    shell.env("PATH", format!("{path}:/usr/sbin:/sbin")).args(["-ec", commands]);
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_lan_behind_a_gateway_uses_every_link_and_needs_nothing() {
    in_world("gateway::a_lan_behind_a_gateway_uses_every_link_and_needs_nothing", async |world| {
        let lan = Some(&world.lan);
        shell(
            "nft 'table inet others { chain forward { type filter hook forward priority 0; }; }'",
        );
        let before = state();
        assert_eq!(world.seen_as(lan), LAN);
        let mut client = world.start_client();
        let direct = world.beside();
        let said = world.gateway(&["up", "--lan", "lan0"]);
        assert!(said.starts_with("up for hosts behind lan0, at port 7070"), "{said}");
        assert_eq!(world.seen_as(lan), SERVERS);
        world.programs_survive_the_death_of_a_link(lan).await;
        assert_eq!(world.beside(), direct, "something went beside the tunnel");
        // The gateway's own programs go as they always did.
        assert_eq!(world.seen_as(None), LINKS);
        assert!(client.is_running());
        world.gateway(&["down"]);
        assert_eq!(state(), before);
        assert_eq!(world.seen_as(lan), LAN);
    });
}

#[test]
fn a_machine_uses_every_link_and_its_programs_need_nothing() {
    in_world("gateway::a_machine_uses_every_link_and_its_programs_need_nothing", async |world| {
        let before = state();
        assert_eq!(world.seen_as(None), LINKS);
        let client = world.start_client();
        let direct = world.beside();
        world.gateway(&["up", "--this-machine", "--kill-switch"]);
        assert_eq!(world.seen_as(None), SERVERS);
        world.programs_survive_the_death_of_a_link(None).await;
        // Its own networks, and the server, are left alone: no tunnel leads there.
        assert_eq!(who(None, "10.77.1.1:80").unwrap(), "10.77.1.2");
        assert_eq!(who(None, "203.0.113.1:80").unwrap(), "10.77.1.2");
        assert_eq!(world.beside(), direct, "something went beside the tunnel");
        // Others' connections are not this machine's.
        let lan = who(Some(&world.lan), "198.51.100.7:80");
        assert_eq!(lan.unwrap(), LAN[0]);
        world.gateway(&["down"]);
        assert_eq!(state(), before);
        assert_eq!(world.seen_as(None), LINKS);
        drop(client);
    });
}

#[test]
fn who_is_left_alone_goes_as_before() {
    in_world("gateway::who_is_left_alone_goes_as_before", async |world| {
        let lan = Some(&world.lan);
        let _client = world.start_client();
        world.gateway(&["up", "--lan", "lan0", "--except", "198.51.0.0/16"]);
        assert_eq!(world.seen_as(lan), [LAN[0], SERVERS[1]]);
        world.gateway(&["up", "--lan", "lan0", "--except", "2001:db8:7::7"]);
        assert_eq!(world.seen_as(lan), [SERVERS[0], LAN[1]]);
        // The gateway comes into another network: that is its own from then on.
        shell("ip address add 198.51.100.99/24 dev nowhere0");
        let follows = || {
            state().matches("198.51.100.0/24").count() > 1 && state().contains("table inet imux")
        };
        eventually(30, "the rules follow", || {
            let shown = at_host(None, "nft").args(["list", "ruleset"]).output().unwrap();
            String::from_utf8_lossy(&shown.stdout).contains("198.51.100.0/24") && follows()
        })
        .await;
        // The same address, of a smaller network.
        shell(
            "ip address delete 198.51.100.99/24 dev nowhere0; ip address add 198.51.100.99/25 dev nowhere0",
        );
        eventually(30, "the rules follow", || {
            let shown = at_host(None, "nft").args(["list", "ruleset"]).output().unwrap();
            String::from_utf8_lossy(&shown.stdout).contains("198.51.100.0/25")
        })
        .await;
    });
}

#[test]
fn with_dns_no_question_goes_beside_the_tunnel() {
    in_world("gateway::with_dns_no_question_goes_beside_the_tunnel", async |world| {
        let lan = Some(&world.lan);
        let _client = world.start_client();
        assert_eq!(who(lan, "198.51.100.7:53").unwrap(), LAN[0]);
        assert_eq!(who(None, "198.51.100.7:53").unwrap(), LINKS[0]);
        // Even where everything else is left alone.
        world.gateway(&["up", "--lan", "lan0", "--dns", "--except", "198.51.0.0/16"]);
        let (beside, names) = (world.beside(), world.names());
        for from in [lan, None] {
            for (at, server) in INTERNET.into_iter().zip(SERVERS) {
                assert_eq!(who(from, &format!("{at}:53")).unwrap(), server);
            }
        }
        assert_eq!((world.beside(), world.names()), (beside, names));
        assert_eq!(who(lan, "198.51.100.7:80").unwrap(), LAN[0]);
    });
}

#[test]
fn the_kernel_may_hand_over_by_tproxy_as_well() {
    in_world("gateway::the_kernel_may_hand_over_by_tproxy_as_well", async |world| {
        let _client = world.start_client();
        // As somebody writes it who wants no address translation.
        shell(
            "nft 'table inet own { chain c { type filter hook prerouting priority mangle;
                 iifname lan0 meta l4proto tcp fib daddr type != local meta mark set 7 tproxy to :7070 accept; }; }'
             ip rule add fwmark 7 lookup 7
             ip -6 rule add fwmark 7 lookup 7
             ip route add local default dev lo table 7
             ip -6 route add local default dev lo table 7",
        );
        assert_eq!(world.seen_as(Some(&world.lan)), SERVERS);
        // Of the listener's port at another machine it takes no notice.
        let elsewhere = who(Some(&world.lan), "198.51.100.7:7070").unwrap_err();
        assert!(!elsewhere.is_empty());
    });
}
