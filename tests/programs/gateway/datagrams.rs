//! Datagrams that a gateway takes: what comes back comes from where they were sent.

use super::*;

/// Sends a datagram of so many bytes from a socket of its own; says as whom its receiver sees it,
/// once the answer has come from there, or what went wrong.
const ASKS: &str = "
import socket, sys
at, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
s = socket.socket(socket.AF_INET6 if ':' in at else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
s.connect((at, port))
asked = bytes(size)
# A datagram may be lost, and a lane may be slow.
for _ in range(5):
    try:
        s.send(asked)
        who, size = s.recv(65536).split(b' ')
    except OSError as error:
        why = error
        continue
    assert int(size) == len(asked), size
    print(who.decode())
    break
else:
    print('failed:', why)
";

pub(super) fn asks(from: Option<&Host>, at: &str, port: u16, bytes: usize) -> String {
    let (port, bytes) = (port.to_string(), bytes.to_string());
    python(from, ASKS, &[bare(at), &port, &bytes])
}

fn python(from: Option<&Host>, script: &str, args: &[&str]) -> String {
    let output = at_host(from, "python3").args(["-c", script]).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// An address without brackets.
fn bare(at: &str) -> &str {
    at.trim_start_matches('[').trim_end_matches(']')
}

/// As whom the internet sees who sends it a datagram, at each of its addresses.
pub(super) fn seen(from: Option<&Host>, port: u16, bytes: usize) -> [String; 2] {
    INTERNET.map(|at| asks(from, at, port, bytes))
}

/// As whom a name server sees dig.
fn digs(from: Option<&Host>, at: &str) -> String {
    let mut dig = at_host(from, "dig");
    dig.args(["+short", "+tries=5", "+time=1", "TXT", "who.example"]);
    let output = dig.arg(format!("@{}", bare(at))).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().replace('"', "")
}

/// A program that answers datagrams as those of the internet do.
fn serves_datagrams(host: Option<&Host>, port: u16) -> Running {
    let (datagrams, _web) = WEB.split_once("handler = ").unwrap();
    let script = format!("{datagrams}threading.Event().wait()");
    let mut python = at_host(host, "python3");
    python.args(["-c", &script, "no folder", &port.to_string()]);
    Running(python.spawn().unwrap())
}

#[test]
fn a_lans_datagrams_go_through_the_tunnel_and_answers_come_from_where_they_were_sent() {
    in_world(
        "gateway::datagrams::a_lans_datagrams_go_through_the_tunnel_and_answers_come_from_where_they_were_sent",
        async |world| {
            let lan = Some(&world.lan);
            // As many systems have it: what comes in has to come by the way back to its source.
            shell("sysctl -qw net.ipv4.conf.lan0.rp_filter=1 net.ipv4.conf.lo.rp_filter=1");
            let before = state();
            assert_eq!(seen(lan, 9_000, 100), LAN);
            let mut client = world.start_client();
            let direct = world.beside();
            world.gateway(&["up", "--lan", "lan0"]);
            for bytes in [0, 1, 1_400, 60_000] {
                assert_eq!(seen(lan, 9_000, bytes), SERVERS, "{bytes}");
            }
            assert_eq!(INTERNET.map(|at| digs(lan, at)), SERVERS);
            // QUIC is refused, so that browsers use TCP; asked for it is carried.
            assert!(seen(lan, 443, 9).iter().all(|seen| seen.contains("refused")));
            world.gateway(&["up", "--lan", "lan0", "--quic"]);
            assert_eq!(seen(lan, 443, 9), SERVERS);
            assert_eq!(world.beside(), direct, "something went beside the tunnel");
            // The gateway's own programs go as they always did.
            assert_eq!(seen(None, 9_000, 9), LINKS);
            assert_eq!(seen(lan, 9_000, 9), SERVERS);
            client.signal(Signal::SIGKILL);
            client.exit_code();
            eventually(10, "the rules are as before", || state() == before).await;
            assert_eq!(seen(lan, 9_000, 100), LAN);
        },
    );
}

#[test]
fn a_machines_datagrams_go_through_the_tunnel_but_its_answers_the_way_their_questions_came() {
    in_world(
        "gateway::datagrams::a_machines_datagrams_go_through_the_tunnel_but_its_answers_the_way_their_questions_came",
        async |world| {
            shell("sysctl -qw net.ipv4.conf.lo.rp_filter=1");
            let before = state();
            let _own = serves_datagrams(None, 7_777);
            let own = || asks(Some(&world.internet), LINKS[0], 7_777, 5);
            eventually(30, "the machine's own server answers", || !own().contains("failed")).await;
            let mut client = world.start_client();
            world.gateway(&["up", "--this-machine", "--kill-switch"]);
            let direct = world.beside();
            for bytes in [0, 1_400, 60_000] {
                assert_eq!(seen(None, 9_000, bytes), SERVERS, "{bytes}");
            }
            assert_eq!(INTERNET.map(|at| digs(None, at)), SERVERS);
            assert!(seen(None, 443, 9).iter().all(|seen| seen.contains("failed")));
            assert_eq!(world.beside(), direct, "something went beside the tunnel");
            assert_eq!(own(), "198.51.100.7");
            // Its own networks are left alone, and so are other machines.
            assert_eq!(asks(None, "10.77.1.1", 9_000, 5), LINKS[0]);
            assert_eq!(seen(Some(&world.lan), 9_000, 5), LAN);
            world.gateway(&["up", "--this-machine", "--no-udp"]);
            assert_eq!(seen(None, 9_000, 5), LINKS);
            world.gateway(&["up", "--this-machine", "--quic"]);
            assert_eq!(seen(None, 9_000, 5), SERVERS);
            assert_eq!(seen(None, 443, 5), SERVERS);
            world.gateway(&["down"]);
            assert_eq!(state(), before);
            assert_eq!(seen(None, 9_000, 5), LINKS);
            world.gateway(&["up", "--this-machine"]);
            assert_eq!(seen(None, 9_000, 5), SERVERS);
            client.signal(Signal::SIGKILL);
            client.exit_code();
            eventually(10, "the rules are as before", || state() == before).await;
            assert_eq!(seen(None, 9_000, 5), LINKS);
        },
    );
}

#[test]
fn with_dns_questions_go_through_the_tunnel_even_where_all_else_is_left_alone() {
    in_world(
        "gateway::datagrams::with_dns_questions_go_through_the_tunnel_even_where_all_else_is_left_alone",
        async |world| {
            let lan = Some(&world.lan);
            // A resolver of the gateway's own has the port at all of its addresses.
            let _own = serves_datagrams(None, 53);
            let own = || digs(lan, "10.88.0.1");
            eventually(30, "the gateway's resolver answers", || own() == LAN[0]).await;
            let client = world.start_client();
            world.gateway(&["up", "--lan", "lan0", "--dns", "--except", "198.51.0.0/16"]);
            let names = world.names();
            for from in [lan, None] {
                assert_eq!(INTERNET.map(|at| digs(from, at)), SERVERS);
            }
            assert_eq!(asks(lan, "198.51.100.7", 9_000, 30), LAN[0]);
            assert_eq!((own().as_str(), world.names()), (LAN[0], names.clone()));
            // Where datagrams are left alone, questions are refused.
            world.gateway(&["up", "--lan", "lan0", "--dns", "--no-udp"]);
            for from in [lan, None] {
                assert_ne!(digs(from, INTERNET[0]), SERVERS[0]);
            }
            assert_eq!(
                (asks(lan, INTERNET[0], 9_000, 30).as_str(), world.names()),
                (LAN[0], names)
            );
            drop(client);
        },
    );
}

#[test]
fn an_answer_may_come_when_the_kernel_has_forgotten_the_question() {
    // The next datagram from the same socket is no reply to that answer.
    const ASKS_TWICE: &str = "
import socket, sys
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], 9000))
s.settimeout(10)
seen = []
for asked in b'later', b'now':
    s.send(asked)
    seen.append(s.recv(100).split(b' ')[0].decode())
