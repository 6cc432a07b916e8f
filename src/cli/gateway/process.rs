//! A process that holds for this one what would otherwise stay: it lets go when its input ends, and
//! that ends with this process, however it does.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::Notify;

use crate::cli::text::escape;

/// How often to look whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How many times: ten seconds at least.
const LOOKS_MAX: usize = 1_000;

/// Some lines of one complaint say all of it.
const COMPLAINT_BYTES_MAX: usize = 2_000;

#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// `None` once it is to end.
    input: Option<ChildStdin>,
    complaint: Arc<Mutex<String>>,
    listens: Option<JoinHandle<()>>,
}

impl Process {
    /// `ended` is notified when it has ended, by whatever.
    pub(super) fn start(mut command: Command, ended: Arc<Notify>) -> io::Result<Self> {
        // An interrupt from the terminal is for the client, which decides when this one ends.
        command.process_group(0).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (input, errors) = (child.stdin.take(), child.stderr.take());
        let mut this = Self { child, input, complaint: Arc::default(), listens: None };
        let pid = i32::try_from(this.child.id()).map(Pid::from_raw).map_err(io::Error::other)?;
        let complaint = this.complaint.clone();
        let listens = thread::Builder::new().name("complaints".to_owned()).spawn(move || {
            let lines = errors.map(|errors| BufReader::new(errors).split(b'\n'));
            for line in lines.into_iter().flatten().map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                tracing::debug!(said = escape(&line), "what holds the rules complains");
                let mut all = complaint.lock().unwrap_or_else(PoisonError::into_inner);
                if all.len() < COMPLAINT_BYTES_MAX {
                    all.push_str(&line);
                    all.push('\n');
                }
            }
            // Its files are closed before it has ended. To collect it is for `Child` to do.
            let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
            ended.notify_one();
        })?;
        this.listens = Some(listens);
        Ok(this)
    }

    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it prints, if its output leads here; once.
    pub(super) fn output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Gives it a line, and does not wait for what comes of it.
    pub(super) fn tell(&mut self, line: &str) -> io::Result<()> {
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(input, "{line}")?;
        input.flush()
    }

    /// What it has complained about since that was cleared.
    pub(super) fn complaint(&self) -> MutexGuard<'_, String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it has let go and ended.
    pub(super) fn end(&mut self) -> io::Result<ExitStatus> {
        self.input = None;
        for _ in 0..LOOKS_MAX {
            if !self.is_alive() {
                break;
            }
            thread::sleep(LOOK_EVERY);
        }
        if self.is_alive() {
            self.child.kill()?;
        }
        self.child.wait()
    }

    /// Ends it, and returns all that it has complained about.
    pub(super) fn into_complaint(mut self) -> String {
        let _ = self.end();
        if let Some(listens) = self.listens.take() {
            let _ = listens.join();
        }
        let all = self.complaint();
        all.clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
