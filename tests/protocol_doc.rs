//! Holds docs/PROTOCOL.md to the source: its requirements are numbered once, the tests it cites
//! exist, and its tables of frames, codes and limits are those of the code. The tests that
//! docs/SECURITY.md cites exist, too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use imux::proto::ids::VarInt;
use imux::proto::wire::{Datagram, Frame, Params, Secret, StreamKind, Wants, encode_frame};
use imux::proto::{Code, Dir, LaneId, LanePolicy, SessionId, Side, StreamId, limits};

fn document() -> String {
    read("docs/PROTOCOL.md")
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// All of the source, tests included.
fn source() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut source = String::new();
    let mut folders: Vec<_> = ["src", "tests", "sim"].map(|name| root.join(name)).into();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                source.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    source
}

/// The cells of each row of the table that begins with `heading`.
fn table(document: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, rest) = document.split_once(heading).unwrap_or_else(|| panic!("no table {heading}"));
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
    let rows: Vec<_> = rows.map(cells).collect();
    assert!(!rows.is_empty(), "{heading} is empty");
    rows
}

/// A column of hexadecimal numbers against what stands beside it.
fn numbered(rows: &[Vec<String>]) -> BTreeMap<u64, String> {
    let number = |cell: &str| u64::from_str_radix(cell.trim_start_matches("0x"), 16).unwrap();
    let map: BTreeMap<_, _> = rows.iter().map(|row| (number(&row[0]), row[1].clone())).collect();
    assert_eq!(map.len(), rows.len(), "a number stands twice");
    map
}

/// All numbers `P-1.2` in `text`, marked up in bold or not.
fn requirements(text: &str) -> Vec<String> {
    let number = |tail: &str| {
        let end = tail.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(tail.len());
        format!("P-{}", tail[..end].trim_end_matches('.'))
    };
    text.split("P-").skip(1).map(number).filter(|number| number.contains('.')).collect()
}

fn defined(document: &str) -> Vec<String> {
    document.split("**").filter(|bold| bold.starts_with("P-")).map(str::to_owned).collect()
}

#[test]
fn requirements_are_numbered_once_and_in_order() {
    let document = document();
    let defined = defined(&document);
    assert!(defined.len() > 50, "{}", defined.len());
    let mut section = 0;
    let mut last = 0;
    for number in &defined {
        let (major, minor) = number[2..].split_once('.').unwrap();
        let (major, minor): (u32, u32) = (major.parse().unwrap(), minor.parse().unwrap());
        if major != section {
            assert!(major > section, "{number} is out of order");
            (section, last) = (major, 0);
        }
        assert_eq!(minor, last + 1, "{number} does not follow its predecessor");
        last = minor;
        assert!(document.contains(&format!("\n## {major}. ")), "{number} has no section");
    }
    let known: BTreeSet<_> = defined.iter().collect();
    let mentioned = requirements(&document);
    let unknown: Vec<_> = mentioned.iter().filter(|number| !known.contains(number)).collect();
    assert!(unknown.is_empty(), "mentioned and nowhere defined: {unknown:?}");
}

#[test]
fn every_test_that_is_cited_exists() {
    let (source, document) = (source(), document());
    let mut cited = 0;
    for row in table(&document, "| requirement | tests |") {
        assert!(defined(&document).contains(&row[0]), "{} is no requirement", row[0]);
        for test in row[1].split(", ") {
            let name = test.trim_matches('`');
            assert!(source.contains(&format!("fn {name}(")), "{}: no test {name}", row[0]);
            cited += 1;
        }
    }
    assert!(cited > 40, "{cited}");
}

#[test]
fn every_defence_that_is_claimed_has_its_test() {
    let (source, document) = (source(), read("docs/SECURITY.md"));
    let rows = table(&document, "| attack | defence | tests |");
    assert!(rows.len() > 30, "{}", rows.len());
    for row in rows {
        for test in row[2].split(", ") {
            let name = test.trim_matches('`');
            let there = source.contains(&format!("#[test]\nfn {name}("))
                || source.contains(&format!("    #[test]\n    fn {name}("))
                || source.contains(&format!("#[tokio::test]\nasync fn {name}("))
                || source.contains(&format!("        fn {name}(")); // within proptest!
            assert!(there, "{}: no test {name}", row[0]);
        }
    }
}

