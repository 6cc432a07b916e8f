//! Checks for settings that make no sense, and setters that reject them.

use std::time::Duration;

use thiserror::Error;

use super::Config;
use crate::proto::scheduler::SchedulerKind;

/// The largest number the wire can carry (RFC 9000, 16).
const NUMBER_MAX: u64 = (1 << 62) - 1;

/// Longest grace time and keep-alive: a week. Keeping anything longer for nobody is a leak, and a
/// lane pinged less often is not kept alive.
const TIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// A setting that makes no sense: nothing could be sent, or the peer could not be told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{setting} is {value}: it has to be {range}")]
#[non_exhaustive]
pub struct InvalidConfig {
    /// The field of [`Config`].
    pub setting: &'static str,
    /// The value it has.
    pub value: String,
    /// The values it may have.
    pub range: &'static str,
}

impl Config {
    /// Whether the settings make sense. [`Client::connect`](crate::Client::connect) and
    /// [`Server::start`](crate::Server::start) check this; the setters reject bad values up front.
    ///
    /// # Errors
    /// The first setting that does not.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use imux::Config;
    ///
    /// let config = Config::default()
    ///     .with_session_window(32 << 20)?
    ///     .with_grace(Duration::from_secs(600))?;
    /// assert!(config.check().is_ok());
    /// let mut config = Config::default();
    /// config.stream_window = 0;
    /// assert!(config.check().is_err());
    /// # Ok::<(), imux::InvalidConfig>(())
    /// ```
    pub fn check(&self) -> Result<(), InvalidConfig> {
        number("stream_window", self.stream_window)?;
        number("stream_window_max", self.stream_window_max)?;
        number("session_window", self.session_window)?;
        number("session_window_initial", self.session_window_initial)?;
        number("send_buffer_max", self.send_buffer_max)?;
        number("streams_max", self.streams_max)?;
        time("grace", self.grace)?;
        time("keepalive", self.keepalive)?;
        if self.keepalive.is_zero() {
            return Err(invalid("keepalive", "0".to_owned(), "more than no time"));
        }
        if (0.0..=1.0).contains(&self.duplicate_share) {
            return Ok(());
        }
        Err(invalid("duplicate_share", self.duplicate_share.to_string(), "from 0 to 1"))
    }

    fn changed(mut self, change: impl FnOnce(&mut Self)) -> Result<Self, InvalidConfig> {
        change(&mut self);
        self.check().map(|()| self)
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $field:ident, $kind:ty;)*) => {
        impl Config {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// It makes no sense.
                pub fn $name(self, value: $kind) -> Result<Self, InvalidConfig> {
                    self.changed(|config| config.$field = value)
                }
            )*
        }
    };
}

setters! {
    /// Sets [`stream_window`](Self#structfield.stream_window), in bytes.
    with_stream_window: stream_window, u64;
    /// Sets [`stream_window_max`](Self#structfield.stream_window_max), in bytes.
    with_stream_window_max: stream_window_max, u64;
    /// Sets [`session_window`](Self#structfield.session_window), in bytes.
    with_session_window: session_window, u64;
    /// Sets [`session_window_initial`](Self#structfield.session_window_initial), in bytes.
    with_session_window_initial: session_window_initial, u64;
    /// Sets [`send_buffer_max`](Self#structfield.send_buffer_max), in bytes.
    with_send_buffer_max: send_buffer_max, u64;
    /// Sets [`streams_max`](Self#structfield.streams_max).
    with_streams_max: streams_max, u64;
    /// Sets [`grace`](Self#structfield.grace).
    with_grace: grace, Duration;
    /// Sets [`keepalive`](Self#structfield.keepalive).
    with_keepalive: keepalive, Duration;
    /// Sets [`scheduler`](Self#structfield.scheduler).
    with_scheduler: scheduler, SchedulerKind;
    /// Sets [`duplicate_share`](Self#structfield.duplicate_share), of 1.
    with_duplicate_share: duplicate_share, f64;
}

fn number(setting: &'static str, value: u64) -> Result<(), InvalidConfig> {
    if (1..=NUMBER_MAX).contains(&value) {
        return Ok(());
    }
    Err(invalid(setting, value.to_string(), "at least 1, and less than 2^62"))
}

fn time(setting: &'static str, value: Duration) -> Result<(), InvalidConfig> {
    if value <= TIME_MAX {
        return Ok(());
    }
    Err(invalid(setting, format!("{value:?}"), "a week at most"))
}

fn invalid(setting: &'static str, value: String, range: &'static str) -> InvalidConfig {
    InvalidConfig { setting, value, range }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_sense() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        type Change = fn(Config) -> Result<Config, InvalidConfig>;
        let week = Duration::from_secs(7 * 24 * 3600);
        let changes: [(&str, Change); 10] = [
            ("stream_window", |config| config.with_stream_window(0)),
            ("stream_window_max", |config| config.with_stream_window_max(1 << 62)),
            ("session_window", |config| config.with_session_window(u64::MAX)),
            ("session_window_initial", |config| config.with_session_window_initial(0)),
            ("send_buffer_max", |config| config.with_send_buffer_max(0)),
            ("streams_max", |config| config.with_streams_max(0)),
            ("grace", |config| config.with_grace(Duration::MAX)),
            ("keepalive", |config| config.with_keepalive(Duration::ZERO)),
            ("duplicate_share", |config| config.with_duplicate_share(f64::NAN)),
            ("duplicate_share", |config| config.with_duplicate_share(1.01)),
        ];
        for (setting, change) in changes {
            let error = change(Config::default()).unwrap_err();
            assert_eq!(error.setting, setting);
            assert!(error.to_string().starts_with(setting), "{error}");
        }
        assert!(Config::default().with_grace(week).is_ok());
        assert!(Config::default().with_grace(week + Duration::from_nanos(1)).is_err());
    }
}
