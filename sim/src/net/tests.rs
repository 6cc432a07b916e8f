//! The lane model against closed-form results.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::link::Fate;
use super::tcp::Window;
use super::*;
use crate::options::{Congestion, PathOptions};
use crate::rng::Rng;

/// 10 Mbit/s: 800 ns a byte, without rounding.
const NS_A_BYTE: Time = 800;
const DELAY: Time = 20 * MS;
/// How far past a pipe sender bytes may be when the link changes: half a millisecond of its time,
/// and a segment.
const AHEAD: Time = MS / 2 + 1_448 * NS_A_BYTE;

fn path(control: Congestion) -> PathOptions {
    PathOptions { mbit: [10.0; 2], delay_ms: [20.0; 2], control, ..PathOptions::default() }
}

/// One link with pipes on it, and at their ends just a reader that notes what arrives.
struct Bench {
    now: Time,
    link: Link,
    pipes: Vec<Pipe>,
    rng: Rng,
    /// By time and order of asking: which pipe, what.
    queue: BTreeMap<(Time, usize), (usize, Later)>,
    asked: usize,
    /// By pipe: when how many bytes had arrived.
    arrived: Vec<Vec<(Time, u64)>>,
}

impl Bench {
    fn new(path: &PathOptions, pipes: usize) -> Self {
        Self {
            now: 0,
            link: Link::new(path, 0),
            pipes: (0..pipes).map(|_| Pipe::new(path.control, 0, 2 * DELAY)).collect(),
            rng: Rng::new(1),
            queue: BTreeMap::new(),
            asked: 0,
            arrived: vec![Vec::new(); pipes],
        }
    }

    fn write(&mut self, pipe: usize, bytes: usize) {
        self.pipes[pipe].write(Parcel::Bytes(Bytes::from(vec![0; bytes])));
        self.pump(pipe);
    }

    fn pump(&mut self, pipe: usize) {
        let mut later = Vec::new();
        let (now, back) = (self.now, DELAY);
        self.pipes[pipe].pump(now, &mut self.link, back, &mut self.rng, &mut later);
        self.schedule(pipe, later);
    }

    fn schedule(&mut self, pipe: usize, later: Vec<(Time, Later)>) {
        for (time, later) in later {
            self.asked += 1;
            self.queue.insert((time.max(self.now), self.asked), (pipe, later));
        }
    }

    /// Runs until `end`, or until nothing is left to happen.
    fn run_until(&mut self, end: Time) {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            self.now = entry.key().0;
            let (pipe, later) = entry.remove();
            match later {
                Later::Pump => self.pump(pipe),
                Later::Ack(ack) => {
                    let down = self.link.down;
                    if self.pipes[pipe].on_ack(self.now, ack, down, &mut self.rng) {
                        self.pump(pipe);
                    }
                }
                Later::Lost(number) => {
                    self.pipes[pipe].on_lost(number);
                    self.pump(pipe);
                }
                Later::Arrive => {
                    while let Some(parcel) = self.pipes[pipe].arrivals(self.now, self.link.down) {
                        let before = self.arrived[pipe].last().map_or(0, |last| last.1);
                        self.arrived[pipe].push((self.now, before + parcel.len()));
                    }
                }
            }
        }
    }

    fn run(&mut self) {
        self.run_until(Time::MAX);
    }

    /// The path goes away now, and comes back after `outage`.
    fn outage(&mut self, outage: Time) {
        self.link.down = true;
        self.run_until(self.now + outage);
        self.now += outage;
        self.link.down = false;
        for pipe in 0..self.pipes.len() {
            let mut later = Vec::new();
            let (now, link) = (self.now, &self.link);
            self.pipes[pipe].revive(now, outage, link, DELAY, &mut self.rng, &mut later);
            self.schedule(pipe, later);
            self.pump(pipe);
        }
    }

    /// When the last byte arrived, and which it was.
    fn last(&self, pipe: usize) -> (Time, u64) {
        self.arrived[pipe].last().copied().unwrap_or_default()
    }
}

#[test]
fn bytes_arrive_after_the_delay_and_their_time_on_the_link() {
    for bytes in [1, 1_448, 100_000, 2_000_000] {
        let mut bench = Bench::new(&path(Congestion::Pipe), 1);
        bench.write(0, bytes);
        bench.run();
        assert_eq!(bench.last(0), (DELAY + bytes as Time * NS_A_BYTE, bytes as u64));
    }
}

