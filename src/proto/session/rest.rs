//! Lanes of a link that are not needed for what its path carries rest: they carry no bulk, and what is urgent finds them free.
//! Of many lanes on one path each has few packets on the way, and none knows what the others do: their queue is longer, and what
//! one of them has lost holds up what all carry. Where each connection is throttled all of them are needed, and that shows: what
//! fewer carry is less.

use std::time::{Duration, Instant};

use super::Session;
use crate::proto::ids::LinkId;
use crate::proto::lane::Lane;
use crate::proto::policy::Tier;

/// Fewer lanes are tried if no more than this part of those that work are needed ...
const FEWER: f64 = 0.75;
/// ... whenever it was looked at, so many times in a row: a path that has just become slower has a queue, too.
const LOOKS: u32 = 8;
/// Of a path that is too short for them, no more than it takes to know what it carries.
const LOOKS_CRAMPED: u32 = 4;
/// What the others had on the way is gone, and BBR has found out that there is more, after so many windows of time, which are two
/// round trips each ...
const SETTLING_WINDOWS: u32 = 8;
/// ... and in so many more they have to carry what more carried before.
const TRIAL_WINDOWS: u32 = 8;
/// If not, all work again, and for that long nothing is tried; twice as long each time.
const WAIT_FEWER: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// A connection begins with ten packets (RFC 6928). A short path may hold fewer, and one lane finds out soon what it carries: a
/// link begins with a lane for each so much of its round trip ...
const ROUND_TRIP_OF_A_LANE: Duration = Duration::from_millis(10);
/// ... and then tries twice as many, and all if each of these carries as much. What shows nothing new is not tried again for so
/// long; twice as long each time.
const WAIT_MORE: Duration = Duration::from_secs(4);
/// If they carry less than this part of it at any later time, and no queue stands, they may be throttled: twice as many work. If
/// it is the path that has become slower, a queue shows it, and fewer are tried again.
const THROTTLED: f64 = 0.75;

/// What is known of a link when it is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) now: Instant,
    /// The time between two looks, at least.
    pub(super) window: Duration,
    /// Its lanes, express lanes not counted, and those of them that do not rest.
    pub(super) lanes: usize,
    pub(super) working: usize,
    /// So many would keep the path full without a queue.
    pub(super) needed: usize,
    /// Whether there is enough to send to fill the path.
    pub(super) busy: bool,
    /// Whether a queue stands on it.
    pub(super) queued: bool,
    /// Whether it is too short for the lanes that work.
    pub(super) cramped: bool,
    /// What it has carried since the last look.
    pub(super) bytes: f64,
}

/// How many lanes of a link shall work.
#[derive(Debug)]
pub(super) struct Rest {
    /// Looks in a row that said the same: that fewer would do, or that those that work may be throttled.
    alike: Option<Alike>,
    trial: Option<Trial>,
    /// What the lanes that work have shown that they carry, in bytes a second.
    shown: Option<f64>,
    /// All work because each carries as much, however many they are: they do not share a path, but have one each.
    throttled: bool,
    fewer: Patience,
    more: Patience,
}

/// How long what did no good is not tried again.
#[derive(Debug, Clone, Copy)]
struct Patience {
    wait: Duration,
    not_before: Option<Instant>,
}

impl Patience {
    const fn new(wait: Duration) -> Self {
        Self { wait, not_before: None }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }

    fn begin(&mut self, now: Instant) {
        self.not_before = now.checked_add(self.wait);
        self.wait = self.wait.saturating_mul(2).min(WAIT_MAX);
    }
}

#[derive(Debug, Clone, Copy)]
struct Alike {
    looks: u32,
    throttled: bool,
    /// The most lanes that were needed in any of them.
    needed: usize,
    carried: Carried,
}

/// Fewer lanes than before have to show that they carry as much, more that they carry more.
#[derive(Debug, Clone, Copy)]
struct Trial {
    lanes_before: usize,
    rate_before: f64,
    /// More have carried more before: all work now, and it depends on this whether they are throttled.
    again: bool,
    settled_at: Option<Instant>,
    /// Once they have settled.
    carried: Option<Carried>,
}

/// What was carried over some time.
#[derive(Debug, Clone, Copy)]
struct Carried {
    since: Instant,
    bytes: f64,
}

impl Carried {
    fn rate(&self, now: Instant) -> f64 {
        self.bytes / now.saturating_duration_since(self.since).as_secs_f64().max(1e-3)
    }
}

