//! `imux status`, `sessions` and `lanes`: what running processes show, and what they do when asked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::support::net::Destination;
use crate::support::pair::Pair;
use crate::support::process::{Imux, field, run};
use crate::support::terminal::OnTerminal;
use crate::support::{bounded, eventually};

/// What is shown, held to its schema.
#[track_caller]
fn status(home: &Path, which: &[&str]) -> Value {
    let (code, out, told) = run(home, &[&["status", "--json"], which].concat());
    assert_eq!(code, 0, "{told}");
    let status = serde_json::from_str(&out).unwrap();
    let schema = include_str!("../../docs/status.schema.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    conforms(&status, &schema, &schema, "status");
    status
}

/// Whether a value is what the schema says: as much of JSON Schema as that one uses.
#[track_caller]
fn conforms(value: &Value, is: &Value, root: &Value, place: &str) {
    if let Some(name) = is["$ref"].as_str() {
        let name = name.strip_prefix("#/$defs/").unwrap();
        return conforms(value, &root["$defs"][name], root, place);
    }
    if let Some([object, null]) = is["anyOf"].as_array().map(Vec::as_slice) {
        assert_eq!(null["type"], "null", "{place}: of what may be left out");
        if !value.is_null() {
            conforms(value, object, root, place);
        }
        return;
    }
    if let Some(only) = is.get("const") {
        assert_eq!(value, only, "{place}");
    }
    if let Some(words) = is["enum"].as_array() {
        assert!(words.contains(value), "{place} is {value}");
    }
    let kinds = match &is["type"] {
        Value::Array(kinds) => kinds.clone(),
        Value::Null => Vec::new(),
        kind => vec![kind.clone()],
    };
    let fits = |kind: &Value| match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("{place}: {other}"),
    };
    assert!(kinds.is_empty() || kinds.iter().any(fits), "{place} is {value}");
    for item in value.as_array().into_iter().flatten() {
        conforms(item, &is["items"], root, place);
    }
    let required = is["required"].as_array().into_iter().flatten();
    required
        .for_each(|name| assert!(value.get(name.as_str().unwrap()).is_some(), "{place}.{name}"));
    for (name, item) in value.as_object().into_iter().flatten() {
        let is = &is["properties"][name];
        assert!(is.is_object(), "{place}.{name} is not in the schema");
        conforms(item, is, root, &format!("{place}.{name}"));
    }
}

/// The processes of one kind.
fn of<'a>(status: &'a Value, role: &str) -> Vec<&'a Value> {
    let all = status["processes"].as_array().unwrap();
    all.iter().filter(|process| process["role"] == role).collect()
}

fn count(list: &Value) -> usize {
    list.as_array().unwrap().len()
}

/// A server that lists its client with this comment, and a client with two links: `any`, and
/// 127.0.0.2.
fn with_two_links(to: &str, comment: &str) -> (Pair, Imux, String) {
    let pair = Pair::server(to, Some(&format!("dial=\"{to}\"")));
    let list = pair.path("authorized_clients");
    let line = fs::read_to_string(&list).unwrap();
    fs::write(&list, format!("{} {comment}\n", line.trim_end())).unwrap();
    fs::set_permissions(&list, fs::Permissions::from_mode(0o600)).unwrap();
    let client = pair.client(&["--bind=127.0.0.2=2,express=no", "--listen=127.0.0.1:0"]);
    let at = field(&client.line("client ready"), "address").to_owned();
    client.nth_line("lane up", 4);
    (pair, client, at)
}

/// Both ends say that all of the one stream has arrived and was read.
#[track_caller]
fn carried_three_million(ours: &Value, theirs: &Value) {
    for (session, total) in [(ours, "sent_bytes"), (theirs, "received_bytes")] {
        assert_eq!(count(&session["lanes"]), 4, "{session:#}");
        assert!(session[total].as_u64().unwrap() >= 3_000_000, "{session:#}");
        let [stream] = &session["streams"].as_array().unwrap()[..] else { panic!("{session}") };
        assert_eq!(stream["waits_for"], "writers", "{stream:#}");
        assert_eq!(
            (&stream["received_bytes"], &stream["read_bytes"]),
            (&3_000_000.into(), &3_000_000.into())
        );
        assert_eq!(
            (&stream["written_bytes"], &stream["arrived_bytes"]),
            (&3_000_000.into(), &3_000_000.into())
        );
    }
}

