//! What becomes of the machine's rules.

use super::*;

#[test]
fn rules_are_as_before_however_a_gateway_ends_and_it_comes_up_again() {
    in_world(
        "gateway::rules::rules_are_as_before_however_a_gateway_ends_and_it_comes_up_again",
        async |world| {
            let lan = Some(&world.lan);
            shell(
            "nft 'table inet others { chain forward { type filter hook forward priority 0; }; }'
             ip rule add fwmark 9 lookup 9",
        );
            let before = state();
            for round in 0..3 {
                let mut client = world.start_client();
                world.gateway(&["up", "--this-machine"]);
                // Another plan takes the place of this one.
                world.gateway(&["up", "--lan", "lan0"]);
                assert_eq!(world.seen_as(lan), SERVERS);
                assert_eq!(world.seen_as(None), LINKS);
                assert!(world.gateway(&["show"]).contains("hook prerouting"));
                match round {
                    0 => client.signal(Signal::SIGKILL),
                    1 => client.signal(Signal::SIGTERM),
                    _ => {
                        world.gateway(&["down"]);
                        assert_eq!(state(), before);
                        assert!(world.gateway(&["down"]).contains("it was not up"));
                        client.signal(Signal::SIGINT);
                    }
                }
                client.exit_code();
                eventually(10, "the rules are as before", || state() == before).await;
                assert_eq!(world.seen_as(lan), LAN);
            }
            assert!(world.gateway(&["show"]).contains("no client is running"));
            assert!(world.gateway(&["down"]).contains("nothing to remove"));
        },
    );
}

#[test]
fn what_was_taken_goes_on_while_a_client_drains_and_new_connections_go_as_before() {
    in_world(
        "gateway::rules::what_was_taken_goes_on_while_a_client_drains_and_new_connections_go_as_before",
        async |world| {
            let lan = Some(&world.lan);
            let mut client = world.start_client();
            world.gateway(&["up", "--lan", "lan0"]);
            let got = tempfile::tempdir().unwrap();
            let into: PathBuf = got.path().join("large");
            let mut curl = at_host(lan, "curl");
            curl.args(["-sS", "--fail", "--limit-rate", "4M", "-o"]).arg(&into);
            let mut curl = Running(curl.arg("http://198.51.100.7/large").spawn().unwrap());
            let has = || std::fs::metadata(&into).map_or(0, |file| file.len());
            eventually(30, "something has arrived", || has() > 1_000_000).await;
            client.signal(Signal::SIGTERM);
            client.line("stopping");
            eventually(10, "new ones go as before", || world.seen_as(lan) == LAN).await;
            assert!(curl.0.try_wait().unwrap().is_none(), "it was over too soon");
            assert!(curl.0.wait().unwrap().success());
            assert_same(&world.files.path().join("large"), &into);
            client.exit_code();
        },
    );
}

#[test]
fn that_somebody_ended_what_holds_the_rules_is_told_and_they_can_be_set_again() {
    let test = "gateway::rules::that_somebody_ended_what_holds_the_rules_is_told_and_they_can_be_set_again";
    in_world(test, async |world| {
        let lan = Some(&world.lan);
        let client = world.start_client();
        let before = state();
        // One that holds the table, and one that holds what delivers datagrams.
        for (round, holder) in ["nft", "hold", "nft"].into_iter().enumerate() {
            world.gateway(&["up", "--lan", "lan0"]);
            assert_eq!(world.seen_as(lan), SERVERS);
            let held = children(&client).into_iter().find(|(_, line)| line.contains(holder));
            nix::sys::signal::kill(held.unwrap().0, Signal::SIGKILL).unwrap();
            client.nth_line("say `imux gateway up` again", round + 1);
            eventually(10, "the rules are as before", || state() == before).await;
            assert_eq!(world.seen_as(lan), LAN);
            assert!(world.gateway(&["show"]).contains(": down"));
        }
    });
}

/// A client's child processes, with their command lines.
fn children(client: &Imux) -> Vec<(nix::unistd::Pid, String)> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", client.id())).unwrap();
    let of_task = |task: std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("children")).unwrap_or_default()
    };
    let all: String = tasks.map(|task| of_task(task.unwrap())).collect();
    let line = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let pid = |pid: &str| nix::unistd::Pid::from_raw(pid.parse().unwrap());
    all.split_whitespace().map(|it| (pid(it), line(it))).collect()
}

