//! The driver's part: timers, and the work after any input to a session.

use imux::proto::{Code, LaneId, SessionError};

use super::{Event, NAMES, World};
use crate::end::Happened;
use crate::net::{MS, Parcel, Time, ms};
use crate::oracle::ending::Cause;
use crate::oracle::lanes;

/// A session that still has work after this many rounds never stops.
const ROUNDS_MAX: u32 = 10_000;

impl World {
    pub(super) fn on_timer(&mut self, end: usize) {
        if self.timer_at[end].is_some_and(|at| at <= self.now) {
            self.timer_at[end] = None;
        }
        let now = self.instant();
        if let Some((_, timer)) = self.ends[end].session.poll_timeout().filter(|(at, _)| *at <= now)
        {
            self.ends[end].timers_fired += 1;
            self.note("timer", NAMES[end], timer as u64, 0, 0);
            self.ends[end].session.handle_timeout(now);
        }
        self.serve(end);
    }

    /// After any input: events, wake-ups, pulls, the timer.
    pub(super) fn serve(&mut self, end: usize) {
        let mut rounds = 0;
        loop {
            let now = self.now;
            let at = self.instant();
            let (options, truths) = (&self.options, &mut self.truths);
            let happened = self.ends[end].turn(now, at, options, truths, &mut self.flow_truths);
            let idle = happened.is_empty();
            for happened in happened {
                self.on_happened(end, happened);
            }
            let mut pulled = false;
            for lane in self.ends[end].awake_lanes() {
                pulled |= self.pull_once(end, lane);
            }
            rounds += 1;
            if rounds > ROUNDS_MAX {
                self.fail(format!("{} is served without end", NAMES[end]));
            }
            if (idle && !pulled) || self.failure.is_some() {
                break;
            }
        }
        self.set_timer(end);
    }

    fn on_happened(&mut self, end: usize, happened: Happened) {
        match happened {
            Happened::Failed(why) => self.fail(format!("{}: {why}", NAMES[end])),
            Happened::Counted(what) => self.count(what),
            Happened::Noted(what, id, a, b) => {
                self.note(what, NAMES[end], id, a, b);
            }
            Happened::LaneWoken(lane) => {
                let wait = self.rng.range(0..=self.options.driver.wake_us_max) * 1_000;
                if wait == 0 {
                    self.ends[end].wake(lane);
                } else {
                    self.at(self.now + wait, Event::Wake { end, lane });
                }
            }
            Happened::ExpressWanted => {
                self.count("express wanted");
                self.dial(true);
            }
            Happened::MetricsWanted(lane) => {
                self.count("kernel asked");
                self.measure(end, lane);
            }
            Happened::LaneSuspect(lane) => {
                self.count("lane suspect");
                self.note("suspect", NAMES[end], lane.number(), 0, 0);
                self.copies[end].excuse(lane);
            }
            Happened::LaneLost(lane, code) => {
                self.note("lane lost", NAMES[end], lane.number(), code.to_wire().into_inner(), 0);
                self.count(if code == Code::LANE_TIMEOUT { "lane timed out" } else { "lane lost" });
                let age = self.now - self.wires[lane.number() as usize].up_at;
                if code == Code::LANE_TIMEOUT
                    && let Err(why) = lanes::check_given_up(&self.options, age)
                {
                    self.fail(why);
                }
                self.drop_lane(end, lane.number(), true);
            }
            Happened::Again(stream, time) => self.at(time, Event::App { end, stream }),
            Happened::Closed(error) => self.on_closed(end, &error),
            Happened::LetGo => {
                let lanes = self.ends[end].lanes();
                for lane in lanes {
                    self.ends[end].forget_lane(lane);
                    self.wires[lane.number() as usize].pipes[end].write(Parcel::Eof);
                    self.pump(lane.number(), end);
                }
            }
        }
    }

