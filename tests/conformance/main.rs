//! A connection through imux ends as a direct one does.
//!
//! Two small programs follow scripts drawn from a seed: what they write and read, how slowly, and
//! how they leave. Each script is run several times directly over loopback. Where all these runs
//! look alike to both programs, it has to look the same through the compiled program, with one
//! lane, with ten, by its SOCKS port, the other way round (-R), and where the kernel hands it over
//! (--transparent): the same bytes, in the same order, and the same kind of end.
//!
//! `IMUX_CONFORMANCE_SCRIPTS=5000` runs as many, from `IMUX_CONFORMANCE_SEED=1` on; one script that
//! failed is run again with its seed and one script.

#![cfg(feature = "cli")]

mod end;
mod rig;
mod script;

#[path = "../support/mod.rs"]
mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;

use support::pair::Pair;
use support::process::field;
use support::tunnel::Tunnel;
use tokio::sync::Semaphore;

use crate::end::{Seen, Told};
use crate::rig::{Rig, Way};
use crate::script::Script;
use crate::support::bounded;

const SCRIPTS: u64 = 300;
/// Most of them wait most of the time.
const SCRIPTS_AT_ONCE: usize = 32;
const DIRECT_RUNS: usize = 3;
/// What is meant for this address the kernel hands over, unless it comes from the server's.
const TAKEN: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 7);
const SERVERS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 8);
/// In percent; beyond it the scripts say too little.
const UNCERTAIN_MAX: usize = 10;

/// What a script has shown.
#[derive(Debug)]
enum Verdict {
    Alike,
    /// Direct runs differ.
    Uncertain,
    Unlike(String),
}

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

#[test]
fn connections_end_as_direct_ones_do() {
    bounded(120 + scripts(), async {
        let rig = Rig::start().await;
        let one = Tunnel::with(rig.destination, &["--bind", "127.0.0.2=1"], &[]).await;
        let ten = Tunnel::start(rig.destination).await;
        let line = format!("dial=\"{}\"", rig.destination);
        let mut server = Pair::server("127.0.0.1:9", Some(&line));
        let mut client = server.client(&["-D", "127.0.0.1:0"]);
        let proxy = field(&client.line("client ready"), "address").parse().unwrap();
        let place = support::net::unused_port().await;
        let mut turned = Pair::server("127.0.0.1:9", Some(&format!("listen=\"{place}\"")));
        let mut home = turned.client(&["-R", &format!("{place}:{}", rig.destination)]);
        home.line("the server takes connections for this client");
        let ways = [
            Way { name: "one lane", addr: one.addr, by_socks: false },
            Way { name: "ten lanes", addr: ten.addr, by_socks: false },
            Way { name: "SOCKS", addr: proxy, by_socks: true },
            Way { name: "-R", addr: place, by_socks: false },
        ];
        judge_all(&rig, &ways).await;
        for mut tunnel in [one, ten] {
            tunnel.assert_healthy();
        }
        for end in [&mut client, &mut server.server, &mut home, &mut turned.server] {
            assert!(end.is_running() && end.count("internal error") == 0);
        }
    });
}

#[test]
fn connections_that_the_kernel_hands_over_end_as_direct_ones_do() {
    let nft = Command::new("nft").arg("--version").output();
    if support::skipped::because(nft.is_err().then(|| "not installed: nft".to_owned())) {
        return;
    }
    let test = "connections_that_the_kernel_hands_over_end_as_direct_ones_do";
    support::namespace::in_namespace(test, || {
        bounded(120 + scripts(), async {
            let rig = Rig::start().await;
            let meant = SocketAddr::new(TAKEN.into(), rig.destination.port());
            let line = format!("dial=\"{meant}\"");
            let from = SERVERS.to_string();
            let mut pair = Pair::server_with("127.0.0.1:9", Some(&line), &["--from", &from]);
            let mut client = pair.client(&["--transparent", "127.0.0.1:0"]);
            let taker: SocketAddr = field(&client.line("client ready"), "address").parse().unwrap();
            support::namespace::shell(&format!(
                "nft 'table ip taken {{ chain taken {{ type nat hook output priority -100;
                 ip daddr {TAKEN} ip saddr != {SERVERS} tcp dport {} redirect to :{}; }}; }}'",
                meant.port(),
                taker.port()
            ));
            let way = Way { name: "--transparent", addr: meant, by_socks: false };
            judge_all(&rig, &[way]).await;
            for end in [&mut client, &mut pair.server] {
                assert!(end.is_running() && end.count("internal error") == 0);
            }
        });
    });
}

