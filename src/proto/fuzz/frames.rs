//! Frames from a fuzzer's bytes.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;

use crate::proto::error::Code;
use crate::proto::ids::{Dir, LaneId, LinkId, SessionId, Side, StreamId, VarInt};
use crate::proto::limits::{
    DATAGRAM_PART_BYTES_MIN, DESTINATION_BYTES_MAX, LINK_RATE_MIN, REASON_BYTES_MAX, VERSIONS_MAX,
};
use crate::proto::policy::{LanePolicy, Tier};
use crate::proto::wire::{Datagram, Frame, Params, StreamKind, Wants};

/// Most often a small number, sometimes any that a variable-length integer can hold.
pub(super) fn number(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match u.int_in_range(0..=7)? {
        0..=3 => u64::from(u.arbitrary::<u8>()?),
        4 | 5 => u64::from(u.arbitrary::<u16>()?),
        6 => u64::from(u.arbitrary::<u32>()?),
        _ => u.arbitrary::<u64>()? >> 2,
    })
}

/// Most often one of the first streams, rarely a unidirectional one.
pub(super) fn stream_id(u: &mut Unstructured<'_>) -> Result<StreamId> {
    let choice: u8 = u.arbitrary()?;
    let side = if choice & 1 == 0 { Side::Client } else { Side::Server };
    let dir = if choice & 0x70 == 0x70 { Dir::Uni } else { Dir::Bi };
    let index = match choice >> 1 & 7 {
        7 => number(u)? >> 2,
        small => u64::from(small),
    };
    Ok(StreamId::new(side, dir, index))
}

fn lane_id(u: &mut Unstructured<'_>) -> Result<LaneId> {
    Ok(LaneId::new(number(u)?))
}

fn code(u: &mut Unstructured<'_>) -> Result<Code> {
    Ok(Code::from_wire(VarInt::from_u64(number(u)?).unwrap_or(VarInt::MAX)))
}

fn bytes(u: &mut Unstructured<'_>, max: usize) -> Result<Bytes> {
    let len = u.int_in_range(0..=max)?;
    Ok(Bytes::copy_from_slice(u.bytes(len.min(u.len()))?))
}

/// A payload of any length, however little input is left: its bytes repeat.
fn payload(u: &mut Unstructured<'_>) -> Result<Bytes> {
    let len = u.int_in_range(0..=2000usize)?;
    let fill: u8 = u.arbitrary()?;
    Ok(Bytes::from(vec![fill; len]))
}

fn params(u: &mut Unstructured<'_>) -> Result<Params> {
    Ok(Params {
        initial_max_data: number(u)?,
        initial_max_stream_data: number(u)?,
        initial_max_streams: number(u)?,
        grace_ms: number(u)?,
        early_max_stream_data: number(u)?,
        wants: Wants::known_of(number(u)?),
        listeners_max: number(u)?,
        flows_max: number(u)?,
    })
}

fn kind(u: &mut Unstructured<'_>) -> Result<StreamKind> {
    Ok(match u.int_in_range(0..=7)? {
        0 => StreamKind::Default,
        1 => {
            let name = bytes(u, DESTINATION_BYTES_MAX / 4)?;
            let name: String = name.iter().map(|&byte| char::from(byte)).collect();
            StreamKind::Named(if name.is_empty() { "x".to_owned() } else { name })
        }
        2 => StreamKind::Raw,
        3 => {
            let wants = Wants::known_of(number(u)?);
            let claim = wants.has(Wants::CLAIM).then(|| "192.0.2.1:1".to_owned());
            StreamKind::Wanting { wants, claim, destination: None }
        }
        4 => {
            let place = bytes(u, DESTINATION_BYTES_MAX / 4)?;
            let place: String = place.iter().map(|&byte| char::from(byte)).collect();
            let place = if place.is_empty() { "x".to_owned() } else { place };
            StreamKind::Listening { number: number(u)?, place }
        }
        5 => {
            let source = u.ratio(3, 4)?.then(|| "192.0.2.1:1".to_owned());
            StreamKind::Visitor { number: number(u)?, source }
        }
        6 => {
            let kind = if u.arbitrary()? { StreamKind::Raw } else { StreamKind::Default };
            StreamKind::Flow { deadline_ms: number(u)?, kind: Box::new(kind) }
        }
        // Kinds above the known ones.
        _ => StreamKind::Unknown(number(u)?.max(7)),
    })
}

