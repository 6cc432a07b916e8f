//! Who is admitted: the list of clients, and what happens to sessions when it changes.

use std::fs;

use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::{Person, Server, answers, echoes, fails, json, prints, write_clients};
use crate::support::net::Destination;
use crate::support::process::{Imux, field};
use crate::support::{bounded, process};

#[test]
fn without_a_list_the_server_says_so_and_takes_anybody_to_its_one_destination() {
    bounded(60, async {
        let (destination, other) = (Destination::echo().await, Destination::echo().await);
        let server = Server::start(&destination.addr.to_string());
        let warning = server.imux.line("any client may use this server");
        assert!(warning.contains("WARN") && warning.contains("imux authorize"), "{warning}");
        let person = Person::new();
        let client = person.connect(&server, &[]);
        assert!(echoes(client.ready()).await);
        // Choosing a destination, even the same one, is for listed clients.
        for place in [other.addr, destination.addr] {
            let to = place.to_string();
            let client = person.connect(&server, &["--to", &to]);
            assert!(!echoes(client.ready()).await, "{to}");
            assert!(client.line("could not reach").contains("destination not allowed"));
        }
        server.imux.line("may not choose its destination");
    });
}

#[test]
fn an_unlisted_client_is_refused_until_it_is_authorised() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let (listed, other) = (Person::new(), Person::new());
        let server = Server::with_clients(
            &destination.addr.to_string(),
            Some(&format!("{} somebody\n", listed.key)),
        );
        assert_eq!(server.imux.count("any client may use"), 0, "{}", server.imux.log());
        assert!(echoes(listed.connect(&server, &[]).ready()).await);
        other.is_refused(&server);
        assert!(server.imux.line("session refused").contains(&other.key));

        // The command from the client's error, and nothing else.
        let home = server.home.path();
        let done = json(home, &["authorize", &other.key, "--comment", "Anna, laptop"]);
        assert_eq!((&done["key"], &done["replaced"]), (&other.key.as_str().into(), &false.into()));
        assert!(echoes(other.connect(&server, &[]).ready()).await);
        assert!(server.clients().ends_with(&format!("{} Anna, laptop\n", other.key)));
        assert_eq!(json(home, &["authorize", &other.key])["replaced"], true);
    });
}

/// The first listed client closes the server to all others, connected ones included.
#[test]
fn the_first_authorised_client_closes_an_open_server() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let server = Server::start(&destination.addr.to_string());
        let (listed, other) = (Person::new(), Person::new());
        let there = other.connect(&server, &[]);
        assert!(echoes(there.ready()).await);
        let (code, _, told) = process::run(server.home.path(), &["authorize", &listed.key]);
        assert!(code == 0 && told.contains("who is not listed"), "{told}");
        assert!(echoes(listed.connect(&server, &[]).ready()).await);
        other.is_refused(&server);
        there.line("session over;");
    });
}

#[test]
fn a_revoked_client_is_cut_off_and_the_others_stay() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let (good, bad) = (Person::new(), Person::new());
        let server = Server::with_clients(
            &destination.addr.to_string(),
            Some(&format!("{}\n{}\n", good.key, bad.key)),
        );
        let (good_client, bad_client) = (good.connect(&server, &[]), bad.connect(&server, &[]));
        let mut stays = TcpStream::connect(good_client.ready()).await.unwrap();
        let mut goes = TcpStream::connect(bad_client.ready()).await.unwrap();
        assert!(answers(&mut stays).await && answers(&mut goes).await);

        prints(server.home.path(), &["revoke", &bad.key]);
        server.hang_up("authorised clients read").await;
        assert!(goes.read_u8().await.is_err(), "the revoked client's connection goes on");
        assert!(bad_client.line("session over;").contains("not authorised"));
        bad.is_refused(&server);
        assert!(answers(&mut stays).await, "another client was cut off");
        let words = ["not listed", "nothing was changed"];
        fails(server.home.path(), &["revoke", &bad.key], 3, &words);
    });
}

