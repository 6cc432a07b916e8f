//! The log on standard error.
//!
//! Levels: errors and warnings always; `info` is what an operator wants to see in a healthy run
//! (ready, lanes that come and go); `debug` is per connection; `trace` is per frame. Except for the
//! last two, lines that others cause are bounded (`throttle`). Logging never waits for the reader
//! (`output`).

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Once, OnceLock};

use throttle::Throttle;
use tracing_subscriber::filter::{Directive, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use super::exit::{Exit, Failure};

mod audit;
mod output;
mod throttle;

pub use output::{Hold, stderr};

pub use audit::Audit;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub level: Level,
    pub json: bool,
    /// The audit trail's file.
    pub audit: Option<PathBuf>,
}

/// The audit trail of this process, if it has one in a file.
static AUDIT: OnceLock<Audit> = OnceLock::new();

/// Changes what is logged, beside what RUST_LOG and the audit trail want.
type FilterChanges = (reload::Handle<EnvFilter, Registry>, Option<String>, bool);

static FILTER: OnceLock<FilterChanges> = OnceLock::new();

/// Reopens files that were moved away.
pub fn reopen_files() {
    if let Some(audit) = AUDIT.get() {
        audit.reopen();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Quiet,
    Normal,
    Debug,
}

impl Level {
    /// imux's own events, and fewer from the libraries below it.
    fn directives(self) -> &'static str {
        match self {
            Level::Quiet => "warn",
            Level::Normal => "warn,imux=info",
            Level::Debug => "info,imux=debug",
        }
    }
}

/// Installs the log for the whole process.
pub fn install(options: &Options) -> Result<(), Failure> {
    let rust_log = std::env::var_os("RUST_LOG");
    let rust_log = rust_log.as_deref().map(|value| value.to_string_lossy());
    // The trail is only for those who ask for it, in a file or by name.
    let shown = rust_log.as_deref().is_some_and(|value| value.contains(audit::TARGET));
    let wants_audit = options.audit.is_some();
    let whole = whole_filter(options.level, rust_log.as_deref(), wants_audit)?;
    let (filter, changes) = reload::Layer::new(whole);
    let rust_log = rust_log.map(Cow::into_owned);
    let _ = FILTER.set((changes, rust_log, wants_audit));
    let audit = options.audit.as_deref().map(open_audit).transpose()?;
    let output = stderr().map_err(|error| {
        Failure::message(Exit::Internal, format!("no thread for the log: {error}"))
    })?;
    let throttle = Throttle::default();
    throttle.start();
    let log = tracing_subscriber::registry().with(filter).with(throttle).with(audit);
    let wanted = filter_fn(move |event| shown || event.target() != audit::TARGET);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(move || output.clone())
        // A closed standard error must not become a panic.
        .log_internal_errors(false)
        .with_ansi(colour_wanted(io::stderr().is_terminal(), |name| {
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        }));
    let installed = if options.json {
        let lines = lines.json().flatten_event(true);
        let lines = lines.with_current_span(true).with_span_list(false);
        log.with(lines.with_filter(wanted)).try_init()
    } else {
        let lines = lines.with_target(options.level == Level::Debug);
        log.with(lines.with_filter(wanted)).try_init()
    };
    installed.map_err(|error| Failure::message(Exit::Internal, format!("no log: {error}")))
}

/// What is logged, by all that has a say in it.
fn whole_filter(
    level: Level,
    rust_log: Option<&str>,
    wants_audit: bool,
) -> Result<EnvFilter, Failure> {
    let filter =
        filter(level, rust_log).map_err(|problem| Failure::message(Exit::Usage, problem))?;
    let filter = filter.add_directive(told_of_lost_lines()?);
    let shown = rust_log.is_some_and(|value| value.contains(audit::TARGET));
    Ok(if shown { filter } else { filter.add_directive(of_audit(wants_audit)?) })
}

/// Logs more or less from now on.
pub fn set_level(level: Level) {
    let Some((changes, rust_log, wants_audit)) = FILTER.get() else { return };
    let changed = whole_filter(level, rust_log.as_deref(), *wants_audit)
        .map_err(|failure| failure.to_string())
        .and_then(|filter| changes.reload(filter).map_err(|error| error.to_string()));
    if let Err(error) = changed {
        tracing::error!(error, "the log stays as it was");
    }
}

fn open_audit(path: &Path) -> Result<Audit, Failure> {
    let audit = Audit::open(path).map_err(|error| {
        let file = path.display();
        let message = format!(
            "cannot write the audit trail to {file}: {error}; nothing was started; give --audit a file in a directory that \
             is there and can be written to"
        );
        Failure::message(Exit::Config, message)
    })?;
    Ok(AUDIT.get_or_init(|| audit).clone())
}

/// The whole audit trail, streams included, or nothing.
fn of_audit(wanted: bool) -> Result<Directive, Failure> {
    let level = if wanted { "debug" } else { "off" };
    let directive = format!("{}={level}", audit::TARGET).parse();
    directive.map_err(|error| Failure::message(Exit::Internal, format!("no log: {error}")))
}

