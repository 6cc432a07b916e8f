//! Whose server it is: pins, known hosts, the question, and the original's files; and what else
//! ends a program before it has begun. Each has its message and its exit code.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use imux::lane::{Listener, TcpOptions, TlsListener};
use imux::trust::{Identity, server_config};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::bounded;
use crate::support::net::{self, Destination};
use crate::support::process::{self, Imux, field};
use crate::support::skipped;

const LEGACY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/legacy");
const ANOTHER_KEY: &str = "SHA256:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";

struct Server {
    imux: Imux,
    home: TempDir,
    /// For `--dial`.
    at: String,
    key: String,
}

fn server() -> Server {
    let home = tempfile::tempdir().unwrap();
    let imux = start(home.path());
    let (at, key) = place(&imux);
    Server { imux, home, at, key }
}

fn start(home: &Path) -> Imux {
    // Nothing here gets as far as the destination, or cares about it.
    Imux::start(home, &["server", "--listen", "127.0.0.1:0", "--dial", "127.0.0.1:9"])
}

fn place(imux: &Imux) -> (String, String) {
    let line = imux.line("server ready");
    (field(&line, "address").to_owned(), field(&line, "key").to_owned())
}

/// Runs a client that is to fail, and returns what it said.
#[track_caller]
fn client_fails(home: &Path, at: &str, args: &[&str], code: i32, words: &[&str]) -> String {
    let mut all = vec!["client", "--listen", "127.0.0.1:0", "--dial", at, "--bind", "127.0.0.1=3"];
    all.extend_from_slice(args);
    fails(home, &all, code, words)
}

#[track_caller]
fn fails(home: &Path, args: &[&str], code: i32, words: &[&str]) -> String {
    let (exit, out, told) = process::run(home, args);
    assert_eq!(exit, code, "{args:?}: {told}");
    assert_eq!(out, "", "{args:?} wrote to standard output");
    for word in words {
        assert!(told.contains(word), "{args:?} lacks {word:?}: {told}");
    }
    let errors = told.lines().filter(|line| line.starts_with("imux: error: ")).count();
    assert_eq!(errors, 1, "{args:?}: {told}");
    told
}

fn client(home: &Path, at: &str, args: &[&str]) -> Imux {
    let mut all = vec!["client", "--listen", "127.0.0.1:0", "--dial", at, "--bind", "127.0.0.1=2"];
    all.extend_from_slice(args);
    Imux::start(home, &all)
}

fn known_hosts(home: &Path) -> String {
    fs::read_to_string(home.join("known_hosts")).unwrap_or_default()
}

#[test]
fn without_a_terminal_an_unknown_server_is_refused() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    let words = [server.at.as_str(), &server.key, "--pin", "--host-key accept-new"];
    client_fails(home.path(), &server.at, &[], 6, &words);
    client_fails(home.path(), &server.at, &["--host-key", "strict"], 6, &words);
    assert_eq!(known_hosts(home.path()), "");
}

#[test]
fn the_right_pin_and_a_wrong_one() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    client(home.path(), &server.at, &["--pin", &server.key]).ready();
    client(home.path(), &server.at, &["--pin", ANOTHER_KEY, "--pin", &server.key]).ready();
    let words = [server.key.as_str(), "--pin"];
    client_fails(home.path(), &server.at, &["--pin", ANOTHER_KEY], 7, &words);
    // A pin is not a way to become known.
    assert_eq!(known_hosts(home.path()), "");
    let bad = ["client", "--dial=localhost:1", "--pin", "SHA256:short"];
    let (code, _, told) = process::run(home.path(), &bad);
    assert!(code == 2 && told.contains("--pin"), "{code}: {told}");
}

