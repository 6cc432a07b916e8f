//! `imux top` in a terminal that somebody else draws.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::net::Destination;
use crate::support::tunnel::Tunnel;
use crate::{bounded, eventually, find, installed};

mod picture;

/// Where the picture is that the README shows.
const PICTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/top.svg");

/// A terminal with a shell in it; ended when dropped.
struct Tmux {
    folder: TempDir,
}

impl Tmux {
    /// The shell runs `script`, in which `$IMUX` is the program, and then waits.
    fn start((width, height): (u16, u16), home: &Path, environment: &[&str], script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tmux = Self { folder };
        let script =
            format!("stty -g >before; {script}; echo left with $?; stty -g >after; exec cat");
        let mut command = tmux.command();
        command.args(["-f", "/dev/null", "new-session", "-d", "-s", "top"]);
        command.arg("-x").arg(width.to_string()).arg("-y").arg(height.to_string());
        command.arg("-c").arg(tmux.folder.path()).args(["env", "-u", "NO_COLOR", "LC_ALL=C.UTF-8"]);
        command.arg(format!("IMUX_HOME={}", home.display()));
        command.arg(format!("IMUX={}", env!("CARGO_BIN_EXE_imux"))).args(environment);
        command.args(["sh", "-c", &script]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        tmux
    }

    fn command(&self) -> Command {
        let mut command = Command::new(find("tmux").unwrap());
        // A server of its own, and nobody's settings.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.folder.path()).env("SHELL", "/bin/sh");
        command.arg("-u").arg("-S").arg(self.folder.path().join("socket"));
        command
    }

    fn tell(&self, words: &[&str]) -> String {
        let output = self.command().args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn screen(&self) -> String {
        self.tell(&["capture-pane", "-p", "-t", "top"])
    }

    /// The line that begins with these words, without what is between the words of it.
    fn line(&self, begins: &str) -> Option<String> {
        let screen = self.screen();
        let line =
            screen.lines().find(|line| line.trim_start_matches(['>', ' ']).starts_with(begins));
        line.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    fn types(&self, keys: &[&str]) {
        self.tell(&[&["send-keys", "-t", "top"], keys].concat());
    }

    async fn sees(&self, words: &str) {
        for _ in 0..1_000 {
            if self.screen().contains(words) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{words:?} is not on the screen:\n{}", self.screen());
    }

    /// The terminal is as it was before, and this is what was said.
    async fn is_left_with(&self, code: i32) -> String {
        self.sees(&format!("left with {code}")).await;
        let file = |name: &str| fs::read_to_string(self.folder.path().join(name)).unwrap();
        eventually(10, "the terminal's settings are told", || !file("after").is_empty()).await;
        assert_eq!(file("before"), file("after"));
        let shown =
            self.tell(&["display-message", "-p", "-t", "top", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(shown.trim(), "0 1", "screen and cursor are the shell's again");
        self.screen()
    }

    /// Nothing is wider than the terminal, and the lines are all there.
    #[track_caller]
    fn fits(&self, (width, height): (usize, usize)) {
        let screen = self.screen();
        assert_eq!(screen.lines().count(), height, "{screen}");
        assert!(screen.lines().all(|line| line.chars().count() <= width), "{screen}");
        assert!(screen.lines().last().unwrap().contains("q leave"), "{screen}");
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.command().arg("kill-server").output();
    }
}

/// Two links of two lanes each, through a relay; something is echoed all the time.
async fn busy() -> (Tunnel, Destination) {
    let echo = Destination::echo().await;
    let binds = ["--bind=127.0.0.2=2,express=no", "--bind=127.0.0.3=2,express=no"];
    let tunnel = Tunnel::with(echo.addr, &binds, &[]).await;
    tunnel.client.nth_line("lane up", 4);
    tunnel.relay.throttle(1_000_000);
    let (mut read, mut write) = TcpStream::connect(tunnel.addr).await.unwrap().into_split();
    tokio::spawn(async move {
        let block = vec![7; 1 << 14];
        while write.write_all(&block).await.is_ok() {}
    });
    tokio::spawn(async move {
        let mut block = vec![0; 1 << 16];
        while matches!(read.read(&mut block).await, Ok(1..)) {}
    });
    (tunnel, echo)
}

#[test]
fn top_shows_a_link_that_dies_and_returns_at_two_sizes() {
    if !installed(&["tmux"]) {
        return;
    }
    bounded(async {
        let (mut tunnel, _echo) = busy().await;
        let home = tunnel.homes[1].path().to_owned();
        let sizes = [(80, 24), (200, 50)];
        let terminals = sizes.map(|size| Tmux::start(size, &home, &[], "$IMUX top"));
        let both_have = async |lanes: &str| {
            for tmux in &terminals {
                let now = || tmux.line("127.0.0.3").unwrap_or_default();
                eventually(30, lanes, || now().starts_with(&format!("127.0.0.3 primary {lanes} ")))
                    .await;
            }
        };
        let carries = |tmux: &Tmux, link: &str| {
            let line = tmux.line(link).unwrap_or_default();
            line.contains('M') && line.contains(['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'])
        };
        for tmux in &terminals {
            for link in ["> 127.0.0.2 primary 2/2", "127.0.0.3 primary 2/2", "sum 4"] {
                let begins = link.trim_start_matches("> ");
                eventually(30, link, || {
                    tmux.line(begins.split(' ').next().unwrap())
                        .unwrap_or_default()
                        .starts_with(link)
                })
                .await;
            }
            eventually(30, "both carry something", || {
                ["127.0.0.2", "127.0.0.3", "sum"].iter().all(|link| carries(tmux, link))
            })
            .await;
        }
        tunnel.relay.close(true);
        tunnel.relay.silence_path("127.0.0.3");
        both_have("0/2").await;
        for (tmux, size) in terminals.iter().zip(sizes) {
            tmux.sees("of 127.0.0.3 went").await;
            tmux.sees("127.0.0.3 failed").await;
            tmux.fits((size.0.into(), size.1.into()));
        }
        tunnel.relay.close(false);
        both_have("2/2").await;
        for (tmux, size) in terminals.iter().zip(sizes) {
            eventually(30, "it carries again", || carries(tmux, "127.0.0.3")).await;
            tmux.fits((size.0.into(), size.1.into()));
            tmux.types(&["q"]);
            tmux.is_left_with(0).await;
        }
        tunnel.assert_healthy();
    });
}

#[test]
fn keys_pause_a_link_and_change_its_tier() {
    if !installed(&["tmux"]) {
        return;
    }
    bounded(async {
        let (mut tunnel, _echo) = busy().await;
        let tmux = Tmux::start((100, 30), tunnel.homes[1].path(), &["NO_COLOR=1"], "$IMUX top");
        let is = async |words: &str| {
            let link = words.trim_start_matches("> ").split(' ').next().unwrap();
            eventually(30, words, || tmux.line(link).unwrap_or_default().starts_with(words)).await;
        };
        is("> 127.0.0.2 primary 2/2").await;
        tmux.types(&["j", "p"]);
        tmux.sees("127.0.0.3 is paused").await;
        is("> 127.0.0.3 primary paused").await;
        tunnel.client.line("lane down");
        // The last one is asked about first.
        tmux.types(&["k", "p"]);
        tmux.sees("127.0.0.2 is the last link: pause it").await;
        tmux.types(&["n"]);
        is("> 127.0.0.2 primary 2/2").await;
        tmux.types(&["Down", "p"]);
        is("> 127.0.0.3 primary 2/2").await;
        tmux.types(&["t"]);
        tmux.sees("tier of 127.0.0.3 (primary)? p primary, e express").await;
        tmux.types(&["b"]);
        tmux.sees("127.0.0.3 is backup").await;
        is("> 127.0.0.3 backup 2/2").await;
        tmux.types(&["?"]);
        tmux.sees("select a link").await;
        tmux.types(&["?"]);
        tmux.sees("waits for").await;
        // No colour, whatever there is to say.
        let drawn = tmux.tell(&["capture-pane", "-e", "-p", "-t", "top"]);
        let coloured = drawn.replace("\x1b[39m", "").replace("\x1b[49m", "");
        assert!(!coloured.contains("\x1b[3") && !coloured.contains("\x1b[4"), "{drawn:?}");
        tmux.tell(&["resize-window", "-t", "top", "-x", "60", "-y", "12"]);
        let anew = || tmux.screen().lines().count() == 12 && tmux.line("sum").is_some();
        eventually(30, "it is drawn anew", anew).await;
        is("sum 4").await;
        tmux.fits((60, 12));
        tmux.types(&["C-c"]);
        tmux.is_left_with(130).await;
        tunnel.assert_healthy();
    });
}

/// The one child of the terminal's shell.
fn program_in(tmux: &Tmux) -> Pid {
    let shell = tmux.tell(&["display-message", "-p", "-t", "top", "#{pane_pid}"]);
    let children = format!("/proc/{0}/task/{0}/children", shell.trim());
    let child = fs::read_to_string(children).unwrap();
    Pid::from_raw(child.trim().parse().unwrap())
}

#[test]
fn the_terminal_is_given_back_whatever_ends_top() {
    if !installed(&["tmux"]) {
        return;
    }
    bounded(async {
        let (tunnel, _echo) = busy().await;
        let home = tunnel.homes[1].path().to_owned();
        let running = async |size: (u16, u16)| {
            let tmux = Tmux::start(size, &home, &[], "$IMUX top");
            tmux.sees("127.0.0.2").await;
            tmux
        };
        // A terminal that is much too small for it shows what fits.
        for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
            let tmux = running((30, 5)).await;
            kill(program_in(&tmux), signal).unwrap();
            tmux.is_left_with(code).await;
        }
        // Colours, and none of the characters that this terminal does not have.
        let plain = Tmux::start((80, 24), &home, &["LC_ALL=C"], "$IMUX top");
        eventually(30, "there is a graph", || {
            plain.line("sum").unwrap_or_default().contains(['#', '=', '-', '.'])
        })
        .await;
        let drawn = plain.tell(&["capture-pane", "-e", "-p", "-t", "top"]);
        assert!(drawn.is_ascii() && drawn.contains("\x1b[3"), "{drawn:?}");
        let last = running((80, 24)).await;
        drop(tunnel);
        for tmux in [plain, last] {
            let said = tmux.is_left_with(0).await;
            assert!(said.contains("has ended, or does not answer"), "{said}");
        }
        // Now there is nobody.
        let nobody = Tmux::start((80, 24), &home, &[], "$IMUX top");
        let said = nobody.is_left_with(0).await;
        assert!(said.contains("no client and no server of this user is running"), "{said}");
        for (how, why) in [("TERM=dumb $IMUX top", "TERM"), ("$IMUX top | cat >told", "")] {
            let tmux = Tmux::start((80, 24), &home, &[], how);
            tmux.sees("`imux status --watch` prints").await;
            tmux.sees(why).await;
        }
    });
}

/// `IMUX_WRITE_PICTURE=1` draws the README's picture anew: a minute of two links, of which one was
/// gone for a while.
#[test]
fn a_picture_of_top_is_what_a_terminal_shows() {
    if !installed(&["tmux"]) {
        return;
    }
    bounded(async {
        let writes = std::env::var_os("IMUX_WRITE_PICTURE").is_some();
        let moment = Duration::from_secs(if writes { 12 } else { 1 });
        let (tunnel, _echo) = busy().await;
        let tmux = Tmux::start((94, 16), tunnel.homes[1].path(), &[], "$IMUX top");
        tmux.sees("127.0.0.3").await;
        tokio::time::sleep(moment).await;
        tunnel.relay.close(true);
        tunnel.relay.silence_path("127.0.0.3");
        tmux.sees("of 127.0.0.3 went").await;
        tokio::time::sleep(moment / 3).await;
        tunnel.relay.close(false);
        eventually(30, "it is back", || {
            tmux.line("127.0.0.3").unwrap_or_default().starts_with("127.0.0.3 primary 2/2 ")
        })
        .await;
        tokio::time::sleep(moment).await;
        let captured = tmux.tell(&["capture-pane", "-e", "-p", "-t", "top"]);
        let drawn =
            picture::svg(&captured, 94, "imux top: two links, one of which was gone for a while");
        assert!(drawn.contains(">127.0.0.3</text>") && drawn.contains(">sum</text>"), "{drawn}");
        assert!(drawn.matches("<rect").count() > 6 && !drawn.contains(['\x1b', '█']), "{drawn}");
        if writes {
            fs::write(PICTURE, drawn).unwrap();
        }
        // What is there has been drawn like this.
        let there = fs::read_to_string(PICTURE).unwrap();
        assert!(there.contains(">imux top: client of ") && there.contains(">sum</text>"));
    });
}
