//! `imux init server`.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use imux::trust::{AuthorizedClients, Destination, DestinationRule, Destinations, Grant, Identity};
use zeroize::Zeroizing;

use super::ask::{Question, Questions};
use super::files::failure;
use super::how::{How, finish};
use super::unit::{Role, Service};
use crate::cli::address::{Endpoint, HostPort};
use crate::cli::config::InitServer;
use crate::cli::exit::{Exit, Failure};
use crate::cli::identity::server_name;
use crate::cli::keys::{authorized_clients, invitation};
use crate::cli::listening::listen_locally;
use crate::cli::trust::trust_failure;

/// What is proposed to an ordinary user, who may not have port 443.
const UNPRIVILEGED_PORT: u16 = 8443;

/// How long the first client has.
const INVITATION_LASTS: Duration = Duration::from_secs(3600);

/// Sets up a server.
pub(super) async fn init(
    asked: InitServer,
    mut questions: Questions,
    how: &How,
) -> Result<Zeroizing<String>, Failure> {
    let service = Service::new(Role::Server, &how.home)
        .map_err(|error| failure(&format!("cannot find this program: {error}")))?;
    // Before anything is asked: a key that is there and cannot be used.
    let name = server_name(&how.home, None, None)?;
    Identity::load(&how.home, &name).map_err(|error| trust_failure(&error))?;
    let proposed = proposed_place().await;
    let question = Question {
        text: "How do clients reach this server? HOST:PORT, a name or an address of this machine, or of the router before it",
        proposed: Some(&proposed),
        flags: "HOST:PORT",
    };
    let server = questions.ask(asked.server, &question, server_place).await?;
    let listen = match (asked.listen, &server) {
        (None, Some(server)) => HostPort::to_listen(&format!("[::]:{}", server.port)).ok(),
        (listen, _) => listen,
    };
    if let Some(listen) = listen.as_ref().filter(|_| !how.force && !how.print) {
        // Before anything else is asked. It gives the port back at once.
        drop(listen_locally(&Endpoint::Network(listen.clone())).await?);
    }
    let question = Question {
        text: "What may the client reach from here? HOST:PORT, several of them, or `any` for all but this machine's own loopback",
        proposed: Some("localhost:22"),
        flags: "--dial",
    };
    let given = Some(asked.dial).filter(|dial| !dial.is_empty());
    let rules = questions.ask(given, &question, destinations).await?;
    let question = Question {
        text: "Who is the first client? A name for the list of clients",
        proposed: Some("first client"),
        flags: "--comment",
    };
    let client = questions.ask(asked.comment, &question, |text| Ok(text.to_owned())).await?;
    let unit = how.wants_unit(&mut questions, &service).await?;
    questions.all_answered()?;
    let (Some(server), Some(listen), Some(rules), Some(client)) = (server, listen, rules, client)
    else {
        return Err(Failure::message(Exit::Internal, "a question has no answer"));
    };
    set_up(how, &service, unit, &Answers { server, listen, rules, client }).await
}

struct Answers {
    server: HostPort,
    listen: HostPort,
    rules: Vec<DestinationRule>,
    client: String,
}

async fn set_up(
    how: &How,
    service: &Service,
    unit: bool,
    answers: &Answers,
) -> Result<Zeroizing<String>, Failure> {
    let first = Destinations::new(answers.rules.clone()).default_place();
    // Whoever is listed has a choice of their own; nobody else gets in.
    let dial = first.as_ref().map_or_else(|| "localhost:22".to_owned(), ToString::to_string);
    let words =
        ["server".to_owned(), format!("--listen={}", answers.listen), format!("--dial={dial}")];
    let (files, _) = how.files(&words, service, unit)?;
    if how.print {
        return Ok(Zeroizing::new(files.shown()));
    }
    files.check()?;
    let name = server_name(&how.home, None, Some(&answers.listen))?;
    let identity = Identity::load_or_create(&how.home, &name);
    let key = identity.map_err(|error| trust_failure(&error))?.fingerprint();
    let staged = files.stage()?;
    let only = answers.rules.len() == 1 && first.is_some();
    let destinations = if only { Vec::new() } else { answers.rules.clone() };
    let grant = Grant { destinations, ..Grant::default() };
    let list = AuthorizedClients::new(authorized_clients(&how.home));
    let invited =
        async { invitation(&list, &answers.server, key, grant, INVITATION_LASTS, &answers.client) };
    let (written, link) = finish(staged, invited).await?;
    let mut told = how.told(&written, service, unit);
    let ways = ways(&answers.rules).join(" ");
    told.push_str(&format!(
        "Then, on the machine of the first client; the invitation works once, and for an hour:\n    \
         echo '{}' | imux init client {ways} --yes\n",
        *link
    ));
    Ok(told)
}

