//! Lanes: how they come, go and come back.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::net::Destination;
use crate::support::process::{Imux, field};
use crate::support::tunnel::Tunnel;
use crate::support::{bounded, eventually};

async fn ping(socket: &mut TcpStream) {
    socket.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    socket.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
}

#[test]
fn as_many_lanes_as_were_asked_for_and_the_ready_line_after_the_first() {
    bounded(30, async {
        let destination = Destination::echo().await;
        let binds = ["--bind", "127.0.0.2=3", "--bind", "127.0.0.3=4"];
        let tunnel = Tunnel::with(destination.addr, &binds, &[]).await;
        eventually(10, "seven lanes", || tunnel.client.count("lane up") == 7).await;
        assert_eq!(tunnel.client.count("via=\"127.0.0.2\""), 3);
        assert_eq!(tunnel.client.count("via=\"127.0.0.3\""), 4);
        let log = tunnel.client.log();
        let (up, ready) = (log.find("lane up"), log.find("client ready"));
        assert!(up.is_some() && up < ready.or(up.map(|up| up + 400)), "{log}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(tunnel.relay.alive(), 7);
    });
}

#[test]
fn an_idle_connection_survives_the_loss_of_every_lane() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        let mut socket = tunnel.connect().await;
        ping(&mut socket).await;
        for _ in 0..3 {
            tunnel.relay.reset_all();
            ping(&mut socket).await;
            eventually(15, "lanes come back by themselves", || tunnel.relay.alive() >= 10).await;
            ping(&mut socket).await;
        }
        tunnel.assert_healthy();
    });
}

#[test]
fn a_link_that_comes_back_is_used_again() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        let mut socket = tunnel.connect().await;
        ping(&mut socket).await;
        tunnel.relay.close(true);
        tunnel.relay.reset_all();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(tunnel.relay.alive(), 0);
        tunnel.relay.close(false);
        ping(&mut socket).await;
        eventually(15, "all ten lanes", || tunnel.relay.alive() >= 10).await;
        tunnel.assert_healthy();
    });
}

/// A backup is kept up and carries only signs of life until the primary link is gone; then
/// everything, and nothing once the primary is back.
#[test]
fn a_backup_is_idle_until_its_primary_is_cut() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let binds = ["--bind", "127.0.0.2=2", "--bind", "127.0.0.3=2,tier=backup,rate=80mbit"];
        let mut tunnel = Tunnel::with(destination.addr, &binds, &[]).await;
        eventually(10, "four lanes", || tunnel.client.count("lane up") == 4).await;
        assert_eq!(tunnel.client.count("tier=backup"), 2, "{}", tunnel.client.log());
        let mut socket = tunnel.connect().await;
        ping(&mut socket).await; // should a backup lane have been there first
        let idle = tunnel.relay.carried("127.0.0.3");
        exchange(&mut socket, 1_000_000).await;
        let carried = tunnel.relay.carried("127.0.0.3") - idle;
        assert!(carried < 10_000, "{carried} bytes on the backup");

        tunnel.relay.silence_path("127.0.0.2");
        tunnel.relay.close(true); // what is dialled meanwhile gets nowhere
        let idle = tunnel.relay.carried("127.0.0.3");
        exchange(&mut socket, 1_000_000).await;
        let carried = tunnel.relay.carried("127.0.0.3") - idle;
        assert!(carried > 2_000_000, "{carried} bytes on the backup, both ways");

        tunnel.relay.close(false);
        eventually(20, "primary lanes again", || tunnel.client.count("lane up") >= 6).await;
        exchange(&mut socket, 10_000).await;
        let idle = tunnel.relay.carried("127.0.0.3");
        exchange(&mut socket, 1_000_000).await;
        let carried = tunnel.relay.carried("127.0.0.3") - idle;
        assert!(carried < 10_000, "{carried} bytes on the backup");
        tunnel.assert_healthy();
    });
}

/// It is made when something small has to wait behind bulk, on the links that may have one, and
/// kept.
#[test]
fn an_express_lane_comes_when_it_is_of_use() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let binds = ["--bind", "127.0.0.2=1", "--bind", "127.0.0.3=1,express=no"];
        let mut tunnel = Tunnel::with(destination.addr, &binds, &[]).await;
        eventually(10, "two lanes", || tunnel.client.count("lane up") == 2).await;
        tunnel.relay.throttle(1_000_000);
        let (mut bulk, mut small) = (tunnel.connect().await, tunnel.connect().await);
        ping(&mut small).await;
        exchange(&mut bulk, 1_000_000).await;
        assert_eq!(tunnel.client.count("tier=express"), 0, "bulk alone is no reason");
        let pings = async {
            loop {
                ping(&mut small).await;
            }
        };
        tokio::select! {
            () = exchange(&mut bulk, 4_000_000) => {}
            () = pings => {}
        }
        assert_eq!(tunnel.client.count("tier=express"), 1, "{}", tunnel.client.log());
        let log = tunnel.client.log();
        let express = log.lines().find(|line| line.contains("tier=express"));
        assert!(express.is_some_and(|line| line.contains("via=\"127.0.0.2\"")), "{log}");
        assert_eq!(tunnel.relay.alive(), 3);
        tunnel.assert_healthy();
    });
}

