//! Tests that cannot run here, for want of a program, of rights or of a setting. To the test
//! harness they have passed: each leaves a mark, and `sim/tests/skipped.rs`, which runs after them,
//! counts and lists them.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the marks are: a file per test, holding the reason.
fn marks() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped")
}

/// Whether to skip this test, because there is a reason `why`, which is printed. With
/// `IMUX_REQUIRE_PROGRAMS=1` a reason is a failure.
#[track_caller]
pub(crate) fn because(why: Option<String>) -> bool {
    let required = std::env::var("IMUX_REQUIRE_PROGRAMS").is_ok_and(|value| value == "1");
    assert!(!required || why.is_none(), "{}", why.unwrap_or_default());
    mark(why.as_deref())
}

/// Like [`because`], for tests that nobody requires and that run only when asked for.
pub(crate) fn mark(why: Option<&str>) -> bool {
    let file = marks().join(format!("{}::{}", env!("CARGO_CRATE_NAME"), this_test()));
    let Some(why) = why else {
        // It may have been skipped the last time.
        let _ = fs::remove_file(file);
        return false;
    };
    eprintln!("*** SKIPPED: {why} ***");
    fs::create_dir_all(marks()).unwrap();
    fs::write(file, why).unwrap();
    true
}

/// The harness gives each test a thread with its name, unless it runs just one, which was asked for
/// by name.
fn this_test() -> String {
    let thread = std::thread::current();
    let name = thread.name().filter(|name| *name != "main").map(str::to_owned);
    let asked = || std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    name.or_else(asked).unwrap_or_else(|| "a test".to_owned())
}
