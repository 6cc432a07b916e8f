//! What `top` shows, and what keys do to it. No terminal and no clock: time is an argument.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use imux::Tier;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::cli::control::Change;
use crate::cli::exit::Exit;
use crate::cli::status::snapshot::{Link, Process, Status, Stream};
use crate::cli::status::source::LinkChange;
use crate::cli::status::text::{self, links_of, short};

/// Looks that a graph remembers: the widest terminal shows no more.
const TRACE_MAX: usize = 512;

/// Connections that are kept: no terminal is higher.
const STREAMS_MAX: usize = 512;

/// For how many looks something is said.
const SAID_FOR: u8 = 8;

/// All that is shown.
#[derive(Debug, Default)]
pub struct Top {
    views: Vec<View>,
    at: usize,
    pub mode: Mode,
    said: Option<(String, u8)>,
}

/// What keys mean now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Looking,
    /// Which tier the selected link is to have.
    Tier,
    /// Whether to pause the last link that is in use.
    Sure,
    Help,
}

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Act {
    Nothing,
    Leave(Exit),
    /// Stop as shells have programs stop, and go on later.
    Suspend,
    /// Draw everything anew.
    Redraw,
    Change {
        process: u32,
        change: Change,
    },
}

/// One process.
#[derive(Debug, Default)]
pub struct View {
    pub process: Process,
    pub links: Vec<Row<Link>>,
    pub sum: Row<()>,
    pub selected: usize,
    /// The fastest first.
    pub streams: Vec<Busy>,
    /// Of all streams: what they had carried when they were last seen, each way.
    carried: BTreeMap<(String, u64), (u64, u64)>,
}

/// A line with two graphs.
#[derive(Debug, Clone, Default)]
pub struct Row<T> {
    pub of: T,
    pub up: Trace,
    pub down: Trace,
}

/// Rates at the latest looks, in bytes a second; the last one first.
#[derive(Debug, Clone, Default)]
pub struct Trace(VecDeque<u64>);

/// A connection, and what it carries now, in bytes a second.
#[derive(Debug, Clone)]
pub struct Busy {
    pub stream: Stream,
    pub up: u64,
    pub down: u64,
}

impl Trace {
    fn note(&mut self, rate: u64) {
        self.0.truncate(TRACE_MAX - 1);
        self.0.push_front(rate);
    }

    pub fn now(&self) -> u64 {
        self.0.front().copied().unwrap_or_default()
    }

    /// The latest ones, the last first.
    pub fn latest(&self, count: usize) -> impl Iterator<Item = u64> {
        self.0.iter().take(count).copied()
    }
}

impl Top {
    /// Takes what there is now, `since` the look before; what has ended, if nothing is left.
    pub fn see(&mut self, status: Status, since: Duration) -> Option<String> {
        let meant = self.meant();
        let mut before = std::mem::take(&mut self.views);
        for process in status.processes {
            let known = before.iter().position(|view| view.is() == id(&process));
            let mut view = known.map(|at| before.remove(at)).unwrap_or_default();
            view.see(process, since);
            self.views.push(view);
        }
        let is_it = |view: &View| meant.as_ref().is_some_and(|(it, _)| view.is() == *it);
        let at = self.views.iter().position(is_it);
        self.at = at.unwrap_or(self.at.min(self.views.len().saturating_sub(1)));
        if self.mode != Mode::Help && self.meant() != meant {
            // What is asked is about a link that is not there any more.
            self.mode = Mode::Looking;
        }
        self.said = self.said.take().filter(|(_, looks)| *looks > 0);
        self.said.iter_mut().for_each(|(_, looks)| *looks -= 1);
        let ended: Vec<_> = before.iter().map(|view| text::name(&view.process)).collect();
        let ended = match ended.as_slice() {
            [] => None,
            ended => Some(format!("{} has ended, or does not answer", ended.join(", "))),
        };
        if let Some(ended) = &ended {
            self.say(ended);
        }
        self.views.is_empty().then(|| ended.unwrap_or_else(|| text::NOBODY.to_owned()))
    }

    /// The process that is shown, and its selected link.
    fn meant(&self) -> Option<(Id, Option<String>)> {
        let view = self.views.get(self.at)?;
        Some((view.is(), view.selected_link().map(|link| link.name.clone())))
    }

    /// Has this stand in the last line for a while.
    pub fn say(&mut self, words: &str) {
        // Several processes answer in a line each.
        let words: Vec<_> = words.lines().map(|line| short(line, 200)).collect();
        self.said = Some((words.join("; "), SAID_FOR));
    }

    pub fn said(&self) -> Option<&str> {
        self.said.as_ref().map(|(words, _)| words.as_str())
    }

    /// The process that is shown, and which of how many it is.
    pub fn view(&self) -> Option<(&View, usize, usize)> {
        self.views.get(self.at).map(|view| (view, self.at + 1, self.views.len()))
    }

