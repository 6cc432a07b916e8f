//! A run's processes: started, watched through `/proc`, ended by their own id.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::clock::{self, NS_PER_MS, now_ns};
use super::error::LabError;

/// How long a process has to end after SIGTERM before it gets SIGKILL.
const TERM_GRACE: Duration = Duration::from_millis(500);

/// Where a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The machine's own network.
    Host,
    /// A named network namespace.
    Namespace(String),
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// User and system time of all its threads, ended ones too, in seconds.
    pub cpu_s: f64,
    /// Peak resident memory in kilobytes.
    pub rss_peak_kb: u64,
}

/// A running process. Dropping it ends and reaps it.
#[derive(Debug)]
pub struct Process {
    /// For messages and tables.
    pub name: String,
    child: Child,
    log: Option<PathBuf>,
}

impl Process {
    /// Starts `program` with `args`; its output goes to `log`, or nowhere.
    pub fn start(
        name: &str,
        place: &Place,
        program: &Path,
        args: &[String],
        env: &[(String, String)],
        log: Option<&Path>,
    ) -> Result<Self, LabError> {
        let mut command = command(place, program, args);
        command.envs(env.iter().cloned()).stdin(Stdio::null());
        match log {
            Some(path) => {
                let open = || std::fs::File::options().create(true).append(true).open(path);
                let fail = |e| LabError::setup(format!("write {}", path.display()), e);
                command.stdout(open().map_err(fail)?).stderr(open().map_err(fail)?);
            }
            None => {
                command.stdout(Stdio::null()).stderr(Stdio::null());
            }
        }
        let child = command.spawn().map_err(|e| LabError::setup(format!("start {name}"), e))?;
        Ok(Self { name: name.to_owned(), child, log: log.map(Path::to_owned) })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has used so far; zero once it is gone.
    #[must_use]
    pub fn usage(&self) -> Usage {
        usage(self.pid())
    }

    /// An error, with the end of its log, if it is no longer running.
    pub fn check_alive(&mut self) -> Result<(), LabError> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(LabError::Run(format!(
                "{} ended early ({status}); its last words:\n{}",
                self.name,
                self.log_tail()
            ))),
            _ => Ok(()),
        }
    }

    /// Ends it and returns all its output.
    #[must_use]
    pub fn end(mut self) -> String {
        end(&mut self.child);
        self.said()
    }

    fn said(&self) -> String {
        let text = self.log.as_ref().and_then(|p| std::fs::read(p).ok()).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = self.said();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Asks a child to end, kills it after a moment, and reaps it.
fn end(child: &mut Child) {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    // The child is not reaped yet, so its id cannot belong to another process.
    let pid = Pid::from_raw(child.id().cast_signed());
    let _ = kill(pid, Signal::SIGTERM);
    let deadline = now_ns() + TERM_GRACE.as_millis() as u64 * NS_PER_MS;
    while now_ns() < deadline {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// `program` in its place; the kernel kills it if this process dies first.
///
/// `ip netns exec` and `setpriv` become the program itself: the child's id is the program's.
#[must_use]
pub fn command(place: &Place, program: &Path, args: &[String]) -> Command {
    let mut words: Vec<String> = Vec::new();
    if let Place::Namespace(name) = place {
        words.extend(["ip", "netns", "exec", name].map(str::to_owned));
    }
    if find_program("setpriv").is_some() {
        words.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned));
    }
    words.push(program.display().to_string());
    words.extend(args.iter().cloned());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// One of the lab's own helpers (load, sink), which talks in lines over its stdin and stdout.
#[derive(Debug)]
pub struct Helper {
    name: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Helper {
    /// Starts this very binary as `imux-lab ARGS…`.
    pub fn start(name: &'static str, place: &Place, args: &[String]) -> Result<Self, LabError> {
        let own = std::env::current_exe().map_err(|e| LabError::setup("find this program", e))?;
        let mut child = command(place, &own, args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| LabError::setup(format!("start the {name}"), e))?;
        let input = child.stdin.take();
        let (tx, lines) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if tx.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { name, child, input, lines })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends one line.
    pub fn tell(&mut self, line: &str) -> Result<(), LabError> {
        let Some(input) = &mut self.input else {
            return Err(LabError::Run(format!("the {} takes no input", self.name)));
        };
        input
            .write_all(format!("{line}\n").as_bytes())
            .and_then(|()| input.flush())
            .map_err(|e| LabError::Run(format!("the {} is gone: {e}", self.name)))
    }

    /// Waits for one line, but not past `limit` or a signal.
    pub fn hear(&mut self, limit: Duration) -> Result<String, LabError> {
        let deadline = now_ns().saturating_add(limit.as_nanos() as u64);
        loop {
            clock::check_interrupt()?;
            match self.lines.recv_timeout(Duration::from_millis(20)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) if now_ns() < deadline => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(LabError::Run(format!(
                        "the {} gave no answer within {limit:?}",
                        self.name
                    )));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(LabError::Run(format!("the {} ended unexpectedly", self.name)));
                }
            }
        }
    }

    /// Waits for one line of JSON.
    pub fn hear_json<T: DeserializeOwned>(&mut self, limit: Duration) -> Result<T, LabError> {
        let line = self.hear(limit)?;
        serde_json::from_str(&line)
            .map_err(|e| LabError::Run(format!("the {} said something unexpected: {e}", self.name)))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.input.take());
        end(&mut self.child);
    }
}