/// Questions to name servers are not this process's only: its resolver has no other mark.
#[test]
fn a_kill_switch_refuses_until_it_is_removed_but_never_the_client() {
    let test = "gateway::rules::a_kill_switch_refuses_until_it_is_removed_but_never_the_client";
    if !here() {
        return;
    }
    in_namespace_of_root(test, || {
        bounded(async {
            let mut world = World::new().await;
            let before = state();
            let mut client = world.start_client();
            let up = ["up", "--lan", "lan0", "--this-machine", "--dns", "--kill-switch"];
            world.gateway(&up);
            assert_eq!(world.seen_as(Some(&world.lan)), SERVERS);
            let (beside, names) = (world.beside(), world.names());
            // The server goes away, then the client as well.
            world.server = None;
            assert_nothing_leaves(&world);
            client.signal(Signal::SIGKILL);
            client.exit_code();
            let taking = || state().contains("table inet imux {");
            eventually(10, "what takes is gone", || !taking()).await;
            assert_nothing_leaves(&world);
            assert_eq!((world.beside(), world.names()), (beside.clone(), names.clone()));
            // A new client gets out all the same, to look its server's name up and to reach it.
            let _names = name_server(&world).await;
            world.start_server();
            let (args, key) = (world.client_args(), world.key.clone());
            let args = args.iter().map(|arg| arg.replace("203.0.113.1", "server.test"));
            let args: Vec<_> = args.chain([key]).collect();
            let args: Vec<_> = args.iter().map(String::as_str).collect();
            let client = Imux::start(world.homes[1].path(), &args);
            client.line("client ready");
            assert_ne!(world.names(), names);
            let names = world.names();
            assert_nothing_leaves(&world);
            assert_eq!((world.beside(), world.names()), (beside, names));
            world.gateway(&up);
            assert_eq!(world.seen_as(Some(&world.lan)), SERVERS);
            drop(client);
            // Nobody is left to be asked.
            let said = world.gateway(&["down"]);
            assert_eq!(said, "the kill switch is gone\n");
            assert_eq!(state(), before);
            assert_eq!(world.seen_as(Some(&world.lan)), LAN);
        });
    });
}

/// A name server on the server's machine, which the gateway is told to ask.
async fn name_server(world: &World) -> Running {
    const SCRIPT: &str = "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
# Another one is at all addresses.
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('203.0.113.1', 53))
open(sys.argv[1], 'w')
while True:
    asked, who = s.recvfrom(512)
    end = asked.index(0, 12) + 5
    name, kind = asked[12:end], asked[end - 4:end - 2]
    found = kind == bytes([0, 1]) and name.startswith(bytes([6]) + b'server')
    answer = bytes([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 203, 0, 113, 1])
    head = asked[:2] + bytes([0x81, 0x80, 0, 1, 0, int(found), 0, 0, 0, 0])
    s.sendto(head + name + (answer if found else b''), who)
";
    let settings = world.files.path().join("resolv.conf");
    std::fs::write(&settings, "nameserver 203.0.113.1\noptions timeout:1 attempts:3\n").unwrap();
    // Where it is a link, what it leads to.
    let there = std::fs::canonicalize("/etc/resolv.conf").unwrap();
    shell(&format!("mount --bind {} {}", settings.display(), there.display()));
    let bound = world.files.path().join("bound");
    let python = world.far.command("python3").args(["-c", SCRIPT]).arg(&bound).spawn().unwrap();
    let python = Running(python);
    eventually(60, "the name server answers", || bound.exists()).await;
    python
}

/// Neither of the LAN host nor of this machine, over TCP, UDP or anything else.
#[track_caller]
fn assert_nothing_leaves(world: &World) {
    for from in [Some(&world.lan), None] {
        for seen in world.seen_as(from) {
            assert!(seen.starts_with("curl:"), "{seen}");
        }
        const DATAGRAMS: &str = "
import socket
for family, at in (socket.AF_INET, '198.51.100.7'), (socket.AF_INET6, '2001:db8:7::7'):
    for port in 53, 443, 9:
        s = socket.socket(family, socket.SOCK_DGRAM)
        try:
            s.connect((at, port))
            s.send(b'x')
            s.settimeout(0.5)
            s.recv(1)
        except OSError as error:
            continue
        raise SystemExit('an answer')
";
        let status = at_host(from, "python3").args(["-c", DATAGRAMS]).status().unwrap();
        assert!(status.success());
    }
}