/// No filter may hide that lines are missing.
fn told_of_lost_lines() -> Result<Directive, Failure> {
    let directive = format!("{}=warn", output::TARGET).parse();
    directive.map_err(|error| Failure::message(Exit::Internal, format!("no log: {error}")))
}

/// RUST_LOG, if set, decides alone; with `--debug` or `--quiet` it refines the option.
fn filter(level: Level, rust_log: Option<&str>) -> Result<EnvFilter, String> {
    let directives = match rust_log.map(str::trim).filter(|value| !value.is_empty()) {
        None => level.directives().to_owned(),
        Some(value) if level == Level::Normal => value.to_owned(),
        Some(value) => format!("{},{value}", level.directives()),
    };
    EnvFilter::builder().parse(&directives).map_err(|error| {
        let shown = super::text::escape(rust_log.unwrap_or_default());
        format!(
            "RUST_LOG={shown} is not understood: {error}; \
             write levels such as debug or imux=debug,imux::proto=trace, or unset it"
        )
    })
}

/// Colour helps people at terminals and nobody else.
fn colour_wanted(is_terminal: bool, env: impl Fn(&str) -> Option<String>) -> bool {
    // https://no-color.org: any non-empty value.
    let no_color = env("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = env("TERM").is_some_and(|value| value == "dumb");
    is_terminal && !no_color && !dumb
}

/// Says why the program ends. Not through the log, which a filter may have silenced.
pub fn report_failure(failure: &Failure, json: bool) {
    let line = failure_line(failure, json) + "\n";
    // Nothing can be done about a closed standard error.
    let _ = match stderr() {
        Ok(mut output) => output.write_all(line.as_bytes()),
        Err(_) => io::stderr().write_all(line.as_bytes()),
    };
}

/// Lets the log's last lines reach their reader, if it takes them.
pub fn flush_for_the_end() {
    if let Some(audit) = AUDIT.get() {
        audit.flush_for_the_end();
    }
    if let Ok(output) = stderr() {
        output.flush_for_the_end();
    }
}

fn failure_line(failure: &Failure, json: bool) -> String {
    if json {
        let code = failure.exit.code();
        let message = failure.to_string();
        let mut timestamp = String::new();
        // In the same form as the log's other lines.
        let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
        return serde_json::json!({
            "timestamp": timestamp, "level": "ERROR", "message": message, "exit_code": code
        })
        .to_string();
    }
    format!("imux: error: {failure}")
}

/// Turns a panic into one log event: the message in the log's own form, with its location.
pub fn log_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let payload = info.payload();
            let message = payload.downcast_ref::<String>().map(String::as_str);
            let message =
                message.or_else(|| payload.downcast_ref().copied()).unwrap_or("no message");
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(place, "internal error, please report it: {message}");
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_rust_log() {
        for (level, rust_log, expected) in [
            (Level::Normal, None, "imux=info,warn"),
            (Level::Normal, Some(""), "imux=info,warn"),
            (Level::Quiet, None, "warn"),
            (Level::Debug, None, "imux=debug,info"),
            (Level::Normal, Some("error"), "error"),
            (Level::Normal, Some("imux::proto=trace"), "imux::proto=trace"),
            (Level::Debug, Some("imux::proto=trace"), "imux::proto=trace,imux=debug,info"),
            (Level::Quiet, Some("imux::lane=info"), "imux::lane=info,warn"),
        ] {
            let filter = filter(level, rust_log).unwrap();
            assert_eq!(filter.to_string(), expected, "{level:?} {rust_log:?}");
        }
    }

    #[test]
    fn a_bad_rust_log_is_told() {
        let error = filter(Level::Normal, Some("imux=loud\x1b")).unwrap_err();
        assert!(error.contains("RUST_LOG=imux=loud\\u{1b}"), "{error}");
        assert!(error.contains("imux=debug"), "{error}");
    }

    #[test]
    fn colour_only_for_people() {
        let with = |name: &'static str, value: &'static str| {
            move |asked: &str| (asked == name).then(|| value.to_owned())
        };
        assert!(colour_wanted(true, |_| None));
        assert!(!colour_wanted(false, |_| None));
        assert!(!colour_wanted(true, with("NO_COLOR", "1")));
        assert!(colour_wanted(true, with("NO_COLOR", "")));
        assert!(!colour_wanted(true, with("TERM", "dumb")));
    }

    #[test]
    fn the_last_word() {
        let failure = Failure::message(Exit::Listen, "port \"443\" in use");
        assert_eq!(failure_line(&failure, false), "imux: error: port \"443\" in use");
        let json: serde_json::Value = serde_json::from_str(&failure_line(&failure, true)).unwrap();
        assert_eq!(json["exit_code"], 4);
        assert!(json["timestamp"].as_str().unwrap().ends_with('Z'), "{json}");
        assert_eq!(json["message"], "port \"443\" in use");
    }
}
