//! Programs that were not written here, carried unharmed while lanes die under them.
//!
//! A program that is not installed is skipped, loudly; with `IMUX_REQUIRE_PROGRAMS=1` that is a
//! failure.

#![cfg(feature = "cli")]

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use support::bytes::Pattern;
use support::net::unused_port;
use support::relay::Death;
use support::tunnel::Tunnel;
use support::{bounded, eventually};

mod support;

/// Where a program is; servers are in sbin, which an ordinary user's PATH may lack.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Whether all of these are there.
#[track_caller]
fn installed(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| find(program).is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    let required = std::env::var("IMUX_REQUIRE_PROGRAMS").is_ok_and(|value| value == "1");
    assert!(!required, "not installed: {missing:?}");
    eprintln!("*** SKIPPED: NOT INSTALLED: {missing:?} ***");
    false
}

fn command(program: &str) -> Command {
    let mut command = Command::new(find(program).unwrap());
    // Nobody's settings, and no questions.
    command.stdin(Stdio::null()).env("HOME", "/nonexistent").env("GIT_TERMINAL_PROMPT", "0");
    command
}

/// A server of somebody else's; killed when dropped.
struct Daemon {
    child: Child,
    addr: SocketAddr,
    folder: tempfile::TempDir,
}

impl Daemon {
    /// Starts a server as `command` says, and waits until it takes connections.
    async fn start(
        folder: tempfile::TempDir,
        command: impl FnOnce(&Path, SocketAddr) -> Command,
    ) -> Self {
        let addr = unused_port().await;
        let log = File::create(folder.path().join("daemon.log")).unwrap();
        let mut command = command(folder.path(), addr);
        let command = command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let mut daemon = Self { child, addr, folder };
        let connects = |addr| std::net::TcpStream::connect(addr).is_ok();
        let ended = |daemon: &mut Self| daemon.child.try_wait().unwrap().is_some();
        eventually(10, "the server takes connections", || connects(addr) || ended(&mut daemon))
            .await;
        assert!(!ended(&mut daemon), "it has ended: {}", daemon.log());
        daemon
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("daemon.log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the server ---\n{}", self.log());
        }
    }
}

/// Runs the program to its end, killing a lane now and then, each in another way than the one before.
async fn run(tunnel: &Tunnel, mut command: Command) -> Output {
    let shown = format!("{command:?}");
    let mut running = tokio::task::spawn_blocking(move || command.output().unwrap());
    let mut deaths = Death::ALL.into_iter().cycle();
    let output = loop {
        tokio::select! {
            done = &mut running => break done.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(150)) => {
                deaths.next().map(|death| tunnel.relay.kill(death));
            }
        }
    };
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}: {}: {told}", output.status);
    output
}

/// A file of such a size; its contents can be told from all others.
fn file(path: PathBuf, seed: u64, length: usize) -> PathBuf {
    fs::write(&path, Pattern::new(seed).bytes(length)).unwrap();
    path
}

#[track_caller]
fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (fs::read(one).unwrap(), fs::read(other).unwrap());
    assert!(one == other, "the files differ");
}

/// Ten lanes of 2 MB/s each: slow enough that lanes die under what is carried.
async fn tunnel_to(daemon: &Daemon) -> Tunnel {
    let tunnel = Tunnel::start(daemon.addr).await;
    tunnel.relay.throttle(2_000_000);
    tunnel
}

