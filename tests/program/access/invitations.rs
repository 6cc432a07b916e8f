//! Invitations: each lets in one client, once.

use std::fs;

use super::{Person, Server, echoes, fails, json, prints};
use crate::support::net::Destination;
use crate::support::process::{Imux, field};
use crate::support::{bounded, process};

#[test]
fn an_invitation_makes_both_known_to_each_other_once() {
    bounded(90, async {
        let destination = Destination::echo().await;
        let dial = destination.addr.to_string();
        let home = tempfile::tempdir().unwrap();
        let mut command = process::imux(home.path());
        command.args(["server", "--listen", "127.0.0.1:0", "--dial", &dial]);
        let imux = Imux::spawn(command.env("RUST_LOG", "trace"));
        let line = imux.line("server ready");
        let (at, key) = (field(&line, "address").to_owned(), field(&line, "key").to_owned());
        let server = Server { imux, home, at, key };

        let invite = ["invite", &server.at, "--listen", "127.0.0.1:0", "--comment", "Anna"];
        let line = prints(server.home.path(), &invite);
        // The printed command works, and keeps the secret out of the list of processes.
        let link =
            line.strip_prefix("echo '").and_then(|rest| rest.strip_suffix("' | imux accept"));
        let link = link.unwrap_or_else(|| panic!("{line}"));
        let (anna, bert) = (Person::new(), Person::new());
        let accepted = json(anna.home.path(), &["accept", link]);
        assert_eq!(accepted["key"], anna.key.as_str());
        assert_eq!(accepted["server_key"], server.key.as_str());
        let known = fs::read_to_string(anna.home.path().join("known_hosts")).unwrap();
        assert_eq!(known, format!("{} {}\n", server.at, server.key));
        assert_eq!(server.clients(), format!("{} Anna\n", anna.key));
        // Nothing else is needed.
        let args = ["client", "--dial", &server.at, "--listen", "127.0.0.1:0"];
        let client = Imux::start(anna.home.path(), &args);
        assert!(echoes(client.ready()).await);

        let told = fails(bert.home.path(), &["accept", link], 10, &["accepted before"]);
        assert!(!bert.home.path().join("known_hosts").exists(), "a failed attempt left traces");
        bert.is_refused(&server);

        // The secret is in no log, whatever is logged.
        let secret = link.rsplit('/').next().unwrap();
        assert_eq!(secret.len(), 43);
        for log in [server.imux.log(), told, server.clients()] {
            assert!(!log.contains(secret) && !log.contains(&secret.replace('_', "/")), "{log}");
        }
        assert!(server.imux.count("DEBUG") > 0, "nothing was logged in detail");
    });
}

/// Through standard input, with what it grants; of many at once, one is admitted.
#[test]
fn of_many_that_accept_one_invitation_one_is_let_in() {
    bounded(90, async {
        let destination = Destination::echo().await;
        let server = Server::with_clients("127.0.0.1:9", Some(""));
        let to = destination.addr.to_string();
        let invite =
            ["invite", &server.at, "--listen", "127.0.0.1:0", "--dial", &to, "--max-streams", "9"];
        let line = prints(server.home.path(), &invite);
        let people: Vec<_> = (0..4).map(|_| Person::new()).collect();
        let file = server.home.path().join("line");
        fs::write(&file, format!("{line}\n")).unwrap();
        let children: Vec<_> = people
            .iter()
            .map(|person| {
                let mut command = process::imux(person.home.path());
                command.args(["accept", "-"]).stdin(fs::File::open(&file).unwrap());
                command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
                command.spawn().unwrap()
            })
            .collect();
        let mut won = Vec::new();
        for (person, child) in people.iter().zip(children) {
            let output = child.wait_with_output().unwrap();
            match output.status.code() {
                Some(0) => won.push(person),
                Some(10) => {}
                _ => panic!("{output:?}"),
            }
        }
        assert_eq!(won.len(), 1);
        assert_eq!(
            server.clients(),
            format!("dial=\"{to}\",max-streams=9 {}\n", won[0].key),
            "not what was granted"
        );
        assert!(echoes(won[0].connect(&server, &["--to", &to]).ready()).await);
    });
}

#[test]
fn invitations_that_are_none() {
    bounded(60, async {
        let server = Server::with_clients("127.0.0.1:9", Some(""));
        let person = Person::new();
        let listen = ["--listen", "127.0.0.1:0"];
        let invite = |more: &[&'static str]| {
            let mut args = vec!["invite", server.at.as_str()];
            args.extend(listen);
            args.extend(more);
            let made = json(server.home.path(), &args);
            made["invitation"].as_str().unwrap().to_owned()
        };
        let link = invite(&["--expires", "1s"]);
        tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
        fails(person.home.path(), &["accept", &link], 10, &["its time is over"]);

        // It names another server's key: nothing is sent to this one.
        let link = invite(&[]);
        let parts: Vec<_> = link.split('/').collect();
        let forged = format!("imux://{}/{}/{}", parts[2], "A".repeat(43), parts[4]);
        fails(person.home.path(), &["accept", &forged], 7, &["nothing was sent", &server.key]);
        // Nor is a known key replaced.
        let hosts = person.home.path().join("known_hosts");
        let other = format!("{} SHA256:{}\n", server.at, "A".repeat(43));
        fs::write(&hosts, &other).unwrap();
        fails(person.home.path(), &["accept", &link], 7, &["has changed", "known_hosts"]);
        assert_eq!(fs::read_to_string(&hosts).unwrap(), other);
        fs::remove_file(&hosts).unwrap();
        // After all that it is still valid.
        prints(person.home.path(), &["accept", &link]);

        let told = fails(person.home.path(), &["accept", &link[..link.len() - 1]], 2, &["secret"]);
        assert!(!told.contains("error: invalid value 'imux://"), "the secret is repeated: {told}");
        fails(server.home.path(), &["invite", "s:1", "--identity", "x"], 3, &["of the server `x`"]);
        let before = server.clients();
        let args = ["invite", ":443", "--listen", "127.0.0.1:0"];
        fails(server.home.path(), &args, 2, &["as the other person reaches it"]);
        assert_eq!(server.clients(), before);
    });
}