/// The program's path, if it is on `PATH` (or is a path itself).
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Path::new(name).is_file().then(|| PathBuf::from(name));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.is_file())
}

/// What process `pid` has used so far; zero if it is gone.
#[must_use]
pub fn usage(pid: u32) -> Usage {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    Usage {
        cpu_s: cpu_ticks(&stat).unwrap_or(0) as f64 / ticks_per_second(),
        rss_peak_kb: rss_peak_kb(&status).unwrap_or(0),
    }
}

fn ticks_per_second() -> f64 {
    sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64
}

/// utime + stime, fields 14 and 15 of `/proc/PID/stat` (proc_pid_stat(5)); the name in parentheses
/// may contain blanks.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// How far a machine's two clocks may be apart.
const CLOCK_ERROR: Duration = Duration::from_secs(1);

/// The names in `directory` of the form `prefix`, process id, dash and more, whose process is gone.
#[must_use]
pub fn left_behind(directory: &Path, prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let left = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let pid = name.strip_prefix(prefix)?.split_once('-')?.0.parse().ok()?;
        let made = entry.metadata().and_then(|file| file.modified()).ok()?;
        // Ids are reused by later processes.
        let lives = began_at(pid).is_some_and(|began| began <= made + CLOCK_ERROR);
        (!lives).then_some(name)
    });
    left.collect()
}

/// When process `pid` began; `None` if it is gone.
#[allow(clippy::disallowed_methods, reason = "it is compared with the dates of files")]
fn began_at(pid: u32) -> Option<SystemTime> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
    let age = uptime - start_ticks(&stat)? as f64 / ticks_per_second();
    SystemTime::now().checked_sub(Duration::try_from_secs_f64(age.max(0.0)).ok()?)
}

/// Clock ticks from the machine's start to the process's: field 22 of `/proc/PID/stat`.
fn start_ticks(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn rss_peak_kb(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Established IPv4 connections with remote port `port` in the network of process `pid`.
#[must_use]
pub fn established_to(pid: u32, port: u16) -> usize {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let remote = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter(|line| {
            let mut fields = line.split_ascii_whitespace().skip(2);
            fields.next().is_some_and(|r| r.ends_with(&remote)) && fields.next() == Some("01")
        })
        .count()
}

/// Whether something listens on `addr` (or on all addresses) in the network of process `pid`.
#[must_use]
pub fn is_listening(pid: u32, addr: SocketAddr) -> bool {
    let local = format!(":{:04X}", addr.port());
    ["tcp", "tcp6"].iter().any(|table| {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        table.lines().skip(1).any(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            fields.next().is_some_and(|l| l.ends_with(&local)) && fields.nth(1) == Some("0A")
        })
    })
}

/// Waits until something listens on `addr` in the network of `process`.
pub fn wait_listening(
    process: &mut Process,
    addr: SocketAddr,
    limit: Duration,
) -> Result<(), LabError> {
    let deadline = now_ns().saturating_add(limit.as_nanos() as u64);
    while !is_listening(process.pid(), addr) {
        process.check_alive()?;
        if now_ns() > deadline {
            return Err(LabError::Run(format!(
                "{} does not listen on {addr} after {limit:?}; its last words:\n{}",
                process.name,
                process.log_tail()
            )));
        }
        clock::sleep(Duration::from_millis(5))?;
    }
    Ok(())
}

/// The imux program: as given, else beside this one, else on `PATH`.
#[must_use]
pub fn find_imux(told: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = told {
        return path.is_file().then(|| path.to_owned());
    }
    let beside = std::env::current_exe().ok()?.with_file_name("imux");
    if beside.is_file() { Some(beside) } else { find_program("imux") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc_files() {
        let stat = "42 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0 4 0 777";
        assert_eq!(cpu_ticks(stat), Some(175));
        assert_eq!(cpu_ticks("garbage"), None);
        assert_eq!(start_ticks(stat), Some(777));
        let began = began_at(std::process::id()).unwrap();
        assert!(began.elapsed().unwrap() < Duration::from_secs(3600), "{began:?}");
        assert_eq!(began_at(u32::MAX), None);
        assert_eq!(rss_peak_kb("Name:\tx\nVmHWM:\t  1234 kB\n"), Some(1234));
        assert!(usage(std::process::id()).rss_peak_kb > 0);
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let Some(sleep) = find_program("sleep") else { return };
        let args = ["600".to_owned()];
        let process = Process::start("sleep", &Place::Host, &sleep, &args, &[], None).unwrap();
        let pid = process.pid();
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
