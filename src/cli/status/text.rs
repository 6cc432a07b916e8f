//! A snapshot for people, on 80 columns.

use std::fmt::Write;
use std::time::Duration;

use super::snapshot::{Gone, Lane, Link, Process, Session, Status, Stream};
use crate::cli::report::table::{Align, Table};
use crate::cli::text::escape;
use crate::cli::units;

/// Most columns of a line.
pub const COLUMNS: usize = 80;

/// Streams that are shown: the busiest.
const STREAMS_SHOWN: usize = 20;

/// Lines about lanes that have gone.
const GONE_SHOWN: usize = 5;

/// Lanes of a link that go within this time for the same reason went together.
const TOGETHER_SECONDS: f64 = 0.5;

/// What there is to say where no process runs.
pub const NOBODY: &str = "no client and no server of this user is running";

/// All processes; `bold` if the terminal shows it.
pub fn status(status: &Status, bold: bool) -> String {
    if status.processes.is_empty() {
        return format!("{NOBODY}\n");
    }
    let all: Vec<_> = status.processes.iter().map(|it| process(it, bold)).collect();
    all.join("\n")
}

/// What a process is called.
pub fn name(process: &Process) -> String {
    let Process { role, place, process: number, .. } = process;
    let to = if role == "client" { "of" } else { "at" };
    format!("{} {to} {} (process {number})", escape(role), escape(place))
}

/// The links that have something to say: tiers of a server that have never had a lane do not.
pub fn links_of(process: &Process) -> impl Iterator<Item = &Link> {
    process.links.iter().filter(|link| link.lanes_wanted.is_some() || link.lanes_made > 0)
}

/// How many lanes a link has, of how many.
pub fn lanes_of(link: &Link) -> String {
    match link.lanes_wanted {
        _ if link.paused => "paused".to_owned(),
        Some(wanted) => format!("{}/{wanted}", link.lanes_up),
        None => link.lanes_up.to_string(),
    }
}

/// Why a lane of the link could not be made last.
pub fn failed(link: &Link) -> Option<String> {
    let (why, ago) = (link.failed.as_deref()?, link.failed_seconds_ago?);
    Some(format!("{} failed {} ago: {}", short(&link.name, 20), age(ago), escape(why)))
}

fn process(process: &Process, bold: bool) -> String {
    let mut text = heading(&name(process), bold);
    text += &links(process);
    for failed in process.links.iter().filter_map(failed) {
        text += &cut(&format!("  {failed}"));
    }
    for session in &process.sessions {
        text += "\n";
        text += &self::session(session, bold);
    }
    if process.sessions.is_empty() {
        text += "no session\n";
    }
    text
}

fn heading(line: &str, bold: bool) -> String {
    let line = cut(line);
    let line = line.trim_end();
    if bold { format!("\x1b[1m{line}\x1b[0m\n") } else { format!("{line}\n") }
}

fn links(process: &Process) -> String {
    let mut table = Table::new(&[
        ("link", Align::Left),
        ("tier", Align::Left),
        ("lanes", Align::Right),
        ("up now", Align::Right),
        ("down now", Align::Right),
        ("up", Align::Right),
        ("down", Align::Right),
        ("resent", Align::Right),
        ("lost", Align::Right),
    ]);
    for link in links_of(process) {
        table.row([
            short(&link.name, 15),
            short(&link.tier, 8),
            lanes_of(link),
            rate(link.sending),
            rate(link.receiving),
            amount(link.sent_bytes),
            amount(link.received_bytes),
            amount(link.resent_bytes),
            link.lanes_lost.to_string(),
        ]);
    }
    table.to_string()
}

fn session(session: &Session, bold: bool) -> String {
    let mut line = format!("session {}", short(&session.id, 32));
    if let Some(peer) = &session.peer {
        let _ = write!(line, " from {}", escape(peer));
    }
    if !session.comment.is_empty() {
        let _ = write!(line, ", {}", escape(&session.comment));
    }
    let mut text = heading(&line, bold);
    if let Some(key) = &session.key {
        text += &cut(&format!("  key {}", escape(key)));
    }
    text += &cut(&format!("  since {} ({})", escape(&session.since), age(session.age_seconds)));
    text += &cut(&format!(
        "  sent {}, again {}; received {}, twice {}; unacknowledged {}",
        amount(session.sent_bytes),
        amount(session.resent_bytes),
        amount(session.received_bytes),
        amount(session.duplicate_bytes),
        amount(session.held_bytes)
    ));
    text += &lanes(&session.lanes);
    for (_, gone) in gone(session).iter().take(GONE_SHOWN) {
        text += &cut(&format!("  {gone}"));
    }
    text + &streams(&session.streams, session.streams_open)
}

