//! Standard error behind a bounded queue: writers never wait for the reader.
//!
//! A separate thread writes. Text that finds the queue full is dropped whole and counted; once
//! lines are accepted again, a notice stands in its place.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Room for some two thousand lines: every lane of a large session coming up, going and returning.
const QUEUE_BYTES: usize = 256 << 10;

/// The most written at once: small, so that little is in flight when the reader stops.
const BATCH_BYTES: usize = 32 << 10;

/// How long the program's end waits for its output to be taken.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// The target of notices about lost lines: no filter or line limit holds these back.
pub(super) const TARGET: &str = module_path!();

/// A way into the queue. Each `write` is kept or dropped whole, and never fails.
#[derive(Clone, Debug)]
pub struct Output(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// There is something to write.
    filled: Condvar,
    /// Everything has been written.
    drained: Condvar,
    writer: OnceLock<ThreadId>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// Lines that found no room since the writer last looked.
    lost: u64,
    /// The writer is busy with the batch it took.
    writing: bool,
    /// A question owns the terminal: output waits, as long as there is room for it.
    held: bool,
}

/// Nothing is written while this lives.
#[derive(Debug)]
pub struct Hold(Output);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.0.lock().held = false;
        self.0.0.filled.notify_one();
    }
}

/// The process's one queue in front of standard error, created by the first call.
///
/// # Errors
/// No thread could be started for it.
pub fn stderr() -> io::Result<Output> {
    static STDERR: OnceLock<Output> = OnceLock::new();
    if let Some(output) = STDERR.get() {
        return Ok(output.clone());
    }
    let output = Output::start(Patient(io::stderr()))?;
    Ok(STDERR.get_or_init(|| output).clone())
}

impl Output {
    fn start(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let output = Self(Arc::default());
        let queue = output.0.clone();
        let writer = thread::Builder::new().name("imux-log-writer".to_owned());
        writer.spawn(move || queue.write_to(sink))?;
        Ok(output)
    }

    /// Holds back output from now on. Earlier output is written first, if the reader takes it.
    pub fn hold(&self) -> Hold {
        self.wait_until_written();
        self.0.lock().held = true;
        Hold(self.clone())
    }

    /// Waits until everything is written, but not for long. A pending question will get no answer
    /// any more.
    pub fn flush_for_the_end(&self) {
        let mut state = self.0.lock();
        if std::mem::take(&mut state.held) {
            // The question's last line is unfinished.
            state.waiting_bytes += 1;
            state.waiting.push_front(b"\n".to_vec());
            self.0.filled.notify_one();
        }
        drop(state);
        self.wait_until_written();
    }

    fn wait_until_written(&self) {
        let unwritten =
            |state: &mut State| state.writing || !state.waiting.is_empty() || state.lost > 0;
        let waited = self.0.drained.wait_timeout_while(self.0.lock(), FLUSH_PATIENCE, unwritten);
        drop(waited);
    }
}

impl Write for Output {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.push(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, text: &[u8]) {
        let mut state = self.lock();
        // After one loss everything is dropped until the writer looks: no line may precede the
        // notice.
        let full = state.lost > 0 || state.waiting_bytes + text.len() > QUEUE_BYTES;
        // The writer itself only writes that notice.
        if full && self.writer.get() != Some(&thread::current().id()) {
            state.lost += 1;
        } else {
            state.waiting_bytes += text.len();
            state.waiting.push_back(text.to_vec());
        }
        self.filled.notify_one();
    }

    fn write_to(&self, mut sink: impl Write) {
        let _ = self.writer.set(thread::current().id());
        loop {
            let (batch, lost) = self.next_batch();
            if lost > 0 {
                // Through the log, to get the log's form. The queue was just emptied into the
                // batch, and this follows it.
                tracing::warn!(
                    lines = lost,
                    "lines of the log were lost: standard error did not take them in time"
                );
            }
            // Whoever closed standard error does not want to hear about it.
            let _ = sink.write_all(&batch).and_then(|()| sink.flush());
        }
    }