/// A server other than the pinned or known one does not learn who the client is.
#[test]
fn another_server_is_not_shown_the_clients_certificate() {
    bounded(60, async {
        let identity = Identity::generate().unwrap();
        let key = identity.fingerprint().to_string();
        let tls = server_config(&identity).unwrap();
        let at = "127.0.0.1:0".parse().unwrap();
        let listener = TlsListener::bind(at, tls, TcpOptions::default()).unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let seen = shown.clone();
        tokio::spawn(async move {
            while let Ok(pending) = listener.accept().await {
                let seen = seen.clone();
                tokio::spawn(async move {
                    let peer = pending.handshake().await.ok().map(|lane| lane.peer());
                    seen.lock().unwrap().push(peer);
                });
            }
        });
        let home = tempfile::tempdir().unwrap();
        let known = |line: String| fs::write(home.path().join("known_hosts"), line).unwrap();
        let fails =
            |args: &[&str]| client_fails(home.path(), &at, args, 7, &[&key, "nothing was sent"]);
        let told = fails(&["--pin", ANOTHER_KEY]);
        assert!(told.contains("none of the pinned ones"), "{told}");
        for line in [format!("{at} {ANOTHER_KEY}\n"), format!("{at} {}\n", "00".repeat(32))] {
            known(line);
            for policy in ["ask", "strict", "accept-new"] {
                fails(&["--host-key", policy]);
            }
        }
        {
            let shown = shown.lock().unwrap();
            assert!(shown.len() >= 7 && shown.iter().all(Option::is_none), "{shown:?}");
        }
        // The right server is shown it. It says nothing, and is given up.
        shown.lock().unwrap().clear();
        known(format!("{at} {key}\n"));
        client_fails(home.path(), &at, &["--host-key", "strict"], 5, &[]);
        let shown = shown.lock().unwrap();
        assert!(shown.iter().any(|peer| matches!(peer, Some(Some(_)))), "{shown:?}");
    });
}

/// As sshd does: files that others may have written decide nothing.
#[test]
fn files_that_others_may_write_decide_nothing() {
    let (server, place) = (server(), tempfile::tempdir().unwrap());
    let home = place.path().join("deep/home");
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    client(&home, &server.at, &["--host-key", "accept-new"]).ready();
    fs::write(home.join("authorized_clients"), "").unwrap();
    mode(&home.join("authorized_clients"), 0o644);
    let serve = ["server", "--listen", "127.0.0.1:0", "--dial", "127.0.0.1:9"];
    Imux::start(&home, &serve).ready();
    for (name, bad, of_client, of_server) in [
        ("known_hosts", 0o666, true, false),
        ("known_hosts", 0o620, true, false),
        ("authorized_clients", 0o662, false, true),
        ("", 0o770, true, true),
        ("", 0o703, true, true),
        ("..", 0o775, true, true),
    ] {
        let path = home.join(name).canonicalize().unwrap();
        let before = fs::metadata(&path).unwrap().permissions().mode();
        mode(&path, bad);
        let shown = path.to_str().unwrap();
        let words = [shown, "may be written by others", "chmod go-w"];
        if of_client {
            client_fails(&home, &server.at, &["--host-key", "accept-new"], 3, &words);
        }
        if of_server {
            fails(&home, &serve, 3, &words);
        }
        mode(&path, before);
    }
    client(&home, &server.at, &["--host-key", "strict"]).ready();
    Imux::start(&home, &serve).ready();
    if nix::unistd::geteuid().is_root() {
        let other = Some(nix::unistd::Uid::from_raw(54_321));
        nix::unistd::chown(&home.join("authorized_clients"), other, None).unwrap();
        fails(&home, &serve, 3, &["authorized_clients", "another user (uid 54321)"]);
    }
}