fn lanes(lanes: &[Lane]) -> String {
    if lanes.is_empty() {
        return "  no lane\n".to_owned();
    }
    let mut text = String::new();
    let mut links: Vec<u64> = lanes.iter().map(|lane| lane.link).collect();
    links.sort_unstable();
    links.dedup();
    for link in links {
        let of_link = || lanes.iter().filter(|lane| lane.link == link);
        let Some(first) = of_link().next() else { continue };
        let name =
            if first.via.is_empty() { format!("link {link}") } else { short(&first.via, 20) };
        let ends = first.local.as_deref().zip(first.peer.as_deref());
        let ends =
            ends.map(|(local, peer)| format!(", {} - {}", escape(host(local)), escape(peer)));
        text += &cut(&format!("  {name}{}", ends.unwrap_or_default()));
        let mut table = Table::new(&[
            ("lane", Align::Right),
            ("state", Align::Left),
            ("rtt ms", Align::Right),
            ("up now", Align::Right),
            ("down now", Align::Right),
            ("up", Align::Right),
            ("down", Align::Right),
            ("flight", Align::Right),
            ("resent", Align::Right),
            ("losses", Align::Right),
        ]);
        of_link().for_each(|lane| table.row(cells(lane)));
        let _ = write!(text, "{table}");
    }
    text
}

fn cells(lane: &Lane) -> [String; 10] {
    [
        lane.id.to_string(),
        short(&lane.state, 7),
        if lane.round_trip_ms < 99_999.0 {
            format!("{:.1}", lane.round_trip_ms)
        } else {
            "long".to_owned()
        },
        rate(lane.sending),
        rate(lane.receiving),
        amount(lane.sent_bytes),
        amount(lane.received_bytes),
        amount(lane.in_flight_bytes),
        amount(lane.resent_bytes),
        lane.retransmits.to_string(),
    ]
}

/// Which lanes have gone, how many seconds ago and why, the latest first; those that went together
/// in one line.
pub fn gone(session: &Session) -> Vec<(f64, String)> {
    let together = |one: &Gone, other: &Gone| {
        (&one.link, &one.why) == (&other.link, &other.why)
            && (one.seconds_ago - other.seconds_ago).abs() < TOGETHER_SECONDS
    };
    let groups = session.gone.chunk_by(together).rev();
    let line = |lanes: &[Gone]| {
        let last = lanes.last()?;
        let via =
            if last.via.is_empty() { format!("link {}", last.link) } else { last.via.clone() };
        let which = match lanes {
            [one] => format!("lane {}", one.lane),
            all => format!("{} lanes", all.len()),
        };
        let (via, ago, why) = (short(&via, 20), age(last.seconds_ago), escape(&last.why));
        Some((last.seconds_ago, format!("{which} of {via} went {ago} ago: {why}")))
    };
    groups.filter_map(line).collect()
}

/// Whom a connection waits for; of a flow, first of all, how many datagrams were dropped here.
pub fn waits_for(stream: &Stream) -> String {
    let dropped = stream.datagrams.map_or(0, |datagrams| datagrams.dropped());
    match stream.waits_for.as_str() {
        _ if dropped > 0 => format!("{} lost", amount(dropped)),
        "reader" => "reader here".to_owned(),
        "peer-reader" => "far reader".to_owned(),
        other => escape(other),
    }
}

fn streams(streams: &[Stream], open: u64) -> String {
    let mut busiest: Vec<_> = streams.iter().collect();
    busiest.sort_by_key(|it| std::cmp::Reverse(it.written_bytes.saturating_add(it.received_bytes)));
    busiest.truncate(STREAMS_SHOWN);
    let mut table = Table::new(&[
        ("stream", Align::Right),
        ("from", Align::Left),
        ("to", Align::Left),
        ("age", Align::Right),
        ("up", Align::Right),
        ("down", Align::Right),
        ("waits for", Align::Left),
    ]);
    for stream in &busiest {
        table.row([
            stream.id.to_string(),
            short(&stream.from, 16),
            short(&stream.to, 17),
            stream.age_seconds.map_or_else(|| "-".to_owned(), brief),
            amount(stream.written_bytes),
            amount(stream.received_bytes),
            waits_for(stream),
        ]);
    }
    match (open, busiest.len() as u64) {
        (0, _) => "  no connection\n".to_owned(),
        (open, shown) if open > shown => {
            format!("  {open} connections; the busiest:\n{table}")
        }
        _ => table.to_string(),
    }
}