/// An address of this machine, and a port that it may have.
async fn proposed_place() -> String {
    let standard = HostPort::to_listen("[::]:443").map(Endpoint::Network);
    let may_have = match standard {
        Ok(standard) => listen_locally(&standard).await.is_ok(),
        Err(_) => false,
    };
    let port = if may_have { 443 } else { UNPRIVILEGED_PORT };
    SocketAddr::new(own_address(), port).to_string()
}

/// The address by which this machine reaches others. Nothing is sent: the addresses asked for are
/// documentation's (RFC 5737, RFC 3849).
fn own_address() -> IpAddr {
    let found = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")].iter().find_map(
        |(any, there)| {
            let socket = UdpSocket::bind(any).ok()?;
            socket.connect(there).ok()?;
            Some(socket.local_addr().ok()?.ip())
        },
    );
    found.unwrap_or(IpAddr::from([127, 0, 0, 1]))
}

/// People write a name alone.
fn server_place(text: &str) -> Result<HostPort, String> {
    let place = HostPort::to_dial(text)
        .or_else(|why| HostPort::to_dial(&format!("{text}:443")).map_err(|_| why))?;
    place.as_written().parse::<Destination>().map_err(|error| error.to_string())?;
    Ok(place)
}

fn destinations(text: &str) -> Result<Vec<DestinationRule>, String> {
    let words = text.split([' ', ',']).filter(|word| !word.is_empty());
    let rule = |word: &str| match word {
        "any" => "*:*".parse(),
        word => word.parse::<DestinationRule>(),
    };
    let rules: Result<Vec<_>, _> = words.map(rule).collect();
    let rules = rules.map_err(|error| error.to_string())?;
    if rules.is_empty() {
        Err("Write HOST:PORT, such as localhost:22.".to_owned())
    } else {
        Ok(rules)
    }
}

/// What the client may say to use what it is allowed.
fn ways(rules: &[DestinationRule]) -> Vec<String> {
    let places: Vec<_> =
        rules.iter().map(|rule| Destinations::new([rule.clone()]).default_place()).collect();
    match places.as_slice() {
        [Some(only)] => vec![format!("--listen localhost:{}", port_here(only))],
        all if all.iter().any(Option::is_none) => vec!["-D 1080".to_owned()],
        all => {
            let ways = all.iter().flatten();
            ways.map(|place| format!("-L {}:{place}", port_here(place))).collect()
        }
    }
}

/// A port that an ordinary user may have, and that reminds of the destination's.
fn port_here(place: &Destination) -> u16 {
    let port = place.to_string().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    match port {
        Some(22) => 2222,
        Some(port @ 1024..) => port,
        Some(port) => 8000 + port,
        None => 8000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        ways(&destinations(text).unwrap()).join(" ")
    }

    #[test]
    fn the_clients_command_is_of_what_it_may_reach() {
        assert_eq!(of("localhost:22"), "--listen localhost:2222");
        assert_eq!(of("db.example:5432"), "--listen localhost:5432");
        assert_eq!(of("localhost:22, db.example:80"), "-L 2222:localhost:22 -L 8080:db.example:80");
        assert_eq!(of("unix:/run/docker.sock"), "--listen localhost:8000");
        for open in ["any", "*:*", "10.1.0.0/16:22", "localhost:22 *:443", "localhost:*"] {
            assert_eq!(of(open), "-D 1080", "{open}");
        }
    }

    #[test]
    fn places_are_read_as_people_write_them() {
        assert_eq!(server_place("server.example").unwrap().as_written(), "server.example:443");
        assert_eq!(server_place("203.0.113.1:8443").unwrap().as_written(), "203.0.113.1:8443");
        for bad in ["", "a b", "server.example:x", ":443"] {
            assert!(server_place(bad).is_err(), "{bad}");
        }
        assert!(destinations(" , ").is_err() && destinations("localhost").is_err());
    }
}
