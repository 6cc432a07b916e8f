//! An attacker on the path: cuts a lane's connection at any byte, or changes a bit of it. All that
//! he gets is a dead lane: what is read is the beginning of what was written, an end is read after
//! all of it, and streams do not notice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use imux::lane::{BindSource, Dialer, Lane, Listener, TcpOptions, TlsDialer, TlsListener};
use imux::trust::{Identity, PinnedKeys, client_config, server_config};
use imux::{Client, ClientConfig, Link, Server, ServerConfig, StreamKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::support::bounded;
use super::support::bytes::{Pattern, exchange};

#[derive(Clone, Copy, Debug)]
enum Harm {
    Fin,
    Reset,
    FlipBit(u8),
}

/// What is done to one connection: to which direction of it, and at which byte.
#[derive(Clone, Copy, Debug)]
struct Plan {
    harm: Harm,
    upwards: bool,
    at: u64,
}

/// A relay that asks for its plan at each connection; one for which there is none is closed at
/// once: a client whose handshake was cut connects again to find out why.
async fn relay(
    target: SocketAddr,
    carried: Arc<[AtomicU64; 2]>,
    plan: impl Fn(u64) -> Option<Option<Plan>> + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (near, _) = listener.accept().await.unwrap();
            if let Some(plan) = plan(number) {
                tokio::spawn(carry(near, target, plan, carried.clone()));
            }
        }
    });
    address
}