#[test]
fn error_codes_are_the_codes() {
    let document = document();
    let told = numbered(&table(&document, "| code | name | meaning | what ends |"));
    for number in 0..0x100u32 {
        let code = Code::from_wire(VarInt::from_u32(number));
        let there = told.contains_key(&u64::from(number));
        assert_eq!(code.meaning().is_some(), there, "{number:#x}: {code}");
    }
    for (code, name) in [
        (Code::NONE, "NONE"),
        (Code::EXCESSIVE_LOAD, "EXCESSIVE_LOAD"),
        (Code::JOIN_REFUSED, "JOIN_REFUSED"),
        (Code::SHUTDOWN, "SHUTDOWN"),
        (Code::RESET, "RESET"),
        (Code::DIAL_RESOURCES, "DIAL_RESOURCES"),
    ] {
        assert_eq!(told[&code.to_wire().into_inner()], name);
    }
}

#[test]
fn frame_types_are_the_types() {
    let id = StreamId::new(Side::Client, Dir::Bi, 0);
    let lane = LaneId::FIRST;
    let stream = |fin| Frame::Stream { id, offset: 0, fin, data: Bytes::from_static(b"x") };
    let params = Params {
        initial_max_data: 0,
        initial_max_stream_data: 0,
        initial_max_streams: 0,
        grace_ms: 0,
        early_max_stream_data: 0,
        wants: Wants::default(),
        listeners_max: 0,
        flows_max: 0,
    };
    let datagram = |total, offset| {
        let data = Bytes::from_static(b"12345");
        Frame::Datagram(Datagram { id, number: 0, waited_ms: 0, total, offset, data })
    };
    let (code, reason, mac) = (Code::NONE, Bytes::new(), [0; 32]);
    let session = SessionId::new([0; 16]);
    let frames = [
        (Frame::Ping, "PING"),
        (Frame::Ack { lane, position: 0 }, "ACK"),
        (stream(false), "STREAM"),
        (stream(true), "STREAM, last"),
        (Frame::Open { id, kind: StreamKind::Default }, "OPEN"),
        (Frame::Redundant { id }, "REDUNDANT"),
        (Frame::Reset { id, code, final_size: 0 }, "RESET"),
        (Frame::Stop { id, code }, "STOP"),
        (Frame::MaxData { max: 0 }, "MAX_DATA"),
        (Frame::MaxStreamData { id, max: 0 }, "MAX_STREAM_DATA"),
        (Frame::MaxStreams { max: 0 }, "MAX_STREAMS"),
        (Frame::EarlyStreams { count: 0 }, "EARLY_STREAMS"),
        (Frame::LaneClosed { lane, position: 0, code }, "LANE_CLOSED"),
        (Frame::Close { code, reason: reason.clone() }, "CLOSE"),
        (Frame::Drain, "DRAIN"),
        (Frame::NextKey { announcement: vec![0; 96].into() }, "NEXT_KEY"),
        (datagram(5, 0), "DATAGRAM"),
        (Frame::Express, "EXPRESS"),
        (datagram(6, 1), "DATAGRAM, a part"),
        (Frame::Create { versions: vec![1], params }, "CREATE"),
        (Frame::Invitation { secret: Secret([0; 32]) }, "INVITATION"),
        (Frame::LanePolicy(LanePolicy::default()), "LANE_POLICY"),
        (Frame::Created { version: 1, session, params }, "CREATED"),
        (Frame::Join { session, lane, mac }, "JOIN"),
        (Frame::Joined { mac }, "JOINED"),
        (Frame::Refused { code, reason }, "REFUSED"),
    ];
    let coded: BTreeMap<u64, String> = frames
        .into_iter()
        .map(|(frame, name)| {
            let mut wire = BytesMut::new();
            encode_frame(&frame, &mut wire);
            // All types are below 64: one byte.
            (u64::from(wire[0]), name.to_owned())
        })
        .collect();
    assert_eq!(numbered(&table(&document(), "| type | name | body | section |")), coded);
}

