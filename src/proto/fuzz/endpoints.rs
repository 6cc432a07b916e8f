//! Two honest ends, whatever happens to their lanes, streams and flows, against plain queues.

mod flows;

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;

use self::flows::Flows;
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
        half: usize,
        bytes: usize,
    },
    /// The writer abandons the stream.
    Reset(usize),
    /// The reader gives up.
    Stop(usize),
    /// The reader pauses until the end.
    Pause(usize),
    OpenFlow {
        from_server: bool,
        deadline_ms: u16,
        redundant: bool,
    },
    /// Either end of a flow sends that many datagrams.
    Datagrams {
        flow: usize,
        server: bool,
        count: u8,
        bytes: usize,
    },
    EndFlow {
        flow: usize,
        server: bool,
    },
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
    let choice = u.int_in_range(0..=25)?;
    let nth = usize::from(u.arbitrary::<u8>()?);
    let server = nth & 1 == 1;
    let bytes = nth * nth / 6;
    Ok(match choice {
        0..=3 => Op::Open { from_server: server, bytes, redundant: choice == 3 },
        4 | 5 => Op::Answer { half: nth, bytes: usize::from(u.arbitrary::<u16>()? >> 4) },
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
        16 => Op::OpenFlow {
            from_server: server,
            deadline_ms: u.int_in_range(1..=1_000)?,
            redundant: nth & 2 == 2,
        },
        17..=19 => Op::Datagrams {
            flow: nth >> 1,
            server,
            count: u.int_in_range(1..=50)?,
            bytes: u.arbitrary::<u16>()?.into(),
        },
        20 => Op::EndFlow { flow: nth >> 1, server },
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
struct Half {
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
    halves: Vec<Half>,
    flows: Flows,
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
            halves: Vec::new(),
            flows: Flows::default(),
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
            Op::Answer { half, bytes } => self.answer(half, bytes),
            Op::Reset(half) => self.reset(half),
            Op::Stop(half) => self.stop(half),
            Op::Pause(half) => {
                if let Some(half) = nth(&mut self.halves, half) {
                    self.pair.ends[half.reader].unread.push(half.id);
                }
            }
            Op::OpenFlow { from_server, deadline_ms, redundant } => {
                self.flows.open(&mut self.pair, usize::from(from_server), deadline_ms, redundant);
            }
            Op::Datagrams { flow, server, count, bytes } => {
                for _ in 0..count {
                    self.flows.send(&mut self.pair, flow, usize::from(server), bytes);
                }
            }
            Op::EndFlow { flow, server } => {
                self.flows.end(&mut self.pair, flow, usize::from(server));
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
        let data = pattern(bytes, self.halves.len() as u64 * 2 + 1);
        if let Some(id) = self.pair.try_open(end, data.clone()) {
            if redundant {
                self.pair.ends[end].session.send_stream(id).set_redundant();
            }
            self.halves.push(Half { id, reader: 1 - end, data, cut: false, answered: false });
        }
    }

    fn answer(&mut self, half: usize, bytes: usize) {
        let seed = self.halves.len() as u64 * 2 + 1;
        let Some(half) = nth(&mut self.halves, half) else { return };
        let (id, end) = (half.id, half.reader);
        if half.answered || !self.pair.ends[end].accepted.contains(&id) {
            return;
        }
        half.answered = true;
        let data = pattern(bytes, seed);
        self.pair.ends[end].to_write.insert(id, data.clone());
        self.halves.push(Half { id, reader: 1 - end, data, cut: false, answered: true });
    }

    fn reset(&mut self, half: usize) {
        let Some(half) = nth(&mut self.halves, half) else { return };
        half.cut = true;
        let writer = &mut self.pair.ends[1 - half.reader];
        writer.to_write.remove(&half.id);
        writer.session.send_stream(half.id).reset(Code::RESET);
    }

    fn stop(&mut self, half: usize) {
        let Some(half) = nth(&mut self.halves, half) else { return };
        let reader = &mut self.pair.ends[half.reader];
        if reader.read.contains_key(&half.id) {
            half.cut = true;
            reader.session.recv_stream(half.id).stop(Code::RESET);
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
        let (halves, drained) = (&self.halves, self.drained);
        self.pair.drive_until(LONG_ENOUGH, |pair| {
            let is_there = |half: &Half| {
                let read = pair.ends[half.reader].read.get(&half.id);
                read.map_or(drained, |(_, ended)| *ended || half.cut)
            };
            halves.iter().all(is_there)
        });
        // What nobody answered ends now, and what one end abandoned the other abandons as well.
        for half in &self.halves {
            let (writer, reader) = (1 - half.reader, half.reader);
            if !half.answered && self.pair.ends[reader].accepted.contains(&half.id) {
                self.pair.ends[reader].to_write.insert(half.id, Bytes::new());
            }
            if half.cut || self.drained {
                self.pair.ends[writer].session.send_stream(half.id).reset(Code::RESET);
                self.pair.ends[reader].session.recv_stream(half.id).stop(Code::RESET);
            }
        }
        let idle = |pair: &Pair| {
            let idle = |end: &End| end.session.stream_count() == 0;
            pair.ends.iter().all(idle)
        };
        // One end may hear of a flow only when the other has ended it.
        for _ in 0..LONG_ENOUGH.as_secs() {
            self.flows.finish(&mut self.pair);
            self.pair.drive_until(Duration::from_secs(1), idle);
            if idle(&self.pair) {
                break;
            }
        }
    }

    fn check_delivery(&self) {
        for Half { id, reader, data, cut, .. } in &self.halves {
            let read = self.pair.ends[*reader].read.get(id);
            let (bytes, ended) = read.map_or((&[][..], false), |(bytes, ended)| (bytes, *ended));
            assert!(data.starts_with(bytes), "{id}: other bytes than were written");
            if !cut && !self.drained {
                assert!(bytes == data, "{id}: {} of {} bytes", bytes.len(), data.len());
                assert!(ended, "{id} has not ended");
            }
        }
        self.flows.check_delivery(&self.pair);
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
