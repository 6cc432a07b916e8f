//! `imux-lab`: imux and its peers, measured side by side on real kernels.

use std::process::ExitCode;

fn main() -> ExitCode {
    imux_lab::cli::main()
}
