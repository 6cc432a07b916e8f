//! The control socket's protocol: lines of JSON, with one version for all requests.

use std::str::FromStr;

use imux::trust::{Destination, Fingerprint};
use serde_json::{Value, json};

use super::change::Change;
use crate::cli::gateway::plan::Plan;

/// Stated in every line. A process that does not know it answers no request.
pub(super) const VERSION: u64 = 1;

/// Longest line: a destination, and room for later additions.
pub(super) const REQUEST_BYTES_MAX: usize = 4_096;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// Who it is.
    About,
    /// From now on the connection leads there.
    Open {
        /// A destination, which the server checks again.
        to: String,
    },
    /// Waits for an opened connection to end; says how it did.
    Wait {
        /// Its number.
        number: u64,
    },
    /// About the machine's traffic.
    Gateway(GatewayRequest),
    /// What it does now.
    Status,
    /// Does something differently.
    Change(Change),
    /// To read its file again.
    Reload,
}

/// What can be asked of a client that is, or is to be, a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayRequest {
    /// Take this.
    Up(Plan),
    /// Take nothing more.
    Down,
    /// What is taken.
    Show,
}

/// What a process answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    About {
        role: String,
        place: String,
        key: Option<Fingerprint>,
    },
    Done {
        number: u64,
    },
    Refused {
        why: String,
    },
    /// What there is to tell people.
    Gateway {
        said: String,
    },
    /// What was changed.
    Changed {
        said: String,
    },
    /// So many bytes of JSON follow the line: a snapshot.
    Status {
        bytes: u64,
    },
}

impl Request {
    /// Parses a line, or says why it cannot, in words that are safe to show.
    pub(super) fn parse(line: &[u8]) -> Result<Self, &'static str> {
        let value = object(line)?;
        match value.get("ask").and_then(Value::as_str) {
            Some("about") => Ok(Self::About),
            Some("open") => {
                let to = value.get("to").and_then(Value::as_str);
                let to = to.and_then(|to| Destination::from_str(to).ok());
                Ok(Self::Open { to: to.ok_or("that is no destination")?.to_string() })
            }
            Some("wait") => {
                let number = value.get("number").and_then(Value::as_u64);
                Ok(Self::Wait { number: number.ok_or("that is no number")? })
            }
            Some("gateway") => match value.get("do").and_then(Value::as_str) {
                Some("up") => {
                    let plan = value.get("plan").ok_or("there is no plan")?;
                    Ok(Self::Gateway(GatewayRequest::Up(Plan::from_json(plan)?)))
                }
                Some("down") => Ok(Self::Gateway(GatewayRequest::Down)),
                Some("show") => Ok(Self::Gateway(GatewayRequest::Show)),
                _ => Err("this version does not know what to do about the gateway"),
            },
            Some("status") => Ok(Self::Status),
            Some("reload") => Ok(Self::Reload),
            _ => match Change::parse(&value) {
                Some(change) => change.map(Self::Change),
                None => Err("this version does not know what is asked"),
            },
        }
    }

    pub(super) fn line(&self) -> String {
        let value = match self {
            Self::About => json!({"imux": VERSION, "ask": "about"}),
            Self::Open { to } => json!({"imux": VERSION, "ask": "open", "to": to}),
            Self::Wait { number } => json!({"imux": VERSION, "ask": "wait", "number": number}),
            Self::Status => json!({"imux": VERSION, "ask": "status"}),
            Self::Change(change) => change.to_json(VERSION),
            Self::Reload => json!({"imux": VERSION, "ask": "reload"}),
            Self::Gateway(GatewayRequest::Up(plan)) => {
                json!({"imux": VERSION, "ask": "gateway", "do": "up", "plan": plan.to_json()})
            }
            Self::Gateway(GatewayRequest::Down) => {
                json!({"imux": VERSION, "ask": "gateway", "do": "down"})
            }
            Self::Gateway(GatewayRequest::Show) => {
                json!({"imux": VERSION, "ask": "gateway", "do": "show"})
            }
        };
        format!("{value}\n")
    }
}

