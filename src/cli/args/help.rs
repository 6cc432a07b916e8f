//! What is at the end of every long help.

use crate::cli::exit;

const ENVIRONMENT: &str = "\
Environment:
  IMUX_HOME  directory of keys and known servers (default: ~/.imux)
  RUST_LOG   what is logged, such as imux=debug or imux::proto=trace
  NO_COLOR   no colours, if set";

/// The examples of a command, and what holds for all of them.
pub(super) fn long_help(examples: &str) -> String {
    format!("{examples}\n\n{ENVIRONMENT}\n\n{}", exit::HELP)
}
