//! Downloads over HTTP: one large, many small at once.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::net::Destination;
use crate::support::tunnel::Tunnel;
use crate::{Chaos, Daemon, assert_same, bounded, command, file, installed, run};

/// Answers as soon as it has read the head of a request, and closes with the rest unread.
async fn refuse(mut socket: tokio::net::TcpStream) {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let mut piece = [0; 1024];
        let got = socket.read(&mut piece).await.unwrap();
        assert!(got > 0, "{:?}", String::from_utf8_lossy(&head));
        head.extend_from_slice(&piece[..got]);
    }
    // Something of the rest is there: what closes it is a reset.
    socket.peek(&mut [0]).await.unwrap();
    let answer =
        b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    socket.write_all(answer).await.unwrap();
}

#[test]
fn curl_is_told_that_its_upload_is_refused() {
    if !installed(&["curl"]) {
        return;
    }
    bounded(async {
        let folder = tempfile::tempdir().unwrap();
        let upload = folder.path().join("upload");
        file(upload.clone(), 1, 20_000_000);
        let destination = Destination::start(refuse).await;
        let one = Tunnel::with(destination.addr, &["--bind", "127.0.0.2=1"], &[]).await;
        let ten = Tunnel::start(destination.addr).await;
        for (lanes, addr) in [(1, one.addr), (10, ten.addr)] {
            for attempt in 0..10 {
                let mut curl = command("curl");
                curl.args(["-sS", "-H", "Expect:", "-o", "/dev/null", "-w", "%{http_code}"]);
                curl.arg("--data-binary").arg(format!("@{}", upload.display()));
                curl.arg(format!("http://{addr}/"));
                let told =
                    tokio::task::spawn_blocking(move || curl.output().unwrap()).await.unwrap();
                let code = String::from_utf8_lossy(&told.stdout).into_owned();
                assert_eq!(code, "413", "{lanes} lanes, attempt {attempt}: {told:?}");
            }
        }
    });
}

#[test]
fn curl() {
    if !installed(&["curl", "python3"]) {
        return;
    }
    bounded(async {
        let folder = tempfile::tempdir().unwrap();
        let large = file(folder.path().join("large"), 1, 20_000_000);
        for number in 0..60 {
            file(folder.path().join(format!("small{number}")), number, number as usize * 701);
        }
        let daemon = Daemon::start(folder, |folder, addr| {
            let mut python = command("python3");
            // Home is where some installations of Python find themselves.
            python.env("HOME", std::env::var_os("HOME").unwrap_or_default());
            python.args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"]);
            python.arg(folder).arg(addr.port().to_string());
            python
        })
        .await;
        let mut chaos = Chaos::before(&daemon).await;
        let addr = chaos.tunnel.addr;
        let folder = daemon.folder.path();
        let url = format!("http://{addr}/");
        while chaos.goes_on() {
            let got = tempfile::tempdir().unwrap();
            let mut curl = command("curl");
            curl.args(["-sS", "--fail", "-o"])
                .arg(got.path().join("large"))
                .arg(format!("{url}large"));
            run(curl).await;
            assert_same(&large, &got.path().join("large"));

            let mut curl = command("curl");
            curl.args(["-sS", "--fail", "--parallel", "--parallel-max", "20", "-o"]);
            curl.arg(got.path().join("small#1")).arg(format!("{url}small[0-59]"));
            run(curl).await;
            for number in 0..60 {
                let name = format!("small{number}");
                assert_same(&folder.join(&name), &got.path().join(&name));
            }
        }
        chaos.end("curl");
    });
}
