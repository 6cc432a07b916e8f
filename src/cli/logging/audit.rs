//! The audit trail in a file of its own: a line of JSON for each event of the target `imux::audit`.
//!
//! A separate thread writes. Lines that find no room in its queue or on the disk are counted and
//! reported in the log and in the trail itself; nobody waits.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::cli::date::now;

/// The target of the events.
pub(super) const TARGET: &str = "imux::audit";

/// Lines that may wait for the disk, some 300 bytes each.
const QUEUE_LINES: usize = 8_192;

/// How long the program's end waits for the disk.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// How often at most the log reports lines that could not be written.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The way into the file.
#[derive(Clone, Debug)]
pub struct Audit {
    queue: SyncSender<Order>,
    /// Lines that found no room.
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Order {
    Line(String),
    /// The file may have been moved away.
    Reopen,
    /// Answer when everything before this has been written.
    Flush(SyncSender<()>),
}

impl Audit {
    /// Appends to the file at `path`, created for its owner only.
    ///
    /// # Errors
    /// It cannot be opened, or no thread could be started.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        let (queue, orders) = sync_channel(QUEUE_LINES);
        let lost = Arc::<AtomicU64>::default();
        let writer =
            Writer { path: path.to_owned(), file: Some(file), lost: lost.clone(), torn: false };
        thread::Builder::new().name("imux-audit".to_owned()).spawn(move || writer.run(&orders))?;
        Ok(Self { queue, lost })
    }

    /// Starts a new file, if the old one was moved away.
    pub fn reopen(&self) {
        // A full queue shows itself: its lost lines are reported.
        let _ = self.queue.try_send(Order::Reopen);
    }

    /// Waits until everything is written, but not for long.
    pub(super) fn flush_for_the_end(&self) {
        let (tell, told) = sync_channel(1);
        if self.queue.try_send(Order::Flush(tell)).is_ok() {
            let _ = told.recv_timeout(FLUSH_PATIENCE);
        }
    }
}

impl<S: Subscriber> Layer<S> for Audit {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != TARGET {
            return;
        }
        let mut fields = Fields(Map::new());
        fields.0.insert("time".to_owned(), timestamp().into());
        fields.0.insert("level".to_owned(), event.metadata().level().as_str().into());
        event.record(&mut fields);
        let line = Value::Object(fields.0).to_string() + "\n";
        if self.queue.try_send(Order::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn timestamp() -> String {
    OffsetDateTime::from(now()).format(&Rfc3339).unwrap_or_default()
}

/// An event's fields as JSON; its message says what kind of event it is.
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        let name = if field.name() == "message" { "event" } else { field.name() };
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The writing thread.
struct Writer {
    path: PathBuf,
    file: Option<File>,
    lost: Arc<AtomicU64>,
    /// The last line may be incomplete.
    torn: bool,
}

impl Writer {
    fn run(mut self, orders: &Receiver<Order>) {
        let mut told: Option<std::time::SystemTime> = None;
        while let Ok(order) = orders.recv() {
            match order {
                Order::Line(line) => self.write(&line),
                Order::Reopen => self.reopen(),
                Order::Flush(done) => {
                    let _ = done.send(());
                }
            }
            let lost = self.lost.load(Ordering::Relaxed);
            if lost == 0 {
                continue;
            }
            let since = told.and_then(|at| now().duration_since(at).ok());
            if told.is_none() || since.is_some_and(|since| since >= TELL_EVERY) {
                told = Some(now());
                let file = self.path.display();
                tracing::error!(lines = lost, %file, "lines of the audit trail could not be written");
            }
            self.account(lost);
        }
    }

    /// Reports losses in the trail itself, once writing works again.
    fn account(&mut self, lost: u64) {
        let line = json!({ "time": timestamp(), "level": "ERROR", "event": "lost", "lines": lost });
        if self.try_write(&format!("{line}\n")).is_ok() {
            self.lost.fetch_sub(lost, Ordering::Relaxed);
        }
    }

    fn reopen(&mut self) {
        match open(&self.path) {
            Ok(file) => (self.file, self.torn) = (Some(file), false),
            Err(error) => {
                tracing::error!(%error, file = %self.path.display(), "the audit trail cannot be opened again");
            }
        }
    }

    fn write(&mut self, line: &str) {
        if self.try_write(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn try_write(&mut self, line: &str) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(open(&self.path)?),
        };
        if self.torn {
            file.write_all(b"\n")?;
        }
        self.torn = true;
        file.write_all(line.as_bytes())?;
        self.torn = false;
        Ok(())
    }
}
