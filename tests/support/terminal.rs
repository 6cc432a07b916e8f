//! The compiled program on a terminal of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::pty::Winsize;

/// What most terminals have.
const SIZE: Winsize = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };

/// A program on a pseudo-terminal; killed when dropped.
pub(crate) struct OnTerminal {
    pub(crate) child: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
}

impl OnTerminal {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with_colour(command.env("NO_COLOR", "1"))
    }

    pub(crate) fn start_with_colour(command: &mut Command) -> Self {
        let nix::pty::OpenptyResult { master, slave } =
            nix::pty::openpty(Some(&SIZE), None).unwrap();
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let child =
            command.stdin(end(&slave)).stdout(end(&slave)).stderr(end(&slave)).spawn().unwrap();
        drop(slave);
        let screen = Arc::<Mutex<String>>::default();
        let (mut showing, drawn) = (File::from(master.try_clone().unwrap()), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            // Linux returns EIO when the other end is gone.
            while let Ok(got @ 1..) = showing.read(&mut bytes) {
                drawn.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..got]));
            }
        });
        Self { child, keyboard: master.into(), screen }
    }

    /// All that was drawn so far.
    pub(crate) fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    #[track_caller]
    pub(crate) fn sees(&self, words: &str) {
        for _ in 0..1_000 {
            if self.screen.lock().unwrap().contains(words) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{words:?} is not on the screen: {}", self.screen.lock().unwrap());
    }

    /// What is on the screen after these words.
    #[track_caller]
    pub(crate) fn behind(&self, words: &str) -> String {
        self.sees(words);
        let screen = self.screen.lock().unwrap();
        screen.rsplit_once(words).unwrap().1.replace('\r', "")
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    #[track_caller]
    pub(crate) fn exits(&mut self, code: i32) {
        for _ in 0..1_000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(code), "{}", self.screen.lock().unwrap());
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it did not end: {}", self.screen.lock().unwrap());
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
