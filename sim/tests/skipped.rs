//! The last of the tests: how many could not be run here, which, and why. The harness knows
//! no tests that are skipped as they run; it shows them as passed.

use std::fs;
use std::path::Path;

fn main() {
    // Whoever asks for tests is told that this is none: it is for the end of a run.
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    let marks = Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped");
    let mut skipped: Vec<_> = fs::read_dir(marks).into_iter().flatten().flatten().collect();
    skipped.sort_by_key(fs::DirEntry::file_name);
    println!("tests that were skipped: {}", skipped.len());
    for mark in skipped {
        let why = fs::read_to_string(mark.path()).unwrap_or_default();
        println!("  {}: {why}", mark.file_name().display());
    }
}
