//! Two honest ends, whatever happens to their lanes and streams, against plain byte queues.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;

use crate::proto::ids::{LinkId, StreamId};
use crate::proto::limits::{REORDER_OVERHEAD_BYTES, REORDER_OVERHEAD_FACTOR};
use crate::proto::testing::pair::{CLIENT, End, Pair, Path, SERVER, pattern};
use crate::proto::{Code, Config, LaneId, LanePolicy, SchedulerKind, Tier};

/// What happens. Indices are taken modulo what there is, so that cases shrink.
#[derive(Clone, Copy, Debug)]
pub(in crate::proto) enum Op {
    Open {
        from_server: bool,
        bytes: usize,
        redundant: bool,
    },
    /// The other end of a stream writes too.
    Answer {
        flow: usize,
        bytes: usize,
    },
    /// The writer abandons the stream.
    Reset(usize),
    /// The reader gives up.
    Stop(usize),
    /// The reader pauses until the end.
    Pause(usize),
    Drain {
        server: bool,
    },
    LaneDown(usize),
    LaneUp {
        mbit: u8,
        delay_ms: u8,
        policy: LanePolicy,
    },
    Silence(usize),
    SilenceOneWay {
        lane: usize,
        server: bool,
    },
    Slow {
        lane: usize,
        factor: u8,
    },
    Wait(u16),
}

/// One run.
#[derive(Debug)]
pub(in crate::proto) struct Case {
    pub(in crate::proto) scheduler: SchedulerKind,
    /// A stream's initial window, in bytes.
    pub(in crate::proto) window: u64,
    pub(in crate::proto) streams_max: u64,
    pub(in crate::proto) read_max: usize,
    /// What arrives is cut into pieces of at most this many bytes.
    pub(in crate::proto) cut: usize,
    pub(in crate::proto) ops: Vec<Op>,
}

/// The fuzz target.
pub(crate) fn endpoints(data: &[u8]) {
    if let Ok(case) = case(&mut Unstructured::new(data)) {
        case.run();
    }
}

fn case(u: &mut Unstructured<'_>) -> Result<Case> {
    Ok(Case {
        scheduler: *u.choose(&SchedulerKind::ALL)?,
        window: u.int_in_range(100..=20_000)?,
        streams_max: u.int_in_range(1..=20)?,
        read_max: *u.choose(&[usize::MAX, 1000, 100])?,
        cut: *u.choose(&[usize::MAX, 1000, 50])?,
        ops: std::iter::from_fn(|| if u.is_empty() { None } else { op(u).ok() }).take(40).collect(),
    })
}

fn op(u: &mut Unstructured<'_>) -> Result<Op> {
    let choice = u.int_in_range(0..=19)?;
    let nth = usize::from(u.arbitrary::<u8>()?);
    let server = nth & 1 == 1;
    let bytes = nth * nth / 6;
    Ok(match choice {
        0..=3 => Op::Open { from_server: server, bytes, redundant: choice == 3 },
        4 | 5 => Op::Answer { flow: nth, bytes: usize::from(u.arbitrary::<u16>()? >> 4) },
        6 => Op::Reset(nth),
        7 => Op::Stop(nth),
        8 => Op::Pause(nth),
        9 => Op::Drain { server },
        10 => Op::LaneDown(nth),
        11 | 12 => Op::LaneUp {
            mbit: u.int_in_range(1..=100)?,
            delay_ms: u.int_in_range(1..=120)?,
            policy: some_policy(nth as u8),
        },
        13 => Op::Silence(nth),
        14 => Op::SilenceOneWay { lane: nth >> 1, server },
        15 => Op::Slow { lane: nth, factor: u.int_in_range(2..=20)? },
        _ => Op::Wait(1 + 2 * nth as u16),
    })
}

/// Half the time the default one; otherwise any tier, with or without a cap.
pub(in crate::proto) fn some_policy(choice: u8) -> LanePolicy {
    if choice < 128 {
        return LanePolicy::default();
    }
    let tiers = [Tier::Primary, Tier::Backup, Tier::Metered];
    LanePolicy {
        tier: tiers[usize::from(choice) % tiers.len()],
        link: LinkId::new(u64::from(choice >> 5)),
        rate_max: (choice & 16 != 0).then(|| 1_000 << (choice & 15)),
    }
}