impl Default for Rest {
    fn default() -> Self {
        let [fewer, more] = [WAIT_FEWER, WAIT_MORE].map(Patience::new);
        Self { alike: None, trial: None, shown: None, throttled: false, fewer, more }
    }
}

impl Rest {
    /// How many lanes a link of such a round trip begins with.
    pub(super) fn begin(rtt: Duration) -> usize {
        (rtt.div_duration_f64(ROUND_TRIP_OF_A_LANE) as usize).max(1)
    }

    /// The path is found to be slow, and one lane fills it: more are tried again after the longest time.
    pub(super) fn on_slow(&mut self, now: Instant) {
        let mut more = Patience::new(WAIT_MAX);
        more.begin(now);
        *self = Self { more, ..Self::default() };
    }

    /// How many lanes shall work from now on, if it is not those that do.
    pub(super) fn look(&mut self, seen: Seen) -> Option<usize> {
        if let Some(trial) = &mut self.trial {
            let rate = trial.look(seen)?;
            return self.trial.take().and_then(|trial| self.judge(trial, seen, rate));
        }
        let crowded = seen.queued || seen.cramped;
        let fewer = crowded && seen.needed as f64 <= FEWER * seen.working as f64;
        let fewer = fewer && self.fewer.is_over(seen.now);
        let throttled = !fewer && seen.busy && !seen.queued && seen.working < seen.lanes;
        if !fewer && !throttled {
            self.alike = None;
            return None;
        }
        let alike = self.count(throttled, seen);
        let looks = if fewer && seen.cramped { LOOKS_CRAMPED } else { LOOKS };
        if alike.looks <= looks {
            return None;
        }
        self.alike = None;
        let rate = alike.carried.rate(seen.now);
        let twice = seen.working.saturating_mul(2).min(seen.lanes);
        if throttled && self.shown.is_some_and(|shown| rate < THROTTLED * shown) {
            return Some(twice);
        }
        if throttled && !self.more.is_over(seen.now) {
            return None;
        }
        self.trial = Some(Trial::of_others(seen, rate));
        Some(if throttled { twice } else { alike.needed.max(1) })
    }

    /// Whether its lanes are likely to have a path each: what they carry together says nothing of what one can.
    pub(super) fn is_throttled(&self) -> bool {
        self.throttled || self.trial.is_some_and(|trial| trial.again)
    }

    /// How many lanes shall work after a trial in which they carried bytes at `rate`.
    fn judge(&mut self, trial: Trial, seen: Seen, rate: f64) -> Option<usize> {
        let more = seen.working > trial.lanes_before;
        if trial.shows_throttling(seen.working, rate) {
            if more && seen.working < seen.lanes {
                self.trial = Some(Trial { again: true, ..Trial::of_others(seen, rate) });
                return Some(seen.lanes);
            }
            // Fewer may have carried less by chance; not twice in a row.
            self.throttled |= more || self.fewer.wait > WAIT_FEWER;
            if more {
                self.fewer.wait = self.fewer.wait.max(WAIT_MORE);
            }
            return Some(self.all(seen));
        }
        self.throttled = false;
        self.shown = Some(rate);
        self.more.begin(seen.now);
        if trial.again {
            return None; // fewer than all may be enough: a queue shows how many
        }
        if more {
            return Some(trial.lanes_before);
        }
        self.fewer = Patience::new(WAIT_FEWER);
        None
    }

    /// The looks in a row that said the same, with this one.
    fn count(&mut self, throttled: bool, seen: Seen) -> Alike {
        let alike = match self.alike.filter(|alike| alike.throttled == throttled) {
            None => {
                let carried = Carried { since: seen.now, bytes: 0.0 };
                Alike { looks: 1, throttled, needed: seen.needed, carried }
            }
            Some(Alike { looks, needed, carried: Carried { since, bytes }, .. }) => Alike {
                looks: looks.saturating_add(1),
                throttled,
                needed: needed.max(seen.needed),
                carried: Carried { since, bytes: bytes + seen.bytes },
            },
        };
        self.alike = Some(alike);
        alike
    }

    /// All work, and nothing is tried for a while.
    fn all(&mut self, seen: Seen) -> usize {
        let mut fewer = self.fewer;
        fewer.begin(seen.now);
        *self = Self { fewer, throttled: self.throttled, ..Self::default() };
        seen.lanes
    }
}

impl Trial {
    /// Of others than those that have just been seen to carry bytes at `rate`.
    fn of_others(seen: Seen, rate: f64) -> Self {
        Self {
            lanes_before: seen.working,
            rate_before: rate,
            again: false,
            settled_at: seen.now.checked_add(seen.window.saturating_mul(SETTLING_WINDOWS)),
            carried: None,
        }
    }