/// Every byte on two lanes arrives once, and the server does the same.
#[test]
fn a_redundant_connection_uses_both_links_both_ways() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let args = ["--bind", "127.0.0.2=1", "--bind", "127.0.0.3=1", "--redundant"];
        let mut tunnel = Tunnel::with(destination.addr, &args, &[]).await;
        eventually(10, "two lanes", || tunnel.relay.alive() == 2).await;
        let mut socket = tunnel.connect().await;
        for _ in 0..100 {
            exchange(&mut socket, 2_000).await;
        }
        let paths = ["127.0.0.2", "127.0.0.3"].map(|path| tunnel.relay.carried(path));
        // On loopback the first may have arrived before the second was sent.
        assert!(paths[0] + paths[1] > 500_000, "{paths:?} bytes for 400,000 both ways");
        assert!(paths.iter().all(|carried| *carried > 100_000), "{paths:?}");
        tunnel.assert_healthy();
    });
}

/// Sends `len` bytes and reads them back.
async fn exchange(socket: &mut TcpStream, len: usize) {
    let data: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
    let mut back = vec![0; len];
    let (mut read, mut write) = socket.split();
    let (sent, got) = tokio::join!(write.write_all(&data), read.read_exact(&mut back));
    sent.unwrap();
    got.unwrap();
    assert!(back == data);
}

/// A new connection finds its lanes dead without anyone having been told: the lanes that replace
/// them carry it.
#[test]
fn a_connection_on_silent_lanes_gets_through_in_seconds() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        eventually(10, "ten lanes", || tunnel.relay.alive() == 10).await;
        tunnel.relay.silence_all();
        let begun = tokio::time::Instant::now();
        ping(&mut tunnel.connect().await).await;
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        tunnel.assert_healthy();
    });
}

/// A pause is not a death: what was written meanwhile arrives once.
#[test]
fn a_pause_of_all_networks_loses_nothing() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        let mut socket = tunnel.connect().await;
        for _ in 0..3 {
            tunnel.relay.silence_all();
            socket.write_all(b"before").await.unwrap();
            tokio::time::sleep(Duration::from_millis(700)).await;
            tunnel.relay.restore();
            let mut back = [0; 6];
            socket.read_exact(&mut back).await.unwrap();
            assert_eq!(&back, b"before");
        }
        ping(&mut socket).await;
        tunnel.assert_healthy();
    });
}

#[test]
fn over_ipv6() {
    bounded(30, async {
        let destination = Destination::start_at("[::1]:0", crate::support::net::echo).await;
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let dial = destination.addr.to_string();
        let server =
            Imux::start(homes[0].path(), &["server", "--listen", "[::1]:0", "--dial", &dial]);
        let at = server.ready();
        assert!(at.is_ipv6());
        let key = server.line("server ready");
        let args =
            ["client", "--listen", "[::1]:0", "--dial", &at.to_string(), "--bind", "[::1]=2"];
        let client = Imux::start(
            homes[1].path(),
            &[&args[..], &["--bind", "::=2", "--pin", field(&key, "key")]].concat(),
        );
        let mut socket = TcpStream::connect(client.ready()).await.unwrap();
        ping(&mut socket).await;
        eventually(10, "four lanes", || client.count("lane up") == 4).await;
    });
}

/// Both of the original's commands, as written, both with default binds.
#[test]
fn the_originals_commands() {
    bounded(30, async {
        let destination = Destination::echo().await;
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let dial = format!("--dial={}", destination.addr);
        for (dash, binds) in
            [("-", None), ("--", Some(r#"--binds={"127.0.0.1": 3, "0.0.0.0": 2}"#))]
        {
            let mode = format!("{dash}server");
            let server = Imux::start(homes[0].path(), &[&mode, "--listen=127.0.0.1:0", &dial]);
            let mode = format!("{dash}client");
            let at = format!("-dial={}", server.ready());
            let mut args = vec![mode.as_str(), "--listen=localhost:0", &at, "-chunk-size", "16384"];
            args.extend(binds);
            args.extend(["--host-key", "accept-new"]);
            let client = Imux::start(homes[1].path(), &args);
            let mut socket = TcpStream::connect(client.ready()).await.unwrap();
            ping(&mut socket).await;
            let lanes = if binds.is_some() { 5 } else { 10 };
            eventually(10, "all lanes", || client.count("lane up") == lanes).await;
            assert_eq!(client.count("--chunk-size has no effect"), 1, "{}", client.log());
        }
    });
}

#[test]
fn signals_end_both_programs_with_their_codes() {
    bounded(30, async {
        let destination = Destination::echo().await;
        for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
            let mut tunnel = Tunnel::start(destination.addr).await;
            // With an open connection; nothing holds up the end.
            let mut socket = tunnel.connect().await;
            ping(&mut socket).await;
            if signal == Signal::SIGTERM {
                drop(socket); // or it would be waited for
            }
            tunnel.client.signal(signal);
            assert_eq!(tunnel.client.exit_code(), Some(code));
            tunnel.server.signal(signal);
            assert_eq!(tunnel.server.exit_code(), Some(code));
        }
    });
}

/// A peer that says nothing, or something else, is dropped and disturbs nobody.
#[test]
fn strangers_at_the_servers_door_do_no_harm() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        let door = tunnel.server.ready();
        let mut strangers = Vec::new();
        for number in 0..60 {
            let mut stranger = TcpStream::connect(door).await.unwrap();
            match number % 3 {
                0 => {}
                1 => stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap(),
                _ => stranger.write_all(&[0x16, 3, 1, 0xff, 0xff]).await.unwrap(),
            }
            strangers.push(stranger);
        }
        ping(&mut tunnel.connect().await).await;
        for stranger in &mut strangers {
            let ended = tokio::time::timeout(Duration::from_secs(15), async {
                while !matches!(stranger.read(&mut [0; 64]).await, Ok(0) | Err(_)) {}
            });
            ended.await.expect("a stranger was not let go");
        }
        ping(&mut tunnel.connect().await).await;
        tunnel.assert_healthy();
    });
}