/// Servers reject other kinds of client keys, and say so; a client says at its start what it has.
#[test]
fn a_clients_key_of_another_kind_is_refused_before_it_dials() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    for kind in ["crt", "key"] {
        let to = home.path().join(format!("client.{kind}"));
        fs::copy(format!("{LEGACY}/legacy.{kind}"), &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let words = ["Ed25519", "client.key"];
    client_fails(home.path(), &server.at, &["--pin", &server.key], 3, &words);
}

/// No core dump, and no look into its memory by a process of the same user.
#[test]
fn the_memory_of_whoever_holds_keys_is_closed() {
    let is_root = nix::unistd::geteuid().is_root();
    if skipped::mark((!is_root).then_some("only root can be another user")) {
        return;
    }
    // A dumpable process belongs to its user in /proc; one that is not, to root.
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    let user = 54_321;
    nix::unistd::chown(home.path(), Some(user.into()), None).unwrap();
    let mut command = process::imux(home.path());
    command.args(["client", "--listen", "127.0.0.1:0", "--dial", &server.at, "--pin", &server.key]);
    std::os::unix::process::CommandExt::uid(&mut command, user);
    let mut version = std::process::Command::new(command.get_program());
    std::os::unix::process::CommandExt::uid(version.arg("--version"), user);
    if version.output().is_err() {
        skipped::mark(Some("another user may not start the program, where it is now"));
        return;
    }
    let client = Imux::spawn(&mut command);
    client.ready();
    let owner = |file: &str| std::os::unix::fs::MetadataExt::uid(&fs::metadata(file).unwrap());
    assert_eq!(owner(&format!("/proc/{}/mem", client.id())), 0);
    let status = fs::read_to_string(format!("/proc/{}/status", client.id())).unwrap();
    assert!(status.contains(&format!("Uid:\t{user}")), "{status}");
}

#[test]
fn accept_new_records_and_a_changed_key_is_refused_everywhere() {
    let (first, home) = (server(), tempfile::tempdir().unwrap());
    client(home.path(), &first.at, &["--host-key", "accept-new"]).ready();
    assert_eq!(known_hosts(home.path()), format!("{} {}\n", first.at, first.key));
    for policy in ["ask", "strict", "accept-new"] {
        client(home.path(), &first.at, &["--host-key", policy]).ready();
    }
    // Another server in the place of the first.
    let second = server();
    fs::write(home.path().join("known_hosts"), format!("{} {}\n", second.at, first.key)).unwrap();
    for policy in ["ask", "strict", "accept-new"] {
        let words = [first.key.as_str(), &second.key, "changed", "known_hosts"];
        client_fails(home.path(), &second.at, &["--host-key", policy], 7, &words);
    }
    assert_eq!(known_hosts(home.path()), format!("{} {}\n", second.at, first.key));
}

/// However the name is written, in the option or in the file, it is the same server.
#[test]
fn another_spelling_of_the_name_is_the_same_server() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    let port = server.at.rsplit(':').next().unwrap();
    let hosts = home.path().join("known_hosts");
    let first = format!("LocalHost:{port}");
    client(home.path(), &first, &["--host-key", "accept-new"]).ready();
    assert_eq!(known_hosts(home.path()), format!("localhost:{port} {}\n", server.key));
    for name in ["localhost", "LOCALHOST", "lOcalhost", "Localhost.", ""] {
        let at = format!("{name}:{port}");
        client(home.path(), &at, &["--host-key", "strict"]).ready();
        for (before, written) in [("", "localhost"), ("\u{feff}", "LocalHost."), ("", "LOCALHOST")]
        {
            let line = format!("{before}{written}:{port} {ANOTHER_KEY}\n");
            fs::write(&hosts, &line).unwrap();
            for policy in ["accept-new", "strict"] {
                let words = ["changed", ANOTHER_KEY, &server.key];
                client_fails(home.path(), &at, &["--host-key", policy], 7, &words);
            }
            assert_eq!(known_hosts(home.path()), line);
        }
        fs::write(&hosts, format!("\u{feff}Localhost.:0{port} {}\n", server.key)).unwrap();
    }
    // Addresses.
    for (at, written) in [
        (format!("127.0.0.1:{port}"), format!("[::ffff:127.0.0.1]:{port}")),
        (format!("127.0.0.1:0{port}"), format!("[::FFFF:7f00:1]:{port}")),
    ] {
        let line = format!("{written} {ANOTHER_KEY}\n");
        fs::write(&hosts, &line).unwrap();
        client_fails(home.path(), &at, &["--host-key", "accept-new"], 7, &["changed"]);
        fs::write(&hosts, format!("{written} {}\n", server.key)).unwrap();
        client(home.path(), &at, &["--host-key", "strict"]).ready();
    }
}

