//! Servers and clients by a file: what it asks for is run, and what is wrong with it is told.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::net::{Destination, unused_port};
use crate::support::process::{Imux, field, run};
use crate::support::{bounded, eventually};

/// Writes it into the folder.
fn file(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("imux.toml");
    fs::write(&path, text).unwrap();
    path
}

fn start(folder: &Path, text: &str) -> Imux {
    Imux::start(folder, &["run", "-c", file(folder, text).to_str().unwrap()])
}

async fn echoes(at: SocketAddr) {
    let mut socket = TcpStream::connect(at).await.unwrap();
    socket.write_all(b"word").await.unwrap();
    let mut back = [0; 4];
    socket.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"word");
}

#[test]
fn one_process_is_a_server_and_two_clients() {
    bounded(60, async {
        let home = tempfile::tempdir().unwrap();
        let (echo, other) = (Destination::echo().await, Destination::echo().await);
        let at = unused_port().await;
        let client = format!(
            "[[client]]\ndial = \"{at}\"\nkeep-trying = true\nhost-key = \"accept-new\"\n\
             bind = {{ link = \"any\", lanes = 2, express = false }}\n"
        );
        let text = format!(
            "[[server]]\nlisten = \"{at}\"\ndial = \"{}\"\nallow-anyone = true\n\
             allow-listen = [\"127.0.0.1:*\"]\n\
             {client}listen = \"127.0.0.1:0\"\n\
             {client}reverse = {{ listen = \"127.0.0.1:0\", to = \"{}\" }}\n",
            echo.addr, other.addr
        );
        let mut all = start(home.path(), &text);
        let ready = all.line("client ready address");
        echoes(field(&ready, "address").parse().unwrap()).await;
        let reverse = all.line("connections are taken for a client");
        echoes(field(&reverse, "address").parse().unwrap()).await;
        // Other processes of the user find each of them.
        let sockets = || fs::read_dir(home.path().join("control")).map_or(0, Iterator::count);
        eventually(20, "a socket for each, and one for the file", || sockets() == 4).await;
        all.signal(Signal::SIGTERM);
        assert_eq!(all.exit_code(), Some(143));
        assert_eq!(sockets(), 0);
    });
}

#[test]
fn when_one_of_them_cannot_run_all_end_with_its_exit_code() {
    bounded(60, async {
        let home = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = taken.local_addr().unwrap();
        let text = format!(
            "[[server]]\nlisten = \"127.0.0.1:0\"\ndial = \"localhost:9\"\nallow-anyone = true\n\
             [[client]]\ndial = \"localhost:9\"\nkeep-trying = true\nlisten = \"{at}\"\n"
        );
        let mut all = start(home.path(), &text);
        assert_eq!(all.exit_code(), Some(4));
        assert!(all.line("imux: error").contains(&format!("cannot listen on {at}")));
    });
}

#[test]
fn a_wrong_file_starts_nothing_and_is_told_by_line_and_column() {
    let home = tempfile::tempdir().unwrap();
    let path = file(home.path(), "[[server]]\ndail = \"localhost:22\"\n");
    let shown = path.display().to_string();
    for args in [&["run", "-c", &shown][..], &["check", &shown]] {
        let (code, said, told) = run(home.path(), args);
        assert_eq!((code, said.as_str()), (3, ""), "{told}");
        let place =
            format!("{shown}:2:1: there is no key `dail` in [server] (did you mean `dial`?)");
        assert!(told.contains(&place) && told.contains("Nothing was started."), "{told}");
    }
    let path = file(home.path(), "[[server]]\ndial = \"localhost:22\"\n");
    let (code, said, told) = run(home.path(), &["check", path.to_str().unwrap()]);
    assert_eq!((code, told.as_str()), (0, ""));
    assert_eq!(said, format!("{shown}: 1 server, nothing wrong\n"));
    assert!(!home.path().join("server.key").exists(), "a check makes nothing");
}

#[test]
fn a_command_line_is_printed_as_a_file_that_is_right_and_holds_no_secret() {
    let home = tempfile::tempdir().unwrap();
    let users = home.path().join("users");
    fs::write(&users, "anna:sesame\n").unwrap();
    let users = users.to_str().unwrap();
    let args =
        ["client", "--dial=s:1", "-D:1080", "--proxy-auth", users, "--bind=dev:x,tier=backup"];
    let (code, text, told) = run(home.path(), &[&args[..], &["--print-config"]].concat());
    assert_eq!((code, told.as_str()), (0, ""));
    assert!(text.contains(users) && !text.contains("sesame"), "{text}");
    let path = file(home.path(), &text);
    let (code, said, told) = run(home.path(), &["check", path.to_str().unwrap()]);
    assert_eq!(code, 0, "{told}\n{text}");
    assert!(said.ends_with(": 1 client, nothing wrong\n"), "{said}");
    // What cannot be run is not printed either.
    let (code, text, told) = run(home.path(), &["client", "--dial=s:1", "--print-config"]);
    assert_eq!((code, text.as_str()), (2, ""), "{told}");
}
