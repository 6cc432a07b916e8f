//! The streams' users: a writer and a reader on each half, doing what the plan says.

use std::sync::OnceLock;

use bytes::Bytes;
use imux::proto::{Code, ReadError, Session, StreamId, WriteError};

use crate::net::{MS, Time, ms};
use crate::options::{HalfPlan, StreamPlan};
use crate::oracle::stream::Truth;
use crate::rng::mix;

/// The state of one half at one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Open,
    /// Finished, or read to the end.
    Ended,
    Reset,
    Stopped,
}

/// One end of one stream.
#[derive(Debug)]
pub struct App {
    pub plan: usize,
    pub id: StreamId,
    pub opener: bool,
    pub writer: Fate,
    pub reader: Fate,
    written: u64,
    pub read: u64,
    write_at: Time,
    read_at: Time,
    refused: bool,
    /// When it will be called again, if that is scheduled.
    pub again_at: Option<Time>,
}

/// What a stream's user did, for counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// When it wants to continue by itself.
    pub again_at: Option<Time>,
    pub blocked: bool,
    pub reset: bool,
    pub stopped: bool,
    pub read: u64,
    pub written: u64,
}

/// Bytes in the pattern: a prime, so that no power of two is a period.
const PATTERN_BYTES: usize = 1_048_573;

fn pattern() -> &'static Bytes {
    static PATTERN: OnceLock<Bytes> = OnceLock::new();
    PATTERN.get_or_init(|| (0..PATTERN_BYTES as u64).map(|n| mix(n) as u8).collect())
}

/// The content at `offset` of a half, at most `len` bytes.
fn content(plan: usize, half: usize, offset: u64, len: u64) -> Bytes {
    let key = mix((plan * 2 + half) as u64) % PATTERN_BYTES as u64;
    let from = ((key + offset) % PATTERN_BYTES as u64) as usize;
    let to = from + (len as usize).min(PATTERN_BYTES - from);
    pattern().slice(from..to)
}

fn is_content(plan: usize, half: usize, mut offset: u64, mut data: &[u8]) -> bool {
    while !data.is_empty() {
        let expected = content(plan, half, offset, data.len() as u64);
        let (now, later) = data.split_at(expected.len());
        if now != expected {
            return false;
        }
        offset += now.len() as u64;
        data = later;
    }
    true
}

impl App {
    pub fn new(plan: usize, id: StreamId, opener: bool) -> Self {
        Self {
            plan,
            id,
            opener,
            writer: Fate::Open,
            reader: Fate::Open,
            written: 0,
            read: 0,
            write_at: 0,
            read_at: 0,
            refused: false,
            again_at: None,
        }
    }

    pub fn is_over(&self) -> bool {
        self.writer != Fate::Open && self.reader != Fate::Open
    }

    /// The half this end writes; it reads the other.
    pub fn own_half(&self) -> usize {
        usize::from(!self.opener)
    }

    /// Writes what it can. An error is a rule the core broke.
    pub fn write(
        &mut self,
        now: Time,
        session: &mut Session,
        plan: &StreamPlan,
        truth: &mut Truth,
        done: &mut Done,
    ) -> Result<(), String> {
        let half = self.own_half();
        let HalfPlan {
            bytes,
            write_bytes,
            write_every_ms,
            until_ms,
            after_bytes,
            reset_at,
            in_order,
            ..
        } = plan.halves[half];
        let target = reset_at.map_or(bytes, |at| at.min(bytes));
        let target = if until_ms > 0.0 && now >= ms(until_ms) { self.written } else { target };
        while self.writer == Fate::Open {
            if self.read < after_bytes && self.reader == Fate::Open {
                return Ok(());
            }
            if now < self.write_at {
                done.again_at = Some(self.write_at);
                return Ok(());
            }
            if self.written == target {
                let reset = reset_at.map(|_| in_order);
                return self.end_writing(session, reset, truth, done);
            }
            let piece = if write_bytes == 0 { target } else { write_bytes };
            let piece = piece.min(target - self.written);
            let mut data = content(self.plan, half, self.written, piece);
            let offered = data.len() as u64;
            match session.send_stream(self.id).write(&mut data) {
                Ok(taken) => {
                    let taken = taken as u64;
                    truth.on_write(now, offered, taken)?;
                    self.written = truth.written;
                    done.written += taken;
                    if write_every_ms > 0.0 {
                        self.write_at = now + ms(write_every_ms);
                    }
                }
                Err(WriteError::Blocked) => {
                    done.blocked = true;
                    return Ok(());
                }
                Err(error) => return self.not_written(error, session, truth),
            }
        }
        Ok(())
    }

