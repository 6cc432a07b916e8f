//! Whose server it is: pins, known hosts, the question, and the files of the original; and what
//! else ends a program before it has begun. Each has its message and its exit code.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::bounded;
use crate::support::net::{self, Destination};
use crate::support::process::{self, Imux, field};

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

#[test]
fn accept_new_records_and_a_changed_key_is_refused_everywhere() {
    let (first, home) = (server(), tempfile::tempdir().unwrap());
    client(home.path(), &first.at, &["--host-key", "accept-new"]).ready();
    assert_eq!(known_hosts(home.path()), format!("{} {}\n", first.at, first.key));
    for policy in ["ask", "strict", "accept-new"] {
        client(home.path(), &first.at, &["--host-key", policy]).ready();
    }
    // Another server where the first was.
    let second = server();
    fs::write(home.path().join("known_hosts"), format!("{} {}\n", second.at, first.key)).unwrap();
    for policy in ["ask", "strict", "accept-new"] {
        let words = [first.key.as_str(), &second.key, "changed", "known_hosts"];
        client_fails(home.path(), &second.at, &["--host-key", policy], 7, &words);
    }
    assert_eq!(known_hosts(home.path()), format!("{} {}\n", second.at, first.key));
}

#[test]
fn a_server_keeps_its_key() {
    let first = server();
    let (home, key) = (first.home, first.key);
    drop(first.imux);
    assert_eq!(place(&start(home.path())).1, key);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home.path().join("127.0.0.1:0.key")), 0o600);
    assert_eq!(mode(&home.path().join("127.0.0.1:0.crt")) & 0o077, 0);
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
    let key = home.join("127.0.0.1:0.key");
    let name = key.to_str().unwrap();

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    fails(home, &server_args, 3, &[name, "chmod 600"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    fs::write(&key, "not a key").unwrap();
    fails(home, &server_args, 3, &[name, "private key"]);
    assert_eq!(fs::read_to_string(&key).unwrap(), "not a key", "the file was overwritten");

    // A directory in its place cannot be read, whoever asks.
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    fails(home, &server_args, 3, &[name]);

    fs::remove_dir(&key).unwrap();
    fails(home, &server_args, 3, &[name, "127.0.0.1:0.crt"]);

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
        // Before anything is dialled, and anyone asked.
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
        // Something takes the connection and says nothing.
        let silent = Destination::start(|socket| async move {
            std::future::pending::<()>().await;
            drop(socket);
        })
        .await;
        let at = silent.addr.to_string();
        client_fails(home.path(), &at, &["--connect-timeout", "1"], 5, &[&at, "firewall"]);
        // IPv4 only, and a bind of IPv6 only.
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

        // A line of the original that is of another certificate is a changed key.
        fs::write(client_home.join("known_hosts"), format!("{at} {other}\n")).unwrap();
        fails(client_home, &args, 7, &[&other, &key]);
    });
}

/// What the original's client wrote of the fixture: the SHA-256 of its certificate's signature.
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