/// Names that are not ASCII are accepted or refused alike, wherever they are written.
#[test]
fn names_that_are_not_ascii_are_the_same_everywhere() {
    let home = tempfile::tempdir().unwrap();
    let list = home.path().join("list");
    for (name, ascii) in
        [("münchen.invalid", "xn--mnchen-3ya.invalid"), ("例え.INVALID", "xn--r8jz45g.invalid")]
    {
        let place = format!("{name}:4433");
        client_fails(home.path(), &place, &[], 5, &[ascii]);
        let list = list.to_str().unwrap();
        let authorize = ["authorize", ANOTHER_KEY, "--dial", &place, "--authorized-clients", list];
        assert_eq!(process::run(home.path(), &authorize).0, 0);
        let listed = fs::read_to_string(list).unwrap();
        assert!(listed.starts_with(&format!("dial=\"{ascii}:4433\" ")), "{listed}");
        let server = ["server", "--listen", "127.0.0.1:0", "--dial", &place];
        let line = Imux::start(home.path(), &server).line("server ready");
        assert_eq!(field(&line, "destination"), format!("{ascii}:4433"));
    }
    for bad in ["ü..invalid:1", "a\u{300}\u{ad}\u{2028}.invalid:1"] {
        let dial = format!("--dial={bad}");
        for args in [
            vec!["client", "--listen=127.0.0.1:0", &dial],
            vec!["server", "--listen=127.0.0.1:0", &dial],
            vec!["authorize", ANOTHER_KEY, &dial],
            vec!["invite", bad],
        ] {
            let (code, _, told) = process::run(home.path(), &args);
            assert!(code == 2 && told.contains("host name"), "{args:?} {code}: {told}");
        }
    }
}

#[test]
fn a_server_keeps_its_key() {
    let first = server();
    let (home, key) = (first.home, first.key);
    drop(first.imux);
    assert_eq!(place(&start(home.path())).1, key);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home.path().join("server.key")), 0o600);
    assert_eq!(mode(&home.path().join("server.crt")) & 0o077, 0);
}

/// Whatever the option says: the server is the same, and `identity` and `invite` say so.
#[test]
fn a_servers_key_does_not_depend_on_how_its_address_is_written() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |home: &Path, listen: &str, more: &[&str]| {
        let args = ["server", "--listen", listen, "--dial", "127.0.0.1:9"];
        place(&Imux::start(home, &[&args, more].concat())).1
    };
    let says = |home: &Path, args: &[&str]| {
        let (code, out, told) = process::run(home, args);
        assert_eq!(code, 0, "{args:?}: {told}");
        out.trim_end().to_owned()
    };
    let key = at(home.path(), "127.0.0.1:0", &[]);
    for listen in ["localhost:0", "LOCALHOST:0", "0.0.0.0:0", ":0", "[::ffff:127.0.0.1]:0"] {
        assert_eq!(at(home.path(), listen, &[]), key, "{listen}");
        assert_eq!(says(home.path(), &["identity", "--listen", listen]), key);
    }
    assert_eq!(says(home.path(), &["identity", "--of-server"]), key);
    assert!(says(home.path(), &["invite", "s.example:1", "--json"]).contains(&key));
    // Several have names.
    let office = at(home.path(), "127.0.0.1:0", &["--identity", "office"]);
    assert_ne!(office, key);
    assert_eq!(at(home.path(), "localhost:0", &["--identity", "office"]), office);
    assert_eq!(says(home.path(), &["identity", "--identity", "office"]), office);
    let invite = ["invite", "s.example:1", "--json", "--identity", "office"];
    assert!(says(home.path(), &invite).contains(&office));
    fails(home.path(), &["identity", "--identity", "nobody"], 3, &["nobody", "start the server"]);
    let (code, _, told) = process::run(home.path(), &["server", "--identity", "../x"]);
    assert!(code == 2 && told.contains("--identity"), "{told}");

    // Keys of an earlier version stay their servers' keys.
    let copy = |name: &str| {
        for kind in ["crt", "key"] {
            let to = other.path().join(format!("{name}.{kind}"));
            fs::copy(home.path().join(format!("office.{kind}")), to).unwrap();
        }
    };
    copy("0.0.0.0:0");
    for listen in ["0.0.0.0:0", "127.0.0.1:0"] {
        assert_eq!(at(other.path(), listen, &[]), office, "{listen}");
    }
    assert_eq!(says(other.path(), &["identity", "--of-server"]), office);
    copy("localhost:0");
    assert_eq!(at(other.path(), "localhost:0", &[]), office);
    let new = at(other.path(), "127.0.0.1:0", &[]);
    assert_ne!(new, office);
    assert_eq!(at(other.path(), "0.0.0.0:0", &[]), office, "the old file has lost");
    assert_eq!(says(other.path(), &["identity", "--listen", "127.0.0.1:0"]), new);
}