    pub fn key(&mut self, key: KeyEvent) -> Act {
        self.said = None;
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Act::Leave(Exit::Interrupted),
                KeyCode::Char('z') => Act::Suspend,
                KeyCode::Char('l') => Act::Redraw,
                _ => Act::Nothing,
            };
        }
        match std::mem::take(&mut self.mode) {
            Mode::Looking => self.look(key.code),
            Mode::Sure if key.code == KeyCode::Char('y') => self.change(LinkChange::Pause),
            Mode::Help | Mode::Sure => Act::Nothing,
            Mode::Tier => {
                let letter = |tier: &Tier| tier.name().chars().next().map(KeyCode::Char);
                let tier = Tier::ALL.into_iter().find(|tier| letter(tier) == Some(key.code));
                tier.map_or(Act::Nothing, |tier| self.change(LinkChange::Tier(tier)))
            }
        }
    }

    fn look(&mut self, key: KeyCode) -> Act {
        let (views, last) = (self.views.len(), self.links().len().saturating_sub(1));
        match key {
            KeyCode::Char('q') => return Act::Leave(Exit::Ok),
            KeyCode::Char('?') => self.mode = Mode::Help,
            KeyCode::Tab | KeyCode::Right if views > 0 => self.at = (self.at + 1) % views,
            KeyCode::BackTab | KeyCode::Left if views > 0 => {
                self.at = (self.at + views - 1) % views;
            }
            KeyCode::Char('t') if self.selected().is_some() => self.mode = Mode::Tier,
            KeyCode::Char('p') => return self.pause(),
            KeyCode::Up | KeyCode::Char('k') => self.select(|at| at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(|at| (at + 1).min(last)),
            _ => {}
        }
        Act::Nothing
    }

    /// Pauses or resumes the selected link; asks before nothing is left.
    fn pause(&mut self) -> Act {
        let Some(link) = self.selected() else { return Act::Nothing };
        let in_use = self.links().iter().filter(|row| !row.of.paused).count();
        match (link.paused, in_use) {
            (true, _) => self.change(LinkChange::Resume),
            // A server refuses, and says why.
            (false, 1) if link.lanes_wanted.is_some() => {
                self.mode = Mode::Sure;
                Act::Nothing
            }
            (false, _) => self.change(LinkChange::Pause),
        }
    }

    fn change(&self, change: LinkChange) -> Act {
        let Some((view, link)) = self.views.get(self.at).zip(self.selected()) else {
            return Act::Nothing;
        };
        let change = Change::Link { name: link.name.clone(), change };
        Act::Change { process: view.process.process, change }
    }

    fn select(&mut self, which: impl FnOnce(usize) -> usize) {
        if let Some(view) = self.views.get_mut(self.at) {
            view.selected = which(view.selected);
        }
    }

    fn links(&self) -> &[Row<Link>] {
        self.views.get(self.at).map_or(&[], |view| &view.links)
    }

    pub fn selected(&self) -> Option<&Link> {
        self.views.get(self.at)?.selected_link()
    }
}

/// One process may be several clients and servers.
type Id = (u32, String, String);

fn id(process: &Process) -> Id {
    (process.process, process.role.clone(), process.place.clone())
}

impl View {
    fn is(&self) -> Id {
        id(&self.process)
    }

    fn selected_link(&self) -> Option<&Link> {
        self.links.get(self.selected).map(|row| &row.of)
    }

    fn see(&mut self, mut process: Process, since: Duration) {
        let selected = self.selected_link().map(|link| link.name.clone());
        let mut before = std::mem::take(&mut self.links);
        let (mut up, mut down) = (0_u64, 0_u64);
        for link in links_of(&process) {
            let known = before.iter().position(|row| row.of.name == link.name);
            let mut row = known.map(|at| before.remove(at)).unwrap_or_default();
            row.of.clone_from(link);
            row.up.note(link.sending);
            row.down.note(link.receiving);
            up = up.saturating_add(link.sending);
            down = down.saturating_add(link.receiving);
            self.links.push(row);
        }
        self.sum.up.note(up);
        self.sum.down.note(down);
        let at = self.links.iter().position(|row| Some(&row.of.name) == selected.as_ref());
        self.selected = at.unwrap_or_default();
        self.see_streams(&mut process, since);
        self.process = process;
    }

    fn see_streams(&mut self, process: &mut Process, since: Duration) {
        let before = std::mem::take(&mut self.carried);
        self.streams.clear();
        for session in &mut process.sessions {
            for stream in std::mem::take(&mut session.streams) {
                let key = (session.id.clone(), stream.id);
                let now = (stream.written_bytes, stream.received_bytes);
                // What was not there at the last look has begun since; at the first, nobody knows.
                let then = before.get(&key).copied();
                let new = stream.age_seconds.is_some_and(|age| age < since.as_secs_f64());
                let then = then.unwrap_or(if new { (0, 0) } else { now });
                let rate = |now: u64, then: u64| {
                    let rate = now.saturating_sub(then) as f64 / since.as_secs_f64();
                    if rate.is_finite() { rate as u64 } else { 0 }
                };
                self.streams.push(Busy {
                    up: rate(now.0, then.0),
                    down: rate(now.1, then.1),
                    stream,
                });
                self.carried.insert(key, now);
            }
        }
        self.streams.sort_by_cached_key(|it| {
            let bytes = it.stream.written_bytes.saturating_add(it.stream.received_bytes);
            Reverse((it.up.saturating_add(it.down), bytes))
        });
        self.streams.truncate(STREAMS_MAX);
    }

    /// What has lately happened to its lanes, the latest first.
    pub fn events(&self) -> Vec<String> {
        let failed = self.process.links.iter().filter_map(|link| {
            let ago = link.failed_seconds_ago?;
            Some((ago, text::failed(link)?))
        });
        let gone = self.process.sessions.iter().flat_map(text::gone);
        let mut events: Vec<_> = failed.chain(gone).collect();
        events.sort_by(|one, other| one.0.total_cmp(&other.0));
        events.into_iter().map(|(_, words)| words).collect()
    }
}
