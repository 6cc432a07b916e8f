//! Machines that sleep: neither program runs for longer than lanes may be silent, links go and come
//! meanwhile, and what was under way goes on at once. What is sent is counted on both ways.
//!
//! Sleep is played by stopping the processes. Their clock goes on: all lanes look silent at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::links::Far;
use crate::support::namespace::{in_namespace, shell};
use crate::support::process::Imux;
use crate::support::{bounded, eventually};

/// Longer than a lane may be silent (three time-outs, at least a second).
const SLEEP: Duration = Duration::from_secs(4);

/// How soon what was under way has to go on, and not stop again.
const RETURN: Duration = Duration::from_secs(2);

/// So long it is watched.
const WATCHED: Duration = Duration::from_secs(3);

/// Numbers that go there and come back in their order; a byte that is lost, or comes twice, ends
/// it.
struct Used {
    count: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Used {
    async fn start(client: &Imux) -> Self {
        let socket = TcpStream::connect(client.ready()).await.unwrap();
        let count = Arc::<AtomicU64>::default();
        let counting = count.clone();
        let task = tokio::spawn(async move {
            let (mut read, mut write) = socket.into_split();
            // Some are always under way.
            let sending = async {
                for number in 0u64.. {
                    write.write_u64(number).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let receiving = async {
                for number in 0u64.. {
                    assert_eq!(read.read_u64().await.unwrap(), number);
                    counting.store(number, Ordering::Relaxed);
                }
            };
            tokio::join!(sending, receiving);
        });
        Self { count, task }
    }

    /// The longest time that nothing came back in the seconds after a return.
    async fn pauses(&self, what: &str) -> Duration {
        let (begun, mut last) = (Instant::now(), (self.now(), Instant::now()));
        let mut longest = Duration::ZERO;
        while begun.elapsed() < WATCHED {
            assert!(!self.task.is_finished(), "{what}: the connection was cut");
            tokio::time::sleep(Duration::from_millis(5)).await;
            longest = longest.max(last.1.elapsed());
            if self.now() != last.0 {
                last = (self.now(), Instant::now());
            }
        }
        longest
    }

    fn now(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn both(programs: [&Imux; 2], signal: Signal) {
    programs.into_iter().for_each(|it| it.signal(signal));
}

async fn sleep(programs: [&Imux; 2], meanwhile: impl FnOnce()) {
    both(programs, Signal::SIGSTOP);
    meanwhile();
    tokio::time::sleep(SLEEP).await;
}

/// Who sleeps.
#[derive(Clone, Copy)]
enum Sleeper {
    Both,
    Client,
    Server,
}

async fn what_was_under_way_goes_on(sleeper: Sleeper) {
    let far = Far::new();
    far.link(1);
    far.link(2);
    let client = far.client(&["--bind", "dev:near1", "--bind", "dev:near2"]);
    let used = Used::start(&client).await;
    eventually(10, "it is used", || used.now() > 20).await;
    let who = match sleeper {
        Sleeper::Both => [&client, far.server()],
        Sleeper::Client => [&client; 2],
        Sleeper::Server => [far.server(); 2],
    };
    sleep(who, || {}).await;
    both(who, Signal::SIGCONT);
    let unchanged = used.pauses("all is as it was").await;

    // One link is another when they wake up, and one was away for a while.
    sleep(who, || {
        shell("ip link delete near1; ip link set near2 down");
        far.link(1);
    })
    .await;
    shell("ip link set near2 up; ip route add default via 10.77.2.1 dev near2 metric 20");
    both(who, Signal::SIGCONT);
    let changed = used.pauses("a link has changed").await;

    // No link is there when they wake up.
    sleep(who, || shell("ip link set near1 down; ip link set near2 down")).await;
    both(who, Signal::SIGCONT);
    tokio::time::sleep(Duration::from_secs(3)).await;
    for number in [1, 2] {
        shell(&format!(
            "ip link set near{number} up; ip route add default via 10.77.{number}.1 dev near{number} metric {number}0"
        ));
    }
    let returned = used.pauses("both links were away").await;
    let took = [unchanged, changed, returned];
    assert!(took.iter().all(|took| *took < RETURN), "{took:?}");
}

#[test]
fn what_was_under_way_goes_on_at_once_after_both_slept() {
    in_namespace("asleep::what_was_under_way_goes_on_at_once_after_both_slept", || {
        bounded(60, what_was_under_way_goes_on(Sleeper::Both));
    });
}

#[test]
fn what_was_under_way_goes_on_at_once_after_the_client_slept() {
    in_namespace("asleep::what_was_under_way_goes_on_at_once_after_the_client_slept", || {
        bounded(60, what_was_under_way_goes_on(Sleeper::Client));
    });
}

#[test]
fn what_was_under_way_goes_on_at_once_after_the_server_slept() {
    in_namespace("asleep::what_was_under_way_goes_on_at_once_after_the_server_slept", || {
        bounded(60, what_was_under_way_goes_on(Sleeper::Server));
    });
}