/// No port is open to the world unless asked for; except in the original's form.
#[test]
fn a_client_without_anything_that_takes_connections_says_what_to_give() {
    let home = tempfile::tempdir().unwrap();
    for args in [
        &["client", "--dial", "127.0.0.1:9"][..],
        &["client", "--dial", "127.0.0.1:9", "--to", "db.example:5432"],
    ] {
        let (code, _, told) = process::run(home.path(), args);
        assert_eq!(code, 2, "{args:?}: {told}");
        assert!(told.contains("Give --listen HOST:PORT") && told.contains("-L "), "{told}");
    }
    let (code, _, told) = process::run(home.path(), &["client"]);
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("imux client --listen localhost:2222 --dial "), "{told}");
    // It gets as far as the default, if it may have that port, and then as far as the server.
    let (code, _, told) = process::run(home.path(), &["-client", "-dial=127.0.0.1:9"]);
    assert!(code == 5 || (code == 4 && told.contains("0.0.0.0:443")), "{code}: {told}");
}

#[test]
fn a_home_that_is_not_there_is_made_for_its_owner_only() {
    let place = tempfile::tempdir().unwrap();
    let home = place.path().join("deep/er");
    start(&home).ready();
    assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn keys_that_cannot_be_used() {
    let server_args = ["server", "--listen", "127.0.0.1:0", "--dial", "127.0.0.1:9"];
    let first = server();
    let home = first.home.path();
    drop(first.imux);
    let key = home.join("server.key");
    let name = key.to_str().unwrap();

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    fails(home, &server_args, 3, &[name, "chmod 600"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    fs::write(&key, "not a key").unwrap();
    fails(home, &server_args, 3, &[name, "private key"]);
    assert_eq!(fs::read_to_string(&key).unwrap(), "not a key", "the file was overwritten");

    // A directory in its place cannot be read by anyone.
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    fails(home, &server_args, 3, &[name]);

    fs::remove_dir(&key).unwrap();
    fails(home, &server_args, 3, &[name, "server.crt"]);

    // A file where the directory should be.
    let file = tempfile::NamedTempFile::new().unwrap();
    fails(file.path(), &server_args, 3, &[file.path().to_str().unwrap()]);
}

#[test]
fn a_port_in_use() {
    bounded(30, async {
        let taken = Destination::echo().await;
        let place = taken.addr.to_string();
        let home = tempfile::tempdir().unwrap();
        let words = [place.as_str(), "another program listens there", "--listen"];
        fails(home.path(), &["server", "--listen", &place, "--dial", "localhost:9"], 4, &words);
        // Before anything is dialled or anyone is asked.
        fails(home.path(), &["client", "--listen", &place, "--dial", "localhost:9"], 4, &words);
        let foreign = "192.0.2.1:4444";
        let words = [foreign, "not an address of this machine"];
        fails(home.path(), &["server", "--listen", foreign, "--dial", "localhost:9"], 4, &words);
    });
}

#[test]
fn servers_that_cannot_be_reached() {
    bounded(60, async {
        let home = tempfile::tempdir().unwrap();
        // `.invalid` resolves nowhere (RFC 6761).
        let nowhere = "nowhere.invalid:443";
        client_fails(home.path(), nowhere, &[], 5, &[nowhere, "name"]);
        let closed = net::unused_port().await.to_string();
        client_fails(home.path(), &closed, &[], 5, &[&closed, "refused", "imux server"]);
        // Something listens there, and it is not imux.
        let other = Destination::start(|mut socket| async move {
            let _ = socket.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await;
            let _ = socket.read(&mut [0; 1024]).await;
        })
        .await;
        let at = other.addr.to_string();
        client_fails(home.path(), &at, &[], 5, &[&at, "imux server"]);
        // Something accepts the connection and says nothing.
        let silent = Destination::start(|socket| async move {
            std::future::pending::<()>().await;
            drop(socket);
        })
        .await;
        let at = silent.addr.to_string();
        client_fails(home.path(), &at, &["--connect-timeout", "1"], 5, &[&at, "firewall"]);
        // IPv4 only, and a bind that is IPv6 only.
        let words = ["IP version"];
        let args = ["client", "--listen", "127.0.0.1:0", "--dial", &at, "--bind", "[::1]=1"];
        fails(home.path(), &args, 5, &words);
        let args = ["client", "--listen", "127.0.0.1:0", "--dial", &at, "--bind", "192.0.2.1=1"];
        fails(home.path(), &args, 3, &["192.0.2.1", "--bind"]);
        let args = ["client", "--listen", "127.0.0.1:0", "--dial", &at, "--bind", "dev:nosuch0=1"];
        fails(home.path(), &args, 3, &["dev:nosuch0"]);
    });
}

#[test]
fn in_json_the_last_word_is_json_too() {
    let home = tempfile::tempdir().unwrap();
    let args =
        ["client", "--listen=127.0.0.1:0", "--dial=nowhere.invalid:1", "--log-format", "json"];
    let (code, _, told) = process::run(home.path(), &args);
    assert_eq!(code, 5, "{told}");
    for line in told.lines() {
        assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
    }
    assert!(told.lines().last().unwrap().contains("\"exit_code\":5"), "{told}");
}

/// A server's files as the original wrote them, and a client's line about it.
#[test]
fn files_of_the_original() {
    bounded(30, async {
        let destination = Destination::echo().await;
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [server_home, client_home] = [homes[0].path(), homes[1].path()];
        for kind in ["crt", "key"] {
            let to = server_home.join(format!("127.0.0.1:0.{kind}"));
            fs::copy(format!("{LEGACY}/legacy.{kind}"), &to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let dial = format!("-dial={}", destination.addr);
        let server = Imux::start(server_home, &["-server", "-listen=127.0.0.1:0", &dial]);
        let (at, key) = place(&server);

        // The signature's hash of another certificate first: the last line of a host wins.
        let other = "00".repeat(32);
        let line = legacy_line(&at);
        fs::write(client_home.join("known_hosts"), format!("{at} {other}\n\n{line}\n")).unwrap();
        let dial = format!("-dial={at}");
        let args = ["-client", "-listen=127.0.0.1:0", "-binds={\"127.0.0.1\": 2}", &dial];
        let client = Imux::start(client_home, &args);
        let mut socket = TcpStream::connect(client.ready()).await.unwrap();
        socket.write_all(b"x").await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), b'x');
        drop(client);

        // From now on it is known by its key.
        let file = known_hosts(client_home);
        assert!(file.lines().any(|line| line == format!("{at} {key}")), "{file}");
        Imux::start(client_home, &args).ready();

        // A line of the original's about another certificate is a changed key.
        fs::write(client_home.join("known_hosts"), format!("{at} {other}\n")).unwrap();
        fails(client_home, &args, 7, &[&other, &key]);
    });
}

/// What the original's client wrote about the fixture: the SHA-256 of its certificate's signature.
fn legacy_line(at: &str) -> String {
    use x509_parser::pem::parse_x509_pem;
    let pem = fs::read(format!("{LEGACY}/legacy.crt")).unwrap();
    let (_, pem) = parse_x509_pem(&pem).unwrap();
    let signature = pem.parse_x509().unwrap().signature_value.data.to_vec();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &signature);
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{at} {hex}")
}

mod prompt;
