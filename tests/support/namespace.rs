//! Tests in a network and a file system of their own, made without privileges.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::skipped;

/// Set in the process that runs a test's body.
const INSIDE: &str = "IMUX_TEST_NAMESPACE";

/// Runs `body` in this test program once more, as root of user, network and mount namespaces of its
/// own; `test` is the test's full name. If the system makes none, the test is skipped.
#[track_caller]
pub(crate) fn in_namespace(test: &str, body: impl FnOnce()) {
    within(unshare(), missing, test, body);
}

/// The same for the system's root, in network and mount namespaces only: there are groups besides
/// root's. Anybody else's test is skipped.
#[track_caller]
pub(crate) fn in_namespace_of_root(test: &str, body: impl FnOnce()) {
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--mount", "--"]);
    let missing = || {
        let works = works(Command::new("unshare").args(["--net", "--mount", "--", "ip", "link"]));
        (!works).then(|| "not root, or no namespaces here (unshare --net, ip)".to_owned())
    };
    within(unshare, missing, test, body);
}

#[track_caller]
fn within(
    mut unshare: Command,
    missing: impl FnOnce() -> Option<String>,
    test: &str,
    body: impl FnOnce(),
) {
    if std::env::var_os(INSIDE).is_some() {
        shell("ip link set lo up");
        return body();
    }
    if skipped::because(missing()) {
        return;
    }
    let output = unshare
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{errors}");
    assert!(told.contains("1 passed"), "there is no test {test}: {told}");
    print!("{told}");
}

/// Why there are no namespaces here, if there are none.
pub(crate) fn missing() -> Option<String> {
    if !works(unshare().args(["ip", "link"])) {
        return Some("no namespaces here (unshare --user --net, ip)".to_owned());
    }
    // To a user other than root, everything that is not theirs belongs to nobody there, the folders
    // above their own included.
    let owned = works(unshare().args(["sh", "-c", "test $(stat -c %u /) = 0"]));
    (!owned).then(|| "not root: in a namespace of its own it has no folder for keys".to_owned())
}

/// Why this shell script cannot do its work here, within [`in_namespace`], if it cannot.
pub(crate) fn cannot(script: &str) -> Option<String> {
    let works = works(Command::new("sh").args(["-ec", script]));
    (!works).then(|| format!("not possible here: {script}"))
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--mount", "--"]);
    // An ordinary user's may not lead to `tc`.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

fn works(command: &mut Command) -> bool {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Runs a shell script; each of its commands has to succeed.
#[track_caller]
pub(crate) fn shell(script: &str) {
    let status = Command::new("sh").args(["-ec", script]).status().unwrap();
    assert!(status.success(), "{script}");
}

/// Another machine: a network of its own beside the test's. Gone when dropped.
#[derive(Debug)]
pub(crate) struct Host(Child);

impl Host {
    /// For use within [`in_namespace`].
    pub(crate) fn new() -> Self {
        let child = Command::new("unshare").args(["--net", "--", "sleep", "300"]).spawn().unwrap();
        let host = Self(child);
        let network =
            |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).unwrap();
        while network(&host.pid()) == network("self") {
            std::thread::sleep(Duration::from_millis(5));
        }
        host.shell("ip link set lo up");
        host
    }

    /// What `ip link set … netns` takes.
    pub(crate) fn pid(&self) -> String {
        self.0.id().to_string()
    }

    /// A command for a program that runs there.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.0.id())).args(["--", program]);
        command
    }

    /// Does something there, such as open sockets, on a thread of its own.
    pub(crate) fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let network = std::fs::File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        let there = || {
            setns(network, CloneFlags::CLONE_NEWNET).unwrap();
            body()
        };
        std::thread::scope(|scope| scope.spawn(there).join().unwrap())
    }

    #[track_caller]
    pub(crate) fn shell(&self, script: &str) {
        let status = self.command("sh").args(["-ec", script]).status().unwrap();
        assert!(status.success(), "{script}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
