//! Connections as TCP users expect them.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::support::bytes::Pattern;
use crate::support::net::{self, Destination};
use crate::support::process::{Imux, field};
use crate::support::tunnel::Tunnel;
use crate::support::{bounded, eventually};

/// How a reset connection looks to its user.
#[track_caller]
fn assert_reset<T: std::fmt::Debug>(outcome: std::io::Result<T>) {
    match outcome {
        Err(error) => assert!(
            matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
            "{error}"
        ),
        Ok(value) => panic!("no reset but {value:?}"),
    }
}

#[test]
fn an_upload_that_ends_is_answered() {
    bounded(60, async {
        let length = 8 << 20;
        let destination = Destination::start(move |mut socket| async move {
            let got = Pattern::new(1).receive(&mut socket).await.unwrap();
            socket.write_all(format!("got {got}").as_bytes()).await.unwrap();
        })
        .await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        for _ in 0..3 {
            let mut socket = tunnel.connect().await;
            Pattern::new(1).send(&mut socket, length).await.unwrap();
            socket.shutdown().await.unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, format!("got {length}"));
        }
        tunnel.assert_healthy();
    });
}

#[test]
fn a_download_that_ends_leaves_the_other_direction_open() {
    bounded(30, async {
        let (told, mut heard) = mpsc::unbounded_channel();
        let destination = Destination::start(move |mut socket| {
            let told = told.clone();
            async move {
                socket.write_all(b"all I have to say").await.unwrap();
                socket.shutdown().await.unwrap();
                told.send(Pattern::new(5).receive(&mut socket).await.unwrap()).unwrap();
            }
        })
        .await;
        let tunnel = Tunnel::start(destination.addr).await;
        let mut socket = tunnel.connect().await;
        let mut said = String::new();
        socket.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "all I have to say");
        Pattern::new(5).send(&mut socket, 3 << 20).await.unwrap();
        socket.shutdown().await.unwrap();
        assert_eq!(heard.recv().await, Some(3 << 20));
    });
}

#[test]
fn a_server_that_speaks_first_is_heard() {
    bounded(30, async {
        let destination = Destination::start(|mut socket| async move {
            socket.write_all(b"220 ready\r\n").await.unwrap();
            net::echo(socket).await;
        })
        .await;
        let tunnel = Tunnel::start(destination.addr).await;
        let mut socket = tunnel.connect().await;
        let mut greeting = [0; 11];
        socket.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220 ready\r\n");
        socket.write_all(b"x").await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), b'x');
    });
}

#[test]
fn two_thousand_short_connections_two_hundred_at_once() {
    bounded(120, async {
        let destination = Destination::echo().await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        let (addr, places) = (tunnel.addr, Arc::new(Semaphore::new(200)));
        let pattern = Arc::new(Pattern::new(0));
        let mut all = tokio::task::JoinSet::new();
        for number in 0..2_000_u64 {
            let (places, pattern) = (places.clone(), pattern.clone());
            all.spawn(async move {
                let _place = places.acquire_owned().await.unwrap();
                let length = number * 37 % 5_000;
                let mut socket = TcpStream::connect(addr).await.unwrap();
                let (mut read, mut write) = socket.split();
                let sending = async {
                    pattern.send(&mut write, length).await?;
                    write.shutdown().await
                };
                let (got, ()) = tokio::try_join!(pattern.receive(&mut read), sending).unwrap();
                assert_eq!(got, length);
            });
        }
        while let Some(done) = all.join_next().await {
            done.unwrap();
        }
        tunnel.assert_healthy();
        // By default nothing is logged about a connection.
        assert!(tunnel.client.log().lines().count() < 20, "{}", tunnel.client.log());
    });
}

#[test]
fn two_thousand_connections_one_after_another() {
    bounded(120, async {
        let destination = Destination::echo().await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        for number in 0..2_000_u32 {
            let mut socket = tunnel.connect().await;
            socket.write_u32(number).await.unwrap();
            assert_eq!(socket.read_u32().await.unwrap(), number);
        }
        tunnel.assert_healthy();
    });
}

#[test]
fn a_refused_destination_is_a_reset_and_one_line() {
    bounded(30, async {
        let tunnel = Tunnel::start(net::unused_port().await).await;
        // Sometimes so soon that connecting already fails.
        let attempt = async || TcpStream::connect(tunnel.addr).await?.read(&mut [0; 1]).await;
        assert_reset(attempt().await);
        let line = tunnel.server.line("cannot reach the destination");
        assert!(line.contains("refused"), "{line}");
        assert_eq!(tunnel.server.count("cannot reach the destination"), 1);
        // The next one is a new attempt, and the tunnel is none the worse.
        assert_reset(attempt().await);
    });
}

#[test]
fn a_reset_by_the_destination_is_a_reset_for_the_client() {
    bounded(30, async {
        let destination = Destination::start(|mut socket| async move {
            socket.read_u8().await.unwrap();
            net::reset(socket);
        })
        .await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        let mut socket = tunnel.connect().await;
        socket.write_all(b"x").await.unwrap();
        assert_reset(socket.read(&mut [0; 1]).await);
        tunnel.assert_healthy();
    });
}

