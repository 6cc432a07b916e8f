//! `imux top`: what running processes do, live in the terminal.
//!
//! It looks as `imux status --watch` does, and keys ask for what `imux lanes` asks for. `state`
//! knows what is shown, `draw` draws it; neither has a clock or a terminal.

use std::convert::Infallible;
use std::path::Path;
use std::thread;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::Instant;

use super::config::{TopConfig, require_home};
use super::control::Change;
use super::exit::{Exit, Failure};
use super::status::{WATCH_EVERY, look, make, snapshot::Status};
use super::stopping::Stopping;
use super::text::print;
use screen::Screen;
use state::{Act, Top};

mod draw;
mod screen;
mod state;
#[cfg(test)]
mod tests;
mod words;

/// What the picture depends on.
enum News {
    Key(KeyEvent),
    /// Another size, or something else to draw anew for.
    Terminal,
    /// And how long after the look before.
    Seen(Status, Duration),
    /// What has become of a change.
    Said(String),
}

/// A change, and the process that is to make it.
type Asked = (u32, Change);

/// News that wait to be drawn: whoever brings more waits.
const NEWS_MAX: usize = 64;

/// Shows it until a key or a signal ends it, or nothing is left to show.
pub async fn run_top(config: TopConfig, stopping: Stopping) -> Result<Exit, Failure> {
    let home = require_home(config.home.as_deref())?;
    let kind = screen::kind().map_err(|why| {
        let remedy = "nothing is shown; `imux status --watch` prints the same each second";
        Failure::message(Exit::Config, format!("imux top needs a terminal: {why}; {remedy}"))
    })?;
    let mut top = Top::default();
    let first = look(home, config.process).await?;
    let (exit, said) = match top.see(first, Duration::ZERO) {
        Some(nobody) => (Exit::Ok, Some(nobody)),
        None => {
            let (tell, mut news) = mpsc::channel(NEWS_MAX);
            let (asked, changes) = mpsc::channel(NEWS_MAX);
            let mut screen = Screen::open().map_err(cannot_draw)?;
            listen(tell.clone()).map_err(cannot_draw)?;
            let shown = Shown { top: &mut top, screen: &mut screen, kind, asked };
            let keep_looking = keep_looking(home, config.process, changes, &tell);
            tokio::select! {
                ended = shown.until_over(&mut news, stopping) => ended?,
                failed = keep_looking => return failed.map(|never| match never {}),
            }
        }
    };
    if let Some(said) = said {
        print(format!("{said}\n")).await.map_err(cannot_draw)?;
    }
    Ok(exit)
}

fn cannot_draw(error: std::io::Error) -> Failure {
    Failure::new(Exit::Config, anyhow::Error::new(error).context("cannot use the terminal"))
}

/// Has a thread tell of keys: nothing can wake it from reading a terminal, and the process ends
/// without it.
fn listen(tell: Sender<News>) -> std::io::Result<()> {
    let listening = move || {
        while let Ok(event) = event::read() {
            let news = match event {
                Event::Key(key) if key.kind != KeyEventKind::Release => News::Key(key),
                _ => News::Terminal,
            };
            if tell.blocking_send(news).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("keys".to_owned()).spawn(listening).map(drop)
}

/// Looks each second, and after each change that is asked for.
async fn keep_looking(
    home: &Path,
    process: Option<u32>,
    mut changes: Receiver<Asked>,
    tell: &Sender<News>,
) -> Result<Infallible, Failure> {
    let mut before = Instant::now();
    loop {
        let next = tokio::time::timeout(WATCH_EVERY, changes.recv()).await;
        if let Ok(Some((process, change))) = next {
            let made = make(home, Some(process), &change).await;
            let said = made.unwrap_or_else(|failure| failure.to_string());
            let _ = tell.send(News::Said(said)).await;
        }
        let status = look(home, process).await?;
        let now = Instant::now();
        let _ = tell.send(News::Seen(status, now.duration_since(before))).await;
        before = now;
    }
}

struct Shown<'a> {
    top: &'a mut Top,
    screen: &'a mut Screen,
    kind: draw::Kind,
    asked: Sender<Asked>,
}

impl Shown<'_> {
    /// Draws what there is to see until it is over: how it ends, and what to say then.
    async fn until_over(
        self,
        news: &mut Receiver<News>,
        mut stopping: Stopping,
    ) -> Result<(Exit, Option<String>), Failure> {
        loop {
            self.screen
                .draw(|frame| draw::draw(frame, self.top, self.kind))
                .map_err(cannot_draw)?;
            let heard = tokio::select! {
                heard = news.recv() => heard,
                // The exit code is the signal's.
                _ = stopping.wait() => None,
            };
            let act = match heard {
                None => return Ok((Exit::Ok, None)),
                Some(News::Key(key)) => self.top.key(key),
                Some(News::Terminal) => Act::Nothing,
                Some(News::Said(said)) => {
                    self.top.say(&said);
                    Act::Nothing
                }
                Some(News::Seen(status, since)) => match self.top.see(status, since) {
                    Some(ended) => return Ok((Exit::Ok, Some(ended))),
                    None => Act::Nothing,
                },
            };
            match act {
                Act::Nothing => {}
                Act::Leave(exit) => return Ok((exit, None)),
                Act::Suspend => self.screen.suspend().map_err(cannot_draw)?,
                Act::Redraw => self.screen.clear().map_err(cannot_draw)?,
                Act::Change { process, change } => {
                    // Somebody leans on a key: what does not fit is dropped.
                    let _ = self.asked.try_send((process, change));
                }
            }
        }
    }
}