/// What was carried counts for the links that carried it.
#[track_caller]
fn counted_by_link(near: &Value, far: &Value) {
    for (process, links) in [(near, 2), (far, 4)] {
        let links = {
            assert_eq!(count(&process["links"]), links);
            &process["links"]
        };
        let sum = |name: &str| {
            links.as_array().unwrap().iter().map(|it| it[name].as_u64().unwrap()).sum::<u64>()
        };
        assert!(sum("sent_bytes") >= 3_000_000 && sum("received_bytes") >= 3_000_000, "{links:#}");
        assert_eq!((sum("lanes_up"), sum("lanes_made")), (4, 4), "{links:#}");
    }
}

#[test]
fn status_tells_who_is_connected_by_which_lanes_and_what_each_connection_waits_for() {
    bounded(120, async {
        let echo = Destination::echo().await;
        let to = echo.addr.to_string();
        let (pair, client, at) = with_two_links(&to, "Anna \u{202e}<b>");
        let mut socket = TcpStream::connect(&at).await.unwrap();
        let sent = vec![7; 3_000_000];
        let mut back = vec![0; sent.len()];
        let (mut read, mut write) = socket.split();
        let (_, _) = tokio::join!(write.write_all(&sent), read.read_exact(&mut back));
        let home = pair.folder.path();
        let shown = status(home, &[]);
        let (clients, servers) = (of(&shown, "client"), of(&shown, "server"));
        assert_eq!((clients.len(), servers.len()), (1, 1), "{shown:#}");
        let (near, far) = (clients[0], servers[0]);
        assert_eq!(near["place"], Value::from(pair.at.as_str()));
        assert_eq!(far["place"], Value::from(pair.at.as_str()));
        assert_eq!(near["process"], Value::from(client.id()));
        let (ours, theirs) = (&near["sessions"][0], &far["sessions"][0]);
        assert_eq!(ours["id"], theirs["id"]);
        assert_eq!(ours["key"], Value::from(pair.key.as_str()));
        let (_, own, _) = run(home, &["identity"]);
        assert_eq!(theirs["key"], Value::from(own.trim()));
        assert_eq!(theirs["comment"], "Anna \u{202e}<b>");
        assert!(theirs["peer"].as_str().unwrap().starts_with("127.0.0."), "{theirs:#}");
        carried_three_million(ours, theirs);
        assert!(theirs["streams"][0]["to"].as_str().unwrap().contains(&to), "{theirs:#}");
        let local = socket.local_addr().unwrap().to_string();
        assert_eq!(ours["streams"][0]["from"], Value::from(local));
        let lanes = ours["lanes"].as_array().unwrap();
        let by_address = lanes.iter().filter(|lane| {
            let bound = lane["local"].as_str().unwrap().starts_with("127.0.0.2:");
            bound == (lane["via"] == "127.0.0.2")
        });
        assert_eq!(by_address.count(), 4, "{lanes:#?}");
        counted_by_link(near, far);
        // The same for people: nothing in it can draw on a terminal.
        let (code, text, told) = run(home, &["status"]);
        assert_eq!((code, told.as_str()), (0, ""));
        assert!(text.contains("Anna \\u{202e}<b>") && text.contains("127.0.0.2"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(!text.contains('\x1b') && text.contains(theirs["id"].as_str().unwrap()), "{text}");
        // One of them.
        let one = status(home, &["--process", &client.id().to_string()]);
        assert_eq!((of(&one, "client").len(), of(&one, "server").len()), (1, 0));
    });
}

#[test]
fn a_connection_that_is_not_read_waits_for_its_reader_at_either_end() {
    bounded(60, async {
        let silent = Destination::start(async |socket| {
            let _kept = socket;
            std::future::pending::<()>().await;
        })
        .await;
        let (pair, _client, at) = with_two_links(&silent.addr.to_string(), "");
        let mut socket = TcpStream::connect(&at).await.unwrap();
        let sending = tokio::spawn(async move {
            let block = vec![1; 1 << 16];
            while socket.write_all(&block).await.is_ok() {}
        });
        let home = pair.folder.path().to_owned();
        eventually(40, "each end says whom it waits for", || {
            let shown = status(&home, &[]);
            let waits =
                |role| of(&shown, role)[0]["sessions"][0]["streams"][0]["waits_for"].clone();
            waits("client") == "peer-reader" && waits("server") == "reader"
        })
        .await;
        sending.abort();
    });
}

/// The server is not told why its client gave them up; "no error" is no reason.
async fn tells_of_two_lanes_at_the_server(pair: &Pair) {
    let home = pair.folder.path();
    let gone = || of(&status(home, &[]), "server")[0]["sessions"][0]["gone"].clone();
    eventually(20, "both have gone there, too", || count(&gone()) == 2).await;
    let words = gone().to_string() + &pair.server.log();
    assert!(!words.contains("no error"), "{words}");
}

#[test]
fn a_link_is_paused_and_resumed_and_changes_its_tier_while_connections_go_on() {
    bounded(120, async {
        let echo = Destination::echo().await;
        let (pair, client, at) = with_two_links(&echo.addr.to_string(), "");
        let home = pair.folder.path().to_owned();
        let mut socket = TcpStream::connect(&at).await.unwrap();
        let link = |name: &str| {
            let shown = status(&home, &[]);
            let links = of(&shown, "client")[0]["links"].as_array().unwrap().clone();
            links.into_iter().find(|link| link["name"] == name).unwrap()
        };
        let change = |args: &[&str]| {
            let (code, out, told) = run(&home, &[&["lanes"], args].concat());
            assert_eq!(code, 0, "{told}");
            out
        };
        assert!(change(&["pause", "127.0.0.2"]).contains("127.0.0.2 is paused"));
        eventually(20, "its lanes have gone", || link("127.0.0.2")["lanes_up"] == 0).await;
        assert_eq!(link("127.0.0.2")["paused"], true);
        pair.server.line("lane down");
        let shown = status(&home, &[]);
        let gone = &of(&shown, "client")[0]["sessions"][0]["gone"];
        assert!(count(gone) == 2 && gone[0]["via"] == "127.0.0.2", "{gone:#}");
        assert!(gone[0]["why"].as_str().unwrap().contains("paused"), "{gone:#}");
        tells_of_two_lanes_at_the_server(&pair).await;
        let mut back = [0; 5];
        socket.write_all(b"still").await.unwrap();
        socket.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"still");
        change(&["resume", "127.0.0.2"]);
        eventually(30, "its lanes are back", || link("127.0.0.2")["lanes_up"] == 2).await;
        // The server hears of another tier as well.
        change(&["tier", "127.0.0.2", "backup"]);
        eventually(30, "they are dialled anew", || {
            let shown = status(&home, &[]);
            let lanes = of(&shown, "server")[0]["sessions"][0]["lanes"].as_array().unwrap().clone();
            lanes.iter().filter(|lane| lane["tier"] == "backup").count() == 2
        })
        .await;
        // All of them: connections wait, and go on.
        change(&["pause", "127.0.0.2"]);
        let said = change(&["pause", "any"]);
        assert!(said.contains("--grace"), "{said}");
        eventually(20, "no lane is left", || link("any")["lanes_up"] == 0).await;
        socket.write_all(b"later").await.unwrap();
        change(&["resume", "any"]);
        socket.read_exact(&mut back).await.unwrap();
        assert_eq!((&back, client.count("session over")), (b"later", 0));
        for (args, why) in [
            (
                &["lanes", "pause", "dev:none"][..],
                "there is no link dev:none; there are any, 127.0.0.2",
            ),
            (&["lanes", "pause", "any", "--process", "1"], "is running"),
            (&["lanes", "tier", "any", "fast"], "no tier is called"),
            (&["lanes", "pause", "a b"], "dev:wwan0"),
            (&["sessions", "close", "zz"], "5f0c3a91"),
            (&["sessions", "close", "00000000"], "there is no session 00000000"),
        ] {
            let (code, _, told) = run(&home, args);
            assert!((code == 2 || code == 3) && told.contains(why), "{args:?}: {code} {told}");
        }
    });
}

#[test]
fn a_session_is_closed_at_the_server_and_the_client_begins_another() {
    bounded(60, async {
        let echo = Destination::echo().await;
        let (pair, client, at) = with_two_links(&echo.addr.to_string(), "");
        let home = pair.folder.path();
        let mut socket = TcpStream::connect(&at).await.unwrap();
        socket.write_all(b"x").await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), b'x');
        let shown = status(home, &[]);
        let id = of(&shown, "server")[0]["sessions"][0]["id"].as_str().unwrap().to_owned();
        let server = pair.server.id().to_string();
        let (code, said, told) = run(home, &["sessions", "close", &id, "--process", &server]);
        assert!(code == 0 && said.contains(&format!("session {id} is closed")), "{told}");
        assert!(socket.read_u8().await.is_err());
        client.line("session over");
        pair.server.nth_line("session created", 2);
        let mut socket = TcpStream::connect(&at).await.unwrap();
        socket.write_all(b"y").await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), b'y');
    });
}