#[test]
fn ssh_and_scp() {
    if !installed(&["ssh", "scp", "sshd", "ssh-keygen"]) {
        return;
    }
    bounded(120, async {
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
        let daemon = Daemon::start(folder, |folder, addr| {
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
        .await;
        let mut tunnel = tunnel_to(&daemon).await;
        let folder = daemon.folder.path();
        let local = file(folder.join("local"), 1, 20_000_000);
        let (remote, back) = (folder.join("remote"), folder.join("back"));
        let options = |port: &str| {
            let key = folder.join("user");
            let known = format!("UserKnownHostsFile={}", folder.join("known").display());
            let mut options = vec!["-F".to_owned(), "none".to_owned(), "-q".to_owned()];
            options.extend(["-i".to_owned(), key.display().to_string(), port.to_owned()]);
            options.push(tunnel.addr.port().to_string());
            for option in [&known, "StrictHostKeyChecking=no", "IdentitiesOnly=yes"] {
                options.extend(["-o".to_owned(), option.to_owned()]);
            }
            options
        };
        let far = |path: &Path| format!("127.0.0.1:{}", path.display());

        let mut scp = command("scp");
        scp.args(options("-P")).arg(&local).arg(far(&remote));
        run(&tunnel, scp).await;
        assert_same(&local, &remote);
        let mut scp = command("scp");
        scp.args(options("-P")).arg(far(&remote)).arg(&back);
        run(&tunnel, scp).await;
        assert_same(&local, &back);

        // Both ways at once through one shell, and an exit code.
        let mut ssh = command("ssh");
        ssh.args(options("-p")).args(["127.0.0.1", "cat"]).stdin(File::open(&local).unwrap());
        assert!(run(&tunnel, ssh).await.stdout == fs::read(&local).unwrap(), "cat changed it");
        let mut ssh = command("ssh");
        ssh.args(options("-p")).args(["127.0.0.1", "exit 7"]);
        assert_eq!(ssh.status().unwrap().code(), Some(7));
        tunnel.assert_healthy();
    });
}

#[test]
fn rsync_with_checksums() {
    if !installed(&["rsync"]) {
        return;
    }
    bounded(120, async {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("module")).unwrap();
        let daemon = Daemon::start(folder, |folder, addr| {
            let config = folder.join("rsyncd.conf");
            let module = folder.join("module");
            let text = format!(
                "use chroot = no\nuid = 0\ngid = 0\n[module]\npath = {}\nread only = no\n",
                module.display()
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
        let mut tunnel = tunnel_to(&daemon).await;
        let folder = daemon.folder.path();
        let (source, back) = (folder.join("source"), folder.join("back"));
        fs::create_dir_all(source.join("deep/er")).unwrap();
        for number in 0..300 {
            file(source.join(format!("deep/er/{number}")), number, number as usize * 61);
        }
        let large = file(source.join("large"), 1, 16_000_000);
        let far = format!("rsync://{}/module/", tunnel.addr);
        let rsync = |from: &str, to: &str| {
            let mut rsync = command("rsync");
            rsync.args(["-a", "--checksum", "--itemize-changes", from, to]);
            rsync
        };
        let slash = |path: &Path| format!("{}/", path.display());
        run(&tunnel, rsync(&slash(&source), &far)).await;
        // A change in the middle: what both ends have is compared and not sent.
        let mut bytes = fs::read(&large).unwrap();
        bytes[8_000_000] ^= 1;
        fs::write(&large, bytes).unwrap();
        run(&tunnel, rsync(&slash(&source), &far)).await;
        run(&tunnel, rsync(&far, &slash(&back))).await;
        assert_same(&large, &back.join("large"));
        for number in 0..300 {
            let name = format!("deep/er/{number}");
            assert_same(&source.join(&name), &back.join(&name));
        }
        // By rsync's own checksums there is nothing left to do.
        let left = run(&tunnel, rsync(&slash(&source), &far)).await;
        assert_eq!(String::from_utf8_lossy(&left.stdout), "");
        tunnel.assert_healthy();
    });
}

#[test]
fn git_clone_and_push() {
    if !installed(&["git"]) {
        return;
    }
    bounded(120, async {
        let daemon = Daemon::start(tempfile::tempdir().unwrap(), |folder, addr| {
            let mut git = command("git");
            git.args(["daemon", "--export-all", "--enable=receive-pack", "--reuseaddr"]);
            git.arg("--listen=127.0.0.1").arg(format!("--port={}", addr.port()));
            git.arg(format!("--base-path={}", folder.display()));
            git
        })
        .await;
        let mut tunnel = tunnel_to(&daemon).await;
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
        done(git(folder, &["init", "-q", "--bare", "origin.git"]));
        done(git(folder, &["init", "-q", "work"]));
        let work = folder.join("work");
        for number in 0..40 {
            file(work.join(format!("file{number}")), number, 400_000);
            done(git(&work, &["add", "."]));
            done(git(&work, &["commit", "-q", "-m", &format!("commit {number}")]));
        }
        let url = format!("git://{}/origin.git", tunnel.addr);
        run(&tunnel, git(&work, &["push", "-q", &url, "HEAD:refs/heads/main"])).await;
        done(git(&origin, &["symbolic-ref", "HEAD", "refs/heads/main"]));
        run(&tunnel, git(folder, &["clone", "-q", &url, "clone"])).await;
        let clone = folder.join("clone");
        done(git(&clone, &["fsck", "--full", "--strict"]));
        done(git(&origin, &["fsck", "--full", "--strict"]));
        let tip = done(git(&work, &["rev-parse", "HEAD"]));
        assert_eq!(done(git(&clone, &["rev-parse", "HEAD"])), tip);
        assert_same(&work.join("file39"), &clone.join("file39"));
        tunnel.assert_healthy();
    });
}

#[test]
fn redis() {
    if !installed(&["redis-server", "redis-cli", "redis-benchmark"]) {
        return;
    }
    bounded(120, async {
        let daemon = Daemon::start(tempfile::tempdir().unwrap(), |folder, addr| {
            let mut redis = command("redis-server");
            redis.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            redis.args(["--port", &addr.port().to_string(), "--dir"]).arg(folder);
            redis
        })
        .await;
        let mut tunnel = tunnel_to(&daemon).await;
        let port = tunnel.addr.port().to_string();
        let cli = |args: &[&str]| {
            let mut cli = command("redis-cli");
            cli.args(["-h", "127.0.0.1", "-p", &port]).args(args);
            cli
        };
        // Text only: redis-cli takes values as lines. 3 MB of it.
        let value: String =
            Pattern::new(1).bytes(1_500_000).iter().map(|byte| format!("{byte:02x}")).collect();
        let input = daemon.folder.path().join("value");
        fs::write(&input, &value).unwrap();
        let mut set = cli(&["-x", "set", "large"]);
        set.stdin(File::open(&input).unwrap());
        assert_eq!(run(&tunnel, set).await.stdout, b"OK\n");
        let got = run(&tunnel, cli(&["get", "large"])).await.stdout;
        assert!(got.trim_ascii_end() == value.as_bytes(), "another value came back");

        let mut benchmark = command("redis-benchmark");
        benchmark.args(["-h", "127.0.0.1", "-p", &port, "-q", "-c", "50", "-n", "10000"]);
        benchmark.args(["-P", "8", "-d", "200", "-t", "set,get,lpush,lrange_100"]);
        let report = run(&tunnel, benchmark).await;
        let report = String::from_utf8_lossy(&report.stdout).into_owned();
        assert!(report.matches("requests per second").count() >= 4, "{report}");
        let pushed = run(&tunnel, cli(&["llen", "mylist"])).await.stdout;
        let pushed = String::from_utf8(pushed).unwrap();
        // 10,000 by LPUSH, and as many to fill the list for LRANGE.
        assert_eq!(pushed.trim(), "20000");
        tunnel.assert_healthy();
    });
}

#[test]
fn curl() {
    if !installed(&["curl", "python3"]) {
        return;
    }
    bounded(120, async {
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
        let mut tunnel = tunnel_to(&daemon).await;
        let (folder, got) = (daemon.folder.path(), tempfile::tempdir().unwrap());
        let url = format!("http://{}/", tunnel.addr);
        let mut curl = command("curl");
        curl.args(["-sS", "--fail", "-o"]).arg(got.path().join("large")).arg(format!("{url}large"));
        run(&tunnel, curl).await;
        assert_same(&large, &got.path().join("large"));

        let mut curl = command("curl");
        curl.args(["-sS", "--fail", "--parallel", "--parallel-max", "20", "-o"]);
        curl.arg(got.path().join("small#1")).arg(format!("{url}small[0-59]"));
        run(&tunnel, curl).await;
        for number in 0..60 {
            let name = format!("small{number}");
            assert_same(&folder.join(&name), &got.path().join(&name));
        }
        tunnel.assert_healthy();
    });
}
