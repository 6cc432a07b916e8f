//! A shell and copies of files over SSH.

use std::fs::{self, File};
use std::path::Path;

use crate::{Chaos, Daemon, assert_same, bounded, command, file, installed, run};

/// An SSH server of this user's, with the user's key in its folder.
pub(crate) async fn server() -> Daemon {
    let folder = tempfile::tempdir().unwrap();
    for name in ["host", "user"] {
        let key = folder.path().join(name);
        let mut keygen = command("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(&key);
        assert!(keygen.status().unwrap().success());
    }
    fs::copy(folder.path().join("user.pub"), folder.path().join("authorized")).unwrap();
    // As root, sshd wants this folder, which only its service makes.
    let _ = fs::create_dir_all("/run/sshd");
    Daemon::start(folder, |folder, addr| {
        let config = folder.join("sshd_config");
        let text = format!(
            "ListenAddress {addr}\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized\n\
             PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             PermitRootLogin yes\nSubsystem sftp internal-sftp\n",
            folder.display()
        );
        fs::write(&config, text).unwrap();
        let mut sshd = command("sshd");
        sshd.args(["-D", "-e", "-f"]).arg(config);
        sshd
    })
    .await
}

#[test]
fn ssh_and_scp() {
    if !installed(&["ssh", "scp", "sshd", "ssh-keygen"]) {
        return;
    }
    bounded(async {
        let daemon = server().await;
        let mut chaos = Chaos::before(&daemon).await;
        let addr = chaos.tunnel.addr;
        let folder = daemon.folder.path();
        let local = file(folder.join("local"), 1, 20_000_000);
        let (remote, back) = (folder.join("remote"), folder.join("back"));
        let options = |port: &str| {
            let key = folder.join("user");
            let known = format!("UserKnownHostsFile={}", folder.join("known").display());
            let mut options = vec!["-F".to_owned(), "none".to_owned(), "-q".to_owned()];
            options.extend(["-i".to_owned(), key.display().to_string(), port.to_owned()]);
            options.push(addr.port().to_string());
            for option in [&known, "StrictHostKeyChecking=no", "IdentitiesOnly=yes"] {
                options.extend(["-o".to_owned(), option.to_owned()]);
            }
            options
        };
        let far = |path: &Path| format!("127.0.0.1:{}", path.display());

        while chaos.goes_on() {
            let mut scp = command("scp");
            scp.args(options("-P")).arg(&local).arg(far(&remote));
            run(scp).await;
            assert_same(&local, &remote);
            let mut scp = command("scp");
            scp.args(options("-P")).arg(far(&remote)).arg(&back);
            run(scp).await;
            assert_same(&local, &back);

            // Both ways at once through one shell, and an exit code.
            let mut ssh = command("ssh");
            ssh.args(options("-p")).args(["127.0.0.1", "cat"]).stdin(File::open(&local).unwrap());
            assert!(run(ssh).await.stdout == fs::read(&local).unwrap(), "cat changed it");
            let mut ssh = command("ssh");
            ssh.args(options("-p")).args(["127.0.0.1", "exit 7"]);
            assert_eq!(ssh.status().unwrap().code(), Some(7));
            for copy in [&remote, &back] {
                fs::remove_file(copy).unwrap();
            }
        }
        chaos.end("ssh");
    });
}