/// One direction of a stream in the model.
struct Flow {
    id: StreamId,
    reader: usize,
    data: Bytes,
    /// One of its ends gave up: only a prefix arrives.
    cut: bool,
    answered: bool,
}

struct Run {
    pair: Pair,
    config: Config,
    flows: Vec<Flow>,
    lanes: Vec<LaneId>,
    next_lane: u64,
    drained: bool,
}

impl Case {
    pub(in crate::proto) fn run(&self) {
        let config = Config {
            scheduler: self.scheduler,
            stream_window: self.window,
            stream_window_max: self.window * 8,
            session_window: self.window * 16,
            streams_max: self.streams_max,
            ..Config::default()
        };
        let mut pair = Pair::new(config.clone(), &[Path::new(20.0, 10), Path::new(5.0, 50)]);
        pair.cut = self.cut;
        pair.ends.iter_mut().for_each(|end| end.read_max = self.read_max);
        let mut run = Run {
            pair,
            config,
            flows: Vec::new(),
            lanes: vec![LaneId::new(0), LaneId::new(1)],
            next_lane: 2,
            drained: false,
        };
        for op in &self.ops {
            run.act(*op);
            run.check();
        }
        run.finish();
        run.check_delivery();
    }
}

impl Run {
    fn act(&mut self, op: Op) {
        match op {
            Op::Open { from_server, bytes, redundant } => self.open(from_server, bytes, redundant),
            Op::Answer { flow, bytes } => self.answer(flow, bytes),
            Op::Reset(flow) => self.reset(flow),
            Op::Stop(flow) => self.stop(flow),
            Op::Pause(flow) => {
                if let Some(flow) = nth(&mut self.flows, flow) {
                    self.pair.ends[flow.reader].unread.push(flow.id);
                }
            }
            Op::Drain { server } => {
                self.drained = true;
                self.pair.ends[usize::from(server)].session.drain();
            }
            Op::LaneUp { mbit, delay_ms, policy } if self.lanes.len() < 6 => {
                self.lane_up(Path::new(mbit.into(), delay_ms.into()), policy);
            }
            Op::Wait(ms) => drop(self.pair.drive(Duration::from_millis(ms.into()))),
            _ if !self.lanes.is_empty() => self.trouble(op),
            _ => {}
        }
    }

    /// What happens to a lane.
    fn trouble(&mut self, op: Op) {
        let (Op::LaneDown(n)
        | Op::Silence(n)
        | Op::Slow { lane: n, .. }
        | Op::SilenceOneWay { lane: n, .. }) = op
        else {
            return;
        };
        let n = n % self.lanes.len();
        let lane = self.lanes[n];
        match op {
            Op::LaneDown(_) => self.pair.lane_down(lane),
            Op::Silence(_) => self.pair.set_path(lane, |path| path.silent = true),
            Op::SilenceOneWay { server, .. } => {
                self.pair.silence_one_way(lane, usize::from(server));
            }
            Op::Slow { factor, .. } => {
                let slower = |path: &mut Path| path.bytes_per_second /= f64::from(factor);
                return self.pair.set_path(lane, slower);
            }
            _ => return,
        }
        self.lanes.remove(n);
    }

    fn lane_up(&mut self, path: Path, policy: LanePolicy) {
        let lane = LaneId::new(self.next_lane);
        self.next_lane += 1;
        self.lanes.push(lane);
        self.pair.lane_up(lane, path);
        for end in &mut self.pair.ends {
            end.session.handle_lane_policy(self.pair.now, lane, policy);
        }
    }

    fn open(&mut self, from_server: bool, bytes: usize, redundant: bool) {
        let end = if from_server { SERVER } else { CLIENT };
        let data = pattern(bytes, self.flows.len() as u64 * 2 + 1);
        if let Some(id) = self.pair.try_open(end, data.clone()) {
            if redundant {
                self.pair.ends[end].session.send_stream(id).set_redundant();
            }
            self.flows.push(Flow { id, reader: 1 - end, data, cut: false, answered: false });
        }
    }

    fn answer(&mut self, flow: usize, bytes: usize) {
        let seed = self.flows.len() as u64 * 2 + 1;
        let Some(flow) = nth(&mut self.flows, flow) else { return };
        let (id, end) = (flow.id, flow.reader);
        if flow.answered || !self.pair.ends[end].accepted.contains(&id) {
            return;
        }
        flow.answered = true;
        let data = pattern(bytes, seed);
        self.pair.ends[end].to_write.insert(id, data.clone());
        self.flows.push(Flow { id, reader: 1 - end, data, cut: false, answered: true });
    }

