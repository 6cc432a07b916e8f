//! Fuzz targets of the command line (see `imux::fuzz`): any text gives an answer or a message about
//! what is wrong, never a panic.

use std::ffi::OsString;
use std::time::Duration;

use imux::lane::Bind;
use imux::trust::Destination;

use super::address::{Endpoint, HostPort};
use super::bind::{AutoPlan, BindMap, LANES_MAX, LinkPlan, check_all, parse_bind};
use super::config::Task;
use super::control::check_protocol;
use super::forward::{Forward, Leads};
use super::reverse::Reverse;
use super::{args, text, units};

/// The value of one option, whichever it is.
pub fn options(data: &[u8]) {
    let Some((&choice, value)) = data.split_first() else { return };
    let value = &*String::from_utf8_lossy(value);
    match choice % 6 {
        0 => bind(value),
        1 => binds(value),
        2 => address(value),
        3 => size(value),
        4 => duration(value),
        _ => shown(value),
    }
}

fn bind(value: &str) {
    if let Some(plan) = AutoPlan::parse(value) {
        match plan {
            Ok(plan) => {
                let again = AutoPlan::parse(&plan.to_string());
                assert_eq!(again, Some(Ok(plan)), "as it is written in logs");
            }
            Err(problem) => explains(&problem),
        }
        return;
    }
    match parse_bind(value) {
        Ok(bind) => {
            assert!((1..=LANES_MAX).contains(&bind.bind.lanes));
            assert_eq!(parse_bind(&bind.to_string()), Ok(bind), "as it is written in logs");
        }
        Err(problem) => explains(&problem),
    }
}

fn binds(value: &str) {
    match value.parse::<BindMap>() {
        Ok(BindMap(binds)) => {
            assert!(!binds.is_empty());
            let json: Vec<String> = binds
                .iter()
                .map(|LinkPlan { bind: Bind { source, lanes }, tier, express, rate_max }| {
                    let rate = rate_max.map_or(String::new(), |rate| {
                        format!(", \"rate\": \"{}bit\"", u128::from(rate) * 8)
                    });
                    let express =
                        express.map_or(String::new(), |yes| format!(", \"express\": {yes}"));
                    // An interface's name may have quotes and backslashes.
                    let source = serde_json::Value::String(source.to_string());
                    format!("{source}: {{\"lanes\": {lanes}, \"tier\": \"{tier}\"{express}{rate}}}")
                })
                .collect();
            let again = format!("{{{}}}", json.join(", ")).parse();
            assert_eq!(again.as_ref(), Ok(&BindMap(binds.clone())));
            if let Err(problem) = check_all(&binds) {
                explains(&problem);
            }
        }
        Err(problem) => explains(&problem),
    }
}

fn address(value: &str) {
    if let Err(problem) = HostPort::to_listen(value) {
        explains(&problem);
    }
    match HostPort::to_dial(value) {
        Ok(address) => {
            assert!(address.port > 0 && HostPort::to_listen(value).is_ok());
            assert_eq!(HostPort::to_dial(address.as_written()).as_ref(), Ok(&address));
            assert!(!value.is_ascii() || address.to_string() == value.trim(), "{address:?}");
            assert!(address.as_written().is_ascii(), "{address:?}");
            let looped = address.is_reached_by(&address);
            let itself = HostPort::to_listen("127.0.0.1:1").is_ok_and(|lo| lo.is_reached_by(&lo));
            assert!(itself && (looped || !matches!(address.host, super::address::Host::Ip(_))));
        }
        Err(problem) => explains(&problem),
    }
}

fn size(value: &str) {
    match units::parse_size(value) {
        Ok(size) => assert_eq!(units::parse_size(&size.to_string()), Ok(size)),
        Err(problem) => explains(&problem),
    }
}

fn duration(value: &str) {
    match units::parse_duration(value) {
        Ok(time) => {
            assert!(!units::duration(time).is_empty());
            let seconds = format!("{}s", time.as_secs());
            assert_eq!(units::parse_duration(&seconds), Ok(Duration::from_secs(time.as_secs())));
        }
        Err(problem) => explains(&problem),
    }
}

