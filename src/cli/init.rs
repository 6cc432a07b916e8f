//! `imux init`: from a machine on which imux was never run to a file and a unit, in four questions.

use super::config::{InitConfig, InitRole, require_home};
use super::exit::{Exit, Failure};
use super::text::print;

mod ask;
mod client;
mod files;
mod how;
mod server;
mod unit;

use ask::Questions;
use files::failure;
use how::How;

/// Asks what is not said, writes what was asked for, and tells what comes next.
pub(super) async fn run_init(config: InitConfig) -> Result<Exit, Failure> {
    let home = std::path::absolute(require_home(config.home.as_deref())?);
    let home = home.map_err(|error| failure(&format!("the directory of keys: {error}")))?;
    let questions = Questions::new(config.yes);
    let how = How { home, unit: config.unit, force: config.force, print: config.print };
    let told = match config.role {
        InitRole::Server(server) => server::init(server, questions, &how).await,
        InitRole::Client(client) => client::init(client, questions, &how).await,
    }?;
    print(told).await.map_err(|error| {
        let what = format!("cannot print the result: {error}; what was asked for is done");
        Failure::message(Exit::Config, what)
    })?;
    Ok(Exit::Ok)
}