fn scripts() -> u64 {
    setting("IMUX_CONFORMANCE_SCRIPTS").unwrap_or(SCRIPTS)
}

/// Runs all scripts; each has to look alike by every way.
async fn judge_all(rig: &Rig, ways: &[Way]) {
    let from = setting("IMUX_CONFORMANCE_SEED").unwrap_or(1);
    let scripts = scripts();
    let places = Arc::new(Semaphore::new(SCRIPTS_AT_ONCE));
    let mut running = tokio::task::JoinSet::new();
    for seed in from..from + scripts {
        let place = places.clone().acquire_owned().await.unwrap();
        let (rig, ways) = (rig.clone(), ways.to_vec());
        running.spawn(async move {
            let _place = place;
            let script = Script::draw(seed);
            (seed, script.what, judge(&rig, &script, &ways).await)
        });
    }
    let (mut uncertain, mut unlike) = (Vec::new(), 0);
    while let Some(done) = running.join_next().await {
        match done.unwrap() {
            (_, _, Verdict::Alike) => {}
            (seed, what, Verdict::Uncertain) => uncertain.push(format!("{seed} ({what})")),
            (_, _, Verdict::Unlike(how)) => {
                unlike += 1;
                eprintln!("{how}");
            }
        }
    }
    println!("{scripts} scripts: {unlike} unlike, {} uncertain: {uncertain:?}", uncertain.len());
    assert_eq!(unlike, 0, "of {scripts} scripts as many look otherwise through imux");
    let most = (scripts as usize * UNCERTAIN_MAX).div_ceil(100);
    assert!(uncertain.len() <= most, "too many scripts are uncertain: {uncertain:?}");
}

/// Runs a script directly and every other way.
async fn judge(rig: &Rig, script: &Script, ways: &[Way]) -> Verdict {
    let Some(direct) = directly(rig, script).await else { return Verdict::Uncertain };
    for way in ways {
        let seen = rig.run(script, *way).await;
        if is_alike(&direct, &seen) {
            continue;
        }
        // What the machine's load does to a script it does directly, too.
        match directly(rig, script).await {
            Some(again) if is_alike(&again, &direct) => {}
            _ => return Verdict::Uncertain,
        }
        let (seed, way) = (script.seed, way.name);
        return Verdict::Unlike(format!(
            "IMUX_CONFORMANCE_SEED={seed} IMUX_CONFORMANCE_SCRIPTS=1 ({}), {way}\n  program:     \
             {:?}\n  destination: {:?}\n  directly program:     {:?}\n  {way} program:     {:?}\n  \
             directly destination: {:?}\n  {way} destination: {:?}",
            script.what, script.steps[0], script.steps[1], direct[0], seen[0], direct[1], seen[1]
        ));
    }
    Verdict::Alike
}

/// What both programs see directly, if that is always the same.
async fn directly(rig: &Rig, script: &Script) -> Option<[Seen; 2]> {
    let way = Way { name: "directly", addr: rig.destination, by_socks: false };
    let first = rig.run(script, way).await;
    for _ in 1..DIRECT_RUNS {
        let again = rig.run(script, way).await;
        if !is_alike(&first, &again) {
            return None;
        }
    }
    Some(first)
}

/// Whether both programs see the same. How much of what did not fit its buffers a reset cuts off is
/// a matter of the buffers' sizes: then it must be cut off, somewhere.
fn is_alike(expected: &[Seen; 2], seen: &[Seen; 2]) -> bool {
    (0..2).all(|end| {
        let (this, other) = (expected[end], expected[1 - end]);
        let cut = this.told == Told::Reset && this.read < other.written;
        let bytes_alike =
            if cut { seen[end].read <= seen[1 - end].written } else { this.read == seen[end].read };
        bytes_alike && this.told == seen[end].told && this.eof == seen[end].eof && seen[end].intact
    })
}
