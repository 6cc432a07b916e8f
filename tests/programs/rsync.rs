//! Trees of files, by rsync and its checksums.

use std::fs;
use std::path::Path;

use crate::{Chaos, Daemon, assert_same, bounded, command, file, installed, run};

#[test]
fn rsync_with_checksums() {
    if !installed(&["rsync"]) {
        return;
    }
    bounded(async {
        let folder = tempfile::tempdir().unwrap();
        let daemon = Daemon::start(folder, |folder, addr| {
            let config = folder.join("rsyncd.conf");
            let text = format!(
                "use chroot = no\nuid = 0\ngid = 0\n[module]\npath = {}/module\nread only = no\n",
                folder.display()
            );
            fs::write(&config, text).unwrap();
            let mut rsync = command("rsync");
            rsync.args(["--daemon", "--no-detach", "--address", "127.0.0.1"]);
            rsync
                .arg(format!("--port={}", addr.port()))
                .arg(format!("--config={}", config.display()));
            rsync
        })
        .await;
        let mut chaos = Chaos::before(&daemon).await;
        let addr = chaos.tunnel.addr;
        let folder = daemon.folder.path();
        let (source, back) = (folder.join("source"), folder.join("back"));
        fs::create_dir_all(source.join("deep/er")).unwrap();
        for number in 0..300 {
            file(source.join(format!("deep/er/{number}")), number, number as usize * 61);
        }
        fs::create_dir(folder.join("module")).unwrap();
        let large = file(source.join("large"), 1, 16_000_000);
        let far = format!("rsync://{addr}/module/");
        let rsync = |from: &str, to: &str| {
            let mut rsync = command("rsync");
            rsync.args(["-a", "--checksum", "--itemize-changes", from, to]);
            rsync
        };
        let slash = |path: &Path| format!("{}/", path.display());
        while chaos.goes_on() {
            run(rsync(&slash(&source), &far)).await;
            // A change in the middle: what both ends have is compared and not sent.
            let mut bytes = fs::read(&large).unwrap();
            bytes[8_000_000] ^= 1;
            fs::write(&large, bytes).unwrap();
            run(rsync(&slash(&source), &far)).await;
            run(rsync(&far, &slash(&back))).await;
            assert_same(&large, &back.join("large"));
            for number in 0..300 {
                let name = format!("deep/er/{number}");
                assert_same(&source.join(&name), &back.join(&name));
            }
            // By rsync's own checksums there is nothing left to do.
            let left = run(rsync(&slash(&source), &far)).await;
            assert_eq!(String::from_utf8_lossy(&left.stdout), "");
            for whole in [&back, &folder.join("module")] {
                fs::remove_dir_all(whole).unwrap();
                fs::create_dir(whole).unwrap();
            }
        }
        chaos.end("rsync");
    });
}