#[test]
fn lanes_of_one_link_share_its_rate() {
    let mut bench = Bench::new(&path(Congestion::Pipe), 3);
    (0..3).for_each(|pipe| bench.write(pipe, 300_000));
    bench.run();
    let last = (0..3).map(|pipe| bench.last(pipe)).max();
    assert_eq!(last, Some((DELAY + 900_000 * NS_A_BYTE, 300_000)));
}

#[test]
fn a_link_that_was_idle_has_saved_nothing() {
    let mut bench = Bench::new(&path(Congestion::Pipe), 1);
    bench.write(0, 1_000);
    bench.run();
    bench.now = SECOND;
    bench.write(0, 1_000);
    bench.run();
    assert_eq!(bench.last(0), (SECOND + DELAY + 1_000 * NS_A_BYTE, 2_000));
}

#[test]
fn a_rate_step_counts_from_then_on() {
    let mut bench = Bench::new(&path(Congestion::Pipe), 1);
    bench.write(0, 1_000_000);
    bench.run_until(400 * MS);
    bench.now = 400 * MS;
    bench.link.rate /= 4.0;
    bench.run();
    // 500,000 bytes in 400 ms; the rest takes four times as long.
    let exact = 400 * MS + 500_000 * NS_A_BYTE * 4 + DELAY;
    let (last, bytes) = bench.last(0);
    assert_eq!(bytes, 1_000_000);
    assert!((exact - 4 * AHEAD..=exact).contains(&last), "{last}, not {exact}");
}

#[test]
fn a_shorter_delay_lets_nothing_overtake() {
    let mut bench = Bench::new(&path(Congestion::Pipe), 1);
    bench.write(0, 100_000);
    bench.run_until(40 * MS);
    bench.now = 40 * MS;
    bench.link.delay = 5 * MS;
    bench.run();
    let exact = 100_000 * NS_A_BYTE + 5 * MS;
    assert_eq!(bench.last(0), (exact, 100_000));
    assert!(bench.arrived[0].is_sorted());
}

#[test]
fn a_queue_holds_its_bytes_and_no_more() {
    let queue_bytes = 15_000.0;
    let mut link = Link::new(&PathOptions { queue_bytes, ..path(Congestion::Cubic) }, 0);
    let mut rng = Rng::new(1);
    let mut fates = |now, link: &mut Link| -> Vec<Fate> {
        (0..12).map(|_| link.carry(now, 1_500, &mut rng).1).collect()
    };
    let first = fates(0, &mut link);
    assert_eq!(first[..10], [Fate::Passed; 10]);
    assert_eq!(first[10..], [Fate::Overflowed; 2]);
    // Overflows are repaired over the same link: twelve segments used it, whatever their fate.
    assert_eq!(link.free_at, 12 * 1_500 * NS_A_BYTE);
    // After the time of four there is room for four, less the two that were too many.
    let later = fates(4 * 1_500 * NS_A_BYTE, &mut link);
    assert_eq!(later[..2], [Fate::Passed; 2]);
    assert_eq!(later[2], Fate::Overflowed);
}

#[test]
fn what_is_queued_delays_what_comes_after_it() {
    let path = PathOptions { queue_bytes: 1e9, ..path(Congestion::Cubic) };
    let mut link = Link::new(&path, 0);
    let mut rng = Rng::new(1);
    let leaves = |n: Time| n * 1_500 * NS_A_BYTE;
    for n in 1..=100 {
        assert_eq!(link.carry(0, 1_500, &mut rng), (leaves(n), Fate::Passed));
    }
}

#[test]
fn losses_are_as_many_as_was_said() {
    let mut link = Link::new(&PathOptions { loss: 0.02, ..path(Congestion::Pipe) }, 0);
    let mut rng = Rng::new(1);
    let lost = |bytes, link: &mut Link, rng: &mut Rng| {
        let fates = (0..100_000).map(|_| link.carry(0, bytes, rng).1);
        fates.filter(|fate| *fate == Fate::Lost).count()
    };
    // Four deviations of the binomial distribution either way.
    let single = lost(1_448, &mut link, &mut rng);
    assert!((1_823..=2_177).contains(&single), "{single}");
    // Losing one of ten segments is enough: 1 - 0.98^10 = 0.183.
    let ten = lost(14_480, &mut link, &mut rng);
    assert!((17_804..=18_783).contains(&ten), "{ten}");
}