async fn carry(
    near: TcpStream,
    target: SocketAddr,
    plan: Option<Plan>,
    carried: Arc<[AtomicU64; 2]>,
) {
    let far = TcpStream::connect(target).await.unwrap();
    let resets = matches!(plan, Some(Plan { harm: Harm::Reset, .. }));
    for socket in [&near, &far] {
        socket.set_nodelay(true).unwrap();
        if resets {
            socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let up = plan.filter(|plan| plan.upwards);
    let down = plan.filter(|plan| !plan.upwards);
    let up = copy(near_read, far_write, up, &carried[0]);
    let down = copy(far_read, near_write, down, &carried[1]);
    tokio::pin!(up, down);
    // Whichever is cut, the other is cut with it; an end goes on one way.
    tokio::select! {
        cut = &mut up => if !cut { down.await; },
        cut = &mut down => if !cut { up.await; },
    }
}

/// Copies until the end; `true` if it was cut.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    plan: Option<Plan>,
    carried: &AtomicU64,
) -> bool {
    let mut buffer = vec![0; 16 << 10];
    let mut passed = 0;
    while let Ok(got @ 1..) = from.read(&mut buffer).await {
        let mut part = &mut buffer[..got];
        let (mut cut, here) = (false, passed..passed + got as u64);
        if let Some(plan) = plan.filter(|plan| here.contains(&plan.at)) {
            let at = (plan.at - passed) as usize;
            match plan.harm {
                Harm::FlipBit(bit) => part[at] ^= 1 << bit,
                Harm::Fin | Harm::Reset => (part, cut) = (&mut part[..at], true),
            }
        }
        passed = here.end;
        carried.fetch_add(got as u64, Ordering::Relaxed);
        if to.write_all(part).await.is_err() || cut {
            return cut;
        }
    }
    let _ = to.shutdown().await;
    false
}

const LENGTH: usize = 3_000;

/// Sends and reads on a lane; how much of the other end's bytes came, and whether their end did.
async fn talk(mut lane: Box<dyn Lane>, ours: Pattern, theirs: Pattern) -> (usize, bool) {
    let _ = lane.write_all(&ours.bytes(LENGTH)).await;
    let _ = lane.shutdown().await;
    let mut got = Vec::new();
    let ended = lane.read_to_end(&mut got).await.is_ok();
    theirs.check(0, &got);
    (got.len(), ended)
}

#[test]
fn a_lane_cut_or_changed_at_any_byte_ends_in_an_error() {
    bounded(200, async {
        let identity = Identity::generate().unwrap();
        let options = TcpOptions::default();
        let place = "127.0.0.1:0".parse().unwrap();
        let listener = TlsListener::bind(place, server_config(&identity).unwrap(), options.clone());
        let listener = listener.unwrap();
        let (plans, planned) = std::sync::mpsc::channel();
        let planned = std::sync::Mutex::new(planned);
        let carried = Arc::<[AtomicU64; 2]>::default();
        let next_plan = move |_| planned.lock().unwrap().try_recv().ok();
        let at = relay(listener.local_addr().unwrap(), carried.clone(), next_plan).await;
        let tls = client_config(&Identity::generate().unwrap()).unwrap();
        let bind = BindSource::Addr("0.0.0.0".parse().unwrap());
        let dialer = TlsDialer::new(at.to_string(), bind, tls, options).unwrap();

        let lane = async |plan: Option<Plan>| {
            plans.send(plan).unwrap();
            let client = async {
                let Ok(lane) = dialer.dial().await else { return (0, false) };
                talk(lane, Pattern::new(1), Pattern::new(2)).await
            };
            let server = async {
                let Ok(lane) = listener.accept().await.unwrap().handshake().await else {
                    return (0, false);
                };
                talk(lane, Pattern::new(2), Pattern::new(1)).await
            };
            let ends = tokio::join!(client, server);
            for (got, ended) in [ends.0, ends.1] {
                assert!(!ended || got == LENGTH, "{plan:?}: an end after {got} bytes");
            }
            [ends.0.1, ends.1.1]
        };

        assert_eq!(lane(None).await, [true, true]);
        let wire = [0, 1].map(|way| carried[way].load(Ordering::Relaxed));
        let (mut number, mut whole) = (0u64, 0);
        for (upwards, length) in [(true, wire[0]), (false, wire[1])] {
            assert!(length > LENGTH as u64, "{length}");
            // Every region is met: handshake, headers, ciphertext, tags, the closing alert.
            for at in (0..length).step_by(23) {
                for harm in [Harm::Fin, Harm::Reset, Harm::FlipBit((number % 8) as u8)] {
                    let at = at + number % 23;
                    number += 1;
                    let [client, server] = lane(Some(Plan { harm, upwards, at })).await;
                    // Whoever was to read what was harmed has read no end, but where the byte means
                    // nothing.
                    whole += u64::from(if upwards { server } else { client });
                }
            }
        }
        assert!(number > 500 && whole * 20 < number, "{whole} of {number} were unharmed");
    });
}

#[test]
fn streams_survive_lanes_that_are_cut_or_changed_at_any_byte() {
    bounded(120, async {
        let identity = Identity::generate().unwrap();
        let options = TcpOptions::default();
        let place = "127.0.0.1:0".parse().unwrap();
        let listener = TlsListener::bind(place, server_config(&identity).unwrap(), options.clone());
        let listener = listener.unwrap();
        let direct = listener.local_addr().unwrap();
        let mut server = Server::start(listener, ServerConfig::default());
        // In the handshake, in the JOIN, and in what follows, up to 200 KB on.
        let harmed = Arc::<AtomicU64>::default();
        let counted = harmed.clone();
        let around = relay(direct, Arc::default(), move |number| {
            counted.fetch_add(1, Ordering::Relaxed);
            let harm =
                [Harm::Fin, Harm::Reset, Harm::FlipBit((number % 8) as u8)][number as usize % 3];
            let at = if number % 2 == 0 { number * 61 % 6_000 } else { number * 7_919 % 200_000 };
            Some(Some(Plan { harm, upwards: number / 3 % 2 == 0, at }))
        })
        .await;
        let tls = client_config(&Identity::generate().unwrap()).unwrap();
        let link = |to: SocketAddr, lanes| {
            let bind = BindSource::Addr("0.0.0.0".parse().unwrap());
            let dialer = TlsDialer::new(to.to_string(), bind, tls.clone(), options.clone());
            Link::new(Arc::new(dialer.unwrap()), lanes)
        };
        let trust = Arc::new(PinnedKeys::new([identity.fingerprint()]));
        let config = ClientConfig::new(trust);
        let client =
            Client::connect(vec![link(direct, 1), link(around, 20)], config).await.unwrap();
        let (session, _) = server.accept().await.unwrap();
        let (up, down) = (Pattern::new(1), Pattern::new(2));
        let mut turns = 0;
        while harmed.load(Ordering::Relaxed) < 80 || turns < 10 {
            turns += 1;
            let near = client.open(StreamKind::Raw).await.unwrap();
            let both = async {
                tokio::join!(exchange(near, (&up, 1 << 20), (&down, 1 << 20)), async {
                    let far = session.accept().await.unwrap().stream;
                    exchange(far, (&down, 1 << 20), (&up, 1 << 20)).await
                })
            };
            let (near, far) = both.await;
            near.unwrap();
            far.unwrap();
        }
        let lost = client.stats().unwrap().lanes_lost;
        eprintln!("{turns} MiB each way, {lost} lanes lost");
        assert!(lost >= 10, "{lost}");
    });
}