#[test]
fn limits_are_the_limits() {
    let constants = [
        ("FRAME_BYTES_MAX", limits::FRAME_BYTES_MAX as u64),
        ("DESTINATION_BYTES_MAX", limits::DESTINATION_BYTES_MAX as u64),
        ("REASON_BYTES_MAX", limits::REASON_BYTES_MAX as u64),
        ("NEXT_KEY_BYTES", limits::NEXT_KEY_BYTES as u64),
        ("VERSIONS_MAX", limits::VERSIONS_MAX as u64),
        ("STREAM_GAPS_MAX", limits::STREAM_GAPS_MAX as u64),
        ("SEGMENT_OVERHEAD_BYTES", limits::SEGMENT_OVERHEAD_BYTES),
        ("REORDER_OVERHEAD_FACTOR", limits::REORDER_OVERHEAD_FACTOR),
        ("REORDER_OVERHEAD_BYTES", limits::REORDER_OVERHEAD_BYTES),
        ("DEAD_LANES_MAX", limits::DEAD_LANES_MAX as u64),
        ("LANES_MAX", limits::LANES_MAX as u64),
        ("BUSY_FRAMES_BURST", limits::BUSY_FRAMES_BURST),
        ("BUSY_FRAMES_PER_SECOND", limits::BUSY_FRAMES_PER_SECOND),
        ("ACKS_PER_BUSY_FRAME", limits::ACKS_PER_BUSY_FRAME),
        ("TINY_PAYLOAD_BYTES", limits::TINY_PAYLOAD_BYTES as u64),
        ("LINK_RATE_MIN", limits::LINK_RATE_MIN),
        ("HANDSHAKE_TIMEOUT", limits::HANDSHAKE_TIMEOUT.as_secs()),
        ("BATCH_FRAMES_MAX", limits::BATCH_FRAMES_MAX as u64),
        ("UNACKED_WINDOWS", limits::UNACKED_WINDOWS),
        ("GREETING_BYTES_MAX", limits::GREETING_BYTES_MAX as u64),
        ("HANDSHAKES_PER_SOURCE_BURST", limits::HANDSHAKES_PER_SOURCE_BURST.into()),
        ("HANDSHAKES_PER_SOURCE_PER_SECOND", limits::HANDSHAKES_PER_SOURCE_PER_SECOND.into()),
        ("HANDSHAKE_SOURCES_MAX", limits::HANDSHAKE_SOURCES_MAX as u64),
        ("WAITING_LANES_MAX", limits::WAITING_LANES_MAX as u64),
        ("WAITING_LANES_PER_SOURCE_MAX", limits::WAITING_LANES_PER_SOURCE_MAX as u64),
        ("DATAGRAM_BYTES_MAX", limits::DATAGRAM_BYTES_MAX as u64),
        ("DATAGRAM_PART_BYTES_MIN", limits::DATAGRAM_PART_BYTES_MIN as u64),
        ("FLOWS_PER_SESSION_MAX", limits::FLOWS_PER_SESSION_MAX),
        ("FLOWS_BYTES_MAX", limits::FLOWS_BYTES_MAX),
        ("DATAGRAM_OVERHEAD_BYTES", limits::DATAGRAM_OVERHEAD_BYTES),
        ("DATAGRAMS_HELD_MAX", limits::DATAGRAMS_HELD_MAX as u64),
        ("FLOW_DEADLINE_MAX", limits::FLOW_DEADLINE_MAX.as_secs()),
        ("STREAM_OVERHEAD_BYTES", limits::STREAM_OVERHEAD_BYTES),
        ("MEMORY_PART", limits::MEMORY_PART),
        ("MEMORY_BYTES_MAX", limits::MEMORY_BYTES_MAX),
        ("MEMORY_FLOOR_BYTES_MIN", limits::MEMORY_FLOOR_BYTES_MIN),
        ("MEMORY_FLOOR_BYTES_MAX", limits::MEMORY_FLOOR_BYTES_MAX),
        ("FIRST_MEMORY_PART", limits::FIRST_MEMORY_PART),
        ("FIRST_MEMORY_BYTES", limits::FIRST_MEMORY_BYTES),
        ("FIRST_UNACKED_BYTES", limits::FIRST_UNACKED_BYTES),
        ("SESSIONS_MAX", limits::SESSIONS_MAX as u64),
        ("SESSIONS_PER_SOURCE_MAX", limits::SESSIONS_PER_SOURCE_MAX as u64),
        ("SESSIONS_PER_CLIENT_MAX", limits::SESSIONS_PER_CLIENT_MAX as u64),
        ("LISTENERS_PER_CLIENT_MAX", limits::LISTENERS_PER_CLIENT_MAX as u64),
        ("LISTENERS_MAX", limits::LISTENERS_MAX as u64),
        ("VISITORS_PER_LISTENER_MAX", limits::VISITORS_PER_LISTENER_MAX as u64),
    ];
    let told: BTreeMap<String, u64> = table(&document(), "| limit | value | past it |")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].trim_end_matches(" s").parse().unwrap()))
        .collect();
    assert_eq!(told, constants.map(|(name, value)| (name.to_owned(), value)).into());
}