#[test]
fn a_loss_holds_up_what_comes_after_it() {
    let mut bench = Bench::new(&path(Congestion::Pipe), 1);
    bench.link.loss = 1.0;
    bench.write(0, 1_448);
    bench.link.loss = 0.0;
    bench.write(0, 1_448);
    bench.run();
    let [first, second] = bench.arrived[0][..] else { panic!("{:?}", bench.arrived) };
    // The probe after two round trips found it, and everything that could be lost was: more than 3
    // s.
    assert!(first.0 > 3 * SECOND && first.1 == 1_448, "{first:?}");
    assert_eq!(second, (first.0, 2_896));
}

#[test]
fn a_lost_segment_comes_a_round_trip_later_if_others_tell_of_it() {
    let late_by = |seed| {
        let mut bench = Bench::new(&path(Congestion::Cubic), 1);
        bench.rng = Rng::new(seed);
        (0..4).for_each(|_| bench.write(0, 1_448));
        bench.link.loss = 0.5;
        bench.write(0, 1_448);
        let (arrives, _) = bench.pipes[0].last_flying().unwrap();
        arrives - (bench.link.free_at + DELAY)
    };
    let mut seen: Vec<Time> = (0..200).map(late_by).collect();
    seen.sort_unstable();
    seen.dedup();
    // Four segments, and two more because it is sent twice, precede the queue's end.
    let round_trip = 2 * DELAY + 6 * 1_448 * NS_A_BYTE;
    assert_eq!(seen[..3], [0, round_trip, round_trip + round_trip * 5 / 4]);
}

#[test]
fn slow_start_doubles_with_each_round_trip() {
    let fast = PathOptions { mbit: [80_000.0; 2], queue_bytes: 1e12, ..path(Congestion::Cubic) };
    let mut bench = Bench::new(&fast, 1);
    bench.write(0, 4_000_000);
    bench.run();
    let at_most = |at: Time| {
        bench.arrived[0].iter().take_while(|(time, _)| *time <= at).last().map_or(0, |a| a.1)
    };
    let initial = 14_480;
    for round in 0..6u32 {
        let sent = at_most(DELAY + Time::from(round) * 2 * DELAY + MS);
        let exact = initial * ((1 << (round + 1)) - 1);
        // The segment that fills a window overshoots it.
        assert!((exact..exact + (16_384 << (round + 1))).contains(&sent), "{round}: {sent}");
    }
}

#[test]
fn a_loss_cuts_the_window_once_a_round_trip() {
    let link = Link::new(&path(Congestion::Cubic), 0);
    let mut window = Window::new();
    window.grow(0, 85_520.0);
    assert_eq!(window.now(&link), 100_000.0);
    window.cut(SECOND, 40 * MS);
    window.cut(SECOND + 39 * MS, 40 * MS);
    assert_eq!(window.now(&link), 70_000.0);
    window.cut(SECOND + 40 * MS, 40 * MS);
    assert_eq!(window.now(&link), 49_000.0);
}

/// What a link of `path` carries, in bytes a second.
const RATE: f64 = 1_250_000.0;

/// One BBR sender that never runs out of bytes.
fn bbr_bench() -> Bench {
    let mut bench = Bench::new(&path(Congestion::Bbr), 1);
    bench.write(0, 50_000_000);
    bench
}

impl Bench {
    fn go_on_until(&mut self, end: Time) {
        self.run_until(end);
        self.now = end;
    }

    /// As a fraction of what the link carried at first.
    fn paces(&self) -> f64 {
        self.pipes[0].metrics(self.now).unwrap().pacing_rate.unwrap() as f64 / RATE
    }

    fn window(&self) -> u64 {
        self.pipes[0].metrics(self.now).unwrap().cwnd_bytes
    }

    /// Likewise, for what arrived in this time.
    fn carried(&self, from: Time, until: Time) -> f64 {
        let by = |at| self.arrived[0].iter().take_while(|a| a.0 <= at).last().map_or(0, |a| a.1);
        let seconds = (until - from) as f64 / SECOND as f64;
        (by(until) - by(from)) as f64 / seconds / RATE
    }
}

#[test]
fn start_up_overfills_the_pipe_and_ends() {
    let mut bench = bbr_bench();
    bench.go_on_until(300 * MS);
    assert!(bench.paces() > 2.5, "it looks for more: {}", bench.paces());
    bench.go_on_until(SECOND);
    // Over a whole cycle, the mean is 1, less the 1 % that Linux keeps free.
    assert!((0.73..1.25).contains(&bench.paces()), "{}", bench.paces());
    // Two pipes of 50,000 bytes, and three bursts.
    let window = 100_000.0 + 3.0 * 2_896.0;
    assert!((bench.window() as f64 / window - 1.0).abs() < 0.02, "{}", bench.window());
    bench.go_on_until(3 * SECOND);
    assert!(bench.carried(SECOND, 3 * SECOND) > 0.97);
    let queue = bench.pipes[0].metrics(bench.now).unwrap().rtt - Duration::from_millis(40);
    assert!(queue < Duration::from_millis(10), "what start-up queued has drained: {queue:?}");
}

