//! Runs all targets over their corpora once, and says how long it took: for coverage and figures.

use std::path::Path;
use std::time::Instant;

fn main() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    println!("{:12} {:>6} {:>9} {:>12}", "target", "inputs", "bytes", "executions/s");
    for (name, run) in imux::fuzz::TARGETS {
        let folder = corpora.join(name);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}"));
        let inputs: Vec<Vec<u8>> =
            entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
        let started = Instant::now();
        for input in &inputs {
            run(input);
        }
        let per_second = inputs.len() as f64 / started.elapsed().as_secs_f64();
        let bytes: usize = inputs.iter().map(Vec::len).sum();
        println!("{name:12} {:6} {bytes:9} {per_second:12.0}", inputs.len());
    }
}
