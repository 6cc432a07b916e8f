//! The core alone: frames encoded and decoded, and a whole transfer between two sessions, without
//! sockets, TLS or tasks. `cargo bench --bench core`

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use imux::proto::wire::{Decoder, Frame, FrameBatch, LaneBuf, StreamKind, encode_frame};
use imux::proto::{Config, Dir, LaneId, Session, Side, StreamId};

/// A STREAM frame that fills a TLS record, as bulk transfers send them.
fn full_frame() -> Frame {
    let id = StreamId::new(Side::Client, Dir::Bi, 7);
    let data = Bytes::from(vec![0x5a; 16_384 - 16]);
    Frame::Stream { id, offset: 1 << 33, fin: false, data }
}

/// An acknowledgement, as the other direction of a bulk transfer sends them.
fn ack() -> Frame {
    Frame::Ack { lane: LaneId::new(3), position: 1 << 33 }
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    for (name, frame) in [("stream 16 KiB", full_frame()), ("ack", ack())] {
        let mut out = BytesMut::with_capacity(1 << 20);
        encode_frame(&frame, &mut out);
        group.throughput(Throughput::Bytes(out.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                encode_frame(black_box(&frame), &mut out);
                black_box(&out);
            });
        });
    }
    group.finish();
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for (name, frame) in [("stream 16 KiB", full_frame()), ("ack", ack())] {
        let mut wire = BytesMut::new();
        encode_frame(&frame, &mut wire);
        group.throughput(Throughput::Bytes(wire.len() as u64));
        let mut decoder = Decoder::new();
        let mut batch = FrameBatch::default();
        group.bench_function(name, |b| {
            b.iter(|| {
                batch.clear();
                decoder.decode(black_box(&wire), &mut batch).expect("what was encoded decodes");
                black_box(&batch);
            });
        });
    }
    group.finish();
}

/// Two sessions and lanes that carry everything at once.
struct Pair {
    now: Instant,
    ends: [Session; 2],
    lanes: Vec<LaneId>,
    decoders: Vec<[Decoder; 2]>,
    out: LaneBuf,
    batch: FrameBatch,
}

impl Pair {
    fn new(lanes: u64) -> Self {
        #[allow(clippy::disallowed_methods, reason = "an Instant cannot be made any other way")]
        let now = Instant::now();
        let config = Arc::new(Config::default());
        let end = |side| Session::new(side, config.clone(), config.params(), 7, now);
        let mut ends = [end(Side::Client), end(Side::Server)];
        let lanes: Vec<_> = (0..lanes).map(LaneId::new).collect();
        for end in &mut ends {
            for lane in &lanes {
                assert!(end.handle_lane_up(now, *lane, Some(Duration::from_millis(1))));
            }
        }
        let decoders = lanes.iter().map(|_| [Decoder::new(), Decoder::new()]).collect();
        Self { now, ends, lanes, decoders, out: LaneBuf::new(), batch: FrameBatch::default() }
    }

    /// Every lane is pulled once each way; what it yields arrives at once.
    fn round(&mut self) {
        self.now += Duration::from_micros(200);
        for from in [0, 1] {
            for (lane, decoders) in self.lanes.iter().zip(&mut self.decoders) {
                let sent =
                    self.ends[from].poll_transmit(self.now, *lane, 256 * 1024, &mut self.out);
                if sent.is_none() {
                    continue;
                }
                for piece in self.out.pieces() {
                    decoders[from].decode(piece, &mut self.batch).expect("frames of our own");
                }
                self.out.advance(self.out.len());
                self.ends[1 - from].handle_frames(self.now, *lane, &mut self.batch);
            }
            while self.ends[from].poll_event().is_some() {}
            while self.ends[from].poll_wake(self.now).is_some() {}
            if self.ends[from].poll_timeout().is_some_and(|(at, _)| at <= self.now) {
                self.ends[from].handle_timeout(self.now);
            }
        }
    }

    /// Moves `bytes` of one stream from client to server.
    fn transfer(&mut self, bytes: u64) {
        let id = self.ends[0].open(StreamKind::Raw).expect("room for a stream");
        let piece = Bytes::from(vec![0x5a; 256 * 1024]);
        let (mut written, mut read) = (0, 0);
        while read < bytes {
            while written < bytes {
                let mut data = piece.slice(..piece.len().min((bytes - written) as usize));
                match self.ends[0].send_stream(id).write(&mut data) {
                    Ok(taken) => written += taken as u64,
                    Err(_) => break,
                }
            }
            self.round();
            while let Ok(Some(data)) = self.ends[1].recv_stream(id).read(self.now, usize::MAX) {
                read += data.len() as u64;
            }
        }
        self.ends[0].send_stream(id).reset(imux::proto::Code::RESET);
        self.ends[1].send_stream(id).reset(imux::proto::Code::RESET);
        self.ends[0].recv_stream(id).stop(imux::proto::Code::RESET);
        self.round();
    }
}

fn transfer(c: &mut Criterion) {
    const BYTES: u64 = 16 << 20;
    let mut group = c.benchmark_group("transfer");
    group.throughput(Throughput::Bytes(BYTES)).sample_size(20);
    for lanes in [1, 8, 40] {
        let mut pair = Pair::new(lanes);
        group.bench_function(format!("one stream over {lanes} lanes"), |b| {
            b.iter(|| pair.transfer(BYTES));
        });
    }
    group.finish();
}

criterion_group!(benches, encode, decode, transfer);
criterion_main!(benches);
