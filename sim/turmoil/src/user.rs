//! Whoever uses a stream: writes what the plan says, reads and checks what comes, and tells the
//! book.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use imux::{ReadHalf, Stream, StreamError, WriteHalf};
use imux_sim::options::HalfPlan;
use imux_sim::rng::mix;
use tokio::time::sleep;

use crate::book::{Book, End, Place, RESET_CODE, STOP_CODE, Trial};
use crate::plan::Plan;

/// Written and read at once unless the plan has another size.
const PIECE: u64 = 48 * 1024;

/// One end of a stream.
#[derive(Clone, Debug)]
pub struct User {
    pub plan: Arc<Plan>,
    pub book: Arc<Book>,
    pub trial: Trial,
    /// At the server's.
    pub server: bool,
}

impl User {
    /// Uses the stream until it is over; `false` if it was cut off.
    pub async fn run(self, stream: Stream) -> bool {
        let plan = &self.plan.streams[self.trial.stream];
        let own = usize::from(self.server != plan.from_server);
        let (read, write) = stream.into_split();
        let writing = self.write(own, &plan.halves[own], write);
        let reading = self.read(1 - own, &plan.halves[1 - own], read);
        let (written, read) = tokio::join!(writing, reading);
        written != End::Cut && read != End::Cut
    }

    fn place(&self, half: usize, reader: bool) -> Place {
        Place { trial: self.trial, half, reader, server: self.server }
    }

    fn key(&self, half: usize) -> u64 {
        mix(self.plan.seed ^ ((self.trial.stream * 2 + half) as u64) << 32 ^ self.trial.attempt)
    }

    async fn write(&self, half: usize, plan: &HalfPlan, write: WriteHalf) -> End {
        let mut written = 0;
        let end = self.write_all(half, plan, write, &mut written).await;
        let end = match end {
            Err(StreamError::Reset(code)) if code == STOP_CODE && plan.stop_at.is_some() => {
                Ok(End::Stopped)
            }
            end => end,
        };
        self.book.end(self.place(half, false), written, end)
    }

    async fn write_all(
        &self,
        half: usize,
        plan: &HalfPlan,
        mut write: WriteHalf,
        written: &mut u64,
    ) -> Result<End, StreamError> {
        let until = plan.reset_at.unwrap_or(plan.bytes);
        let piece = if plan.write_bytes == 0 { PIECE } else { plan.write_bytes };
        while *written < until {
            let size = piece.min(until - *written);
            write.write_all(pattern(self.key(half), *written, size)).await?;
            *written += size;
            if plan.write_every_ms > 0.0 {
                sleep(Duration::from_secs_f64(plan.write_every_ms / 1e3)).await;
            }
        }
        if plan.reset_at.is_some() {
            write.reset(RESET_CODE);
            return Ok(End::Reset);
        }
        write.finish()?;
        Ok(End::Finished)
    }

    async fn read(&self, half: usize, plan: &HalfPlan, read: ReadHalf) -> End {
        let mut got = 0;
        let end = self.read_all(half, plan, read, &mut got).await;
        let end = match end {
            Err(StreamError::Reset(code)) if code == RESET_CODE && plan.reset_at.is_some() => {
                Ok(End::Reset)
            }
            end => end,
        };
        let early = end == Ok(End::Finished) && (got != plan.bytes || plan.reset_at.is_some());
        let place = self.place(half, true);
        if early || got > plan.bytes {
            self.book.fail(format!("{place:?}: an end after {got} of {} bytes", plan.bytes));
        }
        self.book.end(place, got, end)
    }

    async fn read_all(
        &self,
        half: usize,
        plan: &HalfPlan,
        mut read: ReadHalf,
        got: &mut u64,
    ) -> Result<End, StreamError> {
        let mut pieces = VecDeque::new();
        let max = if plan.read_bytes == 0 { PIECE } else { plan.read_bytes };
        loop {
            if plan.stop_at.is_some_and(|at| *got >= at) {
                read.stop(STOP_CODE);
                return Ok(End::Stopped);
            }
            if !read.read_chunks(&mut pieces, max as usize).await? {
                return Ok(End::Finished);
            }
            for piece in pieces.drain(..) {
                self.check(half, *got, &piece);
                *got += piece.len() as u64;
            }
            if plan.read_every_ms > 0.0 {
                sleep(Duration::from_secs_f64(plan.read_every_ms / 1e3)).await;
            }
        }
    }

    fn check(&self, half: usize, offset: u64, piece: &Bytes) {
        let side = if self.server { "server" } else { "client" };
        self.book.note("read", side, self.trial.stream as u64, half as u64, piece.len() as u64);
        let expected = pattern(self.key(half), offset, piece.len() as u64);
        if *piece != expected {
            let at = piece.iter().zip(&expected).position(|(got, want)| got != want);
            let at = offset + at.unwrap_or(0) as u64;
            self.book.fail(format!("{:?}: another byte than was sent at {at}", self.trial));
        }
    }
}

/// The bytes of a half from `offset` on: each eight follow from their place.
fn pattern(key: u64, offset: u64, len: u64) -> Bytes {
    let (first, last) = (offset / 8, (offset + len).div_ceil(8));
    let mut bytes = BytesMut::with_capacity(((last - first) * 8) as usize);
    for word in first..last {
        bytes.extend_from_slice(&mix(key ^ word).to_le_bytes());
    }
    let skip = (offset % 8) as usize;
    bytes.freeze().slice(skip..skip + len as usize)
}