    /// The next batch to write, and how many lines were lost after it.
    fn next_batch(&self) -> (Vec<u8>, u64) {
        let mut state = self.lock();
        state.writing = false;
        while state.held || state.waiting.is_empty() && state.lost == 0 {
            if !state.held {
                self.drained.notify_all();
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.writing = true;
        let mut batch = Vec::new();
        while let Some(next) = state.waiting.front() {
            if !batch.is_empty() && batch.len() + next.len() > BATCH_BYTES {
                return (batch, 0);
            }
            batch.extend_from_slice(next);
            state.waiting_bytes -= next.len();
            state.waiting.pop_front();
        }
        (batch, std::mem::take(&mut state.lost))
    }
}

/// A descriptor that another process sharing it may have set to non-blocking.
struct Patient<W>(W);

impl<W: Write + AsFd> Write for Patient<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let writable = PollFd::new(self.0.as_fd(), PollFlags::POLLOUT);
                    poll(&mut [writable], PollTimeout::NONE)?;
                }
                outcome => return outcome,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Takes a batch whenever it is allowed to.
    struct Gate {
        allowed: mpsc::Receiver<()>,
        taken: mpsc::Sender<String>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Once the test drops its end, the gate stays open.
            let _ = self.allowed.recv();
            let _ = self.taken.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Output, mpsc::Sender<()>, mpsc::Receiver<String>) {
        let (allow, allowed) = mpsc::channel();
        let (taken, read) = mpsc::channel();
        (Output::start(Gate { allowed, taken }).unwrap(), allow, read)
    }

    #[test]
    fn what_finds_no_room_is_dropped_as_a_whole_and_counted() {
        let (mut output, allow, read) = gated();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        let lines = 3 * QUEUE_BYTES / line.len();
        for _ in 0..lines {
            // Nobody reads any of it, and nobody waits.
            output.write_all(&line).unwrap();
        }
        let lost = output.0.lock().lost as usize;
        assert!(output.0.lock().waiting_bytes <= QUEUE_BYTES);
        drop(allow);
        output.flush_for_the_end();
        let taken: String = read.try_iter().collect();
        assert_eq!(taken.len() % line.len(), 0, "a line was cut");
        assert_eq!(taken.len() / line.len() + lost, lines);
        assert!(lost > lines / 2);
        // Later lines are taken again.
        output.write_all(b"later\n").unwrap();
        output.flush_for_the_end();
        assert_eq!(read.try_iter().collect::<String>(), "later\n");
    }

    #[test]
    fn the_end_waits_for_what_is_taken_and_not_for_what_is_not() {
        let (mut output, _allow, read) = gated();
        output.write_all(b"the last word\n").unwrap();
        output.flush_for_the_end();
        assert_eq!(read.try_iter().count(), 0);
        let (mut output, allow, read) = gated();
        output.write_all(b"the last ").unwrap();
        output.write_all(b"word\n").unwrap();
        drop(allow);
        output.flush_for_the_end();
        assert_eq!(read.try_iter().collect::<String>(), "the last word\n");
    }

    #[test]
    fn what_is_said_while_it_is_held_is_written_afterwards_and_bounded() {
        let (mut output, allow, read) = gated();
        drop(allow);
        output.write_all(b"before\n").unwrap();
        let hold = output.hold();
        assert_eq!(read.try_iter().collect::<String>(), "before\n");
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        for _ in 0..2 * QUEUE_BYTES / line.len() {
            output.write_all(&line).unwrap();
        }
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(read.try_iter().count(), 0, "it was written while it was held");
        assert!(output.0.lock().waiting_bytes <= QUEUE_BYTES);
        drop(hold);
        output.flush_for_the_end();
        assert_eq!(read.try_iter().collect::<String>().len(), QUEUE_BYTES);
        // The program's end does not wait for an answer.
        let _hold = output.hold();
        output.write_all(b"the end\n").unwrap();
        output.flush_for_the_end();
        assert_eq!(read.try_iter().collect::<String>(), "\nthe end\n");
    }

    #[test]
    fn a_pipe_set_to_non_blocking_loses_nothing() {
        use std::io::Read;
        let (mut reader, writer) = io::pipe().unwrap();
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))
            .unwrap();
        let mut output = Output::start(Patient(writer)).unwrap();
        let line = b"0123456789abcde\n";
        for _ in 0..8_000 {
            output.write_all(line).unwrap();
        }
        let mut got = vec![0; 8_000 * line.len()];
        reader.read_exact(&mut got).unwrap();
        assert!(got.chunks(line.len()).all(|chunk| chunk == line));
    }
}
