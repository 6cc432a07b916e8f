//! What the logs say about clients, and how little strangers can put there.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use imux::lane::{BindSource, Dialer, TcpOptions, TlsDialer};
use imux::trust::{Identity, PinnedKeys, client_config};
use imux::{Client, ClientConfig, ConnectError, Link};
use nix::sys::signal::Signal;

use super::{Person, Server, echoes, fails, prints, write_clients};
use crate::support::namespace::{in_namespace, shell};
use crate::support::net::Destination;
use crate::support::process::{Imux, field};
use crate::support::{bounded, eventually, process};

/// A stranger who knocks all day long.
#[test]
fn a_stranger_cannot_fill_the_log() {
    bounded(90, async {
        let server = Server::with_clients("127.0.0.1:9", Some(""));
        let trust = Arc::new(PinnedKeys::new([server.key.parse().unwrap()]));
        let tls = client_config(&Identity::generate().unwrap()).unwrap();
        let bind = BindSource::Addr("127.0.0.1".parse().unwrap());
        let dialer = TlsDialer::new(&*server.at, bind, tls, TcpOptions::default()).unwrap();
        let dialer: Arc<dyn Dialer> = Arc::new(dialer);
        for _ in 0..900 {
            let config = ClientConfig::new(trust.clone());
            let refused = Client::connect(vec![Link::new(dialer.clone(), 1)], config).await;
            assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
        }
        let told = server.imux.count("session refused");
        assert!((500..800).contains(&told), "{told} lines for 900 refusals");
        server.hang_up("authorised clients read").await;
    });
}

