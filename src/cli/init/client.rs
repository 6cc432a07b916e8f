//! `imux init client`.

use std::time::Duration;

use imux::trust::{Invitation, KnownHosts};
use zeroize::Zeroizing;

use super::ask::{Question, Questions};
use super::files::failure;
use super::how::{How, finish};
use super::unit::{Role, Service};
use crate::cli::address::HostPort;
use crate::cli::bind::{BindArg, Binds};
use crate::cli::config::{InitClient, Introduction, KeyExchange, Task, binds};
use crate::cli::exit::{Exit, Failure};
use crate::cli::forward::Forward;
use crate::cli::keys::{accept_invitation, parse_invitation, read_invitation};
use crate::cli::links;
use crate::cli::listening::listen_locally;
use crate::cli::trust::trust_failure;

/// How long one attempt to reach the server may take: as --connect-timeout of imux accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where programs connect to, unless somebody says otherwise.
const LISTEN: &str = "localhost:2222";

/// Sets up a client.
pub(super) async fn init(
    asked: InitClient,
    mut questions: Questions,
    how: &How,
) -> Result<Zeroizing<String>, Failure> {
    let service = Service::new(Role::Client, &how.home)
        .map_err(|error| failure(&format!("cannot find this program: {error}")))?;
    let introduced = match asked.introduction {
        Introduction::Known { server, pins } => Ok((server, pins)),
        Introduction::Invited(invitation) => Err(*invitation),
        Introduction::ToBeRead => Err(ask_invitation(&mut questions).await?),
    };
    let given = Some(asked.bind).filter(|binds| !binds.is_empty());
    let now = match given {
        None if questions.has_person() => links_now().await,
        _ => String::new(),
    };
    let question = Question {
        text: &format!(
            "Over which links? `auto` is every interface that leads out, now and later{now}; or such as dev:eth0 dev:wwan0"
        ),
        proposed: Some("auto"),
        flags: "--bind",
    };
    let binds = questions.ask(given, &question, read_binds).await?;
    let question = Question {
        text: "Where do programs connect to? HOST:PORT leads to what the server has set, PORT:HOST:PORT there from the \
               server, and socks:PORT is a SOCKS and HTTP proxy; several with blanks between",
        proposed: Some(LISTEN),
        flags: "--listen, -L or -D",
    };
    let given = Some(asked.ways).filter(|ways| !ways.is_empty());
    let ways = questions.ask(given, &question, read_ways).await?;
    let unit = how.wants_unit(&mut questions, &service).await?;
    questions.all_answered()?;
    let mut words = vec!["client".to_owned(), "--keep-trying".to_owned()];
    match &introduced {
        Ok((server, pins)) => {
            words.push(format!("--dial={server}"));
            words.extend(pins.iter().map(|pin| format!("--pin={pin}")));
        }
        Err(invitation) => words.push(format!("--dial={}", invitation.server())),
    }
    words.extend(ways.unwrap_or_default());
    words.extend(binds.unwrap_or_default().iter().map(|bind| format!("--bind={bind}")));
    let known = introduced.as_ref().ok().filter(|(_, pins)| pins.is_empty());
    if let Some((server, _)) = known {
        check_known(how, server)?;
    }
    set_up(how, &service, unit, &words, introduced.err()).await
}

async fn set_up(
    how: &How,
    service: &Service,
    unit: bool,
    words: &[String],
    invitation: Option<Invitation>,
) -> Result<Zeroizing<String>, Failure> {
    let (files, task) = how.files(words, service, unit)?;
    if how.print {
        return Ok(Zeroizing::new(files.shown()));
    }
    files.check()?;
    if let Task::Client(config) = &task {
        // It gives the ports back at once.
        for forward in config.forwards.iter().filter(|_| !how.force) {
            drop(listen_locally(&forward.listen).await?);
        }
    }
    let staged = files.stage()?;
    let accepted = async {
        let Some(invitation) = &invitation else { return Ok(()) };
        let exchange = KeyExchange::PostQuantum;
        accept_invitation(&how.home, invitation, None, CONNECT_TIMEOUT, exchange).await.map(drop)
    };
    let (written, ()) = finish(staged, accepted).await?;
    Ok(how.told(&written, service, unit))
}

