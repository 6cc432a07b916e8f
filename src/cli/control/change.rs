//! What can be changed over the control socket, and how it is said there.

use std::str::FromStr;

use imux::Tier;
use serde_json::{Value, json};

use crate::cli::status::source::LinkChange;

/// Longest name of a link: an address, an interface, and what stands between.
const LINK_NAME_MAX: usize = 128;

/// A change to what a process does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Ends a session.
    CloseSession { id: String },
    /// Uses a link in another way.
    Link { name: String, change: LinkChange },
}

impl Change {
    /// Whether a session may be called so.
    pub fn is_session_id(text: &str) -> bool {
        (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    /// Whether a link may be called so.
    pub fn is_link_name(text: &str) -> bool {
        (1..=LINK_NAME_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic())
    }

    /// What a request says; `None` if it is about something else.
    pub(super) fn parse(value: &Value) -> Option<Result<Self, &'static str>> {
        let word = |name| value.get(name).and_then(Value::as_str);
        match word("ask")? {
            "close-session" => {
                let id = word("id").filter(|id| Self::is_session_id(id));
                let id = id.ok_or("that is no session");
                Some(id.map(|id| Self::CloseSession { id: id.to_owned() }))
            }
            "link" => Some(Self::parse_link(word("link"), word("do"), word("tier"))),
            _ => None,
        }
    }

    fn parse_link(
        name: Option<&str>,
        what: Option<&str>,
        tier: Option<&str>,
    ) -> Result<Self, &'static str> {
        let name = name.filter(|name| Self::is_link_name(name)).ok_or("that is no link")?;
        let change = match what {
            Some("pause") => LinkChange::Pause,
            Some("resume") => LinkChange::Resume,
            Some("tier") => {
                let tier = tier.and_then(|tier| Tier::from_str(tier).ok());
                LinkChange::Tier(tier.ok_or("that is no tier")?)
            }
            _ => return Err("this version does not know what to do about the link"),
        };
        Ok(Self::Link { name: name.to_owned(), change })
    }

    pub(super) fn to_json(&self, version: u64) -> Value {
        match self {
            Self::CloseSession { id } => json!({"imux": version, "ask": "close-session", "id": id}),
            Self::Link { name, change } => {
                let (what, tier) = match change {
                    LinkChange::Pause => ("pause", None),
                    LinkChange::Resume => ("resume", None),
                    LinkChange::Tier(tier) => ("tier", Some(tier.name())),
                };
                json!({"imux": version, "ask": "link", "link": name, "do": what, "tier": tier})
            }
        }
    }
}