fn policy(u: &mut Unstructured<'_>) -> Result<LanePolicy> {
    let rate = number(u)?;
    Ok(LanePolicy {
        tier: *u.choose(&Tier::ALL)?,
        link: LinkId::new(number(u)?),
        rate_max: (rate > 0).then_some(rate.max(LINK_RATE_MIN)),
    })
}

fn versions(u: &mut Unstructured<'_>) -> Result<Vec<u32>> {
    let count = u.int_in_range(1..=VERSIONS_MAX)?;
    (0..count).map(|_| Ok(number(u)? as u32)).collect()
}

/// Most often a whole one.
fn datagram(u: &mut Unstructured<'_>) -> Result<Datagram> {
    let (id, number, waited_ms) = (stream_id(u)?, number(u)?, number(u)?);
    let data = payload(u)?;
    let part = data.len() >= DATAGRAM_PART_BYTES_MIN && u.ratio(1, 2)?;
    if !part {
        return Ok(Datagram { id, number, waited_ms, total: data.len(), offset: 0, data });
    }
    let (nth, after) = (u.int_in_range(0..=4usize)?, u.int_in_range(1..=9_000usize)?);
    let offset = nth * data.len();
    Ok(Datagram { id, number, waited_ms, total: offset + data.len() + after, offset, data })
}

/// Any frame that an encoder may be given.
pub(super) fn frame(u: &mut Unstructured<'_>) -> Result<Frame> {
    // Frames of an established session come first, and data most often.
    match u.int_in_range(0..=35)? {
        0 => Ok(Frame::Ping),
        1..=3 => Ok(Frame::Ack { lane: lane_id(u)?, position: number(u)? }),
        4..=12 => {
            let (id, offset, mut fin) = (stream_id(u)?, number(u)?, u.ratio(1, 4)?);
            let data = payload(u)?;
            fin |= data.is_empty();
            Ok(Frame::Stream { id, offset, fin, data })
        }
        13..=15 => Ok(Frame::Open { id: stream_id(u)?, kind: kind(u)? }),
        16 => Ok(Frame::Reset { id: stream_id(u)?, code: code(u)?, final_size: number(u)? }),
        17 | 18 => Ok(Frame::Stop { id: stream_id(u)?, code: code(u)? }),
        19 | 20 => Ok(Frame::MaxData { max: number(u)? }),
        21 | 22 => Ok(Frame::MaxStreamData { id: stream_id(u)?, max: number(u)? }),
        23 => Ok(Frame::MaxStreams { max: number(u)? }),
        24 => Ok(Frame::LaneClosed { lane: lane_id(u)?, position: number(u)?, code: code(u)? }),
        25 => Ok(Frame::Close { code: code(u)?, reason: bytes(u, REASON_BYTES_MAX)? }),
        26 => Ok(Frame::Drain),
        27 => Ok(Frame::Redundant { id: stream_id(u)? }),
        28 => Ok(Frame::LanePolicy(policy(u)?)),
        29 => Ok(Frame::Express),
        30 => Ok(Frame::EarlyStreams { count: number(u)? }),
        31..=34 => Ok(Frame::Datagram(datagram(u)?)),
        _ => handshake(u),
    }
}

fn handshake(u: &mut Unstructured<'_>) -> Result<Frame> {
    let session = SessionId::new(u.arbitrary()?);
    Ok(match u.int_in_range(0..=5)? {
        0 => Frame::Create { versions: versions(u)?, params: params(u)? },
        1 => Frame::Created { version: number(u)? as u32, session, params: params(u)? },
        2 => Frame::Join { session, lane: lane_id(u)?, mac: u.arbitrary()? },
        3 => Frame::Joined { mac: u.arbitrary()? },
        4 => Frame::Refused { code: code(u)?, reason: bytes(u, REASON_BYTES_MAX)? },
        _ => Frame::Ignored,
    })
}