/// The list is checked before anybody is admitted, and every few seconds: no signal is needed.
#[test]
fn a_change_of_the_list_counts_without_a_signal() {
    bounded(120, async {
        let (destination, other) = (Destination::echo().await, Destination::echo().await);
        let (good, bad) = (Person::new(), Person::new());
        let rules = format!("dial=\"{}\",dial=\"{}\" ", destination.addr, other.addr);
        let line = |rules: &str, person: &Person| format!("{rules}{}\n", person.key);
        let both = line(&rules, &good) + &line(&rules, &bad);
        let server = Server::with_clients("127.0.0.1:9", Some(&both));
        let to = ["--to", &*other.addr.to_string()].map(str::to_owned);
        let to = [to[0].as_str(), &to[1]];
        let (stays, goes) = (good.connect(&server, &to), bad.connect(&server, &to));
        let mut kept = TcpStream::connect(stays.ready()).await.unwrap();
        let mut cut = TcpStream::connect(goes.ready()).await.unwrap();
        assert!(answers(&mut kept).await && answers(&mut cut).await);
        // No new session from this moment on, and the old one ends by itself.
        prints(server.home.path(), &["revoke", &bad.key]);
        bad.is_refused(&server);
        assert!(cut.read_u8().await.is_err(), "the revoked client's connection goes on");
        goes.line("not authorised");
        assert!(answers(&mut kept).await);

        // A stricter line, in a file renamed over the old one: nobody connects meanwhile.
        let home = server.home.path();
        let rename = |text: &str| {
            fs::write(home.join("aside"), text).unwrap();
            fs::set_permissions(
                home.join("aside"),
                std::os::unix::fs::PermissionsExt::from_mode(0o600),
            )
            .unwrap();
            fs::rename(home.join("aside"), home.join("authorized_clients")).unwrap();
        };
        rename(&line(&format!("dial=\"{}\" ", destination.addr), &good));
        let mut tightened = false;
        for _ in 0..200 {
            tightened = tightened || !echoes(stays.ready()).await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            if tightened {
                break;
            }
        }
        assert!(tightened, "the rule that is gone still counts");
        // An expiry: written as long as the line before it, in the same second.
        rename(&line("expires=\"2038-01-01T00:00:00Z\" ", &good));
        rename(&line("expires=\"2008-01-01T00:00:00Z\" ", &good));
        good.is_refused(&server);
        stays.line("not authorised");
        assert_eq!(server.imux.count("SIGHUP"), 0);
    });
}

/// A list that existed and is gone is not the same as one that never existed.
#[test]
fn a_list_that_is_gone_does_not_open_the_server() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let dial = destination.addr.to_string();
        let (listed, stranger) = (Person::new(), Person::new());
        let mut server = Server::with_clients(&dial, Some(&format!("{}\n", listed.key)));
        let list = server.home.path().join("authorized_clients");
        // The server runs on with what it has read.
        fs::remove_file(&list).unwrap();
        stranger.is_refused(&server);
        assert!(echoes(listed.connect(&server, &[]).ready()).await);
        server.imux.line("has gone");
        server.imux.signal(Signal::SIGTERM);
        assert_eq!(server.imux.exit_code(), Some(143));

        let home = server.home.path();
        let args = ["server", "--listen", "127.0.0.1:0", "--dial", &dial];
        let spelt = ["server", "--listen", "localhost:0", "--dial", &dial];
        let words = ["authorized_clients", "has gone", "--allow-anyone"];
        fails(home, &args, 3, &words);
        fails(home, &spelt, 3, &words);
        // A dangling symlink, whether there has been a list or not, and whatever is allowed.
        std::os::unix::fs::symlink(home.join("unmounted/list"), &list).unwrap();
        let fresh = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("nowhere", fresh.path().join("authorized_clients")).unwrap();
        for home in [home, fresh.path()] {
            fails(home, &args, 3, &["authorized_clients"]);
            fails(home, &[&args[..], &["--allow-anyone"]].concat(), 3, &["authorized_clients"]);
        }
        fs::remove_file(&list).unwrap();
        // The option for it, and then no warning.
        let open = Imux::start(home, &[&args[..], &["--allow-anyone"]].concat());
        let ready = open.line("server ready");
        assert_eq!(open.count("any client may use"), 0, "{}", open.log());
        let at = field(&ready, "address").to_owned();
        let client = ["client", "--listen", "127.0.0.1:0", "--dial", &at, "--pin", &server.key];
        assert!(echoes(Imux::start(stranger.home.path(), &client).ready()).await);
        drop(open);
        fails(home, &args, 3, &words);
        // With a list again, which admits nobody.
        write_clients(home, "");
        Imux::start(home, &args).line("only the clients listed in");
    });
}