    /// What they carry, in bytes a second, once that is known.
    fn look(&mut self, seen: Seen) -> Option<f64> {
        if self.settled_at.is_some_and(|at| seen.now < at) {
            return None;
        }
        let carried = match self.carried {
            // Without enough to send nothing is learnt.
            Some(carried) if seen.busy => Carried { bytes: carried.bytes + seen.bytes, ..carried },
            _ => Carried { since: seen.now, bytes: 0.0 },
        };
        self.carried = Some(carried);
        let age = seen.now.saturating_duration_since(carried.since);
        (age >= seen.window.saturating_mul(TRIAL_WINDOWS)).then(|| carried.rate(seen.now))
    }

    /// Whether each lane carries as much as before, rather than all of them. If fewer carry yet less, the path has become slower.
    fn shows_throttling(&self, working: usize, rate: f64) -> bool {
        let part = working as f64 / self.lanes_before.max(1) as f64;
        // Of many more lanes fewer may be enough for all that the path carries.
        let in_between = self.rate_before * f64::midpoint(1.0, part.min(2.0));
        if working > self.lanes_before {
            return rate > in_between;
        }
        let each_as_before = self.rate_before * part;
        (each_as_before * THROTTLED..in_between).contains(&rate)
    }
}

impl Session {
    /// Of the link's lanes as many work as shall, rather those that did, and of these rather the fastest; the others rest.
    pub(super) fn arrange(&mut self, link: LinkId) {
        let wanted = self.links.wanted(link);
        let of_link = self.lanes.iter_mut().map(|(_, lane)| lane);
        let mut lanes: Vec<&mut Lane> = of_link.filter(|lane| of(link, lane)).collect();
        let rate = |lane: &Lane| lane.estimate.rate();
        lanes.sort_by(|a, b| a.resting.cmp(&b.resting).then(rate(b).total_cmp(&rate(a))));
        for (nth, lane) in lanes.iter_mut().enumerate() {
            lane.resting = nth >= wanted;
        }
        let resting = lanes.len().saturating_sub(wanted);
        self.links.set_resting(link, resting);
        self.share_link(link);
    }
}

