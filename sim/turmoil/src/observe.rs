//! The driver's own log, as events of the run.

use std::fmt::{Debug, Write as _};
use std::io::Write as _;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::book::Book;

/// Messages that mean something for a run, and what they are counted as.
const KNOWN: &[(&str, &str)] = &[
    ("lane up", "lane up"),
    ("lane does not answer", "lane suspect"),
    ("a lane could not be made; trying again", "lane failed"),
    ("a lane still cannot be made", "lane failed again"),
    ("no lane: handshake timed out", "handshake timed out"),
    ("session created", "session created"),
    ("the server does not know the session", "join refused"),
];

/// Why a lane went down, by a part of what is said, and what that is counted as.
const REASONS: &[(&str, &str)] = &[
    ("lane timed out", "lane down: timed out"),
    ("no close_notify", "lane down: cut"),
    ("reset", "lane down: reset"),
    ("decrypt", "lane down: corrupt"),
    ("BadRecordMac", "lane down: told of corruption"),
];

/// Writes down in the book what the driver logs on this thread.
#[derive(Debug)]
pub struct Observer {
    pub book: Arc<Book>,
    /// Print it, too.
    pub print: bool,
}

impl<S: Subscriber> Layer<S> for Observer {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target().starts_with("imux::")
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let known = KNOWN.iter().find(|(message, _)| *message == said.message);
        if let Some((_, what)) = known {
            self.book.note(what, "net", 0, 0, 0);
        }
        if said.message == "lane down" {
            let known = REASONS.iter().find(|(part, _)| said.fields.contains(part));
            let what = known.map_or("lane down: otherwise", |(_, what)| what);
            self.book.note(what, "net", 0, 0, 0);
        }
        if self.print {
            let now = turmoil::sim_elapsed().unwrap_or_default();
            // Whoever has heard enough ends the program, not the run.
            let _ = writeln!(
                std::io::stdout(),
                "{:>9.3} s  {}{}",
                now.as_secs_f64(),
                said.message,
                said.fields
            );
        }
    }
}

#[derive(Default)]
struct Said {
    message: String,
    fields: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