async fn ask_invitation(questions: &mut Questions) -> Result<Invitation, Failure> {
    if !questions.has_person() {
        return read_invitation();
    }
    let question = Question {
        text: "Paste the invitation that `imux init server` or `imux invite` has printed",
        proposed: None,
        flags: "the invitation on standard input",
    };
    let read = |text: &str| parse_invitation(text).map_err(|error| error.to_string());
    let invitation = questions.ask(None, &question, read).await?;
    invitation.ok_or_else(|| Failure::message(Exit::Usage, "there is no invitation"))
}

/// A service has nobody to ask about a key.
fn check_known(how: &How, server: &HostPort) -> Result<(), Failure> {
    let hosts = KnownHosts::new(how.home.join("known_hosts"));
    let known = hosts.lookup(server.as_written()).map_err(|error| trust_failure(&error))?;
    if known.is_some() {
        return Ok(());
    }
    Err(Failure::message(
        Exit::HostKeyUnknown,
        format!(
            "the key of {server} is not known here; nothing was written; give --pin SHA256:…, which the server logs at its \
             start, or an invitation instead of --dial"
        ),
    ))
}

/// What `auto` would be at the moment, for people.
async fn links_now() -> String {
    let Ok(auto) = BindArg::parse("auto").and_then(|auto| binds(None, vec![auto])) else {
        return String::new();
    };
    let networks = links::watch().await;
    let links = links::chosen(&auto, &networks.borrow());
    let names: Vec<_> = links.iter().map(|link| link.bind.source.to_string()).collect();
    if names.is_empty() { " (now none)".to_owned() } else { format!(" (now {})", names.join(", ")) }
}

fn read_binds(text: &str) -> Result<Vec<String>, String> {
    let words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
    let parsed = words.iter().map(|word| BindArg::parse(word)).collect::<Result<Vec<_>, _>>()?;
    let _: Binds = binds(None, parsed)?;
    Ok(words)
}

/// As options of `imux client`.
fn read_ways(text: &str) -> Result<Vec<String>, String> {
    let way = |word: &str| {
        if let Some(port) = word.strip_prefix("socks:") {
            return Forward::parse_dynamic(port).map(|_| format!("--dynamic={port}"));
        }
        if Forward::parse(word).is_ok() {
            return Ok(format!("--forward={word}"));
        }
        let at =
            if word.parse::<u16>().is_ok() { format!("localhost:{word}") } else { word.to_owned() };
        HostPort::to_listen(&at).map(|_| format!("--listen={at}"))
    };
    let ways = text.split_whitespace().map(way).collect::<Result<Vec<_>, _>>()?;
    match ways.iter().filter(|way| way.starts_with("--listen")).count() {
        _ if ways.is_empty() => Err(format!("Write a place, such as {LISTEN}.")),
        0 | 1 => Ok(ways),
        _ => Err(
            "One place can lead to what the server has set; write PORT:HOST:PORT for the others."
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_told_from_their_form() {
        for (text, ways) in [
            ("localhost:2222", &["--listen=localhost:2222"][..]),
            ("2222", &["--listen=localhost:2222"]),
            ("5432:db.example:5432", &["--forward=5432:db.example:5432"]),
            ("socks:1080 [::1]:22", &["--dynamic=1080", "--listen=[::1]:22"]),
            ("127.0.0.1:80:a:80 2222", &["--forward=127.0.0.1:80:a:80", "--listen=localhost:2222"]),
        ] {
            assert_eq!(read_ways(text).unwrap(), ways, "{text}");
        }
        for bad in ["", "socks:x", "a", "1:2:3:4:5", "2222 2223"] {
            assert!(read_ways(bad).is_err(), "{bad}");
        }
        assert!(read_binds("dev:eth0 dev:eth0").is_err() && read_binds("auto,x=1").is_err());
        assert_eq!(read_binds("dev:eth0 dev:wwan0").unwrap(), ["dev:eth0", "dev:wwan0"]);
    }
}
