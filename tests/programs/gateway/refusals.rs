//! What a gateway does not do, and what it says then.

use super::*;

#[test]
fn what_is_missing_or_in_the_way_is_told_with_its_remedy() {
    in_world(
        "gateway::refusals::what_is_missing_or_in_the_way_is_told_with_its_remedy",
        async |world| {
            let lan = Some(&world.lan);
            let up = ["up", "--lan", "lan0"];
            let before = state();
            let told = world.gateway_fails(&up);
            assert!(
                told.contains("nothing was changed") && told.contains("--transparent"),
                "{told}"
            );

            // A client that may not: it still takes what others' rules hand it.
            let mut command = Command::new("setpriv");
            command.arg("--bounding-set=-net_admin,-net_raw").arg(env!("CARGO_BIN_EXE_imux"));
            command.args(world.client_args()).arg(&world.key);
            command.env("IMUX_HOME", world.homes[1].path()).env_remove("RUST_LOG");
            let client = Imux::spawn(command.stdin(Stdio::null()));
            client.line("client ready");
            client.line("CAP_NET_ADMIN");
            let told = world.gateway_fails(&up);
            assert!(told.contains("CAP_NET_ADMIN") && told.contains("run it as root"), "{told}");
            shell(
                "nft 'table inet own { chain c { type nat hook prerouting priority dstnat;
                 iifname lan0 meta l4proto tcp redirect to :7070; }; }'",
            );
            assert_eq!(world.seen_as(lan), SERVERS);
            shell("nft delete table inet own");
            drop(client);

            let client = world.start_client();
            let told = world.gateway_fails(&["up", "--lan", "lan7"]);
            assert!(told.contains("there is no interface lan7"), "{told}");
            shell("nft add table inet imux");
            let told = world.gateway_fails(&up);
            assert!(told.contains("nft list table inet imux"), "{told}");
            let nft = find("nft").unwrap().display().to_string();
            shell(&format!("nft delete table inet imux; mount --bind /dev/null {nft}"));
            let told = world.gateway_fails(&up);
            assert!(told.contains("install nftables"), "{told}");
            shell(&format!("umount {nft}"));
            assert_eq!(state(), before);

            // A firewall that drops what is taken is not changed, but told of with what mends it.
            shell(
            "nft 'table inet firewall { chain input { type filter hook input priority 0; policy drop;
                 iifname != lan0 accept; meta l4proto ipv6-icmp accept; }; }'",
        );
            let told = world.gateway(&up);
            assert!(datagrams::seen(lan, 9_000, 5).iter().all(|seen| seen.contains("failed")));
            let commands: Vec<_> = told.split('`').skip(1).step_by(2).collect();
            assert_eq!(commands.len(), 2, "{told}");
            commands.iter().for_each(|command| shell(command));
            assert_eq!(world.seen_as(lan), SERVERS);
            assert_eq!(datagrams::seen(lan, 9_000, 5), SERVERS);

            // A setting by which the kernel drops datagrams, as a VPN's script leaves it.
            shell("nft delete table inet firewall; sysctl -qw net.ipv4.conf.all.src_valid_mark=1");
            let told = world.gateway(&up);
            assert!(datagrams::asks(lan, INTERNET[0], 9_000, 5).contains("failed"));
            let command = told.split('`').nth(1).unwrap_or_else(|| panic!("{told}"));
            shell(command);
            assert_eq!(datagrams::seen(lan, 9_000, 5), SERVERS);
            drop(client);
        },
    );
}

#[test]
fn who_connects_to_the_transparent_port_itself_is_refused() {
    in_world(
        "gateway::refusals::who_connects_to_the_transparent_port_itself_is_refused",
        async |world| {
            let client = world.start_client();
            for up in [false, true] {
                if up {
                    world.gateway(&["up", "--lan", "lan0", "--this-machine"]);
                }
                for at in ["10.88.0.1:7070", "[fd88::1]:7070", "10.77.2.2:7070"] {
                    who(Some(&world.lan), at).unwrap_err();
                    who(None, at).unwrap_err();
                }
                who(None, "127.0.0.1:7070").unwrap_err();
            }
            // Nothing was asked of the server for them.
            assert_eq!(client.count("connection refused"), 0, "{}", client.log());
        },
    );
}
