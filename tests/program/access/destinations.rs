//! Which destinations clients may reach.

use super::{Person, Server, echoes, listens};
use crate::support::namespace::{in_namespace, shell};
use crate::support::net::Destination;
use crate::support::{bounded, net};

/// Services on the server's own interfaces may trust the machine: `*` does not lead there.
#[test]
fn the_servers_own_addresses_need_a_line_of_their_own() {
    in_namespace(
        "access::destinations::the_servers_own_addresses_need_a_line_of_their_own",
        || {
            shell("ip addr add 192.0.2.7/24 dev lo; ip addr add 2001:db8::7/64 dev lo nodad");
            bounded(60, async {
                let v4 = Destination::start_at("192.0.2.7:0", net::echo).await;
                let v6 = Destination::start_at("[2001:db8::7]:0", net::echo).await;
                let person = Person::new();
                let forwards: Vec<_> =
                    [v4.addr, v6.addr].map(|addr| format!("127.0.0.1:0:{addr}")).into();
                let args: Vec<_> = forwards.iter().flat_map(|forward| ["-L", forward]).collect();
                for (rules, expected) in [
                    ("dial=\"*:*\"".to_owned(), [false, false]),
                    ("dial=\"192.0.2.0/24:*\",dial=\"[::/0]:*\"".to_owned(), [false, false]),
                    (format!("dial=\"*:*\",dial=\"{}\"", v4.addr), [true, false]),
                    (format!("dial=\"192.0.2.7:*\",dial=\"{}\"", v6.addr), [true, true]),
                ] {
                    let line = format!("{rules} {}\n", person.key);
                    let server = Server::with_clients("127.0.0.1:9", Some(&line));
                    let client = person.connect(&server, &args);
                    for (number, expected) in (1..).zip(expected) {
                        let reached = echoes(listens(&client, number)).await;
                        assert_eq!(reached, expected, "{rules}: {}", forwards[number - 1]);
                    }
                }
            });
        },
    );
}

#[test]
fn destinations_are_chosen_among_those_that_are_listed() {
    bounded(60, async {
        let (first, second) = (Destination::echo().await, Destination::echo().await);
        let unlisted = Destination::echo().await;
        let person = Person::new();
        let server = Server::with_clients(
            "127.0.0.1:9",
            Some(&format!(
                "dial=\"{}\",dial=\"localhost:{}\",dial=\"*:*\" {}\n",
                first.addr,
                second.addr.port(),
                person.key
            )),
        );
        let forwards: Vec<_> = [
            format!("127.0.0.1:0:127.0.0.1:{}", first.addr.port()),
            format!("127.0.0.1:0:localhost:{}", second.addr.port()),
            format!("127.0.0.1:0:127.0.0.1:{}", second.addr.port()),
            format!("127.0.0.1:0:127.0.0.1:{}", unlisted.addr.port()),
            format!("127.0.0.1:0:[::ffff:127.0.0.1]:{}", unlisted.addr.port()),
            "127.0.0.1:0:169.254.169.254:80".to_owned(),
            "127.0.0.1:0:[::ffff:169.254.169.254]:80".to_owned(),
            "127.0.0.1:0:0.0.0.0:80".to_owned(),
        ]
        .into();
        let mut args = Vec::new();
        forwards.iter().for_each(|forward| args.extend(["-L", forward.as_str()]));
        let client = person.connect(&server, &args);
        for (number, expected) in (1..).zip([true, true, false, false, false, false, false, false])
        {
            let forward = &forwards[number - 1];
            assert_eq!(echoes(listens(&client, number)).await, expected, "{forward}");
        }
        client.nth_line("destination not allowed", 6);
        server.imux.nth_line("not among the destinations", 6);
        // A client that names nothing goes to the first.
        assert!(echoes(person.connect(&server, &[]).ready()).await);
    });
}