#[test]
fn a_slower_link_is_noticed_after_ten_round_trips() {
    let mut bench = bbr_bench();
    bench.go_on_until(2 * SECOND);
    bench.link.rate /= 4.0;
    // A window is in flight: at a quarter of the rate, a round trip takes a third of a second.
    bench.go_on_until(4 * SECOND);
    assert!(bench.paces() > 0.7, "it still believes the old rate: {}", bench.paces());
    bench.go_on_until(8 * SECOND);
    assert!((0.15..0.35).contains(&bench.paces()), "{}", bench.paces());
    assert!(bench.carried(6 * SECOND, 8 * SECOND) > 0.23, "nor is it idle meanwhile");
}

#[test]
fn a_faster_link_is_found_by_trying() {
    let mut bench = bbr_bench();
    bench.go_on_until(2 * SECOND);
    bench.link.rate *= 2.0;
    bench.go_on_until(4 * SECOND);
    // A quarter more every eight round trips; two seconds hold six times that.
    assert!(bench.paces() > 1.45, "{}", bench.paces());
}

#[test]
fn a_longer_way_is_believed_after_ten_seconds() {
    let mut bench = bbr_bench();
    bench.go_on_until(2 * SECOND);
    bench.link.delay += 120 * MS;
    bench.go_on_until(10 * SECOND);
    // Two pipes as short as it believes fill half of one, and so does whatever it then measures.
    assert!(bench.carried(6 * SECOND, 10 * SECOND) < 0.3);
    bench.go_on_until(40 * SECOND);
    let after = bench.carried(36 * SECOND, 40 * SECOND);
    assert!(after > 0.8, "{after}");
}

#[test]
fn the_smallest_round_trip_is_looked_for_with_four_segments_in_flight() {
    let mut bench = bbr_bench();
    bench.go_on_until(10 * SECOND);
    let before = bench.window();
    assert!(before > 100_000);
    bench.go_on_until(10 * SECOND + 200 * MS);
    assert_eq!(bench.window(), 4 * 1_448);
    bench.go_on_until(10 * SECOND + 500 * MS);
    assert!(bench.window() >= before, "as it was before: {}", bench.window());
}

#[test]
fn pacing_bounds_what_leaves() {
    let mut bench = bbr_bench();
    bench.go_on_until(SECOND);
    bench.pipes[0].limit_pacing(RATE as u64 / 4);
    bench.go_on_until(3 * SECOND);
    assert_eq!(bench.paces(), 0.25);
    let carried = bench.carried(1_500 * MS, 3 * SECOND);
    assert!((0.245..=0.251).contains(&carried), "{carried}");
    bench.pipes[0].limit_pacing(u64::MAX);
    bench.go_on_until(10 * SECOND);
    assert!(bench.paces() > 0.7, "{}", bench.paces());
}

#[test]
fn the_first_window_is_spread_over_the_handshakes_round_trip() {
    let mut bench = bbr_bench();
    bench.run_until(DELAY + 2 * DELAY);
    // 14,480 bytes at 2.885 windows a round trip, unless the link takes longer: 13.9 ms.
    let spread = bench.arrived[0].iter().find(|a| a.1 >= 13_000).unwrap().0 - bench.arrived[0][0].0;
    assert!((11 * MS..15 * MS).contains(&spread), "{spread}");
}

#[test]
fn losses_do_not_cut_what_bbr_sends() {
    let carried = |control| {
        let mut bench = Bench::new(&PathOptions { loss: 0.02, ..path(control) }, 1);
        bench.write(0, 20_000_000);
        bench.go_on_until(10 * SECOND);
        bench.carried(2 * SECOND, 10 * SECOND)
    };
    let (bbr, cubic) = (carried(Congestion::Bbr), carried(Congestion::Cubic));
    assert!(bbr > 0.9 && bbr <= 1.0, "{bbr}");
    assert!(cubic < 0.8 * bbr, "{cubic}");
}

