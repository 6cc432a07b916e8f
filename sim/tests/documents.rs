//! The commands of imux-sim that documents show are commands it understands, and the cells they name exist.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const DOCUMENTS: [&str; 5] =
    ["README.md", "CONTRIBUTING.md", "docs/FIGURES.md", "docs/GUIDE.md", "sim/README.md"];

fn imux_sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_imux-sim")).args(args).output().unwrap()
}

/// What follows the program's name in each command of a document's blocks.
fn commands(document: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let text = fs::read_to_string(path).unwrap().replace("\\\n", " ");
    let mut inside = false;
    let mut commands = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = !inside;
        }
        let line = line.split(" #").next().unwrap();
        // Comes after `cargo run … -p imux-sim …`, or is the command itself.
        let args = line.split_once("imux-sim ").map(|(_, args)| args);
        let args = args.map(|args| args.split_once("-- ").map_or(args, |(_, args)| args));
        commands.extend(args.filter(|_| inside).map(|args| args.trim().to_owned()));
    }
    commands
}

#[test]
fn each_command_of_the_documents_is_understood() {
    let cells = String::from_utf8(imux_sim(&["lab", "cells"]).stdout).unwrap();
    let mut seen = 0;
    for document in DOCUMENTS {
        for command in commands(document) {
            let mut args: Vec<_> = command.split_whitespace().collect();
            let named = args.iter().position(|word| *word == "--cells").map(|at| args[at + 1]);
            for cell in named.into_iter().flat_map(|named| named.split(',')) {
                let known = cells.lines().any(|line| line.starts_with(cell));
                assert!(known, "{document}: {command}: there is no cell {cell}");
            }
            // All that comes before it has to be right for help to be shown.
            args.push("--help");
            let output = imux_sim(&args);
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{document}: {command}: {told}");
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen}");
}