impl Reply {
    pub(super) fn refused(why: &str) -> Self {
        Self::Refused { why: why.to_owned() }
    }

    /// Understands a line.
    pub(super) fn parse(line: &[u8]) -> Result<Self, &'static str> {
        let value = object(line)?;
        let text = |name| value.get(name).and_then(Value::as_str).map(str::to_owned);
        if let Some(why) = text("refused") {
            return Ok(Self::Refused { why });
        }
        if let Some(said) = text("gateway") {
            return Ok(Self::Gateway { said });
        }
        if let Some(said) = text("changed") {
            return Ok(Self::Changed { said });
        }
        if let Some(bytes) = value.get("status_bytes").and_then(Value::as_u64) {
            return Ok(Self::Status { bytes });
        }
        if let Some(number) = value.get("number").and_then(Value::as_u64) {
            return Ok(Self::Done { number });
        }
        let (role, place) = text("role").zip(text("place")).ok_or("that is no answer")?;
        Ok(Self::About { role, place, key: text("key").and_then(|key| key.parse().ok()) })
    }

    pub(super) fn line(&self) -> String {
        let value = match self {
            Self::About { role, place, key } => {
                let key = key.map(|key| key.to_string());
                json!({"imux": VERSION, "role": role, "place": place, "key": key})
            }
            Self::Done { number } => json!({"imux": VERSION, "number": number}),
            Self::Refused { why } => json!({"imux": VERSION, "refused": why}),
            Self::Gateway { said } => json!({"imux": VERSION, "gateway": said}),
            Self::Changed { said } => json!({"imux": VERSION, "changed": said}),
            Self::Status { bytes } => json!({"imux": VERSION, "status_bytes": bytes}),
        };
        format!("{value}\n")
    }
}

fn object(line: &[u8]) -> Result<Value, &'static str> {
    let value: Value = serde_json::from_slice(line).map_err(|_| "that is no JSON")?;
    match value.get("imux").and_then(Value::as_u64) {
        Some(VERSION) => Ok(value),
        Some(_) => Err("this is version 1 of what is said here"),
        None => Err("that is nothing that is said here"),
    }
}