/// A list that appears while an open server runs counts as one that existed.
#[test]
fn a_list_that_came_later_is_remembered_too() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let mut server = Server::start(&destination.addr.to_string());
        let person = Person::new();
        prints(server.home.path(), &["authorize", &person.key]);
        server.imux.line("authorised clients read");
        fs::remove_file(server.home.path().join("authorized_clients")).unwrap();
        server.imux.signal(Signal::SIGTERM);
        assert_eq!(server.imux.exit_code(), Some(143));
        let args = ["server", "--listen", "127.0.0.1:0", "--dial", "127.0.0.1:9"];
        fails(server.home.path(), &args, 3, &["has gone", "--allow-anyone"]);
    });
}

#[test]
fn what_a_listed_client_may_do_changes_while_it_is_there() {
    bounded(60, async {
        let (first, second) = (Destination::echo().await, Destination::echo().await);
        let person = Person::new();
        let line = |rules: &str| format!("{rules} {}\n", person.key);
        let server = Server::with_clients(
            "127.0.0.1:9",
            Some(&line(&format!("dial=\"{}\",dial=\"{}\"", first.addr, second.addr))),
        );
        let to = second.addr.to_string();
        let client = person.connect(&server, &["--to", &to]);
        let mut old = TcpStream::connect(client.ready()).await.unwrap();
        assert!(answers(&mut old).await);
        server.reload(&line(&format!("dial=\"{}\",max-streams=2", first.addr))).await;
        assert!(!echoes(client.ready()).await, "the rule that is gone still counts");
        assert!(answers(&mut old).await, "what was open is cut off");
        // The first rule is the default; and open connections count against the new limit.
        let client = person.connect(&server, &[]);
        let mut one = TcpStream::connect(client.ready()).await.unwrap();
        assert!(answers(&mut one).await);
        assert!(!echoes(client.ready()).await, "more connections than allowed");
        assert!(client.line("does not grant").contains("excessive load"));
        drop((old, one));
        // Their places are given back, if not at once.
        while !echoes(client.ready()).await {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn a_broken_list_ends_the_start_and_changes_nothing_later() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let person = Person::new();
        let dial = destination.addr.to_string();
        let server = Server::with_clients(&dial, Some(&person.key));
        let client = person.connect(&server, &[]);
        let stranger = Person::new();
        for broken in ["rubbish\n", "max-streams=x SHA256:y\n"] {
            write_clients(server.home.path(), &format!("{}\n{broken}", stranger.key));
            server.hang_up("is not used").await;
            assert!(server.imux.log().contains("authorized_clients, line 2: "));
            assert!(echoes(client.ready()).await, "the old rules are gone");
            stranger.is_refused(&server);
        }
        fs::remove_file(server.home.path().join("authorized_clients")).unwrap();
        server.hang_up("has gone").await;
        stranger.is_refused(&server);
        assert!(echoes(person.connect(&server, &[]).ready()).await);

        let home = tempfile::tempdir().unwrap();
        write_clients(home.path(), "\nrubbish\n");
        let args = ["server", "--listen", "127.0.0.1:0", "--dial", &dial];
        fails(home.path(), &args, 3, &["authorized_clients, line 2", "correct or remove"]);
        let list = home.path().join("authorized_clients");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        fs::set_permissions(&list, mode).unwrap();
        fails(home.path(), &args, 3, &["may be written by others", "chmod go-w"]);
        // The option names another file: whoever names a list does not want everybody in.
        let mut args = args.to_vec();
        let other = home.path().join("other");
        args.extend(["--authorized-clients", other.to_str().unwrap()]);
        fails(home.path(), &args, 3, &["--authorized-clients", "make an empty file"]);
        fs::write(&other, "").unwrap();
        fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        Imux::start(home.path(), &args).line("only the clients listed in");
    });
}
