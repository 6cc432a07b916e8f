//! `imux-lab`: imux and its peers, measured side by side on real kernels.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    imux_lab::cli::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("imux-lab: it needs Linux (namespaces, TUN devices, /proc)");
    ExitCode::from(77)
}