fn shown(value: &str) {
    let shown = text::escape(value);
    assert!(!shown.contains(char::is_control), "{shown:?} could draw on a terminal");
    assert_eq!(shown.chars().filter(|&c| c == '\u{202e}').count(), 0);
}

fn explains(problem: &str) {
    assert!(problem.len() > 10, "{problem:?} explains nothing");
}

/// What follows `-L`, `-D` and `-R`: the two halves of a forward and its options.
pub(crate) fn forwards(data: &[u8]) {
    let value = &*String::from_utf8_lossy(data);
    let options = value.split(',').count();
    match Forward::parse(value) {
        Ok(forward) => {
            assert!(matches!(forward.to, Leads::To(_)) && options <= 3, "{forward:?}");
            assert!(!forward.is_open_to_others());
            // Written plainly, each half stands for itself.
            if let Leads::To(to) = &forward.to
                && let Some(to) = to.to_string().strip_prefix("unix:")
            {
                assert!(value.contains(to), "{value}");
            }
        }
        Err(problem) => explains(&problem),
    }
    match Forward::parse_dynamic(value) {
        Ok(forward) => assert!(forward.to == Leads::Anywhere && options <= 4, "{forward:?}"),
        Err(problem) => explains(&problem),
    }
    match Reverse::parse(value) {
        Ok(reverse) => {
            let again = Destination::place_to_listen(&reverse.listen.to_string());
            assert_eq!(again.as_ref(), Ok(&reverse.listen));
            assert!(reverse.listen.listen_at().is_some() && options <= 3, "{reverse:?}");
        }
        Err(problem) => explains(&problem),
    }
}

/// A line at the control socket.
pub(crate) fn control(data: &[u8]) {
    check_protocol(data);
}

/// A whole command line, its arguments divided by zero bytes.
pub fn arguments(data: &[u8]) {
    let written = data.split(|&byte| byte == 0).take(24).map(String::from_utf8_lossy);
    let argv = std::iter::once("imux".into()).chain(written.map(|arg| OsString::from(&*arg)));
    match args::parse_with(argv.collect(), Some("/home/somebody/.imux".into())) {
        Ok(invocation) => match invocation.task {
            Task::Server(server) => match &server.dial {
                Endpoint::Network(dial) => assert!(dial.port > 0),
                Endpoint::Unix(path) => assert!(path.is_absolute()),
                Endpoint::Udp(at) => panic!("a server dials {at} over UDP"),
            },
            Task::Client(client) => {
                assert!(
                    client.dial.port > 0
                        && (!client.binds.links.is_empty() || client.binds.auto.is_some())
                );
                assert_eq!(client.forwards.is_empty(), client.stdio.is_some());
                assert_eq!(check_all(&client.binds.links), Ok(()));
            }
            Task::Demo(demo) => assert!(demo.bytes >= 1 << 20),
            Task::Keys(keys) => assert!(keys.home.is_some()),
            Task::Gateway(gateway) => assert!(gateway.home.is_some()),
            Task::Init(init) => assert!(init.home.is_some()),
            Task::HoldDelivery => {}
            Task::File(file) => assert!(!file.servers.is_empty() || !file.clients.is_empty()),
            Task::Reload(home) => assert!(home.is_some()),
            Task::Print(text) => assert!(!text.is_empty()),
            Task::Status(status) => assert!(status.home.is_some()),
            Task::Top(top) => assert!(top.home.is_some()),
        },
        Err(early) => assert!(!early.text().is_empty()),
    }
}

#[cfg(test)]
#[path = "../fuzz/corpus.rs"]
mod corpus;

#[cfg(test)]
mod corpora {
    #[test]
    fn options() {
        super::corpus::replay("options", super::options);
    }

    #[test]
    fn forwards() {
        super::corpus::replay("forwards", super::forwards);
    }

    #[test]
    fn control() {
        super::corpus::replay("control", super::control);
    }

    #[test]
    fn arguments() {
        super::corpus::replay("arguments", super::arguments);
    }
}
