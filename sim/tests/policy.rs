//! Tiers, caps, redundant streams and published schedulers in the simulator, with figures.

use imux::proto::SchedulerKind;
use imux_sim::net::{MS, SECOND, Time};
use imux_sim::options::Options;
use imux_sim::report::Report;
use imux_sim::scenarios;
use imux_sim::world::{self, Outcome};

const SEEDS: std::ops::Range<u64> = 1..6;

fn run(options: &Options, seed: u64) -> Outcome {
    let outcome = world::run(options, seed, true);
    assert_eq!(outcome.failure, None, "{} with seed {seed}", options.name);
    outcome
}

fn named(name: &str) -> Options {
    scenarios::named(name).unwrap()
}

#[test]
fn each_published_scheduler_fills_two_equal_paths() {
    for scheduler in SchedulerKind::ALL {
        for name in ["equal", "cubic"] {
            let options = scenarios::with_scheduler(named(name), scheduler);
            let share = Report::new(&options, &run(&options, 1)).goodput_share();
            assert!(share > 0.9, "{name} with {scheduler}: {share}");
        }
    }
}

#[test]
fn a_backup_takes_over_within_the_usual_gap_and_gives_back() {
    for seed in SEEDS {
        let options = named("backup");
        let outcome = run(&options, seed);
        let gap = outcome.truths[0][0].longest_gap;
        assert!(gap < 250 * MS, "{} ms", gap / MS);
        let [primary, backup] = [outcome.path_bytes[0][0], outcome.path_bytes[1][0]];
        assert!(outcome.counts.contains_key("backup carried"));
        // The primary was away for a good second of six and more.
        assert!(primary > 2 * backup && backup > 2_000_000, "{primary} and {backup}");
    }
}

#[test]
fn a_backup_is_idle_while_its_primary_answers() {
    for seed in SEEDS {
        let mut options = Options { faults: Vec::new(), ..named("backup") };
        // Room for start-up, which fills three pipes: what a shorter queue loses of it holds up
        // everything behind it, and a primary that is silent for 100 ms is helped.
        options.paths.iter_mut().for_each(|path| path.queue_bytes *= 4.0);
        let outcome = run(&options, seed);
        assert!(outcome.path_bytes[1][0] < 2_000, "{:?}", outcome.path_bytes);
    }
}

#[test]
fn a_metered_lane_carries_only_when_all_others_are_lost() {
    for seed in SEEDS {
        let outcome = run(&named("metered"), seed);
        let [primary, metered] = [outcome.path_bytes[0][0], outcome.path_bytes[1][0]];
        assert!(outcome.counts.contains_key("metered carried"));
        assert!(primary > metered && metered > 1_000_000, "{primary} and {metered}");
        // A path that is away for less than it takes to be lost costs nothing.
        let mut brief = named("metered");
        brief.faults = scenarios::named("flap").unwrap().faults;
        brief.faults.iter_mut().for_each(|fault| fault.path = 0);
        let outcome = run(&brief, seed);
        assert!(!outcome.counts.contains_key("metered carried"), "{:?}", outcome.path_bytes);
    }
}

#[test]
fn a_capped_link_carries_its_cap_and_no_more() {
    for seed in SEEDS {
        let options = named("capped");
        let outcome = run(&options, seed);
        let took = outcome.truths[0][0].last_read.unwrap() as f64 / SECOND as f64 - 0.4;
        let [free, capped] = outcome.path_bytes[..] else { panic!("{:?}", outcome.path_bytes) };
        let share = capped[0] as f64 / (1_250_000.0 * took);
        assert!((0.9..1.01).contains(&share), "{share} of the cap");
        let share = free[0] as f64 / (6_250_000.0 * took);
        assert!(share > 0.9, "{share} of the other");
    }
}

fn answers_p99(options: &Options) -> Time {
    let mut answers: Vec<Time> = Vec::new();
    for seed in SEEDS {
        answers.extend(Report::new(options, &run(options, seed)).answers);
    }
    answers.sort_unstable();
    answers[answers.len() * 99 / 100]
}

#[test]
fn redundant_streams_have_a_shorter_tail_where_packets_are_lost() {
    let redundant = named("redundant");
    let mut plain = redundant.clone();
    plain.streams.iter_mut().for_each(|stream| stream.redundant = false);
    let (with, without) = (answers_p99(&redundant), answers_p99(&plain));
    assert!(with * 10 < without * 8, "{with} ns with, {without} ns without");
}
