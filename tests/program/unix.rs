//! Unix sockets in place of ports, at either end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::support::bounded;
use crate::support::bytes::{Pattern, exchange};
use crate::support::net::{Destination, connect};
use crate::support::pair::Pair;
use crate::support::process::{field, run};

/// Sends back what it gets, until it ends.
fn echo_at(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                tokio::io::copy(&mut read, &mut write).await?;
                write.shutdown().await
            });
        }
    });
}

async fn there_and_back(socket: UnixStream, length: u64) {
    let pattern = Pattern::new(4);
    exchange(socket, (&pattern, length), (&pattern, length)).await.unwrap();
}

#[test]
fn bytes_and_ends_pass_between_two_of_them() {
    bounded(60, async {
        let folder = tempfile::tempdir().unwrap();
        let far = folder.path().join("far");
        echo_at(&far);
        let mut pair = Pair::server(&format!("unix:{}", far.display()), None);
        let near = pair.path("near");
        let mut client = pair.client(&["--listen", near.to_str().unwrap()]);
        assert_eq!(field(&client.line("client ready"), "address"), near.to_str().unwrap());
        assert_eq!(fs::metadata(&near).unwrap().permissions().mode() & 0o777, 0o600);
        for length in [0, 1, 100_000, 20_000_000] {
            there_and_back(UnixStream::connect(&near).await.unwrap(), length).await;
        }
        // Its file goes with it.
        client.signal(Signal::SIGTERM);
        client.exit_code();
        assert!(!near.exists());
        assert!(pair.server.is_running());
    });
}

#[test]
fn what_a_program_does_not_read_yet_waits_for_it() {
    bounded(60, async {
        const LENGTH: u64 = 8 << 20;
        let folder = tempfile::tempdir().unwrap();
        let far = folder.path().join("far");
        let listener = UnixListener::bind(&far).unwrap();
        let pair = Pair::server(far.to_str().unwrap(), None);
        let near = pair.path("near");
        let client = pair.client(&["--listen", near.to_str().unwrap()]);
        client.line("client ready");
        let mut reader = UnixStream::connect(&near).await.unwrap();
        reader.write_all(b"!").await.unwrap();
        let (mut writer, _) = listener.accept().await.unwrap();
        assert_eq!(writer.read_u8().await.unwrap(), b'!');
        let sent = tokio::spawn(async move {
            Pattern::new(4).send(&mut writer, LENGTH).await?;
            writer.shutdown().await
        });
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        assert_eq!(Pattern::new(4).receive(&mut reader).await.unwrap(), LENGTH);
        sent.await.unwrap().unwrap();
    });
}

#[test]
fn a_client_goes_to_a_socket_that_its_line_names_and_to_no_other() {
    bounded(60, async {
        let folder = tempfile::tempdir().unwrap();
        let [listed, other] = ["listed", "other"].map(|name| folder.path().join(name));
        echo_at(&listed);
        echo_at(&other);
        let echo = Destination::echo().await;
        let line = format!("dial=\"*:*\",dial=\"unix:{}\"", listed.display());
        let pair = Pair::server(&echo.addr.to_string(), Some(&line));
        let forward =
            |name: &str, to: &Path| format!("{}:{}", pair.path(name).display(), to.display());
        let client = pair.client(&[
            "-L",
            &forward("a", &listed),
            "-L",
            &forward("b", &other),
            "-L",
            &format!("127.0.0.1:0:{}", listed.display()),
        ]);
        let ports = client.nth_line("client ready", 3);
        there_and_back(UnixStream::connect(pair.path("a")).await.unwrap(), 10_000).await;
        let mut refused = UnixStream::connect(pair.path("b")).await.unwrap();
        assert!(matches!(refused.read(&mut [0]).await, Ok(0) | Err(_)));
        let told = client.line("destination not allowed");
        assert!(told.contains(other.to_str().unwrap()) && told.contains("process"), "{told}");
        assert!(
            pair.server
                .line("cannot reach")
                .contains(&format!("add dial=\"unix:{}\"", other.display()))
        );
        let mut port = connect(field(&ports, "address"));
        port.write_all(b"x").await.unwrap();
        assert_eq!(port.read_u8().await.unwrap(), b'x');
    });
}

#[test]
fn only_a_socket_that_nobody_listens_on_is_replaced() {
    bounded(60, async {
        let echo = Destination::echo().await;
        let pair = Pair::server(&echo.addr.to_string(), None);
        let near = pair.path("near");
        drop(std::os::unix::net::UnixListener::bind(&near).unwrap());
        let place = near.to_str().unwrap();
        let client = pair.client(&["--listen", place]);
        client.line("client ready");
        there_and_back(UnixStream::connect(&near).await.unwrap(), 1_000).await;

        let to = ["client", "--dial", &pair.at, "--pin", &pair.key];
        let refused = |place: &str| {
            let (code, _, told) =
                run(pair.folder.path(), &[&to[..], &["--listen", place]].concat());
            (code, told)
        };
        let (code, told) = refused(place);
        assert!(code == 4 && told.contains("another program listens there"), "{code} {told}");
        let file = pair.path("file");
        fs::write(&file, "kept").unwrap();
        let (code, told) = refused(file.to_str().unwrap());
        assert!(code == 4 && told.contains("that file is kept"), "{code} {told}");
        assert_eq!(fs::read(&file).unwrap(), b"kept");
        let (code, told) = refused("/nowhere/at/all");
        assert!(code == 4 && told.contains("does not exist"), "{code} {told}");
        let (code, told) = refused("/tmp/../tmp/x");
        assert!(code == 2 && told.contains("`..`"), "{code} {told}");
        there_and_back(UnixStream::connect(&near).await.unwrap(), 1_000).await;
    });
}