    fn on_closed(&mut self, end: usize, error: &SessionError) {
        self.note("closed", NAMES[end], 0, 0, 0);
        self.liveness.on_closed(self.now);
        if matches!(error, SessionError::GraceExpired) {
            self.count("grace expired");
        }
        let cause = Cause {
            closed_here: self.ends[end].closed_by_user,
            closed_there: self.ends[1 - end].closed_by_user,
            alone_for: self.ends[end].alone_since.map(|since| self.now - since),
            grace: self.options.sessions[end].grace_ms * MS,
        };
        if let Err(broken) = cause.check(error) {
            self.fail(format!("{} {broken}", NAMES[end]));
        }
    }

    pub(super) fn pull(&mut self, end: usize, lane: LaneId) {
        if self.pull_once(end, lane) {
            self.serve(end);
        }
    }

    /// Fills a lane's socket as far as it takes bytes. `true` if it took any.
    fn pull_once(&mut self, end: usize, lane: LaneId) -> bool {
        let mut any = false;
        let number = lane.number() as usize;
        let at = self.instant();
        loop {
            let limit = self.unsent_limit(end, lane);
            let pipe = &self.wires[number].pipes[end];
            if pipe.unsent_bytes() >= limit {
                return any;
            }
            self.measure(end, lane);
            let lanes = self.lanes_seen(end);
            match self.ends[end].pull(at, lane) {
                Ok(Some(bytes)) => {
                    any = true;
                    self.on_pulled(end, lane, &lanes, &bytes);
                    self.note("pull", NAMES[end], lane.number(), bytes.len() as u64, 0);
                    self.wires[number].pipes[end].write(Parcel::Bytes(bytes));
                    // Not `pump`: that would pull again from within.
                    self.send(lane.number(), end);
                }
                Ok(None) => {
                    self.on_idle_pull(end, lane, &lanes);
                    return any;
                }
                Err(why) => {
                    self.fail(format!("{}: {why}", NAMES[end]));
                    return any;
                }
            }
        }
    }

    /// Samples the lane's kernel metrics now and then, and sets how fast it may send.
    fn measure(&mut self, end: usize, lane: LaneId) {
        let at = self.instant();
        let driver = &self.options.driver;
        let wire = &mut self.wires[lane.number() as usize];
        let every = ms(driver.metrics_every_ms);
        if !driver.metrics || wire.measured_at[end].is_some_and(|at| self.now < at + every) {
            return;
        }
        if let Some(metrics) = wire.pipes[end].metrics(self.now) {
            wire.measured_at[end] = Some(self.now);
            if let Some(advice) = self.ends[end].session.handle_lane_metrics(at, lane, metrics) {
                wire.pipes[end].limit_pacing(advice.pacing_limit);
                wire.advice[end] = Some(advice);
            }
        }
    }

    /// How many unsent bytes the lane's socket takes: by the answer to the last sample or, before
    /// any sample, by what the session would choose now.
    fn unsent_limit(&self, end: usize, lane: LaneId) -> u64 {
        let fixed = self.options.driver.unsent_bytes;
        if fixed > 0 {
            return fixed;
        }
        let heeded = self.wires[lane.number() as usize].advice[end];
        let advice = heeded.or_else(|| self.ends[end].session.advice(lane));
        advice.map_or(u64::MAX, |advice| u64::from(advice.unsent_limit))
    }

    fn set_timer(&mut self, end: usize) {
        let Some((at, timer)) = self.ends[end].session.poll_timeout() else { return };
        let at = at.saturating_duration_since(self.base).as_nanos() as Time;
        if at <= self.now && self.ends[end].is_spinning(self.now) {
            self.fail(format!("{}: the timer for {timer:?} spins", NAMES[end]));
            return;
        }
        if self.timer_at[end].is_none_or(|set| set > at.max(self.now)) {
            let late = self.rng.range(0..=self.options.driver.timer_us_max) * 1_000;
            let time = at.max(self.now) + late;
            if self.timer_at[end].is_none_or(|set| set > time) {
                self.timer_at[end] = Some(time);
                self.at(time, Event::Timer { end });
            }
        }
    }
}
