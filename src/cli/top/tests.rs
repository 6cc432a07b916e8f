//! What is drawn, and what keys do.

use std::time::Duration;

use imux::Tier;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use super::draw::{Kind, draw};
use super::state::{Act, Mode, Top};
use crate::cli::control::Change;
use crate::cli::exit::Exit;
use crate::cli::status::snapshot::{Gone, Link, Process, Session, Status, Stream};
use crate::cli::status::source::LinkChange;

const SECOND: Duration = Duration::from_secs(1);

const PLAIN: Kind = Kind { colour: false, unicode: true };

fn link(name: &str, sending: u64, receiving: u64) -> Link {
    Link {
        name: name.to_owned(),
        tier: "primary".to_owned(),
        lanes_up: 10,
        lanes_wanted: Some(10),
        lanes_made: 10,
        sending,
        receiving,
        sent_bytes: 3 << 20,
        received_bytes: 5 << 30,
        resent_bytes: 70_000,
        ..Link::default()
    }
}

fn stream(id: u64, written: u64, received: u64) -> Stream {
    Stream {
        id,
        from: format!("127.0.0.1:4{id:04}"),
        to: "10.1.0.7:5432".to_owned(),
        age_seconds: Some(90.0),
        written_bytes: written,
        received_bytes: received,
        waits_for: "lanes".to_owned(),
        ..Stream::default()
    }
}

/// A client with two links that have carried more and more, and two connections.
fn client(second: u64) -> Process {
    let mut session = Session {
        id: "5f0c3a91".to_owned(),
        age_seconds: 90.0 + second as f64,
        sent_bytes: 3 << 20,
        received_bytes: 5 << 30,
        resent_bytes: 70_000,
        streams_open: 2,
        streams: vec![stream(1, 100, 7 << 20), stream(2, 100, 1_000_000 * second)],
        ..Session::default()
    };
    if second >= 8 {
        let why = "the connection was reset by the other end \u{1b}[2J".to_owned();
        session.gone.push(Gone { lane: 3, via: "dev:wwan0".to_owned(), why, ..Gone::default() });
    }
    Process {
        process: 4711,
        role: "client".to_owned(),
        place: "server.example:443".to_owned(),
        links: vec![
            link("dev:eth0", 12_500, 1_000_000 * second),
            link("dev:wwan0", 0, 500_000 * second),
        ],
        sessions: vec![session],
        ..Process::default()
    }
}

fn seen(processes: Vec<Process>) -> Top {
    let mut top = Top::default();
    top.see(Status::of(processes), SECOND);
    top
}

fn eight_seconds() -> Top {
    let mut top = Top::default();
    for second in 1..=8 {
        assert_eq!(top.see(Status::of(vec![client(second)]), SECOND), None);
    }
    top
}

fn buffer(top: &Top, (width, height): (u16, u16), kind: Kind) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, top, kind)).unwrap();
    terminal.backend().buffer().clone()
}

/// What is drawn, line by line, without the spaces at the end.
fn drawn(top: &Top, size: (u16, u16)) -> Vec<String> {
    let buffer = buffer(top, size, PLAIN);
    let lines = buffer.content().chunks(size.0.into());
    let text = |line: &[ratatui::buffer::Cell]| {
        line.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned()
    };
    lines.map(text).collect()
}

fn press(top: &mut Top, key: KeyCode) -> Act {
    top.key(KeyEvent::new(key, KeyModifiers::NONE))
}

fn types(top: &mut Top, key: char) -> Act {
    press(top, KeyCode::Char(key))
}

/// A line of the links' table at 80 columns: up and down, each with its graph.
fn row(mark: &str, name: &str, lanes: &str, [up, up_graph, down, graph]: [&str; 4]) -> String {
    let tier = if name == "sum" { "" } else { "primary" };
    format!("{mark:2}{name:14} {tier:8} {lanes:>7} {up:>8} {up_graph:>13} {down:>8} {graph:>13}")
}

