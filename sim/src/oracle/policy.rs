//! What lanes may carry, watched from outside: what each pull yields, against tiers and caps.

use imux::proto::wire::{Decoder, Frame, FrameBatch};
use imux::proto::{Health, LaneId, LanePolicy, Session, Tier};

use crate::net::{SECOND, Time};
use crate::options::PathOptions;

/// What may leave at once under a cap: the core's burst, by its own words a few milliseconds ...
const BURST_SECONDS: f64 = 0.005;
/// ... or two small frames, and control frames that are not cut to what is left of it.
const BURST_BYTES_MIN: f64 = 4096.0;
const CONTROL_BYTES: f64 = 8192.0;

/// What all lanes of one path have sent beyond what its cap has let through since.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    bytes: f64,
    at: Time,
}

/// The policies of a run's paths, and what was seen of them.
#[derive(Debug)]
pub struct Policies {
    paths: Vec<LanePolicy>,
    /// By path, towards the server and back.
    levels: Vec<[Level; 2]>,
}

impl Policies {
    pub fn new(paths: &[PathOptions]) -> Self {
        Self {
            paths: paths.iter().enumerate().map(|(n, path)| path.policy(n)).collect(),
            levels: vec![[Level::default(); 2]; paths.len()],
        }
    }

    pub fn of(&self, path: usize) -> LanePolicy {
        self.paths[path]
    }

    /// Whether a lane of the path may be given what others could carry as well.
    pub fn may_carry(&self, path: usize, session: &Session) -> bool {
        let tier = self.paths[path].tier;
        if tier == Tier::Primary {
            return true;
        }
        let better = |lane: &imux::LaneStats| match tier {
            // A backup takes over from what is late, a metered lane only from what is lost.
            Tier::Backup => lane.tier == Tier::Primary && !lane.late,
            _ => lane.tier != Tier::Metered,
        };
        let lanes = session.stats().lanes;
        !lanes.iter().any(|lane| lane.health == Health::Good && better(lane))
    }

    /// A lane of the path was given `bytes` by `end`: what has happened by that, or the rule that was
    /// broken. `may_carry` is from just before.
    pub fn on_pull(
        &mut self,
        now: Time,
        end: usize,
        path: usize,
        lane: LaneId,
        bytes: &[u8],
        may_carry: bool,
    ) -> Result<Option<&'static str>, String> {
        let policy = self.paths[path];
        if policy == (LanePolicy { link: policy.link, ..LanePolicy::default() }) {
            return Ok(None);
        }
        let mut batch = FrameBatch::default();
        Decoder::new().decode(bytes, &mut batch).map_err(|error| error.to_string())?;
        let last_words = |frame: &Frame| matches!(frame, Frame::Close { .. });
        if batch.frames.iter().any(last_words) {
            return Ok(None);
        }
        self.check_cap(now, end, path, bytes.len() as f64)?;
        let own = |frame: &Frame| match frame {
            Frame::Ping | Frame::Ignored => true,
            Frame::Ack { lane: of, .. } => *of == lane,
            _ => false,
        };
        if let Some(frame) = batch.frames.iter().find(|frame| !may_carry && !own(frame)) {
            return Err(format!("a {} lane carries {frame:?} while better answer", policy.tier));
        }
        let data = batch.frames.iter().any(|frame| matches!(frame, Frame::Stream { .. }));
        Ok(data.then_some(match (policy.tier, policy.rate_max) {
            (Tier::Backup, _) => "backup carried",
            (Tier::Metered, _) => "metered carried",
            (Tier::Primary, _) => "capped carried",
        }))
    }

    fn check_cap(&mut self, now: Time, end: usize, path: usize, bytes: f64) -> Result<(), String> {
        let Some(rate) = self.paths[path].rate_max.map(|rate| rate as f64) else { return Ok(()) };
        let level = &mut self.levels[path][end];
        let passed = rate * (now - level.at) as f64 / SECOND as f64;
        *level = Level { bytes: (level.bytes - passed).max(0.0) + bytes, at: now };
        let most = (rate * BURST_SECONDS).max(BURST_BYTES_MIN) + CONTROL_BYTES;
        if level.bytes > most {
            return Err(format!(
                "path {path} is {:.0} bytes beyond its cap of {rate}",
                level.bytes
            ));
        }
        Ok(())
    }
}
