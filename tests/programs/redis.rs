//! Redis: large values, its benchmark, its own test suite.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::support::bytes::Pattern;
use crate::support::skipped;
use crate::{Chaos, Daemon, bounded, command, installed, run};

#[test]
fn redis() {
    if !installed(&["redis-server", "redis-cli", "redis-benchmark"]) {
        return;
    }
    bounded(async {
        let daemon = server(&[]).await;
        let mut chaos = Chaos::before(&daemon).await;
        let addr = chaos.tunnel.addr;
        let port = addr.port().to_string();
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
        while chaos.goes_on() {
            let mut set = cli(&["-x", "set", "large"]);
            set.stdin(File::open(&input).unwrap());
            assert_eq!(run(set).await.stdout, b"OK\n");
            let got = run(cli(&["get", "large"])).await.stdout;
            assert!(got.trim_ascii_end() == value.as_bytes(), "another value came back");

            let mut benchmark = command("redis-benchmark");
            benchmark.args(["-h", "127.0.0.1", "-p", &port, "-q", "-c", "50", "-n", "4000"]);
            benchmark.args(["-P", "8", "-d", "200", "-t", "set,get,lpush,lrange_100"]);
            let report = run(benchmark).await;
            let report = String::from_utf8_lossy(&report.stdout).into_owned();
            assert!(report.matches("requests per second").count() >= 4, "{report}");
            let pushed = run(cli(&["llen", "mylist"])).await.stdout;
            let pushed = String::from_utf8(pushed).unwrap();
            // 4,000 by LPUSH, and as many to fill the list for LRANGE.
            assert_eq!(pushed.trim(), "8000");
            assert_eq!(run(cli(&["flushall"])).await.stdout, b"OK\n");
        }
        chaos.end("redis");
    });
}

/// Redis's own tests of an external server: what passes directly passes through the tunnel. Some of
/// them write on one connection, then on another, and rely on the order in which that arrives,
/// which no network promises: a unit with a test that does not pass is tried again, a few times.
///
/// `IMUX_REDIS_SUITE` is where the sources of the server's version are, with `src/redis-cli` and
/// `src/redis-benchmark` in them; `IMUX_REDIS_UNITS` may name some of the units only, such as
/// `unit/auth unit/dump`.
#[test]
fn redis_passes_its_own_tests_as_it_does_directly() {
    let Some(suite) = std::env::var_os("IMUX_REDIS_SUITE").map(PathBuf::from) else {
        skipped::mark(Some("IMUX_REDIS_SUITE is not set"));
        return;
    };
    if !installed(&["redis-server", "tclsh"]) {
        return;
    }
    bounded(async {
        let daemon = server(&SUITE_NEEDS).await;
        let chaos = Chaos::before(&daemon).await;
        let (mut passed, mut again, mut failed) = (0, Vec::new(), Vec::new());
        for unit in units(&suite) {
            let mut missing = outcomes(&suite, &unit, daemon.addr).await;
            passed += missing.iter().filter(|one| one.starts_with("[ok]")).count();
            for _ in 0..TRIES {
                let through = outcomes(&suite, &unit, chaos.tunnel.addr).await;
                missing.retain(|one| !through.contains(one));
                if missing.is_empty() {
                    break;
                }
                again.extend(missing.iter().cloned());
            }
            println!("{unit}: {passed} so far, {} missing", missing.len());
            failed.extend(missing);
        }
        println!(
            "{passed} have passed, directly and through the tunnel, these not at once: {again:#?}"
        );
        assert_eq!(failed, Vec::<String>::new(), "directly, but not through the tunnel");
        assert!(passed > 0, "there were no tests");
        chaos.end("redis suite");
    });
}

/// How often a unit is tried until all its tests have passed.
const TRIES: usize = 6;

/// The units that are asked for, or all that the suite lists.
fn units(suite: &Path) -> Vec<String> {
    let asked = std::env::var("IMUX_REDIS_UNITS").ok();
    let listed = || {
        let script = fs::read_to_string(suite.join("tests/test_helper.tcl")).unwrap();
        let (_, list) = script.split_once("set ::all_tests {").unwrap();
        list.split_once('}').unwrap().0.to_owned()
    };
    asked.unwrap_or_else(listed).split_whitespace().map(str::to_owned).collect()
}

/// What redis's own workflow for external servers switches on.
const SUITE_NEEDS: [&str; 6] = [
    "--enable-protected-configs",
    "yes",
    "--enable-debug-command",
    "yes",
    "--enable-module-command",
    "yes",
];

/// The outcomes of a unit's tests: `[ok]: name`.
async fn outcomes(suite: &Path, unit: &str, addr: SocketAddr) -> Vec<String> {
    let mut runtest = command("tclsh");
    runtest.current_dir(suite).args(["tests/test_helper.tcl", "--tags", "-slow"]);
    runtest.args(["--single", unit, "--host", "127.0.0.1", "--port", &addr.port().to_string()]);
    // That some fail is an outcome.
    let output = tokio::task::spawn_blocking(move || runtest.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let kinds = ["[ok]: ", "[err]: ", "[ignore]: "];
    let lines = text.lines().map(without_colours);
    let lines = lines.filter(|line| kinds.iter().any(|kind| line.starts_with(kind)));
    // Without how long it took.
    let untimed = |line: String| line.split(" (").next().unwrap_or_default().to_owned();
    lines.map(untimed).collect()
}

fn without_colours(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default();
    let rest = parts.map(|part| part.split_once('m').map_or("", |(_, text)| text));
    std::iter::once(first).chain(rest).collect()
}

async fn server(options: &[&str]) -> Daemon {
    Daemon::start(tempfile::tempdir().unwrap(), |folder, addr| {
        let mut redis = command("redis-server");
        redis.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).args(options);
        redis.args(["--port", &addr.port().to_string(), "--dir"]).arg(folder);
        redis
    })
    .await
}