#[test]
fn watching_shows_it_again_and_colours_are_for_terminals_that_want_them() {
    bounded(60, async {
        let folder = tempfile::tempdir().unwrap();
        let (code, out, _) = run(folder.path(), &["status"]);
        assert_eq!((code, out.as_str()), (0, "no client and no server of this user is running\n"));
        let empty = status(folder.path(), &[]);
        assert_eq!(count(&empty["processes"]), 0);
        let pair = Pair::server("127.0.0.1:9", None);
        let mut command = crate::support::process::imux(pair.folder.path());
        let mut plain = OnTerminal::start(command.args(["status", "--watch"]));
        plain.sees("no session");
        plain.sees("\x1b[H\x1b[2J");
        pair.client(&["-D", "127.0.0.1:0"]).line("client ready");
        plain.sees("key SHA256");
        let screen = plain.screen();
        assert!(!screen.contains("\x1b[1m"), "{screen:?}");
        plain.types("\x03");
        let mut command = crate::support::process::imux(pair.folder.path());
        let bold = OnTerminal::start_with_colour(command.env_remove("NO_COLOR").args(["status"]));
        bold.sees("\x1b[1mserver at");
    });
}

#[test]
fn a_flow_shows_what_became_of_its_datagrams() {
    bounded(60, async {
        // What comes is answered by what is longer.
        let service = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = format!("udp:{}", service.local_addr().unwrap());
        let answering = tokio::spawn(async move {
            let mut space = [0; 2_000];
            loop {
                let (_, from) = service.recv_from(&mut space).await.unwrap();
                service.send_to(&[7; 300], from).await.unwrap();
            }
        });
        let pair = Pair::server("127.0.0.1:9", Some(&format!("dial=\"{to}\"")));
        let forward = to.replace("udp:", "udp:127.0.0.1:0:");
        let client = pair.client(&["-L", &forward]);
        let at = field(&client.line("client ready"), "address").to_owned();
        let program = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        program.connect(at.strip_prefix("udp:").unwrap()).await.unwrap();
        let mut space = [0; 2_000];
        for _ in 0..10 {
            program.send(&[1; 100]).await.unwrap();
            assert_eq!(program.recv(&mut space).await.unwrap(), 300);
        }
        let from = program.local_addr().unwrap().to_string();
        let shown = status(pair.folder.path(), &[]);
        for (role, [sent, received]) in [("client", [1_000, 3_000]), ("server", [3_000, 1_000])] {
            let session = &of(&shown, role)[0]["sessions"][0];
            assert_eq!((&session["streams_open"], &session["flows_open"]), (&1.into(), &1.into()));
            let [flow] = &session["streams"].as_array().unwrap()[..] else { panic!("{session}") };
            assert!(flow["to"].as_str().unwrap().starts_with(&to), "{flow}");
            assert_eq!(flow["written_bytes"], sent, "{flow}");
            assert_eq!(flow["received_bytes"], received, "{flow}");
            assert_eq!(flow["waits_for"], "writers", "{flow}");
            let counts = flow["datagrams"].as_object().unwrap();
            assert!(counts["sent"] == 10 && counts["received"] == 10, "{flow}");
            assert_eq!(
                counts.values().filter_map(Value::as_u64).sum::<u64>(),
                20,
                "none dropped: {flow}"
            );
        }
        assert_eq!(of(&shown, "client")[0]["sessions"][0]["streams"][0]["from"], from);
        let (code, text, told) = run(pair.folder.path(), &["status"]);
        assert_eq!(code, 0, "{told}");
        assert!(text.contains("udp:127.0.0.1:"), "{text}");
        answering.abort();
    });
}
