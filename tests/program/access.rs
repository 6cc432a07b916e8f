//! Who may connect, and where to: keys that are listed, invited and revoked, destinations that are
//! chosen; what each command prints, and what each refusal says.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use imux::lane::{BindSource, Dialer, TcpOptions, TlsDialer};
use imux::trust::{Identity, PinnedKeys, client_config};
use imux::{Client, ClientConfig, ConnectError, Link};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::namespace::{in_namespace, shell};
use crate::support::net::{self, Destination};
use crate::support::process::{self, Imux, field};
use crate::support::relay::Relay;
use crate::support::{bounded, eventually};

/// A server, and where its keys are.
struct Server {
    imux: Imux,
    home: TempDir,
    at: String,
    key: String,
}

impl Server {
    fn start(dial: &str) -> Self {
        Self::with_clients(dial, None)
    }

    /// With this list of clients.
    fn with_clients(dial: &str, clients: Option<&str>) -> Self {
        let home = tempfile::tempdir().unwrap();
        if let Some(clients) = clients {
            write_clients(home.path(), clients);
        }
        let imux = Imux::start(home.path(), &["server", "--listen", "127.0.0.1:0", "--dial", dial]);
        let line = imux.line("server ready");
        let (at, key) = (field(&line, "address").to_owned(), field(&line, "key").to_owned());
        Self { imux, home, at, key }
    }

    /// Writes the list and waits until the server has read it.
    async fn reload(&self, clients: &str) {
        write_clients(self.home.path(), clients);
        self.hang_up("authorised clients read").await;
    }

    async fn hang_up(&self, expected: &str) {
        let before = self.imux.count(expected);
        self.imux.signal(Signal::SIGHUP);
        eventually(10, expected, || self.imux.count(expected) > before).await;
    }

    fn clients(&self) -> String {
        fs::read_to_string(self.home.path().join("authorized_clients")).unwrap()
    }
}

fn write_clients(home: &Path, clients: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = home.join("authorized_clients");
    fs::write(&path, clients).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Somebody with a key of their own.
struct Person {
    home: TempDir,
    key: String,
}

impl Person {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let key = prints(home.path(), &["identity"]);
        Self { home, key }
    }

    fn args<'a>(server: &'a Server, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["client", "--dial", &server.at, "--pin", &server.key];
        args.extend(["--bind", "127.0.0.1=2"]);
        if !more.iter().any(|arg| *arg == "-L" || *arg == "--listen") {
            args.extend(["--listen", "127.0.0.1:0"]);
        }
        args.extend(more);
        args
    }

    fn connect(&self, server: &Server, more: &[&str]) -> Imux {
        let client = Imux::start(self.home.path(), &Self::args(server, more));
        client.ready();
        client
    }

    #[track_caller]
    fn is_refused(&self, server: &Server) {
        fails(self.home.path(), &Self::args(server, &[]), 10, &[&self.key, "imux authorize"]);
    }
}

/// Runs a command that has one line to say, and returns it.
#[track_caller]
fn prints(home: &Path, args: &[&str]) -> String {
    let (code, out, told) = process::run(home, args);
    assert_eq!(code, 0, "{args:?}: {told}");
    assert_eq!(out.lines().count(), 1, "{args:?}: {out}");
    out.trim_end().to_owned()
}

#[track_caller]
fn json(home: &Path, args: &[&str]) -> serde_json::Value {
    let mut all = args.to_vec();
    all.push("--json");
    serde_json::from_str(&prints(home, &all)).unwrap()
}

#[track_caller]
fn fails(home: &Path, args: &[&str], code: i32, words: &[&str]) -> String {
    let (exit, out, told) = process::run(home, args);
    assert_eq!((exit, out.as_str()), (code, ""), "{args:?}: {told}");
    for word in words {
        assert!(told.contains(word), "{args:?} lacks {word:?}: {told}");
    }
    told
}

