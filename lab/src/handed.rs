//! What the kernel hands to a client (`--transparent`): rules that redirect connections, in
//! networks of the lab's own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::error::LabError;
use super::proc::{Place, command};
use super::scratch::Scratch;

/// What comes from this address is left alone: the server dials from it.
pub const SERVERS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 8);

/// Moves this thread, and what it starts from now on, into a network of its own with a loopback
/// interface and nothing else.
pub fn enter_own_network() -> Result<(), LabError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| {
        LabError::setup("make a network namespace (imux-transparent needs root, for its rules)", e)
    })?;
    run(&Place::Host, "ip", &["link", "set", "lo", "up"])
}

/// Rules by which connections to one place are taken by another. Gone when dropped.
#[derive(Debug)]
pub struct Redirect(Place);

impl Redirect {
    /// Leads what programs in `place` mean for `meant` to the port of `taker`, which is there.
    pub fn new(place: Place, meant: SocketAddr, taker: SocketAddr) -> Result<Self, LabError> {
        let (ip, port, to) = (meant.ip(), meant.port(), taker.port());
        let rules = format!(
            "table ip imux_lab {{ chain taken {{ type nat hook output priority -100; \
             ip daddr {ip} ip saddr != {SERVERS} tcp dport {port} redirect to :{to}; }}; }}"
        );
        run(&place, "nft", &[&rules])?;
        Ok(Self(place))
    }
}

impl Drop for Redirect {
    fn drop(&mut self) {
        let _ = run(&self.0, "nft", &["delete table ip imux_lab"]);
    }
}

/// Lets the client whose home is `home-client` go to `places`, which it names to the server.
pub fn authorize(program: &Path, places: &[&str], scratch: &Scratch) -> Result<(), LabError> {
    let run = |end: &str, args: &[&str]| {
        let mut command = Command::new(program);
        let output = command.args(args).env("IMUX_HOME", scratch.file(end)).output();
        let output = output.map_err(|e| LabError::setup("run imux", e))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(LabError::Run(String::from_utf8_lossy(&output.stderr).into_owned())),
        }
    };
    let key = run("home-client", &["identity"])?;
    let rules = places.iter().flat_map(|&place| ["--dial", place]);
    let args: Vec<_> = ["authorize", &key].into_iter().chain(rules).collect();
    run("home-server", &args).map(drop)
}

fn run(place: &Place, program: &str, args: &[&str]) -> Result<(), LabError> {
    let fail =
        |cause: String| LabError::setup(format!("run `{program} {}`", args.join(" ")), cause);
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let done = command(place, Path::new(program), &args).output();
    let done = done.map_err(|e| fail(e.to_string()))?;
    if done.status.success() {
        Ok(())
    } else {
        Err(fail(String::from_utf8_lossy(&done.stderr).trim().to_owned()))
    }
}
