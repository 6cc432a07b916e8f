//! Replays the inputs that fuzzing found worth keeping: `fuzz/corpus/TARGET/*`.

use std::fs;
use std::panic;
use std::path::Path;

/// Runs a target over its corpus, which must exist.
pub(crate) fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let inputs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    assert!(inputs.len() >= INPUTS_MIN, "{folder:?} holds only {} inputs", inputs.len());
    let fails = |input: &&std::path::PathBuf| {
        let bytes = fs::read(input).unwrap();
        panic::catch_unwind(|| run(&bytes)).is_err()
    };
    let failing: Vec<_> = inputs.iter().filter(fails).collect();
    assert!(failing.is_empty(), "the target {target} fails with {failing:?}");
}

/// Even the smallest target has this many paths; fewer inputs are no corpus.
const INPUTS_MIN: usize = 10;