#[test]
fn a_reset_by_the_client_is_a_reset_for_the_destination() {
    bounded(30, async {
        let (told, mut heard) = mpsc::unbounded_channel();
        let destination = Destination::start(move |mut socket| {
            let told = told.clone();
            async move {
                socket.write_all(b"x").await.unwrap();
                told.send(socket.read(&mut [0; 1]).await).unwrap();
            }
        })
        .await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        let mut socket = tunnel.connect().await;
        assert_eq!(socket.read_u8().await.unwrap(), b'x');
        net::reset(socket);
        assert_reset(heard.recv().await.unwrap());
        tunnel.assert_healthy();
    });
}

/// The sender is told while it writes, and does not write into the void.
#[test]
fn a_reset_by_the_destination_reaches_a_client_that_only_writes() {
    bounded(30, async {
        let destination = Destination::start(|mut socket| async move {
            socket.read_u8().await.unwrap();
            net::reset(socket);
        })
        .await;
        let tunnel = Tunnel::start(destination.addr).await;
        let mut socket = tunnel.connect().await;
        let block = vec![7; 64 << 10];
        assert_reset(loop {
            if let Err(error) = socket.write_all(&block).await {
                break Err::<(), _>(error);
            }
        });
    });
}

/// A reader that has left in order stops its sender, as with TCP.
#[test]
fn a_client_that_goes_away_stops_the_destination() {
    bounded(30, async {
        let (told, mut heard) = mpsc::unbounded_channel();
        let destination = Destination::start(move |mut socket| {
            let told = told.clone();
            async move { told.send(Pattern::new(1).send(&mut socket, 1 << 40).await).unwrap() }
        })
        .await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        let mut socket = tunnel.connect().await;
        socket.read_u8().await.unwrap();
        drop(socket);
        assert_reset(heard.recv().await.unwrap());
        tunnel.assert_healthy();
    });
}

#[test]
fn connections_wait_for_a_server_that_is_restarted() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        let mut old = tunnel.connect().await;
        old.write_all(b"x").await.unwrap();
        assert_eq!(old.read_u8().await.unwrap(), b'x');

        // The same home: the same server to its clients, wherever it listens.
        let place = tunnel.server.ready().to_string();
        tunnel.server.signal(nix::sys::signal::Signal::SIGKILL);
        assert_eq!(tunnel.server.exit_code(), None);
        let dial = destination.addr.to_string();
        let home = tunnel.homes[0].path();
        tunnel.server = Imux::start(home, &["server", "--listen", &place, "--dial", &dial]);
        tunnel.server.ready();

        // Open connections are told that they are over; new ones work.
        let cut = timeout(Duration::from_secs(15), old.read(&mut [0; 1])).await;
        assert_reset(cut.expect("the old connection hangs"));
        let mut new = tunnel.connect().await;
        new.write_all(b"y").await.unwrap();
        assert_eq!(new.read_u8().await.unwrap(), b'y');
        eventually(15, "all lanes are back", || tunnel.relay.alive() >= 10).await;
        tunnel.assert_healthy();
    });
}

/// Nothing of these was ever sent: they cannot be done twice, and need not be cut off.
#[test]
fn connections_opened_while_the_server_is_away_begin_when_it_is_back() {
    bounded(120, async {
        for (lanes, away) in [("0.0.0.0=1", 6_000), ("0.0.0.0=10", 3_000)] {
            let destination = Destination::echo().await;
            let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let (at, to) = (net::unused_port().await.to_string(), destination.addr.to_string());
            let args = ["server", "--listen", &at, "--dial", &to];
            let mut server = Imux::start(homes[0].path(), &args);
            let ready = server.line("server ready");
            let key = field(&ready, "key");
            let args_of_client = ["client", "--listen", "127.0.0.1:0", "--dial", &at, "--pin", key];
            let args_of_client = [&args_of_client[..], &["--bind", lanes]].concat();
            let client = Imux::start(homes[1].path(), &args_of_client);
            let local = client.ready();
            let mut old = TcpStream::connect(local).await.unwrap();
            old.write_all(b"x").await.unwrap();
            assert_eq!(old.read_u8().await.unwrap(), b'x');

            server.signal(nix::sys::signal::Signal::SIGKILL);
            assert_eq!(server.exit_code(), None);
            let mut waiting = tokio::task::JoinSet::new();
            for number in 0..20_u32 {
                waiting.spawn(async move {
                    let mut socket = TcpStream::connect(local).await?;
                    // Some speak at once and end, others wait to be spoken to.
                    socket.write_u32(number).await?;
                    if number % 2 == 0 {
                        socket.shutdown().await?;
                    }
                    socket.read_u32().await.map(|back| (number, back))
                });
                tokio::time::sleep(Duration::from_millis(away / 20)).await;
            }
            let _server = Imux::start(homes[0].path(), &args);
            while let Some(answer) = waiting.join_next().await {
                let (number, back) = answer.unwrap().unwrap();
                assert_eq!(number, back);
            }
            // Connections that had begun are told that they are over.
            assert_reset(old.read(&mut [0; 1]).await);
        }
    });
}