async fn echoes(at: SocketAddr) -> bool {
    // One that is reset at once may have been reset before it was told that it was there.
    match TcpStream::connect(at).await {
        Ok(mut socket) => answers(&mut socket).await,
        Err(_) => false,
    }
}

async fn answers(socket: &mut TcpStream) -> bool {
    if socket.write_all(b"x").await.is_err() {
        return false;
    }
    matches!(socket.read_u8().await, Ok(b'x'))
}

/// The address of the `number`th place where the client listens.
fn listens(client: &Imux, number: usize) -> SocketAddr {
    field(&client.nth_line(" ready ", number), "address").parse().unwrap()
}

#[test]
fn identity_shows_the_key_and_makes_it_once() {
    let home = tempfile::tempdir().unwrap();
    let key = prints(home.path(), &["identity"]);
    assert!(key.starts_with("SHA256:") && key.len() == 50, "{key}");
    assert_eq!(prints(home.path(), &["identity"]), key);
    assert_eq!(json(home.path(), &["identity"])["key"], key.as_str());
    // A key that no server uses is not made up.
    fails(home.path(), &["identity", "--listen", ":443"], 3, &["start the server first"]);
    assert!(!home.path().join("server.key").exists());

    let server = Server::start("127.0.0.1:9");
    assert_eq!(prints(server.home.path(), &["identity", "--listen", "127.0.0.1:0"]), server.key);
}

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
        // A choice of destination, even of the same, is for those who are listed.
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

/// The first client that is listed closes the server to all others, those that are there included.
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

/// The list is looked at before anybody is let in, and every few seconds: no signal is needed.
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

        // A line that is tightened, in a file renamed over the old one: nobody comes meanwhile.
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

/// What was there and is gone is not the same as what never was.
#[test]
fn a_list_that_is_gone_does_not_open_the_server() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let dial = destination.addr.to_string();
        let (listed, stranger) = (Person::new(), Person::new());
        let mut server = Server::with_clients(&dial, Some(&format!("{}\n", listed.key)));
        let list = server.home.path().join("authorized_clients");
        // It runs on with what it has read.
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
        // A link that leads nowhere, whether there has been a list or not, and whatever is allowed.
        std::os::unix::fs::symlink(home.join("unmounted/list"), &list).unwrap();
        let fresh = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("nowhere", fresh.path().join("authorized_clients")).unwrap();
        for home in [home, fresh.path()] {
            fails(home, &args, 3, &["authorized_clients"]);
            fails(home, &[&args[..], &["--allow-anyone"]].concat(), 3, &["authorized_clients"]);
        }
        fs::remove_file(&list).unwrap();
        // The word for it, and no warning then.
        let open = Imux::start(home, &[&args[..], &["--allow-anyone"]].concat());
        let ready = open.line("server ready");
        assert_eq!(open.count("any client may use"), 0, "{}", open.log());
        let at = field(&ready, "address").to_owned();
        let client = ["client", "--listen", "127.0.0.1:0", "--dial", &at, "--pin", &server.key];
        assert!(echoes(Imux::start(stranger.home.path(), &client).ready()).await);
        drop(open);
        fails(home, &args, 3, &words);
        // With a list again, which lets nobody in.
        write_clients(home, "");
        Imux::start(home, &args).line("only the clients listed in");
    });
}

/// The list that comes while an open server runs is one that has been there.
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

/// What listens on the server's own interfaces may trust the machine: `*` does not lead there.
#[test]
fn the_servers_own_addresses_need_a_line_of_their_own() {
    in_namespace("access::the_servers_own_addresses_need_a_line_of_their_own", || {
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
    });
}

