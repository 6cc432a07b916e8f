//! Frames by docs/PROTOCOL.md alone. Nothing here checks anything: a hostile peer writes what it
//! likes.

use aws_lc_rs::hmac;

pub(crate) mod types {
    pub(crate) const PING: u64 = 0x00;
    pub(crate) const ACK: u64 = 0x02;
    pub(crate) const STREAM: u64 = 0x04;
    pub(crate) const STREAM_LAST: u64 = 0x06;
    pub(crate) const OPEN: u64 = 0x08;
    pub(crate) const RESET: u64 = 0x0a;
    pub(crate) const STOP: u64 = 0x0c;
    pub(crate) const MAX_DATA: u64 = 0x0e;
    pub(crate) const MAX_STREAM_DATA: u64 = 0x10;
    pub(crate) const MAX_STREAMS: u64 = 0x12;
    pub(crate) const LANE_CLOSED: u64 = 0x14;
    pub(crate) const CLOSE: u64 = 0x16;
    pub(crate) const DRAIN: u64 = 0x18;
    pub(crate) const DATAGRAM: u64 = 0x1c;
    pub(crate) const DATAGRAM_PART: u64 = 0x1e;
    pub(crate) const CREATE: u64 = 0x20;
    pub(crate) const CREATED: u64 = 0x22;
    pub(crate) const LANE_POLICY: u64 = 0x23;
    pub(crate) const JOIN: u64 = 0x24;
    pub(crate) const JOINED: u64 = 0x26;
    pub(crate) const REFUSED: u64 = 0x28;
}

/// Error codes (section 10).
pub(crate) mod codes {
    pub(crate) const PROTOCOL: u64 = 0x02;
    pub(crate) const FLOW_CONTROL: u64 = 0x03;
    pub(crate) const STREAM_LIMIT: u64 = 0x04;
    pub(crate) const FINAL_SIZE: u64 = 0x05;
    pub(crate) const INVALID_ACK: u64 = 0x06;
    pub(crate) const EXCESSIVE_LOAD: u64 = 0x07;
    pub(crate) const VERSION: u64 = 0x08;
    pub(crate) const JOIN_REFUSED: u64 = 0x09;
}

pub(crate) const DEFAULT: u64 = 0;
pub(crate) const NAMED: u64 = 1;
pub(crate) const RAW: u64 = 2;
pub(crate) const FLOW: u64 = 6;

/// The largest number there is on the wire.
pub(crate) const MAX: u64 = (1 << 62) - 1;

/// RFC 9000, section 16.
pub(crate) fn varint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend((value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend((value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend((value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// The number at the front, which is taken off.
pub(crate) fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let length = 1 << (input.first()? >> 6);
    let (number, rest) = input.split_at_checked(length)?;
    *input = rest;
    let value = number.iter().fold(0, |value, &byte| value << 8 | u64::from(byte));
    Some(value & (u64::MAX >> 2 >> (64 - 8 * length)))
}

/// A frame of numbers and then bytes.
pub(crate) fn frame(kind: u64, numbers: &[u64], bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    numbers.iter().for_each(|&number| varint(&mut body, number));
    body.extend(bytes);
    let mut out = Vec::new();
    varint(&mut out, kind);
    varint(&mut out, body.len() as u64);
    out.extend(body);
    out
}

/// The client's stream `index`.
pub(crate) fn stream(index: u64) -> u64 {
    index << 2
}

/// The server's stream `index`.
pub(crate) fn servers_stream(index: u64) -> u64 {
    index << 2 | 1
}

pub(crate) fn data(stream: u64, offset: u64, bytes: &[u8]) -> Vec<u8> {
    frame(types::STREAM, &[stream, offset], bytes)
}

pub(crate) fn last(stream: u64, offset: u64, bytes: &[u8]) -> Vec<u8> {
    frame(types::STREAM_LAST, &[stream, offset], bytes)
}

pub(crate) fn open(stream: u64, kind: u64) -> Vec<u8> {
    let name: &[u8] = if kind == NAMED { b"endless:1" } else { b"" };
    frame(types::OPEN, &[stream, kind], name)
}

/// Opens a flow for what `open` opens a stream for.
pub(crate) fn open_flow(stream: u64, deadline_ms: u64, kind: u64) -> Vec<u8> {
    let name: &[u8] = if kind == NAMED { b"endless:1" } else { b"" };
    frame(types::OPEN, &[stream, FLOW, deadline_ms, kind], name)
}

pub(crate) fn datagram(stream: u64, number: u64, bytes: &[u8]) -> Vec<u8> {
    frame(types::DATAGRAM, &[stream, number, 0], bytes)
}

pub(crate) fn part(stream: u64, number: u64, total: u64, offset: u64, bytes: &[u8]) -> Vec<u8> {
    frame(types::DATAGRAM_PART, &[stream, number, 0, total, offset], bytes)
}

pub(crate) fn parameters(max_data: u64, max_stream_data: u64, max_streams: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in [(0, max_data), (1, max_stream_data), (2, max_streams), (3, 1_000)] {
        let mut number = Vec::new();
        varint(&mut number, value);
        varint(&mut out, name);
        varint(&mut out, number.len() as u64);
        out.extend(number);
    }
    out
}

/// P-4.7.
pub(crate) fn proof(
    secret: &[u8; 32],
    session: &[u8; 16],
    role: u8,
    lane: u64,
    exported: &[u8; 32],
) -> [u8; 32] {
    let mut message = b"imux/1 join lane".to_vec();
    message.extend(session);
    message.push(role);
    message.extend(lane.to_be_bytes());
    message.extend(exported);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::sign(&key, &message).as_ref().try_into().unwrap()
}

pub(crate) fn join(session: &[u8; 16], lane: u64, mac: &[u8]) -> Vec<u8> {
    let mut body = session.to_vec();
    varint(&mut body, lane);
    body.extend(mac);
    frame(types::JOIN, &[], &body)
}

#[test]
fn numbers_are_those_of_the_rfc() {
    // RFC 9000, A.1.
    for (bytes, value) in [
        (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
        (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
        (&[0x7b, 0xbd], 15_293),
        (&[0x25], 37),
    ] {
        assert_eq!(take_varint(&mut &*bytes), Some(value));
        let mut out = Vec::new();
        varint(&mut out, value);
        assert_eq!(out, bytes);
    }
}
