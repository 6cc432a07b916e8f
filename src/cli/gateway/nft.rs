//! The program `nft`: asked once, or kept running to hold a table.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;

use super::process::Process;
use super::rules::{KILL_SWITCH, TABLE};
use crate::cli::text::escape;

/// How often to look whether the kernel has put rules in place, or removed them.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How many times: ten seconds at least.
const LOOKS_MAX: usize = 1_000;

/// How many times to look whether another's table goes.
const GOING_LOOKS_MAX: usize = 50;

/// Why rules cannot be set or shown: what has happened, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error(
        "there is no program `nft` here; install nftables (Debian: apt install nftables) and try again"
    )]
    NoNft,
    #[error(
        "this process may not change nftables' rules; it needs CAP_NET_ADMIN: run it as root, or in a service with \
         AmbientCapabilities=CAP_NET_ADMIN"
    )]
    NotAllowed,
    #[error(
        "there is a table `inet {TABLE}` already that this client does not hold: another client's, or somebody's own; \
         `nft list table inet {TABLE}` shows it; end that client, or rename the table"
    )]
    Taken,
    #[error(
        "nftables does not take the rules: {0}; it has to be Linux 5.12 with nftables 0.9.9 or later, with NAT, REDIRECT, TPROXY, \
         FIB and REJECT"
    )]
    Refused(String),
    #[error(
        "nftables has not set the rules within ten seconds; see whether `nft list tables` answers"
    )]
    Late,
    #[error(
        "datagrams cannot be routed to this client: {0}; `ip rule` and `ip route show table all` show what is in the way; \
         with --no-udp they are left alone"
    )]
    NotRouted(String),
    #[error("cannot run `nft`: {0}")]
    Broken(#[from] io::Error),
}

/// Where the program is: an ordinary user's PATH does not lead there.
fn command() -> Result<Command, Problem> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let mut found = folders.map(|folder| folder.join("nft")).filter(|file| file.is_file());
    let mut command = Command::new(found.next().ok_or(Problem::NoNft)?);
    // Asked line by line it keeps a history in the home, of which nobody has any use.
    command.env("LC_ALL", "C").env("HOME", "/nonexistent").stdin(Stdio::null());
    Ok(command)
}

/// What it prints; its complaint if it does not do what it is asked.
fn ask(args: &[&str]) -> Result<Result<String, String>, Problem> {
    let output = command()?.args(args).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(Ok(text(&output.stdout)));
    }
    let complaint = text(&output.stderr);
    if complaint.contains("Operation not permitted") {
        return Err(Problem::NotAllowed);
    }
    Ok(Err(complaint))
}

/// A table as nftables shows it; `None` if there is none.
pub(super) fn table(name: &str) -> Result<Option<String>, Problem> {
    match ask(&["list", "table", "inet", name])? {
        Ok(shown) => Ok(Some(shown)),
        Err(complaint) if complaint.contains("No such file or directory") => Ok(None),
        Err(complaint) => Err(refused(&complaint)),
    }
}

/// Removes the kill switch; says whether there was one.
pub(super) fn remove_kill_switch() -> Result<bool, Problem> {
    if table(KILL_SWITCH)?.is_none() {
        return Ok(false);
    }
    match ask(&["delete", "table", "inet", KILL_SWITCH])? {
        Ok(_) => Ok(true),
        Err(complaint) => Err(refused(&complaint)),
    }
}

/// The first line of a complaint, which is the one that says why.
fn refused(complaint: &str) -> Problem {
    let first = complaint.lines().map(str::trim).find(|line| !line.is_empty());
    Problem::Refused(escape(first.unwrap_or("it does not say why")))
}

/// Other tables' chains that drop whatever comes in and is not accepted: what is taken comes in by
/// them, and is no longer on its way through.
pub(super) fn dropping_chains() -> Result<Vec<String>, Problem> {
    let Ok(shown) = ask(&["-j", "list", "chains"])? else { return Ok(Vec::new()) };
    Ok(dropping_in(&serde_json::from_str(&shown).unwrap_or_default()))
}

fn dropping_in(shown: &Value) -> Vec<String> {
    let listed = shown.get("nftables").and_then(Value::as_array).into_iter().flatten();
    let dropping = listed.filter_map(|it| {
        let chain = it.get("chain")?;
        let text = |name| chain.get(name).and_then(Value::as_str);
        let drops = text("hook")? == "input" && text("policy")? == "drop";
        let place = format!("{} {} {}", text("family")?, text("table")?, text("name")?);
        drops.then(|| escape(&place))
    });
    dropping.collect()
}

/// A running `nft` to which a table belongs. It ends with this process, however that ends, and the
/// kernel removes the table then.
#[derive(Debug)]
pub(super) struct Holder(Process);

impl Holder {
    /// Starts one, if nobody else holds the table. `ended` is notified when it has ended, by
    /// whatever.
    pub(super) fn start(ended: Arc<Notify>) -> Result<Self, Problem> {
        // That of a client that was killed just now goes in an instant.
        for _ in 0..GOING_LOOKS_MAX {
            if table(TABLE)?.is_none() {
                break;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        if table(TABLE)?.is_some() {
            return Err(Problem::Taken);
        }
        let mut command = command()?;
        command.arg("-i").stdout(Stdio::null());
        Ok(Self(Process::start(command, ended)?))
    }

    /// Whether the table is still held.
    pub(super) fn is_alive(&mut self) -> bool {
        self.0.is_alive()
    }

    /// Has it run one line, and does not wait for that.
    pub(super) fn run(&mut self, line: &str) -> io::Result<()> {
        self.0.tell(line)
    }

    /// Has it run one line, and waits until the table contains `sign`.
    pub(super) fn run_until(&mut self, line: &str, sign: &str) -> Result<(), Problem> {
        self.0.complaint().clear();
        self.run(line)?;
        for _ in 0..LOOKS_MAX {
            // It says nothing when it has done something, but when it has not.
            if table(TABLE)?.is_some_and(|shown| shown.contains(sign)) {
                return Ok(());
            }
            let complaint = self.0.complaint().clone();
            if !complaint.is_empty() {
                return Err(refused(&complaint));
            }
            if !self.is_alive() {
                break;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err(Problem::Late)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn chains_that_drop_what_comes_in_are_found() {
        let chain = |table: &str, hook: &str, policy: &str| json!({"chain": {"family": "inet", "table": table, "name": "x", "hook": hook, "policy": policy}});
        let listed = json!({"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"chain": {"family": "inet", "table": "a", "name": "regular"}},
            chain("b", "input", "accept"),
            chain("c", "forward", "drop"),
            chain("filter", "input", "drop"),
        ]});
        assert_eq!(dropping_in(&listed), ["inet filter x"]);
        assert!(dropping_in(&Value::Null).is_empty());
    }

    #[test]
    fn a_complaint_is_told_by_its_first_line() {
        let told = refused("\n  Error: \x1bno\nmore\n").to_string();
        assert!(told.contains("Error: ") && !told.contains('\x1b') && !told.contains("more"));
        assert!(refused("").to_string().contains("it does not say why"));
    }
}
