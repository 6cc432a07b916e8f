//! The compiled program as a child process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::namespace::Host;

/// A command for the program with this home, without a terminal, and with nothing in its
/// environment that changes what it logs.
pub(crate) fn imux(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imux"));
    prepared(&mut command, home);
    command
}

fn prepared<'a>(command: &'a mut Command, home: &Path) -> &'a mut Command {
    command.env("IMUX_HOME", home).env_remove("RUST_LOG").stdin(Stdio::null())
}

/// Runs the program to its end: exit code, standard output, standard error. Fails if it has not
/// ended after 20 s.
#[track_caller]
pub(crate) fn run(home: &Path, args: &[&str]) -> (i32, String, String) {
    run_in(Path::new("."), home, args)
}

/// The same, in this folder: relative paths are in it.
#[track_caller]
pub(crate) fn run_in(folder: &Path, home: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = imux(home);
    command.args(args).current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let drain = |mut pipe: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).unwrap();
            text
        })
    };
    let out = drain(Box::new(child.stdout.take().unwrap()));
    let err = drain(Box::new(child.stderr.take().unwrap()));
    let status = wait(&mut child, 20);
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (out, err) = (out.join().unwrap(), err.join().unwrap());
    let Some(status) = status else { panic!("{args:?} did not end: {out}\n{err}") };
    (status.code().unwrap_or(-1), out, err)
}

fn wait(child: &mut Child, seconds: u64) -> Option<ExitStatus> {
    for _ in 0..seconds * 100 {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// The program, running; killed when dropped. Its log is shown when a test fails.
#[derive(Debug)]
pub(crate) struct Imux {
    child: Child,
    log: Arc<Log>,
}

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Imux {
    pub(crate) fn start(home: &Path, args: &[&str]) -> Self {
        Self::spawn(imux(home).args(args))
    }

    /// On another machine.
    pub(crate) fn start_at(host: &Host, home: &Path, args: &[&str]) -> Self {
        let mut command = host.command(env!("CARGO_BIN_EXE_imux"));
        Self::spawn(prepared(&mut command, home).args(args))
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::<Log>::default();
        let (stderr, writing) = (child.stderr.take().unwrap(), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                writing.lines.lock().unwrap().0.push(line);
                writing.changed.notify_all();
            }
            writing.lines.lock().unwrap().1 = true;
            writing.changed.notify_all();
        });
        Self { child, log }
    }

    /// The address in the line that says that it is ready.
    #[track_caller]
    pub(crate) fn ready(&self) -> SocketAddr {
        let line = self.line(" ready ");
        field(&line, "address").parse().unwrap()
    }

    /// The first line of the log that contains `words`, once it is there.
    #[track_caller]
    pub(crate) fn line(&self, words: &str) -> String {
        self.nth_line(words, 1)
    }

    /// The `count`th line of the log that contains `words`, once it is there.
    #[track_caller]
    pub(crate) fn nth_line(&self, words: &str, count: usize) -> String {
        let until = Duration::from_secs(20);
        let found = |lines: &Vec<String>| {
            lines.iter().filter(|line| line.contains(words)).nth(count - 1).cloned()
        };
        let lines = self.log.lines.lock().unwrap();
        let waiting = |state: &mut (Vec<String>, bool)| found(&state.0).is_none() && !state.1;
        let (lines, _) = self.log.changed.wait_timeout_while(lines, until, waiting).unwrap();
        let found = found(&lines.0);
        drop(lines);
        found.unwrap_or_else(|| panic!("{words:?} was not logged {count} times"))
    }

    /// How many lines of the log contain `words` now.
    pub(crate) fn count(&self, words: &str) -> usize {
        let lines = self.log.lines.lock().unwrap();
        lines.0.iter().filter(|line| line.contains(words)).count()
    }

    /// How many lines of the log contain all of these now.
    pub(crate) fn lines_with(&self, words: &[&str]) -> usize {
        let lines = self.log.lines.lock().unwrap();
        lines.0.iter().filter(|line| words.iter().all(|words| line.contains(words))).count()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lines.lock().unwrap().0.join("\n")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Its exit code; fails if it has not ended after 10 s.
    #[track_caller]
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        wait(&mut self.child, 10).expect("the program did not end").code()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// How many descriptors it has open; for a program that hides its memory, only root can tell.
    pub(crate) fn descriptors(&self) -> Option<usize> {
        match std::fs::read_dir(format!("/proc/{}/fd", self.child.id())) {
            Ok(open) => Some(open.count()),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Resident memory now, in KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most it has ever been, in KiB.
    pub(crate) fn rss_kib_max(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Imux {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of process {} ---\n{}", self.child.id(), self.log());
        }
    }
}

/// The value of `name=value` in a line of the log.
#[track_caller]
pub(crate) fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let prefix = format!("{name}=");
    let found = line.split_whitespace().find_map(|word| word.strip_prefix(prefix.as_str()));
    found.unwrap_or_else(|| panic!("no {name} in: {line}"))
}
