//! Downloads over HTTP: one large, many small at once.

use crate::{Chaos, Daemon, assert_same, bounded, command, file, installed, run};

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
