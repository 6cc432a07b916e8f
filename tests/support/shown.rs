//! The commands of a program that documents show.

use std::fs;
use std::path::Path;

/// The documents that show any.
pub(crate) const DOCUMENTS: [&str; 6] = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/FIGURES.md",
    "docs/GUIDE.md",
    "lab/README.md",
    "sim/README.md",
];

/// What follows the name of `program` in each command of a document's blocks.
pub(crate) fn commands(document: &str, program: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let text = fs::read_to_string(path).unwrap().replace("\\\n", " ");
    let name = format!("{program} ");
    let mut inside = false;
    let mut commands = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = !inside;
        }
        let line = line.split(" #").next().unwrap();
        // It comes after `cargo run … -p PROGRAM …`, or is the command itself.
        let args = line.split_once(&name).map(|(_, args)| args);
        let args = args.map(|args| args.split_once("-- ").map_or(args, |(_, args)| args));
        commands.extend(args.filter(|_| inside).map(|args| args.trim().to_owned()));
    }
    commands
}