/// The fuzz target: whatever is said is understood or not, and means the same when it is written
/// back, in one line.
#[cfg(any(test, fuzzing))]
pub(in crate::cli) fn check(line: &[u8]) {
    let whole = |line: String| {
        let text = line.strip_suffix('\n').map(str::to_owned);
        let text = text.unwrap_or_else(|| panic!("{line:?} does not end"));
        assert!(!text.contains('\n'), "{text:?}");
        text
    };
    match Request::parse(line) {
        Ok(request) => {
            let text = whole(request.line());
            assert!(text.len() < REQUEST_BYTES_MAX || line.len() >= REQUEST_BYTES_MAX, "{text}");
            assert_eq!(Request::parse(text.as_bytes()), Ok(request));
        }
        Err(why) => assert!(!why.is_empty() && !why.contains(char::is_control)),
    }
    if let Ok(reply) = Reply::parse(line) {
        assert_eq!(Reply::parse(whole(reply.line()).as_bytes()), Ok(reply));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::check as same_again;
    use super::*;
    use crate::cli::status::source::LinkChange;

    proptest! {
        #[test]
        fn whatever_is_said_is_understood_or_not_in_the_same_way_again(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            to in any::<String>(),
            number in any::<u64>(),
            version in 0u64..3,
            word in prop::sample::select(vec![
                "about", "open", "wait", "gateway", "do", "plan", "refused", "role", "number", "status",
                "close-session", "id", "link", "changed", "status_bytes",
            ]),
        ) {
            same_again(&bytes);
            for value in [json!(to), json!(number), json!({word: to}), json!(null)] {
                let said = json!({"imux": version, "ask": word, word: value, "to": to, "number": number});
                same_again(said.to_string().as_bytes());
                same_again(json!({"imux": version, word: value, "place": to}).to_string().as_bytes());
            }
        }
    }

    #[test]
    fn requests_are_understood_whatever_stands_beside() {
        let open = Request::Open { to: "localhost:22".to_owned() };
        let link = |change| Request::Change(Change::Link { name: "dev:wwan0".to_owned(), change });
        let plan = Plan { this_machine: true, dns: true, ..Plan::default() };
        for request in [
            Request::About,
            open.clone(),
            Request::Wait { number: 7 },
            Request::Gateway(GatewayRequest::Up(plan)),
            Request::Gateway(GatewayRequest::Down),
            Request::Gateway(GatewayRequest::Show),
            Request::Status,
            Request::Change(Change::CloseSession { id: "5f0c3a91".to_owned() }),
            link(LinkChange::Pause),
            link(LinkChange::Resume),
            link(LinkChange::Tier(imux::Tier::Metered)),
            Request::Reload,
        ] {
            assert_eq!(Request::parse(request.line().trim_end().as_bytes()), Ok(request));
        }
        let more = br#"{"more": [1], "to": "LOCALHOST:22", "ask": "open", "imux": 1}"#;
        assert_eq!(Request::parse(more), Ok(open));
        for (line, why) in [
            (&b""[..], "no JSON"),
            (b"\xff\xfe", "no JSON"),
            (b"[]", "nothing that is said here"),
            (b"{\"imux\": 2, \"ask\": \"about\"}", "version 1"),
            (b"{\"imux\": 1}", "does not know"),
            (b"{\"imux\": 1, \"ask\": \"close\"}", "does not know"),
            (b"{\"imux\": 1, \"ask\": \"open\"}", "no destination"),
            (b"{\"imux\": 1, \"ask\": \"open\", \"to\": \"a\\u001b:1\"}", "no destination"),
            (b"{\"imux\": 1, \"ask\": \"wait\", \"number\": -1}", "no number"),
            (b"{\"imux\": 1, \"ask\": \"close-session\", \"id\": \"x\"}", "no session"),
            (b"{\"imux\": 1, \"ask\": \"link\", \"link\": \"\", \"do\": \"pause\"}", "no link"),
            (b"{\"imux\": 1, \"ask\": \"link\", \"link\": \"a b\", \"do\": \"pause\"}", "no link"),
            (
                b"{\"imux\": 1, \"ask\": \"link\", \"link\": \"a\", \"do\": \"kill\"}",
                "does not know",
            ),
            (b"{\"imux\": 1, \"ask\": \"link\", \"link\": \"a\", \"do\": \"tier\"}", "no tier"),
            (b"{\"imux\": 1, \"ask\": \"gateway\"}", "does not know"),
            (b"{\"imux\": 1, \"ask\": \"gateway\", \"do\": \"up\"}", "no plan"),
            (
                b"{\"imux\": 1, \"ask\": \"gateway\", \"do\": \"up\", \"plan\": {}}",
                "--this-machine",
            ),
        ] {
            assert!(Request::parse(line).unwrap_err().contains(why), "{line:?}");
        }
        let deep = [b"[".repeat(2_000), b"]".repeat(2_000)].concat();
        assert!(Request::parse(&deep).is_err());
    }

    #[test]
    fn answers_are_understood() {
        let key = Some(Fingerprint::from_bytes([7; 32]));
        let about = Reply::About { role: "client".to_owned(), place: "a:1".to_owned(), key };
        let gateway = Reply::Gateway { said: "up\n".to_owned() };
        let changed = Reply::Changed { said: "done\n".to_owned() };
        let status = Reply::Status { bytes: 1 << 40 };
        let refused = Reply::refused("\x1b no\n");
        for reply in [about, Reply::Done { number: 7 }, refused, gateway, changed, status] {
            let line = reply.line();
            assert!(!line.trim_end().contains(char::is_control), "{line:?}");
            assert_eq!(Reply::parse(line.trim_end().as_bytes()), Ok(reply));
        }
        assert!(Reply::parse(b"{\"imux\": 1}").is_err());
    }
}