/// An address without its port.
fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// A line of at most so many characters as fit.
fn cut(line: &str) -> String {
    format!("{}\n", first(line, COLUMNS))
}

/// Words from elsewhere, made safe, at most so many characters of them.
pub fn short(words: &str, max: usize) -> String {
    first(&escape(words), max)
}

fn first(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(max - 1).collect();
    cut.push('…');
    cut
}

fn age(seconds: f64) -> String {
    units::duration(Duration::from_secs_f64(seconds.clamp(0.0, 1e12)))
}

/// `12s`, `34m`, `5h`, `6d`.
pub fn brief(seconds: f64) -> String {
    let seconds = seconds as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Bytes in at most six characters: `1.2G`.
pub fn amount(bytes: u64) -> String {
    compact(bytes as f64, 1024.0)
}

/// Bytes a second as bits in at most six characters: `93.1M`.
pub fn rate(bytes: u64) -> String {
    compact(bytes as f64 * 8.0, 1000.0)
}

fn compact(mut value: f64, step: f64) -> String {
    const UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= step;
        unit += 1;
    }
    match unit {
        0 => format!("{value:.0}"),
        _ => format!("{value:.1}{}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything as long as it gets.
    fn longest() -> Status {
        let evil = "\x1b[2J\u{202e}<b>".repeat(50);
        let link = Link {
            name: evil.clone(),
            tier: "primary".to_owned(),
            lanes_up: 256,
            lanes_wanted: Some(256),
            sending: u64::MAX,
            receiving: 123_456_789_012,
            sent_bytes: u64::MAX,
            received_bytes: u64::MAX,
            resent_bytes: 999 << 30,
            lanes_made: 1,
            lanes_lost: 99_999,
            failed: Some(evil.clone()),
            failed_seconds_ago: Some(1e300),
            ..Link::default()
        };
        let lane = Lane {
            id: 99_999,
            via: evil.clone(),
            state: "standby".to_owned(),
            local: Some("[fe80::1234:5678:9abc:def0%4]:65535".to_owned()),
            peer: Some("[2001:db8:1234:5678:9abc:def0:1234:5678]:65535".to_owned()),
            round_trip_ms: 1e9,
            sending: u64::MAX,
            receiving: 123_456_789_012,
            sent_bytes: u64::MAX,
            received_bytes: 999 << 30,
            in_flight_bytes: 999 << 20,
            resent_bytes: 999 << 30,
            retransmits: 999_999,
            ..Lane::default()
        };
        let stream = Stream {
            id: 4_000_000,
            from: evil.clone(),
            to: evil.clone(),
            age_seconds: Some(1e9),
            written_bytes: u64::MAX,
            received_bytes: u64::MAX,
            waits_for: "peer-reader".to_owned(),
            ..Stream::default()
        };
        let gone = Gone { why: evil.clone(), via: evil.clone(), ..Gone::default() };
        let session = Session {
            id: "12345678".to_owned(),
            key: Some(evil.clone()),
            comment: evil.clone(),
            peer: Some(evil.clone()),
            lanes: vec![lane; 2],
            gone: vec![gone; 9],
            streams_open: 100,
            streams: vec![stream; 100],
            ..Session::default()
        };
        let (role, place) = ("client".to_owned(), evil);
        let (links, sessions) = (vec![link], vec![session]);
        Status::of(vec![Process { role, place, links, sessions, ..Process::default() }])
    }

    #[test]
    fn whatever_there_is_fits_on_80_columns_and_draws_nothing() {
        let text = status(&longest(), false);
        for line in text.lines() {
            assert!(line.chars().count() <= COLUMNS, "{} {line}", line.chars().count());
            assert!(!line.contains(char::is_control) && !line.contains('\u{202e}'), "{line:?}");
        }
        assert!(text.contains("100 connections; the busiest") && text.contains("far reader"));
        assert!(!status(&longest(), false).contains('\x1b'));
        assert_eq!(status(&longest(), true).matches("\x1b[1m").count(), 2);
    }

    #[test]
    fn amounts_take_six_characters_at_most() {
        for (value, shown) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1.0k"),
            (1_234_567, "1.2M"),
            (1 << 40, "1.0T"),
            (u64::MAX, "16.0E"),
        ] {
            assert_eq!(amount(value), shown);
        }
        assert_eq!((rate(125_000), rate(0)), ("1.0M".to_owned(), "0".to_owned()));
        assert!((0..64).all(|bit| rate(1 << bit).len() <= 6 && amount(1 << bit).len() <= 6));
        assert_eq!([59.0, 61.0, 7_200.0, 1e6].map(brief), ["59s", "1m", "2h", "11d"]);
    }
}
