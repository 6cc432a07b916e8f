//! PostgreSQL: a database that is filled and worked on through the tunnel is the same as one that
//! is worked on directly.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::eventually;
use crate::support::pair::Pair;
use crate::{Chaos, Daemon, bounded, command, installed, run};

#[test]
fn pgbench() {
    if !installed(&["initdb", "postgres", "psql", "pgbench"]) {
        return;
    }
    bounded(async {
        let daemon = started().await;
        let direct = At::from(daemon.addr);
        worked_on(&direct, "direct").await;
        let expected = contents(&direct, "direct").await;
        let mut chaos = Chaos::before(&daemon).await;
        let carried = At::from(chaos.tunnel.addr);
        while chaos.goes_on() {
            worked_on(&carried, "carried").await;
            for by in [&direct, &carried] {
                assert!(contents(by, "carried").await == expected, "the databases differ");
            }
        }
        chaos.end("pgbench");
    });
}

#[test]
fn psql_over_unix_sockets_on_both_sides() {
    if !installed(&["initdb", "postgres", "psql", "pgbench"]) {
        return;
    }
    bounded(async {
        let daemon = started().await;
        let direct = At::from(daemon.addr);
        let far = At { folder: daemon.folder.path().into(), port: daemon.addr.port() };
        let here = tempfile::tempdir().unwrap();
        let near = At { folder: here.path().into(), port: 5432 };
        let rule = format!("dial=\"unix:{}\"", far.socket().display());
        let pair = Pair::server("127.0.0.1:9", Some(&rule));
        let both = format!("{}:{}", near.socket().display(), far.socket().display());
        let client = pair.client(&["-L", &both]);
        client.line("client ready");
        let by_a_socket = sql(&near, "postgres", "select inet_server_addr() is null");
        assert_eq!(run(by_a_socket).await.stdout, b"t\n");
        worked_on(&near, "carried").await;
        worked_on(&direct, "direct").await;
        let expected = contents(&direct, "direct").await;
        for by in [&direct, &near] {
            assert!(contents(by, "carried").await == expected, "the databases differ");
        }
        // The server's own words come back, and so does the program's exit code.
        let told = sql(&near, "postgres", "select 1 / 0").output().unwrap();
        assert_eq!(told.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&told.stderr).contains("division by zero"), "{told:?}");
    });
}

/// Where a database is reached: at a port, or by the socket in a folder that bears its number.
#[derive(Debug)]
struct At {
    /// Or an address.
    folder: PathBuf,
    port: u16,
}

impl From<SocketAddr> for At {
    fn from(addr: SocketAddr) -> Self {
        Self { folder: addr.ip().to_string().into(), port: addr.port() }
    }
}

impl At {
    fn socket(&self) -> PathBuf {
        self.folder.join(format!(".s.PGSQL.{}", self.port))
    }
}

/// A server that answers.
async fn started() -> Daemon {
    let daemon = Daemon::start(tempfile::tempdir().unwrap(), postgres).await;
    let at = At::from(daemon.addr);
    let awake = || sql(&at, "postgres", "select 1").output().unwrap().status.success();
    eventually(30, "it has started", awake).await;
    daemon
}

/// A new cluster in the folder, where its socket is, too; for whoever comes from this machine.
fn postgres(folder: &Path, addr: SocketAddr) -> Command {
    let data = folder.join("data");
    let mut initdb = unprivileged("initdb", folder);
    initdb.args(["--no-sync", "--no-locale", "-E", "UTF8", "-U", "imux", "-A", "trust"]);
    let made = initdb.arg("-D").arg(&data).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut postgres = unprivileged("postgres", folder);
    postgres.args(["-p", &addr.port().to_string(), "-h", "127.0.0.1", "-F", "-k"]);
    postgres.arg(folder).arg("-D").arg(data);
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

fn client(program: &str, at: &At) -> Command {
    let mut client = command(program);
    client.arg("-h").arg(&at.folder).args(["-p", &at.port.to_string(), "-U", "imux"]);
    client.env("PGCONNECT_TIMEOUT", "60");
    client
}

fn sql(at: &At, database: &str, statement: &str) -> Command {
    let mut psql = client("psql", at);
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement, database]);
    psql
}

/// Makes the database anew, fills it, and works on it: what eight clients add up does not depend on
/// who is first.
async fn worked_on(at: &At, database: &str) {
    run(sql(at, "postgres", &format!("drop database if exists {database}"))).await;
    run(sql(at, "postgres", &format!("create database {database}"))).await;
    let mut fill = client("pgbench", at);
    fill.args(["-q", "-i", "-s", "1", database]);
    run(fill).await;
    for protocol in ["simple", "prepared"] {
        let mut work = client("pgbench", at);
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
async fn contents(at: &At, database: &str) -> Vec<Vec<u8>> {
    let mut contents = Vec::new();
    for what in [
        "select * from pgbench_accounts order by aid",
        "select * from pgbench_tellers order by tid",
        "select * from pgbench_branches order by bid",
        "select tid, bid, aid, delta from pgbench_history order by 1, 2, 3, 4",
    ] {
        let copied = run(sql(at, database, &format!("copy ({what}) to stdout"))).await;
        contents.push(copied.stdout);
    }
    contents
}
