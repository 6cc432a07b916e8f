//! How long arriving data waits for earlier data.

use std::collections::{BTreeMap, VecDeque};

use imux::proto::StreamId;
use imux::proto::range_set::RangeSet;
use imux::proto::wire::Frame;

use crate::net::Time;

/// Delays between arrival and being in order, for all data frames that one end received.
#[derive(Debug, Default)]
pub struct Order {
    /// If off, it costs nothing.
    on: bool,
    streams: BTreeMap<StreamId, (RangeSet, VecDeque<(u64, Time)>)>,
    pub delays: Vec<Time>,
}

impl Order {
    pub fn new(on: bool) -> Self {
        Self { on, ..Self::default() }
    }

    pub fn on_frames(&mut self, now: Time, frames: &[Frame]) {
        if !self.on {
            return;
        }
        for frame in frames {
            let Frame::Stream { id, offset, data, .. } = frame else { continue };
            let (set, waiting) = self.streams.entry(*id).or_default();
            let end = *offset + data.len() as u64;
            set.insert(*offset..end);
            waiting.push_back((end, now));
            let contiguous = set.first().filter(|range| range.start == 0).map_or(0, |r| r.end);
            let delays = &mut self.delays;
            waiting.retain(|(end, since)| {
                let ready = *end <= contiguous;
                if ready {
                    delays.push(now - since);
                }
                !ready
            });
        }
    }
}
