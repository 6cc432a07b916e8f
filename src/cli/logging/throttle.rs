//! A bound on how much others can make us log: strangers refused, clients that come and go.
//!
//! Each logging call site has an allowance that refills a little every minute; lines beyond it are
//! counted and reported once a minute. `debug` and `trace` have no bound: they are for people who
//! ask for everything.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::output::TARGET;

const INTERVAL: Duration = Duration::from_secs(60);

/// Lines from one call site at once: enough for 256 lanes that each go up, down and up again at a
/// restart.
const LINES_AT_ONCE: u32 = 600;

/// Lines from one call site per minute: with a few sites and a hundred bytes a line, 10 MB a day.
const LINES_PER_INTERVAL: u32 = 20;

/// A report on dropped lines quotes this much of the first one's message.
const EXAMPLE_CHARS: usize = 100;

#[derive(Clone, Debug, Default)]
pub(super) struct Throttle {
    places: Arc<Mutex<HashMap<Identifier, Lines>>>,
}

/// The state of one call site.
#[derive(Debug)]
struct Lines {
    room: u32,
    left_out: u64,
    /// The message of the first dropped line.
    like: String,
}

impl Throttle {
    /// Reports dropped lines from now on, in a separate thread.
    pub(super) fn start(&self) {
        let throttle = self.clone();
        // Without the thread an allowance never refills, which errs on the safe side.
        let _ = std::thread::Builder::new().name("imux-log".to_owned()).spawn(move || {
            loop {
                std::thread::sleep(INTERVAL);
                throttle.tell();
            }
        });
    }

    /// Reports lines dropped since the last call, and refills the allowances a little.
    fn tell(&self) {
        // Not under the lock, which reporting takes too.
        for (lines, like) in self.next_interval() {
            tracing::warn!(lines, like, "lines were left out of the log, there were too many");
        }
    }

    fn next_interval(&self) -> Vec<(u64, String)> {
        let mut told = Vec::new();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|_, lines| {
            lines.room = (lines.room + LINES_PER_INTERVAL).min(LINES_AT_ONCE);
            if lines.left_out > 0 {
                told.push((std::mem::take(&mut lines.left_out), std::mem::take(&mut lines.like)));
            }
            lines.room < LINES_AT_ONCE
        });
        told
    }

    fn grants(&self, event: &Event<'_>) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = places.entry(event.metadata().callsite()).or_insert_with(|| Lines {
            room: LINES_AT_ONCE,
            left_out: 0,
            like: String::new(),
        });
        if let Some(room) = lines.room.checked_sub(1) {
            lines.room = room;
            return true;
        }
        if lines.left_out == 0 {
            event.record(&mut Message(&mut lines.like));
        }
        lines.left_out += 1;
        false
    }
}

impl<S: Subscriber> Layer<S> for Throttle {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let about = event.metadata();
        // The audit trail has bounds of its own.
        let bounded = ![TARGET, super::audit::TARGET].contains(&about.target());
        *about.level() > Level::INFO || !bounded || self.grants(event)
    }
}

/// Takes an event's message, or its beginning.
struct Message<'a>(&'a mut String);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            *self.0 = format!("{value:?}").chars().take(EXAMPLE_CHARS).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        /// What was written since the last call.
        fn take(&self) -> Vec<String> {
            let bytes = std::mem::take(&mut *self.0.lock().unwrap());
            String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
        }
    }

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn refuse(times: u32) {
        for number in 0..times {
            tracing::info!(number, "stranger refused");
        }
    }

    #[test]
    fn a_flood_of_lines_is_cut_short_counted_and_told() {
        let (throttle, written) = (Throttle::default(), Written::default());
        let output = written.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false);
        let layer = layer.with_writer(move || output.clone());
        let log = tracing_subscriber::registry().with(throttle.clone()).with(layer);
        tracing::subscriber::with_default(log, || {
            refuse(100);
            throttle.tell();
            assert_eq!(written.take().len(), 100, "nothing was left out, and nothing is told");
            refuse(10_000);
            // This costs neither other lines nor detail that was asked for.
            tracing::info!("server ready");
            (0..1_000).for_each(|_| tracing::debug!("detail"));
            let lines = written.take();
            let refused = lines.iter().filter(|line| line.contains("stranger refused")).count();
            assert_eq!(refused as u32, LINES_AT_ONCE - 100 + LINES_PER_INTERVAL);
            assert_eq!(lines.len() - refused, 1 + 1_000);

            throttle.tell();
            let told = written.take().join("\n");
            let left_out = 10_000 - refused;
            assert!(told.contains("WARN") && told.contains(&format!("lines={left_out}")), "{told}");
            assert!(told.contains("stranger refused"), "{told}");
            refuse(10_000);
            assert_eq!(written.take().len() as u32, LINES_PER_INTERVAL);
            // The flood is reported once when it is over, and in time all is as before.
            throttle.tell();
            assert_eq!(written.take().len(), 1);
            (0..LINES_AT_ONCE / LINES_PER_INTERVAL).for_each(|_| throttle.tell());
            assert!(written.take().is_empty());
            assert!(throttle.places.lock().unwrap().is_empty());
        });
    }
}