#[test]
fn a_line_a_link_the_sum_and_the_fastest_connections_first_at_80_columns() {
    let lines = drawn(&eight_seconds(), (80, 24));
    assert_eq!(lines[0], "imux top: client of server.example:443 (process 4711)");
    let about = "session 5f0c3a91, 1m; up 3.0M, again 68.4k; down 5.0G, twice 0; unacknowledged 0";
    assert_eq!(lines[1], about);
    let wwan = ["0", "", "32.0M", "▁▁▂▂▃▃▄"];
    let sum = ["100.0k", "", "96.0M", "▁▂▃▄▅▆▇█"];
    assert_eq!(lines[4], row(">", "dev:eth0", "10/10", ["100.0k", "", "64.0M", "▁▂▃▄▅▆▇█"]));
    assert_eq!(lines[5], row("", "dev:wwan0", "10/10", wwan));
    assert_eq!(lines[6], row("", "sum", "20", sum));
    let connection = |from: &str, down_now: &str, down: &str| {
        format!("{from:17} 10.1.0.7:5432     {:>8} {down_now:>8} {:>6} {down:>6} lanes", 0, 100)
    };
    assert!(lines[8].starts_with("2 connections     to      ") && lines[8].ends_with("waits for"));
    assert_eq!(lines[9], connection("127.0.0.1:40002", "8.0M", "7.6M"));
    assert_eq!(lines[10], connection("127.0.0.1:40001", "0", "7.0M"));
    let gone = "lane 3 of dev:wwan0 went 0 ms ago: the connection was reset by the other end \\u…";
    assert_eq!(lines[22], gone);
    assert!(lines[23].starts_with("? help  q leave  p pause"), "{lines:?}");
}

#[test]
fn a_wide_terminal_shows_more_of_it() {
    let lines = drawn(&eight_seconds(), (200, 50));
    assert!(lines[3].ends_with("     up    down  resent    lost"), "{lines:#?}");
    assert!(lines[4].ends_with("▁▂▃▄▅▆▇█    3.0M    5.0G   68.4k       0"), "{lines:#?}");
    assert!(lines[8].ends_with("age waits for"), "{lines:#?}");
    assert!(lines[48].ends_with("the other end \\u{1b}[2J"), "{lines:#?}");
    assert_eq!(lines.len(), 50);
}

#[test]
fn no_terminal_is_too_small_and_no_word_too_strange() {
    let strange = "\u{1b}[2J\u{202e}\u{4e00}\u{300}".repeat(50);
    let mut process = client(8);
    process.place.clone_from(&strange);
    process.links[0].name.clone_from(&strange);
    process.links[1].failed = Some(strange.clone());
    process.links[1].failed_seconds_ago = Some(1e300);
    process.sessions[0].comment.clone_from(&strange);
    process.sessions[0].streams[0].from.clone_from(&strange);
    process.links.extend((0..40).map(|number| link(&number.to_string(), u64::MAX, u64::MAX)));
    let mut top = seen(vec![process, client(1)]);
    for mode in [Mode::Looking, Mode::Tier, Mode::Sure, Mode::Help] {
        top.mode = mode;
        let widths = [1, 2, 3, 9, 30, 59, 60, 79, 80, 99, 100, 119, 120, 300];
        for size in widths.into_iter().flat_map(|width| (1..30).map(move |height| (width, height)))
        {
            let buffer = buffer(&top, size, PLAIN);
            let mut cells = buffer.content().iter();
            assert!(!cells.any(|cell| cell.symbol().contains(['\u{1b}', '\u{202e}'])), "{size:?}");
        }
    }
}

#[test]
fn colours_and_bars_are_for_terminals_that_have_them() {
    let mut process = client(8);
    process.links[1].paused = true;
    let top = seen(vec![process]);
    let coloured = |kind| {
        let buffer = buffer(&top, (80, 24), kind);
        let of = |cell: &ratatui::buffer::Cell| [cell.fg, cell.bg];
        let mut colours: Vec<_> = buffer.content().iter().flat_map(of).collect();
        colours.retain(|colour| *colour != Color::Reset);
        (!colours.is_empty(), buffer.content().iter().all(|cell| cell.symbol().is_ascii()))
    };
    assert_eq!(coloured(Kind { colour: true, unicode: true }), (true, false));
    assert_eq!(coloured(Kind { colour: false, unicode: true }), (false, false));
    assert_eq!(coloured(Kind { colour: false, unicode: false }), (false, true));
}

