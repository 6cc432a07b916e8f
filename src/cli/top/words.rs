//! The lines of `top` that are no table.

use super::state::{Mode, Top, View};
use crate::cli::status::text::{amount, brief, name, rate, short};
use crate::cli::text::escape;

/// Shown instead of the connections.
pub const HELP: &str = "\
up, down, k, j       select a link
p                    pause the link: its lanes go, connections use the others;
                     or resume it
t                    change its tier: primary, express, backup or metered;
                     its lanes are dialled anew
tab, left, right     the next client or server
ctrl-l               draw everything anew
ctrl-z               stop for now; `fg` goes on
q                    leave

up is from this machine to the other. Rates are in bits a second, amounts in
bytes. All links' graphs have one scale, and the sum has its own.";

const KEYS: &str = "? help  q leave  p pause or resume  t tier  up, down link  tab next process";

pub fn title(view: &View) -> String {
    format!("imux top: {}", name(&view.process))
}

/// The one session, or all of them.
pub fn sessions(view: &View) -> String {
    let sessions = &view.process.sessions;
    let sum = |of: fn(&crate::cli::status::snapshot::Session) -> u64| {
        amount(sessions.iter().map(of).fold(0, u64::saturating_add))
    };
    let which = match sessions.as_slice() {
        [] => return "no session".to_owned(),
        [one] if one.comment.is_empty() => {
            format!("session {}, {}", short(&one.id, 32), brief(one.age_seconds))
        }
        [one] => {
            let id = short(&one.id, 32);
            format!("session {id} ({}), {}", escape(&one.comment), brief(one.age_seconds))
        }
        all => format!("{} sessions", all.len()),
    };
    format!(
        "{which}; up {}, again {}; down {}, twice {}; unacknowledged {}",
        sum(|it| it.sent_bytes),
        sum(|it| it.resent_bytes),
        sum(|it| it.received_bytes),
        sum(|it| it.duplicate_bytes),
        sum(|it| it.held_bytes)
    )
}

/// The line below the links.
pub fn sum(view: &View) -> [String; 9] {
    let sum = |of: fn(&crate::cli::status::snapshot::Link) -> u64| {
        view.links.iter().map(|row| of(&row.of)).fold(0, u64::saturating_add)
    };
    [
        "sum".to_owned(),
        String::new(),
        sum(|link| link.lanes_up).to_string(),
        rate(view.sum.up.now()),
        rate(view.sum.down.now()),
        amount(sum(|link| link.sent_bytes)),
        amount(sum(|link| link.received_bytes)),
        amount(sum(|link| link.resent_bytes)),
        sum(|link| link.lanes_lost).to_string(),
    ]
}

/// How many there are, as the title of their first column.
pub fn connections(view: &View) -> String {
    let sessions = &view.process.sessions;
    match sessions.iter().map(|it| it.streams_open).fold(0, u64::saturating_add) {
        0 => "no connection".to_owned(),
        1 => "1 connection".to_owned(),
        many => format!("{many} connections"),
    }
}

/// What is asked, if something is.
pub fn question(top: &Top) -> Option<String> {
    let link = top.selected()?;
    let name = short(&link.name, 30);
    match top.mode {
        Mode::Tier => Some(format!(
            "tier of {name} ({})? p primary, e express, b backup, m metered",
            short(&link.tier, 10)
        )),
        Mode::Sure => {
            Some(format!("{name} is the last link: pause it, and connections wait? y or n"))
        }
        Mode::Looking | Mode::Help => None,
    }
}

pub fn last_line(top: &Top) -> String {
    match (top.said(), top.mode) {
        (Some(said), _) => said.to_owned(),
        (None, Mode::Help) => "any key: back".to_owned(),
        (None, _) => KEYS.to_owned(),
    }
}
