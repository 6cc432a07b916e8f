//! `imux gateway`: asks the client that is to be one.

use std::path::Path;

use tokio::task::spawn_blocking;

use super::nft::{self, Problem};
use super::plan::Plan;
use super::rules::{KILL_SWITCH, TABLE};
use crate::cli::config::require_home;
use crate::cli::control::{Answer, GatewayRequest, ask_clients};
use crate::cli::exit::{Exit, Failure};
use crate::cli::text::print;

/// Does what is asked, and says what there is then.
pub async fn run_gateway(request: GatewayRequest, home: Option<&Path>) -> Result<Exit, Failure> {
    let home = require_home(home)?;
    let said = match request {
        GatewayRequest::Up(plan) => up(home, plan).await?,
        GatewayRequest::Down => down(home).await?,
        GatewayRequest::Show => show(home).await?,
    };
    print(format!("{said}\n")).await.map_err(|error| {
        Failure::message(Exit::Config, format!("cannot print the result: {error}"))
    })?;
    Ok(Exit::Ok)
}

/// The clients that take what the kernel hands them, and what each says.
async fn gateways(home: &Path) -> Result<Vec<Answer>, Failure> {
    ask_clients(home, &GatewayRequest::Show).await.map_err(|error| {
        let home = home.display();
        let what = format!(
            "cannot ask the clients with their keys in {home}: {error}; nothing was changed"
        );
        Failure::message(Exit::Config, what)
    })
}

async fn up(home: &Path, plan: Plan) -> Result<String, Failure> {
    let mut able = gateways(home).await?;
    able.retain(|client| client.said.is_ok());
    match able.as_slice() {
        [one] => {
            let said = one.ask(&GatewayRequest::Up(plan)).await;
            said.map_err(|why| failure(&format!("the gateway is not set up: {why}")))
        }
        [] => Err(failure(&format!(
            "no client with its keys in {} takes what the kernel hands it; nothing was changed; start one, such as \
             `imux client --dial server.example:443 --transparent 7070`, as the same user, and try again once it is ready",
            home.display()
        ))),
        several => {
            let who: Vec<_> = several.iter().map(|client| client.name.as_str()).collect();
            Err(failure(&format!(
                "several clients could be the gateway: {}; nothing was changed; start all but one without --transparent",
                who.join(", ")
            )))
        }
    }
}

async fn down(home: &Path) -> Result<String, Failure> {
    let mut said = Vec::new();
    for client in gateways(home).await? {
        if client.said.is_ok() {
            let down = client.ask(&GatewayRequest::Down).await;
            let down = down.map_err(|why| failure(&format!("the gateway stays up: {why}")))?;
            said.push(format!("{}: {down}", client.name));
        }
    }
    // Where the client has gone, it is for this process to do.
    match blocking(nft::remove_kill_switch).await? {
        Ok(true) => said.push("the kill switch is gone".to_owned()),
        Ok(false) => {}
        Err(Problem::NotAllowed) if !said.is_empty() => {}
        Err(problem) => {
            return Err(failure(&format!(
                "whether there is a kill switch is not known: {problem}"
            )));
        }
    }
    if said.is_empty() {
        said.push("there was nothing to remove".to_owned());
    }
    Ok(said.join("\n"))
}

async fn show(home: &Path) -> Result<String, Failure> {
    let mut lines = Vec::new();
    for client in gateways(home).await? {
        let (Ok(said) | Err(said)) = client.said;
        lines.push(format!("{}: {said}", client.name));
    }
    if lines.is_empty() {
        lines.push("no client is running that could be a gateway".to_owned());
    }
    for name in [TABLE, KILL_SWITCH] {
        match blocking(move || nft::table(name)).await? {
            Ok(Some(table)) => lines.push(table.trim_end().to_owned()),
            Ok(None) => lines.push(format!("there is no table inet {name}")),
            Err(problem) => lines.push(format!("the table inet {name} is not shown: {problem}")),
        }
    }
    Ok(lines.join("\n"))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    spawn_blocking(work).await.map_err(|error| Failure::new(Exit::Internal, error))
}

fn failure(message: &str) -> Failure {
    Failure::message(Exit::Gateway, message)
}