    fn reset(&mut self, flow: usize) {
        let Some(flow) = nth(&mut self.flows, flow) else { return };
        flow.cut = true;
        let writer = &mut self.pair.ends[1 - flow.reader];
        writer.to_write.remove(&flow.id);
        writer.session.send_stream(flow.id).reset(Code::RESET);
    }

    fn stop(&mut self, flow: usize) {
        let Some(flow) = nth(&mut self.flows, flow) else { return };
        let reader = &mut self.pair.ends[flow.reader];
        if reader.read.contains_key(&flow.id) {
            flow.cut = true;
            reader.session.recv_stream(flow.id).stop(Code::RESET);
        }
    }

    fn check(&self) {
        let window = self.config.session_window;
        for end in &self.pair.ends {
            let stats = end.session.stats();
            let credit = stats.credit;
            let reorder_max = REORDER_OVERHEAD_FACTOR * window + REORDER_OVERHEAD_BYTES;
            assert!(!end.session.is_closed(), "{:?}", end.events.last());
            assert!(stats.reorder_bytes <= reorder_max);
            assert!(credit.sent <= credit.sent_max, "{credit:?}");
            assert!(credit.consumed <= credit.received && credit.received <= credit.announced);
            assert!(credit.announced - credit.consumed <= window, "{credit:?}");
        }
    }

    /// Everything is repaired and runs to its end.
    fn finish(&mut self) {
        self.pair.ends.iter_mut().for_each(|end| end.unread.clear());
        self.lane_up(Path::new(50.0, 10), LanePolicy::default());
        let (flows, drained) = (&self.flows, self.drained);
        self.pair.drive_until(LONG_ENOUGH, |pair| {
            let is_there = |flow: &Flow| {
                let read = pair.ends[flow.reader].read.get(&flow.id);
                read.map_or(drained, |(_, ended)| *ended || flow.cut)
            };
            flows.iter().all(is_there)
        });
        // What nobody answered ends now, and what one end abandoned the other abandons as well.
        for flow in &self.flows {
            let (writer, reader) = (1 - flow.reader, flow.reader);
            if !flow.answered && self.pair.ends[reader].accepted.contains(&flow.id) {
                self.pair.ends[reader].to_write.insert(flow.id, Bytes::new());
            }
            if flow.cut || self.drained {
                self.pair.ends[writer].session.send_stream(flow.id).reset(Code::RESET);
                self.pair.ends[reader].session.recv_stream(flow.id).stop(Code::RESET);
            }
        }
        self.pair.drive_until(LONG_ENOUGH, |pair| {
            let idle = |end: &End| end.session.stream_count() == 0;
            pair.ends.iter().all(idle)
        });
    }

    fn check_delivery(&self) {
        for Flow { id, reader, data, cut, .. } in &self.flows {
            let read = self.pair.ends[*reader].read.get(id);
            let (bytes, ended) = read.map_or((&[][..], false), |(bytes, ended)| (bytes, *ended));
            assert!(data.starts_with(bytes), "{id}: other bytes than were written");
            if !cut && !self.drained {
                assert!(bytes == data, "{id}: {} of {} bytes", bytes.len(), data.len());
                assert!(ended, "{id} has not ended");
            }
        }
        self.check();
        let credits = self.pair.ends.each_ref().map(|end| end.session.stats().credit);
        for (writer, end) in self.pair.ends.iter().enumerate() {
            assert_eq!(end.session.memory() + end.session.stats().pending_bytes, 0);
            assert_eq!(end.session.stats().reorder_bytes, 0);
            if !self.drained {
                assert_eq!(end.session.stream_count(), 0, "streams are left over");
                let (sent, read) = (credits[writer], credits[1 - writer]);
                assert_eq!([read.received, read.consumed], [sent.sent; 2], "credit is lost");
            }
        }
    }
}

/// With working lanes, nothing takes this long.
const LONG_ENOUGH: Duration = Duration::from_secs(60);

fn nth<T>(list: &mut [T], nth: usize) -> Option<&mut T> {
    let len = list.len().max(1);
    list.get_mut(nth % len)
}