#[test]
fn keys_ask_for_what_lanes_does() {
    let mut top = seen(vec![client(1)]);
    let asks = |name: &str, change| Act::Change {
        process: 4711,
        change: Change::Link { name: name.to_owned(), change },
    };
    assert_eq!(press(&mut top, KeyCode::Down), Act::Nothing);
    assert_eq!(types(&mut top, 'p'), asks("dev:wwan0", LinkChange::Pause));
    types(&mut top, 't');
    assert_eq!(types(&mut top, 'm'), asks("dev:wwan0", LinkChange::Tier(Tier::Metered)));
    types(&mut top, 't');
    assert_eq!((types(&mut top, 'q'), top.mode), (Act::Nothing, Mode::Looking));
    let mut paused = client(2);
    paused.links[1].paused = true;
    top.see(Status::of(vec![paused]), SECOND);
    assert_eq!(types(&mut top, 'p'), asks("dev:wwan0", LinkChange::Resume));
    // The last one that is in use.
    types(&mut top, 'k');
    assert_eq!((types(&mut top, 'p'), top.mode), (Act::Nothing, Mode::Sure));
    assert_eq!(types(&mut top, 'n'), Act::Nothing);
    types(&mut top, 'p');
    assert_eq!(types(&mut top, 'y'), asks("dev:eth0", LinkChange::Pause));
    assert_eq!(types(&mut top, 'q'), Act::Leave(Exit::Ok));
    let control = |key| KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL);
    types(&mut top, '?');
    assert_eq!(top.key(control('c')), Act::Leave(Exit::Interrupted));
    assert_eq!((top.key(control('z')), top.key(control('l'))), (Act::Suspend, Act::Redraw));
}

#[test]
fn what_is_selected_stays_so_and_no_question_is_answered_for_another_link() {
    let mut top = seen(vec![client(1)]);
    types(&mut top, 'j');
    types(&mut top, 't');
    let mut turned = client(2);
    turned.links.reverse();
    top.see(Status::of(vec![turned.clone()]), SECOND);
    assert_eq!(top.selected().unwrap().name, "dev:wwan0");
    assert_eq!(top.mode, Mode::Tier);
    turned.links.remove(0);
    top.see(Status::of(vec![turned]), SECOND);
    assert_eq!((top.selected().unwrap().name.as_str(), top.mode), ("dev:eth0", Mode::Looking));
}

#[test]
fn several_processes_take_turns_until_all_have_ended() {
    let other = Process { process: 12, role: "server".to_owned(), ..client(1) };
    let mut top = seen(vec![client(1), other.clone()]);
    let shown = |top: &Top| drawn(top, (80, 24)).swap_remove(0);
    assert!(shown(&top).starts_with("imux top: client of") && shown(&top).ends_with("1 of 2"));
    press(&mut top, KeyCode::Tab);
    assert!(shown(&top).starts_with("imux top: server at") && shown(&top).ends_with("2 of 2"));
    // What is shown stays so.
    assert_eq!(top.see(Status::of(vec![other]), SECOND), None);
    assert!(shown(&top).starts_with("imux top: server at"), "{}", shown(&top));
    let said = drawn(&top, (80, 24)).pop().unwrap();
    let ended = "client of server.example:443 (process 4711) has ended, or does not answer";
    assert_eq!(said, ended);
    let ended = top.see(Status::of(Vec::new()), SECOND).unwrap();
    assert!(ended.starts_with("server at server.example:443 (process 12) has ended"), "{ended}");
    assert!(Top::default().see(Status::default(), SECOND).unwrap().contains("is running"));
}

#[test]
fn a_connections_rate_is_of_the_last_moment_or_of_its_short_life() {
    let with = |streams: Vec<Stream>| {
        let mut process = client(1);
        process.sessions[0].streams = streams;
        Status::of(vec![process])
    };
    let mut top = Top::default();
    top.see(with(vec![stream(1, 5_000_000, 0)]), Duration::ZERO);
    let young = Stream { age_seconds: Some(0.5), ..stream(2, 1_000, 3_000) };
    let old = Stream { age_seconds: None, ..stream(3, 1_000, 3_000) };
    top.see(with(vec![stream(1, 5_001_000, 0), young, old]), SECOND * 2);
    let (view, ..) = top.view().unwrap();
    let rates: Vec<_> = view.streams.iter().map(|it| (it.stream.id, it.up, it.down)).collect();
    assert_eq!(rates, [(2, 500, 1_500), (1, 500, 0), (3, 0, 0)]);
}
