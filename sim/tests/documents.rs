//! The commands of imux-sim that documents show are commands it understands.

use std::process::Command;

#[path = "../../tests/support/shown.rs"]
mod shown;

use shown::{DOCUMENTS, commands};

#[test]
fn each_command_of_the_documents_is_understood() {
    let mut seen = 0;
    for document in DOCUMENTS {
        for command in commands(document, "imux-sim") {
            // All that comes before it has to be right for help to be shown.
            let args = command.split_whitespace().chain(["--help"]);
            let output = Command::new(env!("CARGO_BIN_EXE_imux-sim")).args(args).output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{document}: {command}: {told}");
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen}");
}
