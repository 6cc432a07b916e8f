//! A connection through imux ends as a direct one does.
//!
//! Two small programs follow scripts drawn from a seed: what they write and read, how slowly, and
//! how they leave. Each script is run several times directly over loopback. Where all these runs
//! look alike to both programs, it has to look the same through the compiled program, with one
//! lane, with ten, by its SOCKS port, and the other way round (-R): the same bytes, in the same
//! order, and the same kind of end.
//!
//! `IMUX_CONFORMANCE_SCRIPTS=5000` runs as many, from `IMUX_CONFORMANCE_SEED=1` on; one script that
//! failed is run again with its seed and one script.

#![cfg(feature = "cli")]

mod end;
mod rig;
mod script;

#[path = "../support/mod.rs"]
mod support;

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
    let scripts = setting("IMUX_CONFORMANCE_SCRIPTS").unwrap_or(SCRIPTS);
    let from = setting("IMUX_CONFORMANCE_SEED").unwrap_or(1);
    bounded(120 + scripts, async {
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
        let ways = Arc::new([
            Way { name: "one lane", addr: one.addr, by_socks: false },
            Way { name: "ten lanes", addr: ten.addr, by_socks: false },
            Way { name: "SOCKS", addr: proxy, by_socks: true },
            Way { name: "-R", addr: place, by_socks: false },
        ]);
        let places = Arc::new(Semaphore::new(SCRIPTS_AT_ONCE));
        let mut running = tokio::task::JoinSet::new();
        for seed in from..from + scripts {
            let place = places.clone().acquire_owned().await.unwrap();
            let (rig, ways) = (rig.clone(), ways.clone());
            running.spawn(async move {
                let _place = place;
                let script = Script::draw(seed);
                (seed, script.what, judge(&rig, &script, &*ways).await)
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
        println!(
            "{scripts} scripts: {unlike} unlike, {} uncertain: {uncertain:?}",
            uncertain.len()
        );
        assert_eq!(unlike, 0, "of {scripts} scripts as many look otherwise through imux");
        let most = (scripts as usize * UNCERTAIN_MAX).div_ceil(100);
        assert!(uncertain.len() <= most, "too many scripts are uncertain: {uncertain:?}");
        for mut tunnel in [one, ten] {
            tunnel.assert_healthy();
        }
        for end in [&mut client, &mut server.server, &mut home, &mut turned.server] {
            assert!(end.is_running() && end.count("internal error") == 0);
        }
    });
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
