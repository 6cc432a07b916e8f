//! Where keys are kept, and what works where nothing can be kept: read-only and full disks, users
//! without a home.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::bounded;
use crate::support::namespace::{self, in_namespace, shell};
use crate::support::net::Destination;
use crate::support::process::{self, Imux, field, imux};
use crate::support::skipped;

fn mount(what: &str, at: &Path) {
    shell(&format!("mount {what} '{}'", at.display()));
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// One byte there and back.
async fn echoes(client: &Imux) {
    let mut socket = TcpStream::connect(client.ready()).await.unwrap();
    socket.write_all(b"?").await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'?');
}

#[test]
fn a_home_that_is_read_only_serves_both_ends() {
    in_namespace("homes::a_home_that_is_read_only_serves_both_ends", || {
        bounded(60, async {
            let destination = Destination::echo().await;
            let to = destination.addr.to_string();
            let home = tempfile::tempdir().unwrap();
            let path = home.path();
            let server_args = ["server", "--listen", "127.0.0.1:7443", "--dial", &to];
            let client_args = ["client", "--listen", "127.0.0.1:0", "--dial", "127.0.0.1:7443"];
            let first = [client_args.as_slice(), &["--host-key", "accept-new"]].concat();
            let key;
            {
                let server = Imux::start(path, &server_args);
                key = field(&server.line("server ready"), "key").to_owned();
                echoes(&Imux::start(path, &first)).await;
            }
            let own = process::run(path, &["identity"]).1;
            // From now on the list, too, is only read.
            assert_eq!(process::run(path, &["authorize", own.trim()]).0, 0);
            let before = names(path);
            mount(&format!("--bind '{0}'", path.display()), path);
            shell(&format!("mount -o remount,bind,ro '{}'", path.display()));
            assert!(fs::write(path.join("probe"), "").is_err());

            let server = Imux::start(path, &server_args);
            assert_eq!(field(&server.line("server ready"), "key"), key);
            for policy in ["ask", "strict", "accept-new"] {
                let args = [client_args.as_slice(), &["--host-key", policy]].concat();
                echoes(&Imux::start(path, &args)).await;
            }
            assert_eq!(process::run(path, &["identity"]).1, own);
            let shown = process::run(path, &["identity", "--listen", "127.0.0.1:7443"]).1;
            assert_eq!(shown.trim(), key);
            assert_eq!(names(path), before);

            // A change fails with an error that says what and where.
            let (code, _, told) = process::run(path, &["revoke", own.trim()]);
            assert!(code == 3 && told.contains("authorized_clients.lock"), "{code}: {told}");
        });
    });
}