/// What other programs with TLS do for whoever sets a variable, which decrypts all they send.
#[test]
fn no_key_log_is_written() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("keys");
        let start = |args: &[&str]| {
            let mut command = process::imux(home.path());
            Imux::spawn(command.args(args).env("SSLKEYLOGFILE", &file).env("RUST_LOG", "trace"))
        };
        let dial = destination.addr.to_string();
        let server = start(&["server", "--listen", "127.0.0.1:0", "--dial", &dial]);
        let line = server.line("server ready");
        let (at, key) = (field(&line, "address"), field(&line, "key"));
        let client = start(&["client", "--listen", "127.0.0.1:0", "--dial", at, "--pin", key]);
        assert!(echoes(client.ready()).await);
        assert!(!file.exists());
        for log in [server.log(), client.log()] {
            assert!(!log.contains("TRAFFIC_SECRET"), "{log}");
        }
    });
}

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
        // The first rule is the default; and what is open counts against the new limit.
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
        // One that names nothing goes to the first.
        assert!(echoes(person.connect(&server, &[]).ready()).await);
    });
}

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
        // What is printed is a command that works, and keeps the secret out of the list of processes.
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

/// Through standard input, with what it grants; of many at once one is let in.
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

        // Of another server's key: nothing is sent to this one.
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
        // After all that it is still good.
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