/// The complete lines of the audit trail.
fn trail(file: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Who was there, from where, and where to; with the list's comments, and a new file after SIGHUP.
#[test]
fn an_audit_trail_tells_of_sessions_and_streams() {
    bounded(90, async {
        let destination = Destination::echo().await;
        let (anna, bert) = (Person::new(), Person::new());
        let home = tempfile::tempdir().unwrap();
        let to = destination.addr.to_string();
        let lines = format!("dial=\"{to}\" {} Anna, \"the\" laptop\n{}\n", anna.key, bert.key);
        write_clients(home.path(), &lines);
        let file = home.path().join("trail");
        let args = ["server", "--listen", "127.0.0.1:0", "--dial", "127.0.0.1:9", "--quiet"];
        let audit = ["--audit", file.to_str().unwrap()];
        let log = ["--log-format", "text"];
        let mut command = process::imux(home.path());
        command.args([&args[..], &audit, &log].concat()).env("RUST_LOG", "imux=info");
        let imux = Imux::spawn(&mut command);
        let line = imux.line("server ready");
        let (at, key) = (field(&line, "address").to_owned(), field(&line, "key").to_owned());
        let server = Server { imux, home, at, key };
        let client = anna.connect(&server, &["--to", &to]);
        assert!(echoes(client.ready()).await);
        let of = |event: &str, key: &str| {
            let matches = |line: &&serde_json::Value| line["event"] == event && line["key"] == key;
            trail(&file).iter().find(matches).cloned()
        };
        eventually(10, "the stream's end", || of("stream end", &anna.key).is_some()).await;
        let started = of("session start", &anna.key).unwrap();
        let stream = of("stream start", &anna.key).unwrap();
        assert_eq!((&started["level"], &stream["level"]), (&"INFO".into(), &"DEBUG".into()));
        // Named as in the log.
        let created = server.imux.line("session created");
        let session = field(&created, "session");
        for line in [&started, &stream] {
            assert_eq!(line["comment"], "Anna, \"the\" laptop");
            assert!(line["source"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
            assert_eq!(line["session"].as_str().unwrap(), session, "{line}");
            assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
        }
        assert_eq!(stream["destination"], to.as_str());
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);

        // The file is moved away: new lines go to a new one.
        fs::rename(&file, server.home.path().join("old")).unwrap();
        server.imux.signal(Signal::SIGHUP);
        eventually(10, "a new file", || file.exists()).await;
        prints(server.home.path(), &["revoke", &anna.key]);
        eventually(20, "the session's end", || of("session end", &anna.key).is_some()).await;
        let ended = of("session end", &anna.key).unwrap();
        assert!(ended["why"].as_str().unwrap().contains("not authorised"), "{ended}");
        assert_eq!(ended["session"], started["session"]);
        assert_eq!(trail(&server.home.path().join("old")).len(), 3);
        // None of it is in the log, where nobody asked for it.
        assert_eq!(server.imux.count("stream start"), 0);

        let nowhere = server.home.path().join("no/such/directory");
        let bad = [&args[..5], &["--audit", nowhere.to_str().unwrap()]].concat();
        fails(server.home.path(), &bad, 3, &["audit trail", "nothing was started"]);
    });
}

/// Unlisted clients are counted: the first of a source is logged, and the rest once a minute.
#[test]
fn strangers_cannot_fill_the_audit_trail() {
    bounded(120, async {
        let home = tempfile::tempdir().unwrap();
        write_clients(home.path(), "");
        let file = home.path().join("trail");
        let args = ["server", "--listen", "127.0.0.1:0", "--dial", "127.0.0.1:9", "--audit"];
        let imux = Imux::start(home.path(), &[&args[..], &[file.to_str().unwrap()]].concat());
        let line = imux.line("server ready");
        let (at, key) = (field(&line, "address"), field(&line, "key"));
        let trust = Arc::new(PinnedKeys::new([key.parse().unwrap()]));
        for number in 0..60 {
            let tls = client_config(&Identity::generate().unwrap()).unwrap();
            let bind = BindSource::Addr(format!("127.0.0.{}", 1 + number % 2).parse().unwrap());
            let dialer = TlsDialer::new(at, bind, tls, TcpOptions::default()).unwrap();
            let config = ClientConfig::new(trust.clone());
            let refused = Client::connect(vec![Link::new(Arc::new(dialer), 1)], config).await;
            assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
        }
        let refused = |line: &&serde_json::Value| line["event"] == "session refused";
        let at_once = trail(&file);
        assert_eq!(at_once.iter().filter(refused).count(), 2, "{at_once:?}");
        assert!(at_once.iter().all(|line| line["listed"] == false), "{at_once:?}");
        let counts = || -> u64 {
            let lines = trail(&file);
            let told = lines.iter().filter(|line| line["event"] == "strangers");
            told.filter_map(|line| line["refused"].as_u64()).sum()
        };
        eventually(80, "the rest is counted", || counts() == 58).await;
        assert!(trail(&file).len() <= 6);
    });
}

/// A full disk stops nobody, and missing lines are reported where they are missing.
#[test]
fn what_the_audit_trail_has_lost_is_told() {
    in_namespace("access::audit::what_the_audit_trail_has_lost_is_told", || {
        let disk = tempfile::tempdir().unwrap();
        shell(&format!("mount -t tmpfs -o size=4k none '{}'", disk.path().display()));
        bounded(90, async {
            let destination = Destination::echo().await;
            let person = Person::new();
            let to = destination.addr.to_string();
            let home = tempfile::tempdir().unwrap();
            write_clients(home.path(), &format!("dial=\"{to}\" {}\n", person.key));
            let file = disk.path().join("trail");
            let args = ["server", "--listen", "127.0.0.1:0", "--dial", &to, "--audit"];
            let imux = Imux::start(home.path(), &[&args[..], &[file.to_str().unwrap()]].concat());
            let line = imux.line("server ready");
            let (at, key) = (field(&line, "address").to_owned(), field(&line, "key").to_owned());
            let server = Server { imux, home, at, key };
            let client = person.connect(&server, &[]);
            for _ in 0..40 {
                assert!(echoes(client.ready()).await);
            }
            server.imux.line("lines of the audit trail could not be written");
            shell(&format!("mount -o remount,size=64k '{}'", disk.path().display()));
            assert!(echoes(client.ready()).await);
            let lost = || trail(&file).iter().any(|line| line["event"] == "lost");
            eventually(10, "it is told what is missing", lost).await;
            let lines = trail(&file);
            let missing = lines.iter().find(|line| line["event"] == "lost").unwrap();
            assert!(missing["lines"].as_u64().unwrap() > 10, "{missing}");
        });
    });
}
