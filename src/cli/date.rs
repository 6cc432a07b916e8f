//! The date, as written to files.

#[expect(clippy::disallowed_methods, reason = "a date is written to a file for people and servers")]
pub(super) fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
