//! Git over its own protocol: push and clone.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{Chaos, Daemon, assert_same, bounded, command, file, installed, run};

#[test]
fn git_clone_and_push() {
    if !installed(&["git"]) {
        return;
    }
    bounded(async {
        let daemon = Daemon::start(tempfile::tempdir().unwrap(), |folder, addr| {
            let mut git = command("git");
            git.args(["daemon", "--export-all", "--enable=receive-pack", "--reuseaddr"]);
            git.arg("--listen=127.0.0.1").arg(format!("--port={}", addr.port()));
            git.arg(format!("--base-path={}", folder.display()));
            git
        })
        .await;
        let mut chaos = Chaos::before(&daemon).await;
        let addr = chaos.tunnel.addr;
        let folder = daemon.folder.path();
        let git = |place: &Path, args: &[&str]| {
            let mut git = command("git");
            for setting in ["user.name=t", "user.email=t@example.org", "init.defaultBranch=main"] {
                git.args(["-c", setting]);
            }
            git.arg("-C").arg(place).args(args);
            git
        };
        let done = |mut git: Command| {
            let output = git.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let origin = folder.join("origin.git");
        done(git(folder, &["init", "-q", "work"]));
        let work = folder.join("work");
        for number in 0..40 {
            file(work.join(format!("file{number}")), number, 400_000);
            done(git(&work, &["add", "."]));
            done(git(&work, &["commit", "-q", "-m", &format!("commit {number}")]));
        }
        let url = format!("git://{addr}/origin.git");
        let tip = done(git(&work, &["rev-parse", "HEAD"]));
        let clone = folder.join("clone");
        while chaos.goes_on() {
            done(git(folder, &["init", "-q", "--bare", "origin.git"]));
            run(git(&work, &["push", "-q", &url, "HEAD:refs/heads/main"])).await;
            done(git(&origin, &["symbolic-ref", "HEAD", "refs/heads/main"]));
            run(git(folder, &["clone", "-q", &url, "clone"])).await;
            done(git(&clone, &["fsck", "--full", "--strict"]));
            done(git(&origin, &["fsck", "--full", "--strict"]));
            assert_eq!(done(git(&clone, &["rev-parse", "HEAD"])), tip);
            assert_same(&work.join("file39"), &clone.join("file39"));
            for whole in [&origin, &clone] {
                fs::remove_dir_all(whole).unwrap();
            }
        }
        chaos.end("git");
    });
}
