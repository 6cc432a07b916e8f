//! The `imux` program: parse, run, exit code.

#![forbid(unsafe_code)]

mod cli;

fn main() -> std::process::ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(invocation) => cli::run(invocation).into(),
        Err(early) => early.report().into(),
    }
}