#[test]
fn what_is_lost_is_sent_again_on_the_same_link_and_in_order() {
    let short = PathOptions { loss: 0.05, queue_bytes: 15_000.0, ..path(Congestion::Bbr) };
    let mut bench = Bench::new(&short, 2);
    (0..2).for_each(|pipe| bench.write(pipe, 1_000_000));
    bench.run();
    for pipe in 0..2 {
        assert_eq!(bench.last(pipe).1, 1_000_000);
        assert!(bench.arrived[pipe].is_sorted());
    }
    let last = bench.last(0).0.max(bench.last(1).0);
    assert!(last > DELAY + 2_000_000 * NS_A_BYTE, "no faster than the link: {last}");
}

#[test]
fn a_sender_that_lacks_bytes_does_not_unlearn_the_rate() {
    let mut bench = Bench::new(&path(Congestion::Bbr), 1);
    bench.write(0, 2_000_000);
    bench.run();
    let known = bench.paces();
    for _ in 0..500 {
        bench.write(0, 1_448);
        bench.go_on_until(bench.now + 10 * MS);
    }
    assert!(bench.paces() > 0.7 && known > 0.7, "{known}, then {}", bench.paces());
    assert!(bench.pipes[0].metrics(bench.now).unwrap().delivery_rate.unwrap() > 1_000_000);
}

#[test]
fn a_black_hole_takes_everything_and_gives_nothing() {
    let mut bench = Bench::new(&path(Congestion::Cubic), 2);
    bench.write(0, 5_000);
    bench.run_until(10 * MS);
    bench.pipes[0].stuck = true;
    bench.write(0, 1_000_000);
    bench.write(1, 5_000);
    bench.run();
    assert_eq!(bench.arrived[0], []);
    assert_eq!(bench.last(1).1, 5_000, "a lane beside it on the same path is untouched");
    assert_eq!(bench.pipes[0].unsent_bytes(), 1_000_000);
    assert!(bench.pipes[0].metrics(SECOND).is_none(), "nothing was ever acknowledged");
}

#[test]
fn an_outage_delays_and_loses_nothing() {
    for control in [Congestion::Pipe, Congestion::Cubic, Congestion::Bbr] {
        let mut bench = Bench::new(&path(control), 1);
        bench.write(0, 400_000);
        bench.run_until(100 * MS);
        bench.now = 100 * MS;
        let before = bench.last(0).1;
        bench.outage(500 * MS);
        assert_eq!(bench.last(0).1, before, "{control:?}: something passed");
        bench.run();
        let (last, bytes) = bench.last(0);
        assert_eq!(bytes, 400_000, "{control:?}");
        let first = bench.arrived[0].iter().find(|(time, _)| *time > 100 * MS).unwrap().0;
        assert!((600 * MS + DELAY..=1_100 * MS + DELAY + 20 * MS).contains(&first), "{first}");
        assert!(last < 3 * SECOND && bench.arrived[0].is_sorted(), "{control:?}: {last}");
    }
}

#[test]
fn a_reset_forgets_what_was_not_sent_and_comes_after_what_was() {
    let mut bench = Bench::new(&path(Congestion::Pipe), 1);
    bench.write(0, 100_000);
    bench.run_until(40 * MS);
    bench.pipes[0].abort();
    assert_eq!(bench.pipes[0].unsent_bytes(), 0);
    bench.pipes[0].write(Parcel::Reset);
    bench.pump(0);
    bench.run();
    let (last, bytes) = bench.last(0);
    // 40 ms of the link's rate were sent, plus the RST's 40 bytes.
    assert!((50_000..53_000).contains(&bytes), "{bytes}");
    assert_eq!(last, DELAY + bytes * NS_A_BYTE);
}

#[test]
fn the_kernels_figures_are_the_paths() {
    let mut bench = Bench::new(&path(Congestion::Pipe), 1);
    bench.write(0, 1_448);
    bench.run();
    let metrics = bench.pipes[0].metrics(bench.now + 7 * MS).unwrap();
    let round_trip = u128::from(2 * DELAY + 1_448 * NS_A_BYTE);
    assert_eq!(metrics.rtt.as_nanos(), round_trip);
    assert_eq!(metrics.rtt_min.as_nanos(), round_trip);
    assert_eq!(metrics.silence.unwrap().as_nanos(), u128::from(7 * MS));
    assert_eq!(metrics.delivery_rate, None, "it had no more to send");
    bench.write(0, 1_000_000);
    bench.run();
    let rate = bench.pipes[0].metrics(bench.now).unwrap().delivery_rate.unwrap();
    assert!((1_150_000..=1_260_000).contains(&rate), "{rate}");
}
