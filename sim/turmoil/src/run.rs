//! One run: the simulated network, what goes wrong in it, and what came of it.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use std::time::{Duration, SystemTime};

use imux_sim::soak::Tried;
use tokio::sync::watch;
use tracing_subscriber::layer::SubscriberExt;
use turmoil::{Builder, Sim};

use crate::book::{Book, Outcome};
use crate::faults::{CLIENT, Faults, relay};
use crate::observe::Observer;
use crate::plan::Plan;
use crate::relay::{Mood, Relay, SERVER};
use crate::{client, server};

/// Everything that is to be seen of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    /// Keep the trace's records.
    pub trace: bool,
    /// Print what the driver logs.
    pub log: bool,
}

/// Runs a seed. A panic in any task counts as a broken rule.
#[must_use]
pub fn try_seed(seed: u64) -> Tried {
    let plan = Plan::draw(seed);
    let (outcome, time) = run(&plan, Watch::default());
    Tried {
        hash: if plan.repeats() { outcome.trace.hash() } else { 0 },
        failure: outcome.failure,
        counts: outcome.counts,
        events: outcome.events,
        time,
    }
}

/// Runs a plan; also how long it took, in virtual time.
#[must_use]
pub fn run(plan: &Plan, watch: Watch) -> (Outcome, Duration) {
    let plan = Arc::new(plan.clone());
    let book = Book::new(plan.clone(), watch.trace);
    let observer = Observer { book: book.clone(), print: watch.log };
    let subscriber = tracing_subscriber::registry().with(observer);
    let mut took = Duration::ZERO;
    let ran = tracing::subscriber::with_default(subscriber, || {
        catch_panic(|| simulate(&plan, &book, &mut took))
    });
    match ran {
        Ok(Ok(())) => {}
        Ok(Err(error)) => book.fail(error.to_string()),
        Err(said) => book.fail(format!("panic: {said}")),
    }
    (book.outcome(), took)
}

fn simulate(plan: &Arc<Plan>, book: &Arc<Book>, took: &mut Duration) -> turmoil::Result {
    imux::seed_chance(plan.seed);
    let mut sim = Builder::new()
        .rng_seed(plan.seed)
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
        // The run's own deadline is earlier, and says more.
        .simulation_duration(Duration::from_secs(1_000_000))
        .build();
    let moods = add_hosts(&mut sim, plan, book);
    let mut faults = Faults::new(plan, moods);
    let deadline = Duration::from_millis(plan.deadline_ms());
    loop {
        faults.step(&mut sim, book);
        let over = sim.step()?;
        *took = sim.elapsed();
        if over || book.failure().is_some() {
            return Ok(());
        }
        if sim.elapsed() > deadline {
            return Err(format!("not over after {deadline:?}; {}", book.unsettled()).into());
        }
    }
}

fn add_hosts(sim: &mut Sim<'_>, plan: &Arc<Plan>, book: &Arc<Book>) -> Vec<watch::Sender<Mood>> {
    let (its_plan, its_book) = (plan.clone(), book.clone());
    sim.host(SERVER, move || server::run(its_plan.clone(), its_book.clone()));
    let mut moods = Vec::new();
    for (path, of) in plan.paths.iter().enumerate() {
        let (sender, mood) = watch::channel(Mood::new(of.mbit));
        let host = Relay { path, piece_bytes: of.piece_bytes, mood, book: book.clone() };
        sim.host(relay(path), move || host.clone().run());
        moods.push(sender);
    }
    sim.client(CLIENT, client::run(plan.clone(), book.clone()));
    for (path, of) in plan.paths.iter().enumerate() {
        for (end, ms) in [CLIENT, SERVER].into_iter().zip(of.latency_ms) {
            sim.set_link_latency(relay(path), end, Duration::from_millis(ms));
            let most = Duration::from_millis(ms + of.jitter_ms);
            sim.set_link_max_message_latency(relay(path), end, most);
        }
    }
    moods
}

thread_local! {
    /// In a run: what its first panic said.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Does something, and says whether it panicked, and how. The first panic is the cause; those that
/// follow are tokio's.
fn catch_panic<R>(act: impl FnOnce() -> R) -> Result<R, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let outside_of_runs = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANIC.with_borrow_mut(|said| match said {
                Some(said) if said.is_empty() => *said = panic.to_string().replace('\n', " "),
                Some(_) => {}
                None => outside_of_runs(panic),
            });
        }));
    });
    PANIC.set(Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(act));
    let said = PANIC.take().unwrap_or_default();
    result.map_err(|_| said)
}
