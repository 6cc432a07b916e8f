//! One program: what it does, and what it sees.

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::script::Step;
use crate::support::bytes::Pattern;

/// Nothing takes as long as this unless it hangs: directly a program is told at once.
const PATIENCE: Duration = Duration::from_secs(20);
/// A socket that takes nothing for this long is full.
const FULL_AFTER: Duration = Duration::from_millis(200);

/// How a program has heard of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing is broken, as far as it knows.
    Nothing,
    /// Some call has failed, or the socket was seen to be broken.
    Reset,
    /// It has waited in vain.
    TooLate,
}

/// What a program has seen of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) written: u64,
    pub(crate) read: u64,
    /// It has read the end, and no call had failed before.
    pub(crate) eof: bool,
    pub(crate) told: Told,
    /// All that was read is what the other has written, in its order.
    pub(crate) intact: bool,
}

impl Seen {
    /// What who does not even hear of the connection sees.
    pub(crate) const NOTHING: Self =
        Self { written: 0, read: 0, eof: false, told: Told::TooLate, intact: true };
}

/// What each of the two writes.
fn pattern(end: usize) -> &'static Pattern {
    static PATTERNS: [OnceLock<Pattern>; 2] = [OnceLock::new(), OnceLock::new()];
    PATTERNS[end].get_or_init(|| Pattern::new(end as u64 + 1))
}

/// Follows the steps to their end.
pub(crate) async fn follow(socket: TcpStream, number: usize, steps: &[Step]) -> Seen {
    let seen = Seen { told: Told::Nothing, ..Seen::NOTHING };
    let mut end = End { socket: Some(socket), number, seen };
    for step in steps {
        match timeout(PATIENCE, end.take(*step)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => end.seen.told = Told::Reset,
            Err(_) => {
                end.seen.told = Told::TooLate;
                break;
            }
        }
    }
    end.seen
}

struct End {
    /// Until it is closed.
    socket: Option<TcpStream>,
    number: usize,
    seen: Seen,
}

impl End {
    async fn take(&mut self, step: Step) -> io::Result<()> {
        match step {
            Step::Pause(ms) => sleep(Duration::from_millis(ms)).await,
            Step::Close => self.socket = None,
            Step::Reset => {
                let socket = self.socket.take().unwrap();
                SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
            }
            Step::Shutdown => self.socket().shutdown().await?,
            Step::Write(bytes) => self.write(bytes).await?,
            Step::Urgent => {
                let mut byte = [0];
                pattern(self.number).fill(self.seen.written, &mut byte);
                SockRef::from(&*self.socket()).send_out_of_band(&byte)?;
                self.seen.written += 1;
            }
            Step::Fill => {
                while let Ok(filled) = timeout(FULL_AFTER, self.write(16 << 10)).await {
                    filled?;
                }
            }
            Step::Read(bytes) => self.read(bytes, usize::MAX, 0).await?,
            Step::ReadAll { piece, pause_ms } => self.read(u64::MAX, piece, pause_ms).await?,
            Step::Arrived(bytes) => {
                let mut buffer = vec![0; bytes];
                while self.socket().peek(&mut buffer).await? < bytes {
                    sleep(Duration::from_millis(2)).await;
                }
            }
            Step::Watch => drop(self.socket().ready(Interest::ERROR).await?),
        }
        if step == Step::Watch {
            self.seen.told = Told::Reset;
        }
        Ok(())
    }

    fn socket(&mut self) -> &mut TcpStream {
        self.socket.as_mut().unwrap()
    }

    /// Cancel safe.
    async fn write(&mut self, bytes: u64) -> io::Result<()> {
        let end = self.seen.written + bytes;
        let mut buffer = vec![0; 64 << 10];
        while self.seen.written < end {
            let room = (buffer.len() as u64).min(end - self.seen.written) as usize;
            pattern(self.number).fill(self.seen.written, &mut buffer[..room]);
            self.seen.written += self.socket().write(&buffer[..room]).await? as u64;
        }
        Ok(())
    }

    /// `AsyncRead` takes a short read for the last, but one ends before an urgent byte.
    async fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.socket().readable().await?;
            match self.socket().try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
        }
    }

    async fn read(&mut self, bytes: u64, piece: usize, pause_ms: u64) -> io::Result<()> {
        let end = self.seen.read.saturating_add(bytes);
        let mut buffer = vec![0; piece.min(64 << 10)];
        while self.seen.read < end {
            let room = (buffer.len() as u64).min(end - self.seen.read) as usize;
            let got = self.read_some(&mut buffer[..room]).await?;
            if got == 0 {
                self.seen.eof |= self.seen.told == Told::Nothing;
                break;
            }
            let mut expected = vec![0; got];
            pattern(1 - self.number).fill(self.seen.read, &mut expected);
            self.seen.intact &= buffer[..got] == expected;
            self.seen.read += got as u64;
            if pause_ms > 0 {
                sleep(Duration::from_millis(pause_ms)).await;
            }
        }
        Ok(())
    }
}
