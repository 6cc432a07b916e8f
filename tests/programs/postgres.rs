//! PostgreSQL: a database that is filled and worked on through the tunnel is the same as one that
//! is worked on directly.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::support::eventually;
use crate::{Chaos, Daemon, bounded, command, installed, run};

#[test]
fn pgbench() {
    if !installed(&["initdb", "postgres", "psql", "pgbench"]) {
        return;
    }
    bounded(async {
        let daemon = Daemon::start(tempfile::tempdir().unwrap(), postgres).await;
        let direct = daemon.addr;
        let awake = || sql(direct, "postgres", "select 1").output().unwrap().status.success();
        eventually(30, "it has started", awake).await;
        worked_on(direct, "direct").await;
        let expected = contents(direct, "direct").await;
        let mut chaos = Chaos::before(&daemon).await;
        let addr = chaos.tunnel.addr;
        while chaos.goes_on() {
            worked_on(addr, "carried").await;
            for by in [direct, addr] {
                assert!(contents(by, "carried").await == expected, "the databases differ");
            }
        }
        chaos.end("pgbench");
    });
}

/// A new cluster in the folder, for whoever comes from this machine.
fn postgres(folder: &Path, addr: SocketAddr) -> Command {
    let data = folder.join("data");
    let mut initdb = unprivileged("initdb", folder);
    initdb.args(["--no-sync", "--no-locale", "-E", "UTF8", "-U", "imux", "-A", "trust"]);
    let made = initdb.arg("-D").arg(&data).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut postgres = unprivileged("postgres", folder);
    postgres.args(["-p", &addr.port().to_string(), "-h", "127.0.0.1", "-k", "", "-F", "-D"]);
    postgres.arg(data);
    postgres
}

/// PostgreSQL refuses to be root: then it is nobody.
fn unprivileged(program: &str, folder: &Path) -> Command {
    const NOBODY: u32 = 65_534;
    let mut command = command(program);
    command.current_dir(folder);
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn client(program: &str, addr: SocketAddr) -> Command {
    let mut client = command(program);
    client.args(["-h", "127.0.0.1", "-p", &addr.port().to_string(), "-U", "imux"]);
    client.env("PGCONNECT_TIMEOUT", "60");
    client
}

fn sql(addr: SocketAddr, database: &str, statement: &str) -> Command {
    let mut psql = client("psql", addr);
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement, database]);
    psql
}

/// Makes the database anew, fills it, and works on it: what eight clients add up does not depend on
/// who is first.
async fn worked_on(addr: SocketAddr, database: &str) {
    run(sql(addr, "postgres", &format!("drop database if exists {database}"))).await;
    run(sql(addr, "postgres", &format!("create database {database}"))).await;
    let mut fill = client("pgbench", addr);
    fill.args(["-q", "-i", "-s", "1", database]);
    run(fill).await;
    for protocol in ["simple", "prepared"] {
        let mut work = client("pgbench", addr);
        work.args(["-n", "-c", "8", "-j", "2", "-t", "50", "--random-seed", "7"]);
        let report = run({
            work.args(["-M", protocol, database]);
            work
        })
        .await;
        let report = String::from_utf8_lossy(&report.stdout).into_owned();
        assert!(report.contains("processed: 400/400"), "{report}");
    }
}

/// All that is in the database, but for when it was written.
async fn contents(addr: SocketAddr, database: &str) -> Vec<Vec<u8>> {
    let mut contents = Vec::new();
    for what in [
        "select * from pgbench_accounts order by aid",
        "select * from pgbench_tellers order by tid",
        "select * from pgbench_branches order by bid",
        "select tid, bid, aid, delta from pgbench_history order by 1, 2, 3, 4",
    ] {
        let copied = run(sql(addr, database, &format!("copy ({what}) to stdout"))).await;
        contents.push(copied.stdout);
    }
    contents
}