/// The old key vouches for the new one: clients that were connected meanwhile notice nothing.
#[test]
fn a_server_changes_its_key_and_its_clients_follow() {
    bounded(90, async {
        let destination = Destination::echo().await;
        let dial = destination.addr.to_string();
        let listen = crate::support::net::unused_port().await.to_string();
        let home = tempfile::tempdir().unwrap();
        let server = ["server", "--listen", &listen, "--dial", &dial];
        let mut running = Imux::start(home.path(), &server);
        let old = field(&running.line("server ready"), "key").to_owned();

        let known = Person::new();
        let pinned = Person::new();
        let args =
            ["client", "--listen", "127.0.0.1:0", "--dial", &listen, "--bind", "127.0.0.1=2"];
        let with = |more: &[&'static str]| [&args[..], more].concat();
        let follows = Imux::start(known.home.path(), &with(&["--host-key", "accept-new"]));
        let mut args_pinned = with(&[]);
        args_pinned.extend(["--pin", &old]);
        let stays = Imux::start(pinned.home.path(), &args_pinned);
        assert!(echoes(follows.ready()).await && echoes(stays.ready()).await);
        let hosts = || fs::read_to_string(known.home.path().join("known_hosts")).unwrap();
        assert_eq!(hosts(), format!("{listen} {old}\n"));

        let rotate = ["rotate-key", "--listen", &listen];
        let switch = ["rotate-key", "--listen", &listen, "--switch"];
        fails(home.path(), &switch, 3, &["there is no next key", "nothing was changed"]);
        let made = json(home.path(), &rotate);
        let new = made["key"].as_str().unwrap().to_owned();
        assert_eq!((&made["old"], new == old), (&old.as_str().into(), false));
        running.signal(Signal::SIGHUP);
        let both = format!("{listen} {old},{new}\n");
        eventually(10, "the next key is recorded", || hosts() == both).await;
        assert!(stays.line("give it to --pin").contains(&new));
        // One that connects later hears of it as well, and the old key is still good.
        let later = Person::new();
        let late = Imux::start(later.home.path(), &with(&["--host-key", "accept-new"]));
        assert!(echoes(late.ready()).await);
        late.line("has announced its next key");
        drop(late);

        running.signal(Signal::SIGTERM);
        assert_eq!(running.exit_code(), Some(143));
        assert_eq!(json(home.path(), &switch)["key"], new.as_str());
        let running = Imux::start(home.path(), &server);
        assert_eq!(field(&running.line("server ready"), "key"), new);
        // The running client goes on by itself; from now on the old key is nobody's.
        let only = format!("{listen} {new}\n");
        eventually(20, "the client follows", || hosts() == only).await;
        assert!(echoes(follows.ready()).await);
        let strict = with(&["--host-key", "strict"]);
        assert!(echoes(Imux::start(later.home.path(), &strict).ready()).await);
        stays.line("another server answers");
    });
}

/// Its sessions go on by lanes that show the new key, as far as their clients have heard of it; clients that come see no other.
#[test]
fn a_running_server_changes_its_key_and_its_sessions_stay() {
    bounded(90, async {
        let destination = Destination::echo().await;
        let server = Server::start(&destination.addr.to_string());
        let relay = Relay::start(server.at.parse().unwrap()).await;
        let at = relay.addr.to_string();
        let (known, pinned) = (Person::new(), Person::new());
        let args = ["client", "--listen", "127.0.0.1:0", "--dial", &at, "--bind", "127.0.0.1=2"];
        let with = |more: &[&'static str]| [&args[..], more].concat();
        let follows = Imux::start(known.home.path(), &with(&["--host-key", "accept-new"]));
        let mut stream = TcpStream::connect(follows.ready()).await.unwrap();
        // One that has pinned the old key, and whose lanes nobody cuts.
        let stays = pinned.connect(&server, &[]);
        let mut other = TcpStream::connect(stays.ready()).await.unwrap();
        assert!(answers(&mut stream).await && answers(&mut other).await);

        let home = server.home.path();
        let new = prints(home, &["rotate-key", "--listen", "127.0.0.1:0"]);
        let new = new.split(' ').next().unwrap();
        server.hang_up("announcing the server's next key").await;
        follows.line("has announced its next key");
        // Not before it is said.
        assert!(prints(home, &["rotate-key", "--listen", "127.0.0.1:0", "--switch"]).contains(new));
        relay.reset_all();
        assert!(answers(&mut stream).await);
        assert_eq!(server.imux.count("shows another key"), 0);
        server.hang_up("shows another key").await;
        assert!(server.imux.line("shows another key").contains(new));

        relay.reset_all();
        assert!(answers(&mut stream).await && answers(&mut other).await);
        let hosts = || fs::read_to_string(known.home.path().join("known_hosts")).unwrap();
        let only = format!("{at} {new}\n");
        eventually(10, "the old key is nobody's", || hosts() == only).await;
        assert_eq!(follows.count("session over"), 0, "{}", follows.log());
        let strict = Imux::start(known.home.path(), &with(&["--host-key", "strict"]));
        assert!(echoes(strict.ready()).await);
        fails(pinned.home.path(), &Person::args(&server, &[]), 7, &[new]);

        // A key that is lost is no reason to show yet another.
        fs::remove_file(home.join("server.key")).unwrap();
        server.hang_up("key file has gone").await;
        assert!(echoes(follows.ready()).await);
        assert_eq!(server.imux.count("shows another key"), 1);
        assert!(!home.join("server.key").exists());
    });
}

/// What stands in the audit trail, as far as it is whole.
fn trail(file: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Who was there, from where, and where to; with the words of the list, and a new file after SIGHUP.
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

        // The file is moved away: what comes goes to a new one.
        fs::rename(&file, server.home.path().join("old")).unwrap();
        server.imux.signal(Signal::SIGHUP);
        eventually(10, "a new file", || file.exists()).await;
        prints(server.home.path(), &["revoke", &anna.key]);
        eventually(20, "the session's end", || of("session end", &anna.key).is_some()).await;
        let ended = of("session end", &anna.key).unwrap();
        assert!(ended["why"].as_str().unwrap().contains("not authorised"), "{ended}");
        assert_eq!(ended["session"], started["session"]);
        assert_eq!(trail(&server.home.path().join("old")).len(), 3);
        // None of it is in the log, where nobody has asked for it.
        assert_eq!(server.imux.count("stream start"), 0);

        let nowhere = server.home.path().join("no/such/directory");
        let bad = [&args[..5], &["--audit", nowhere.to_str().unwrap()]].concat();
        fails(server.home.path(), &bad, 3, &["audit trail", "nothing was started"]);
    });
}

/// Those who are not listed are counted: the first of a source is told, and the rest once a minute.
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

/// A disk that is full stops nobody, and what is missing is told where it is missing.
#[test]
fn what_the_audit_trail_has_lost_is_told() {
    in_namespace("access::what_the_audit_trail_has_lost_is_told", || {
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