print(*seen)
";
    let test = "gateway::datagrams::an_answer_may_come_when_the_kernel_has_forgotten_the_question";
    in_world(test, async |world| {
        let timeouts = ["udp_timeout", "udp_timeout_stream"];
        let forgets = timeouts.map(|of| format!("sysctl -qw net.netfilter.nf_conntrack_{of}=1"));
        shell(&forgets.join("\n"));
        let client = world.start_client();
        world.gateway(&["up", "--lan", "lan0", "--this-machine", "--kill-switch"]);
        let direct = world.beside();
        for from in [Some(&world.lan), None] {
            for (at, server) in INTERNET.into_iter().zip(SERVERS) {
                assert_eq!(python(from, ASKS_TWICE, &[bare(at)]), format!("{server} {server}"));
            }
        }
        assert_eq!(world.beside(), direct, "something went beside the tunnel");
        drop(client);
    });
}

#[test]
fn what_is_sent_to_the_transparent_port_itself_goes_nowhere() {
    let test = "gateway::datagrams::what_is_sent_to_the_transparent_port_itself_goes_nowhere";
    in_world(test, async |world| {
        let args = world.client_args();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let client =
            Imux::start(world.homes[1].path(), &[&args[..], &[&*world.key, "--debug"]].concat());
        client.line("client ready");
        let mut sent = 0;
        for up in [false, true] {
            if up {
                world.gateway(&["up", "--lan", "lan0", "--this-machine"]);
            }
            for from in [Some(&world.lan), None] {
                for at in ["10.88.0.1", "fd88::1", "10.77.2.2"] {
                    let script = "
import socket, sys
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b'x', (sys.argv[1], 7070))
";
                    python(from, script, &[at]);
                    sent += 1;
                    client.nth_line("datagrams for the port itself are dropped", sent);
                }
            }
            // The same port of another machine is where it was meant to go.
            assert_eq!(
                asks(Some(&world.lan), "198.51.100.7", 9_000, 1),
                [LAN, SERVERS][usize::from(up)][0]
            );
        }
        // Those that were sent, and no more: nothing has come back by the server.
        assert_eq!(client.count("datagrams for the port itself are dropped"), sent);
    });
}

#[test]
fn what_the_server_does_not_allow_is_told_once_with_its_remedy() {
    in_world(
        "gateway::datagrams::what_the_server_does_not_allow_is_told_once_with_its_remedy",
        async |world| {
            let (_, own, _) = process::run(world.homes[1].path(), &["identity"]);
            let authorize = ["authorize", own.trim(), "--dial", "*:*"];
            let (code, _, why) = process::run(world.homes[0].path(), &authorize);
            assert_eq!(code, 0, "{why}");
            let client = world.start_client();
            world.gateway(&["up", "--lan", "lan0"]);
            for port in [9_000, 9_001] {
                let seen = seen(Some(&world.lan), port, 5);
                assert!(seen.iter().all(|seen| seen.contains("failed")), "{seen:?}");
            }
            assert_eq!(world.seen_as(Some(&world.lan)), SERVERS);
            let told = client.line("datagrams are not carried");
            assert!(told.contains("dial=\"udp:*:*\""), "{told}");
            assert_eq!(client.count("datagrams are not carried"), 1);
            world.server.as_ref().unwrap().line("add dial=\"udp:198.51.100.7:9000\"");
        },
    );
}
