//! The commands of imux-lab that documents show are commands it understands, and the cells they
//! name exist.
#![cfg(target_os = "linux")]

use std::process::{Command, Output};

#[path = "../../tests/support/shown.rs"]
mod shown;

use shown::{DOCUMENTS, commands};

fn imux_lab(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_imux-lab")).args(args).output().unwrap()
}

#[test]
fn each_command_of_the_documents_is_understood() {
    let cells = String::from_utf8(imux_lab(&["cells"]).stdout).unwrap();
    let mut seen = 0;
    for document in DOCUMENTS {
        for command in commands(document, "imux-lab") {
            let mut args: Vec<_> = command.split_whitespace().collect();
            let named = args.iter().position(|word| *word == "--cells").map(|at| args[at + 1]);
            for cell in named.into_iter().flat_map(|named| named.split(',')) {
                let known = cells.lines().any(|line| line.starts_with(cell));
                assert!(known, "{document}: {command}: there is no cell {cell}");
            }
            // All that comes before it has to be right for help to be shown.
            args.push("--help");
            let output = imux_lab(&args);
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{document}: {command}: {told}");
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen}");
}
