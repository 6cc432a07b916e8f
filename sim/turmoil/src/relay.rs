//! The middle of a path: a relay that carries lanes on to the server, and does to them what its
//! mood says.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use turmoil::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use turmoil::net::{TcpListener, TcpStream};

use crate::book::Book;
use crate::pipe::PORT;

/// The server's name in the simulated network.
pub const SERVER: &str = "server";

/// A connection to the server is given up after this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A pump that is late by less than this makes up for it: tokio's timers are only good to a
/// millisecond, and would cost a fast relay most of its rate.
const DEBT_MAX: Duration = Duration::from_millis(5);

/// What a relay does with its connections. Counters say how often something was done to those that
/// there were; a connection is concerned by what was counted after it was made. Directions: 0
/// towards the server, 1 back.
#[derive(Clone, Copy, Debug)]
pub struct Mood {
    pub mbit: f64,
    /// Stop reading.
    pub stalled: [bool; 2],
    pub resets: u64,
    pub cuts: u64,
    pub half_closes: [u64; 2],
    pub swallows: [u64; 2],
    pub corruptions: [u64; 2],
}

impl Mood {
    /// What was to be done to bytes that have not come yet is not done any more.
    pub const fn calm(&mut self) {
        self.resets = 0;
        self.corruptions = [0; 2];
    }

    /// All is well.
    #[must_use]
    pub const fn new(mbit: f64) -> Self {
        Self {
            mbit,
            stalled: [false; 2],
            resets: 0,
            cuts: 0,
            half_closes: [0; 2],
            swallows: [0; 2],
            corruptions: [0; 2],
        }
    }
}

/// One relay.
#[derive(Clone, Debug)]
pub struct Relay {
    pub path: usize,
    pub piece_bytes: usize,
    pub mood: watch::Receiver<Mood>,
    pub book: Arc<Book>,
}

impl Relay {
    /// Carries connections until the host dies.
    ///
    /// # Errors
    /// turmoil's.
    pub async fn run(self) -> turmoil::Result {
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
        loop {
            let (near, _) = listener.accept().await?;
            let relay = self.clone();
            tokio::spawn(async move {
                // Errors of one connection are what this is all about.
                let _ = relay.carry(near).await;
            });
        }
    }

    async fn carry(self, near: TcpStream) -> io::Result<()> {
        let far = timeout(CONNECT_TIMEOUT, TcpStream::connect((SERVER, PORT))).await??;
        self.book.note("relayed", "net", self.path as u64, 0, 0);
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        let up = Pump::new(&self, 0, near_read, far_write);
        let down = Pump::new(&self, 1, far_read, near_write);
        // An error of one takes both with it, and the sockets.
        tokio::try_join!(up.run(), down.run()).map(|_| ())
    }
}

/// One direction of a connection.
struct Pump {
    relay: Relay,
    direction: usize,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    /// The mood the connection was made in.
    born: Mood,
    /// When what was let through so far is through, at the relay's rate.
    busy_until: Instant,
    /// Corruptions that were done.
    corrupted: u64,
    /// The end was passed on, before its time.
    half_closed: bool,
}

impl Pump {
    fn new(relay: &Relay, direction: usize, from: OwnedReadHalf, to: OwnedWriteHalf) -> Self {
        let born = *relay.mood.borrow();
        let corrupted = born.corruptions[direction];
        let (relay, busy_until) = (relay.clone(), Instant::now());
        Self { relay, direction, from, to, born, busy_until, corrupted, half_closed: false }
    }

    async fn run(mut self) -> io::Result<()> {
        let mut buffer = vec![0; self.relay.piece_bytes.max(1)];
        loop {
            let mood = self.good_mood().await?;
            self.half_close(&mood).await;
            if mood.resets > self.born.resets {
                // With something unread: a reset is what its sender hears.
                tokio::select! {
                    peeked = self.from.peek(&mut buffer[..1]) => {
                        peeked?;
                        return Err(io::ErrorKind::ConnectionReset.into());
                    }
                    _ = self.relay.mood.changed() => continue,
                }
            }
            let read = tokio::select! {
                read = self.from.read(&mut buffer) => read?,
                // It is looked at again.
                _ = self.relay.mood.changed() => continue,
            };
            if read == 0 {
                return self.end().await;
            }
            self.relay.book.note(
                "relay",
                "net",
                self.relay.path as u64,
                self.direction as u64,
                read as u64,
            );
            self.pass_on(&mut buffer[..read]).await?;
        }
    }

    /// Waits while the relay is stalled; fails where it closes its connections.
    async fn good_mood(&mut self) -> io::Result<Mood> {
        loop {
            let mood = *self.relay.mood.borrow_and_update();
            if mood.cuts > self.born.cuts {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if !mood.stalled[self.direction] {
                return Ok(mood);
            }
            // The run holds the sender for as long as there are relays.
            let _ = self.relay.mood.changed().await;
        }
    }

    async fn half_close(&mut self, mood: &Mood) {
        let due = mood.half_closes[self.direction] > self.born.half_closes[self.direction];
        if due && !std::mem::replace(&mut self.half_closed, true) {
            // Whoever is gone already has heard of it.
            let _ = self.to.shutdown().await;
        }
    }

    fn swallows(&self, mood: &Mood) -> bool {
        self.half_closed || mood.swallows[self.direction] > self.born.swallows[self.direction]
    }

    /// The sender has ended.
    async fn end(mut self) -> io::Result<()> {
        let mood = *self.relay.mood.borrow();
        if self.half_closed {
            return Ok(());
        }
        if self.swallows(&mood) {
            // Not even that is passed on.
            std::future::pending::<()>().await;
        }
        self.to.shutdown().await
    }

    async fn pass_on(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let mood = *self.relay.mood.borrow();
        let direction = self.direction;
        if self.swallows(&mood) {
            return Ok(());
        }
        if mood.corruptions[direction] > self.corrupted {
            self.corrupted = mood.corruptions[direction];
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        self.pace(bytes.len(), mood.mbit).await;
        self.to.write_all(bytes).await
    }

    async fn pace(&mut self, bytes: usize, mbit: f64) {
        let now = Instant::now();
        let takes = Duration::from_secs_f64(bytes as f64 * 8.0 / (mbit * 1e6));
        let earliest = now.checked_sub(DEBT_MAX).unwrap_or(now);
        self.busy_until = self.busy_until.max(earliest) + takes;
        if self.busy_until > now {
            sleep_until(self.busy_until).await;
        }
    }
}