    /// `reset`: with a reset instead of an end, at once or in order.
    fn end_writing(
        &mut self,
        session: &mut Session,
        reset: Option<bool>,
        truth: &mut Truth,
        done: &mut Done,
    ) -> Result<(), String> {
        if let Some(in_order) = reset {
            let code = Code::application(self.plan as u32);
            let mut stream = session.send_stream(self.id);
            if in_order {
                stream.finish_with(code);
            } else {
                stream.reset(code);
            }
            self.writer = Fate::Reset;
            truth.reset = Some(code);
            truth.reset_in_order = in_order;
            done.reset = true;
            return Ok(());
        }
        match session.send_stream(self.id).finish() {
            Ok(()) => {
                self.writer = Fate::Ended;
                truth.finished = true;
                Ok(())
            }
            Err(error) => self.not_written(error, session, truth),
        }
    }

    fn not_written(
        &mut self,
        error: WriteError,
        session: &mut Session,
        truth: &Truth,
    ) -> Result<(), String> {
        self.writer = Fate::Stopped;
        // Once told, the writer lets go.
        session.send_stream(self.id).reset(Code::RESET);
        truth.on_write_error(error, self.refused)
    }

    /// Reads what it can. An error is a rule the core broke.
    #[allow(clippy::too_many_arguments, reason = "what a user sees of the world, item by item")]
    pub fn read(
        &mut self,
        now: Time,
        at: std::time::Instant,
        faults_end: Time,
        session: &mut Session,
        plan: &StreamPlan,
        truth: &mut Truth,
        done: &mut Done,
    ) -> Result<(), String> {
        let half = 1 - self.own_half();
        let HalfPlan { read_bytes, read_every_ms, stop_at, unread, .. } = plan.halves[half];
        while self.reader == Fate::Open {
            if unread && now < faults_end {
                done.again_at = Some(faults_end);
                return Ok(());
            }
            if stop_at.is_some_and(|at| at <= self.read) {
                let code = Code::application(1_000_000 + self.plan as u32);
                truth.stopped = Some(code);
                session.recv_stream(self.id).stop(code);
                self.reader = Fate::Stopped;
                done.stopped = true;
                return Ok(());
            }
            if now < self.read_at {
                done.again_at = Some(done.again_at.map_or(self.read_at, |t| t.min(self.read_at)));
                return Ok(());
            }
            let max = stop_at.map_or(u64::MAX, |at| at - self.read);
            let max = if read_bytes == 0 { max } else { max.min(read_bytes) };
            match session.recv_stream(self.id).read(at, max.min(1 << 40) as usize) {
                Ok(Some(data)) => {
                    let is_content =
                        |offset, data: &[u8]| is_content(self.plan, half, offset, data);
                    truth.on_read(now, max, &data, is_content)?;
                    self.read = truth.read;
                    done.read += data.len() as u64;
                    if read_every_ms > 0.0 {
                        self.read_at = now + ms(read_every_ms);
                    }
                }
                Ok(None) => {
                    truth.on_end()?;
                    self.reader = Fate::Ended;
                }
                Err(ReadError::Blocked) => return Ok(()),
                Err(error) => {
                    if let ReadError::Reset(code) = error {
                        self.reader = Fate::Reset;
                        self.refused = code == Code::SHUTDOWN;
                    }
                    truth.on_read_error(error)?;
                }
            }
        }
        Ok(())
    }
}

/// How long a stream's users may take on their own.
pub fn patience(plan: &StreamPlan) -> Time {
    plan.halves
        .iter()
        .map(|half| {
            let writes = half.bytes.checked_div(half.write_bytes).unwrap_or(0) + 1;
            let reads = half.bytes.checked_div(half.read_bytes).unwrap_or(0) + 1;
            ms(half.write_every_ms) * writes * 2 + ms(half.read_every_ms) * reads * 40 + MS
        })
        .sum()
}
