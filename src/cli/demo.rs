//! `imux demo`.

use super::config::DemoConfig;
use super::exit::{Exit, Failure};

pub(super) async fn run_demo(config: DemoConfig) -> Result<Exit, Failure> {
    Err(Failure::message(Exit::Internal, format!("{} bytes", config.bytes)))
}
