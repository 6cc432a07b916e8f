//! The `imux` program: parse, run, exit code.

#![forbid(unsafe_code)]

mod cli;

/// Buffers of a quarter megabyte come and go with every read: the system's allocator gives them
/// back to the kernel each time, and page faults were a tenth of all CPU time.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(invocation) => cli::run(invocation).into(),
        Err(early) => early.report().into(),
    }
}