fn of(link: LinkId, lane: &Lane) -> bool {
    lane.policy.link == link && lane.policy.tier != Tier::Express
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::lane::Health;
    use crate::proto::testing;
    use crate::proto::testing::pair::{CLIENT, Pair, Path, SERVER, pattern};
    use crate::proto::{Config, LaneId};

    const WINDOW: Duration = Duration::from_millis(40);
    /// Enough for one trial.
    const TRIAL: u32 = LOOKS + SETTLING_WINDOWS + TRIAL_WINDOWS + 4;

    /// A link of ten lanes, looked at once a window.
    struct Link {
        rest: Rest,
        now: Instant,
        working: usize,
    }

    impl Link {
        fn new() -> Self {
            Self::beginning(10)
        }

        fn beginning(working: usize) -> Self {
            Self { rest: Rest::default(), now: testing::start(), working }
        }

        /// So many looks; `path` is told how many lanes work, and tells whether a queue stands and what the path carries in a
        /// second.
        fn look(&mut self, looks: u32, path: impl Fn(usize) -> (bool, f64)) -> usize {
            for _ in 0..looks {
                let (queued, rate) = path(self.working);
                self.look_once(|seen| Seen { queued, bytes: rate * WINDOW.as_secs_f64(), ..seen });
            }
            self.working
        }

        /// `path` tells what is seen of it, if it is not what is seen of a busy one without a queue that could do with half.
        fn look_once(&mut self, path: impl FnOnce(Seen) -> Seen) {
            self.now += WINDOW;
            let working = self.working;
            let seen = Seen {
                now: self.now,
                window: WINDOW,
                lanes: 10,
                working,
                needed: working.div_ceil(2),
                busy: true,
                queued: false,
                cramped: false,
                bytes: 0.0,
            };
            self.working = self.rest.look(path(seen)).unwrap_or(working);
        }
    }

    /// However many there are, they fill the path.
    fn shared(_working: usize) -> (bool, f64) {
        (true, 1e6)
    }

    /// Each lane has a queue of its own.
    fn throttled(working: usize) -> (bool, f64) {
        (true, working as f64 * 1e5)
    }

    #[test]
    fn lanes_that_are_not_needed_rest_by_and_by() {
        let mut link = Link::new();
        assert_eq!(link.look(LOOKS, shared), 10, "not yet sure");
        assert_eq!(link.look(1, shared), 5);
        assert_eq!(link.look(SETTLING_WINDOWS + TRIAL_WINDOWS, shared), 5, "on trial");
        assert_eq!(link.look(4 * TRIAL, shared), 1);
    }

    #[test]
    fn a_path_that_is_too_short_for_them_shows_it_without_a_queue_and_sooner() {
        let short = |seen| Seen { needed: 1, cramped: true, bytes: 4e4, ..seen };
        let mut link = Link::new();
        (0..LOOKS_CRAMPED).for_each(|_| link.look_once(short));
        assert_eq!(link.working, 10, "not yet sure");
        link.look_once(short);
        assert_eq!(link.working, 1);
        (0..20 * TRIAL).for_each(|_| link.look_once(short));
        assert_eq!(link.working, 1, "it carries as much, and is too short for one, too");
    }

    #[test]
    fn lanes_that_are_throttled_work_again_and_are_not_tried_for_long() {
        let mut link = Link::new();
        assert_eq!(link.look(LOOKS + 1, throttled), 5);
        assert_eq!(link.look(TRIAL, throttled), 10);
        assert!(!link.rest.is_throttled(), "once may be chance");
        let looks = 120_000 / 40;
        let worked: usize = (0..looks).map(|_| link.look(1, throttled)).sum();
        assert!(worked > 97 * looks / 10, "{worked} in {looks} looks");
        assert!(link.rest.is_throttled());
    }

    #[test]
    fn a_short_path_begins_with_few() {
        let begin = |ms| Rest::begin(Duration::from_millis(ms));
        assert_eq!([0, 9, 20, 39, 100].map(begin), [1, 1, 2, 3, 10]);
    }

    #[test]
    fn more_are_tried_and_rest_again_if_one_fills_the_path() {
        let mut link = Link::beginning(1);
        let filled = |working| (working > 1, 1e6);
        assert_eq!(link.look(LOOKS + 1, filled), 2);
        assert_eq!(link.look(SETTLING_WINDOWS + TRIAL_WINDOWS + 1, filled), 1);
        let looks = 120_000 / 40;
        let worked: usize = (0..looks).map(|_| link.look(1, filled)).sum();
        assert!(worked as f64 <= 1.05 * looks as f64, "{worked} in {looks} looks");
    }

    #[test]
    fn all_work_soon_where_each_is_throttled() {
        let mut link = Link::beginning(1);
        let each = |working: usize| (false, working as f64 * 1e5);
        assert_eq!(link.look(LOOKS + 1, each), 2);
        assert_eq!(link.look(SETTLING_WINDOWS + TRIAL_WINDOWS + 1, each), 10);
        assert!(link.rest.is_throttled(), "they are not held down while it is seen");
        assert_eq!(link.look(SETTLING_WINDOWS + TRIAL_WINDOWS + 1, each), 10);
        assert!(link.rest.is_throttled(), "nor later");
        let looks = 60_000 / 40;
        let worked: usize = (0..looks).map(|_| link.look(1, throttled)).sum();
        assert!(worked > 97 * looks / 10, "{worked} in {looks} looks");
    }

    #[test]
    fn all_work_where_fewer_than_all_would_be_enough() {
        let mut link = Link::beginning(2);
        let five_are_enough = |working: usize| (working > 5, working.min(5) as f64 * 1e5);
        assert_eq!(link.look(TRIAL, five_are_enough), 10, "four of them carried less");
        let few = link.look(20 * TRIAL, five_are_enough);
        assert!((5..10).contains(&few), "{few} carry as much");
        assert!(!link.rest.is_throttled());
    }

    #[test]
    fn more_that_carried_more_for_a_moment_are_held_to_the_path_again() {
        let mut link = Link::beginning(1);
        assert_eq!(link.look(LOOKS + 1, |_| (false, 1e5)), 2);
        assert_eq!(link.look(SETTLING_WINDOWS + TRIAL_WINDOWS + 1, |_| (false, 2e5)), 10);
        assert_eq!(link.look(SETTLING_WINDOWS + TRIAL_WINDOWS + 1, |_| (true, 2e5)), 10);
        assert!(!link.rest.is_throttled());
        assert_eq!(link.look(4 * TRIAL, |_| (true, 2e5)), 1);
    }

    #[test]
    fn lanes_that_are_throttled_later_work_again_by_and_by() {
        let mut link = Link::new();
        assert_eq!(link.look(5 * TRIAL, shared), 1);
        assert_eq!(link.look(TRIAL, |_| (true, 2e5)), 1, "a queue: the path is slower");
        assert_eq!(link.look(TRIAL, |_| (false, 9e5)), 1, "as fast as ever");
        let each = |working: usize| (false, working as f64 * 1e5);
        assert_eq!(link.look(LOOKS + 1, each), 2);
        assert_eq!(link.look(3 * (LOOKS + 1), each), 8, "0.8 of what one carried once");
        assert_eq!(link.look(TRIAL, each), 8);
    }

    #[test]
    fn lanes_that_share_a_path_that_is_slower_now_rest_again() {
        let mut link = Link::new();
        assert_eq!(link.look(5 * TRIAL, shared), 1);
        let slower = |working| (working > 1, 1e5);
        assert_eq!(link.look(LOOKS + 1, slower), 2);
        assert_eq!(link.look(TRIAL, slower), 1);
        assert_eq!(link.look(10 * TRIAL, slower), 1, "that is what it carries");
    }

    #[test]
    fn a_path_that_becomes_slower_needs_no_more_lanes() {
        let mut link = Link::new();
        assert_eq!(link.look(LOOKS + 1, shared), 5);
        assert!(link.look(TRIAL, |_| (true, 1e5)) <= 5);
    }

    #[test]
    fn nothing_is_judged_while_there_is_nothing_to_send() {
        let mut link = Link::new();
        assert_eq!(link.look(LOOKS + 1, shared), 5);
        for _ in 0..200 {
            link.look_once(|seen| Seen { needed: 0, busy: false, bytes: 0.4, ..seen });
        }
        assert_eq!(link.working, 5);
        assert!(link.look(TRIAL, shared) <= 5);
    }

    const LANES: [LaneId; 3] = [LaneId::new(0), LaneId::new(1), LaneId::new(2)];

    /// Three lanes of one link, of which the client needs so many.
    fn pair(wanted: usize) -> Pair {
        let mut pair = Pair::new(Config::default(), &[Path::new(20.0, 10); 3]);
        pair.ends[CLIENT].session.links.want(LinkId::default(), wanted);
        pair.ends[CLIENT].session.arrange(LinkId::default());
        pair
    }

    /// Payload that each of them was given.
    fn given(pair: &Pair) -> Vec<u64> {
        let stats = pair.ends[CLIENT].session.stats();
        stats.lanes.iter().map(|lane| lane.sent_bytes).collect()
    }

    #[test]
    fn a_lane_that_rests_carries_no_bulk_until_another_is_gone() {
        let mut pair = pair(1);
        let sent = pattern(6_000_000, 1);
        let id = pair.open(CLIENT, sent.clone());
        pair.drive(Duration::from_secs(1));
        let before = given(&pair);
        assert!(before[0] > 1_000_000, "{before:?}");
        assert!(before[1] + before[2] < 100_000, "before it was known to be bulk: {before:?}");
        pair.lane_down(LANES[0]);
        pair.drive(Duration::from_secs(4));
        assert_eq!(pair.ends[SERVER].read[&id], (sent.to_vec(), true));
        let resting = |pair: &Pair| pair.ends[CLIENT].session.links.view(LinkId::default()).sharing;
        assert_eq!(resting(&pair), 1, "another has taken its place, and no more");
        pair.lane_up(LaneId::new(3), Path::new(20.0, 10));
        assert_eq!(resting(&pair), 1, "what comes new rests");
    }

    #[test]
    fn lanes_that_rest_are_asked_when_one_that_works_is_silent() {
        let mut pair = pair(2);
        pair.drive(Duration::from_millis(100)); // what the ends tell each other first has arrived
        let health = |pair: &Pair, id| pair.ends[CLIENT].session.lanes[&id].health;
        let resting = LANES.into_iter().find(|id| pair.ends[CLIENT].session.lanes[id].resting);
        let resting = resting.unwrap();
        for id in LANES {
            pair.silence_one_way(id, CLIENT);
        }
        let id = pair.open(CLIENT, pattern(1_000_000, 1));
        pair.drive(Duration::from_millis(600));
        assert_eq!(health(&pair, resting), Health::Suspect, "it owes an answer, too");
        pair.set_path(resting, |path| path.silent = false);
        pair.drive(Duration::from_secs(8));
        assert!(!pair.ends[SERVER].read[&id].0.is_empty(), "the one that answers carries");
    }
}