#[test]
fn a_pin_needs_no_home() {
    if skipped::because(namespace::missing()) {
        return;
    }
    bounded(60, async {
        let destination = Destination::echo().await;
        let home = tempfile::tempdir().unwrap();
        let to = destination.addr.to_string();
        let server = Imux::start(home.path(), &["server", "--listen=127.0.0.1:0", "--dial", &to]);
        let line = server.line("server ready");
        let (at, key) = (field(&line, "address"), field(&line, "key"));
        let args = ["client", "--listen", "127.0.0.1:0", "--dial", at, "--bind", "127.0.0.1=2"];
        // A user in no file, with no home named anywhere.
        let stranger = || {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-user=54321", "--", env!("CARGO_BIN_EXE_imux")]);
            command.args(args).env_remove("HOME").env_remove("IMUX_HOME").env_remove("RUST_LOG");
            command
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        let proc = Path::new("/proc/nowhere");
        for mut command in [stranger(), with_home(file.path(), &args), with_home(proc, &args)] {
            let client = Imux::spawn(command.args(["--pin", key]));
            echoes(&client).await;
            assert_eq!(client.count("in memory only"), 1);
        }
        // Without a pin there is no way to know the server.
        let output = stranger().args(["--host-key", "accept-new"]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{told}");
        assert!(told.contains("IMUX_HOME") && told.contains("--pin"), "{told}");

        // A key that changes with each start cannot be authorised.
        let listed = "SHA256:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
        assert_eq!(process::run(home.path(), &["authorize", listed]).0, 0);
        server.signal(nix::sys::signal::Signal::SIGHUP);
        server.line("authorised clients read");
        let output = stranger().args(["--pin", key]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(10), "{told}");
        assert!(told.contains("no key that lasts"), "{told}");
        assert!(!told.contains("imux authorize"), "{told}");
    });
}

#[test]
fn a_directory_of_another_user_is_told_with_what_to_do() {
    if skipped::because(namespace::missing()) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mode = |mode| fs::set_permissions(home.path(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o000);
    let key = format!("SHA256:{}", "A".repeat(43));
    for args in [
        &["server", "--listen=127.0.0.1:0", "--dial=127.0.0.1:9"][..],
        &["identity"],
        &["identity", "--of-server"],
        &["authorize", &key],
        &["revoke", &key],
        &["rotate-key"],
        &["invite", "server.example:443"],
    ] {
        // Even root has no rights there: in a namespace where the directory's owner is nobody.
        let mut command = Command::new("unshare");
        command.args(["--user", "--", env!("CARGO_BIN_EXE_imux")]).args(args);
        let output = command.env("IMUX_HOME", home.path()).env_remove("RUST_LOG").output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{args:?}: {told}");
        let place = home.path().to_str().unwrap();
        for words in [place, "Permission denied", " user", "IMUX_HOME to a directory of your own"] {
            assert!(told.contains(words), "{args:?} lacks {words:?}: {told}");
        }
    }
    mode(0o700);
}

fn with_home(home: &Path, args: &[&str]) -> Command {
    let mut command = imux(home);
    command.args(args);
    command
}

#[test]
fn a_key_that_is_there_and_cannot_be_used_is_no_reason_for_another() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(process::run(home.path(), &["identity"]).0, 0);
    let key = home.path().join("client.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let pin = "SHA256:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
    let args = ["client", "--listen=127.0.0.1:0", "--dial=127.0.0.1:9", "--pin", pin];
    let (code, _, told) = process::run(home.path(), &args);
    assert!(code == 3 && told.contains("chmod 600"), "{code}: {told}");
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    in_namespace("homes::a_full_disk_leaves_nothing_half_written", || {
        let dir = tempfile::tempdir().unwrap();
        // One page in all. Directory entries cost none.
        mount("-t tmpfs -o size=4k none", dir.path());
        let home = dir.path();
        fs::write(home.join("filler"), [b'x'; 4096]).unwrap();
        for args in [&["identity"][..], &["server", "--listen", "127.0.0.1:0", "--dial", "a:1"]] {
            let (code, _, told) = process::run(home, args);
            assert_eq!(code, 3, "{told}");
            assert!(told.contains("No space left"), "{told}");
        }
        assert_eq!(names(home), ["client.key.lock", "filler", "server.key.lock"]);

        // What was there stays as it was.
        fs::remove_file(home.join("filler")).unwrap();
        let list = home.join("authorized_clients");
        let listed = format!("# {}\n", "y".repeat(4000));
        fs::write(&list, &listed).unwrap();
        fs::set_permissions(&list, fs::Permissions::from_mode(0o600)).unwrap();
        let key = "SHA256:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
        let (code, _, told) = process::run(home, &["authorize", key]);
        assert!(code == 3 && told.contains("No space left"), "{code}: {told}");
        assert_eq!(fs::read_to_string(&list).unwrap(), listed);
        assert!(!names(home).iter().any(|name| name.ends_with(".tmp")), "{:?}", names(home));
        // With room again it works as if nothing had happened.
        fs::remove_file(&list).unwrap();
        shell(&format!("mount -o remount,size=64k '{}'", home.display()));
        let (code, out, told) = process::run(home, &["identity"]);
        assert!(code == 0 && out.starts_with("SHA256:"), "{told}");
    });
}
