//! Frames to bytes, with quinn's integers.

use bytes::{BufMut, BytesMut};
use quinn_proto::coding::Codec;

use super::frame::{Datagram, Frame, Params, StreamKind, types};
use super::numbers::*;
use super::wants::Wants;
use crate::proto::error::Code;
use crate::proto::ids::{StreamId, VarInt};
use crate::proto::limits::LINK_RATE_MIN;
use crate::proto::policy::{LanePolicy, Tier};

/// A number as a variable-length integer. Offsets never come near 2^62 (53 days at 1 TB/s); one
/// that did would be truncated, and the receiver would reject it.
fn varint(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}

fn put<B: BufMut>(out: &mut B, value: u64) {
    varint(value).encode(out);
}

fn put_all<B: BufMut, const N: usize>(out: &mut B, values: [u64; N]) {
    values.into_iter().for_each(|value| put(out, value));
}

fn put_header<B: BufMut>(out: &mut B, kind: u64, body_len: usize) {
    put(out, kind);
    put(out, body_len as u64);
}

const fn size(value: u64) -> usize {
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

/// Bytes before the payload in a STREAM frame of `payload` bytes.
pub fn stream_header_len(id: StreamId, offset: u64, payload: usize) -> usize {
    let fields = size(VarInt::from(id).into_inner()).saturating_add(size(offset));
    let length = size(fields.saturating_add(payload) as u64);
    fields.saturating_add(length).saturating_add(1)
}

/// Writes the header of a STREAM frame whose payload of `payload` bytes follows.
pub(super) fn encode_stream_header(
    out: &mut BytesMut,
    id: StreamId,
    offset: u64,
    payload: usize,
    fin: bool,
) {
    let id = VarInt::from(id);
    let kind = if fin { types::STREAM_FIN } else { types::STREAM };
    let fields = size(id.into_inner()).saturating_add(size(offset));
    put_header(out, kind, fields.saturating_add(payload));
    id.encode(out);
    put(out, offset);
}

/// The numbers before a datagram's payload, and how many of them there are.
fn datagram_fields(datagram: &Datagram) -> ([u64; 5], usize) {
    let Datagram { id, number, waited_ms, total, offset, .. } = datagram;
    let id = VarInt::from(*id).into_inner();
    let count = if datagram.is_whole() { 3 } else { 5 };
    ([id, *number, *waited_ms, *total as u64, *offset as u64], count)
}

/// Bytes of the frame that carries a datagram, or a part of one.
pub fn datagram_len(datagram: &Datagram) -> usize {
    let (fields, count) = datagram_fields(datagram);
    let fields = fields.iter().take(count).fold(0, |sum: usize, f| sum.saturating_add(size(*f)));
    let body = fields.saturating_add(datagram.data.len());
    size(body as u64).saturating_add(body).saturating_add(1)
}

/// Writes the header of a frame that carries a datagram, whose payload follows.
pub(super) fn encode_datagram_header(out: &mut BytesMut, datagram: &Datagram) {
    let (fields, count) = datagram_fields(datagram);
    let bytes = fields.iter().take(count).fold(0, |sum: usize, f| sum.saturating_add(size(*f)));
    let kind = if datagram.is_whole() { types::DATAGRAM } else { types::DATAGRAM_PART };
    put_header(out, kind, bytes.saturating_add(datagram.data.len()));
    fields.into_iter().take(count).for_each(|field| put(out, field));
}

/// Writes a frame of a reserved type, which every receiver must skip.
pub(super) fn encode_reserved(out: &mut BytesMut, n: u8) {
    put_header(out, types::reserved(n), usize::from(n % 8));
    out.put_bytes(n, usize::from(n % 8));
}

/// Writes one frame.
pub fn encode_frame(frame: &Frame, out: &mut BytesMut) {
    let payload = match frame {
        Frame::Stream { data, .. } => data.as_ref(),
        Frame::Datagram(datagram) => datagram.data.as_ref(),
        _ => &[],
    };
    // All others are a few bytes: written first, to learn their length.
    let mut fields = BytesMut::new();
    encode_fields(frame, &mut fields);
    put_header(out, type_of(frame), fields.len().saturating_add(payload.len()));
    out.put_slice(&fields);
    out.put_slice(payload);
}

fn type_of(frame: &Frame) -> u64 {
    match frame {
        Frame::Ping => types::PING,
        Frame::Ack { .. } => types::ACK,
        Frame::Stream { fin: false, .. } => types::STREAM,
        Frame::Stream { fin: true, .. } => types::STREAM_FIN,
        Frame::Datagram(datagram) if datagram.is_whole() => types::DATAGRAM,
        Frame::Datagram(_) => types::DATAGRAM_PART,
        Frame::Open { .. } => types::OPEN,
        Frame::Redundant { .. } => types::REDUNDANT,
        Frame::Reset { .. } => types::RESET,
        Frame::Stop { .. } => types::STOP,
        Frame::MaxData { .. } => types::MAX_DATA,
        Frame::MaxStreamData { .. } => types::MAX_STREAM_DATA,
        Frame::MaxStreams { .. } => types::MAX_STREAMS,
        Frame::EarlyStreams { .. } => types::EARLY_STREAMS,
        Frame::LaneClosed { .. } => types::LANE_CLOSED,
        Frame::Close { .. } => types::CLOSE,
        Frame::Drain => types::DRAIN,
        Frame::NextKey { .. } => types::NEXT_KEY,
        Frame::Express => types::EXPRESS,
        Frame::Invitation { .. } => types::INVITATION,
        Frame::LanePolicy(_) => types::LANE_POLICY,
        Frame::Create { .. } => types::CREATE,
        Frame::Created { .. } => types::CREATED,
        Frame::Join { .. } => types::JOIN,
        Frame::Joined { .. } => types::JOINED,
        Frame::Refused { .. } => types::REFUSED,
        Frame::Ignored => types::reserved(0),
    }
}

/// Writes the body, except the payload of a stream or a datagram.
fn encode_fields(frame: &Frame, out: &mut BytesMut) {
    let id = |id: &StreamId| VarInt::from(*id).into_inner();
    let wire = |code: &Code| code.to_wire().into_inner();
    match frame {
        Frame::Ping | Frame::Drain | Frame::Express | Frame::Ignored => {}
        Frame::Ack { lane, position } => put_all(out, [lane.number(), *position]),
        Frame::Stream { id: stream, offset, .. } => put_all(out, [id(stream), *offset]),
        Frame::Datagram(datagram) => {
            let (fields, count) = datagram_fields(datagram);
            fields.into_iter().take(count).for_each(|field| put(out, field));
        }
        Frame::Open { id: stream, kind } => {
            put(out, id(stream));
            encode_kind(kind, out);
        }
        Frame::Redundant { id: stream } => put(out, id(stream)),
        Frame::Reset { id: stream, code, final_size } => {
            put_all(out, [id(stream), wire(code), *final_size]);
        }
        Frame::Stop { id: stream, code } => put_all(out, [id(stream), wire(code)]),
        Frame::MaxData { max } | Frame::MaxStreams { max } => put(out, *max),
        Frame::MaxStreamData { id: stream, max } => put_all(out, [id(stream), *max]),
        Frame::EarlyStreams { count } => put(out, *count),
        Frame::LaneClosed { lane, position, code } => {
            put_all(out, [lane.number(), *position, wire(code)]);
        }
        Frame::Close { code, reason } | Frame::Refused { code, reason } => {
            put(out, wire(code));
            out.put_slice(reason);
        }
        Frame::NextKey { announcement } => out.put_slice(announcement),
        Frame::Invitation { secret } => out.put_slice(&secret.0),
        Frame::LanePolicy(policy) => encode_policy(policy, out),
        Frame::Create { versions, params } => {
            put(out, versions.len() as u64);
            versions.iter().for_each(|&version| put(out, version.into()));
            encode_params(params, out);
        }
        Frame::Created { version, session, params } => {
            put(out, (*version).into());
            out.put_slice(session.as_bytes());
            encode_params(params, out);
        }
        Frame::Join { session, lane, mac } => {
            out.put_slice(session.as_bytes());
            put(out, lane.number());
            out.put_slice(mac);
        }
        Frame::Joined { mac } => out.put_slice(mac),
    }
}

fn encode_kind(kind: &StreamKind, out: &mut BytesMut) {
    match kind {
        StreamKind::Default => put(out, KIND_DEFAULT),
        StreamKind::Named(destination) => {
            put(out, KIND_NAMED);
            out.put_slice(destination.as_bytes());
        }
        StreamKind::Raw => put(out, KIND_RAW),
        StreamKind::Wanting { wants, claim, destination } => {
            put(out, KIND_WANTING);
            put(out, wants.to_wire());
            if wants.has(Wants::CLAIM) {
                let claim = claim.as_deref().unwrap_or_default();
                put(out, claim.len() as u64);
                out.put_slice(claim.as_bytes());
            }
            out.put_slice(destination.as_deref().unwrap_or_default().as_bytes());
        }
        StreamKind::Listening { number, place } => {
            put(out, KIND_LISTENING);
            put(out, *number);
            out.put_slice(place.as_bytes());
        }
        StreamKind::Visitor { number, source } => {
            put(out, KIND_VISITOR);
            put(out, *number);
            out.put_slice(source.as_deref().unwrap_or_default().as_bytes());
        }
        StreamKind::Flow { deadline_ms, kind } => {
            put_all(out, [KIND_FLOW, *deadline_ms]);
            encode_kind(kind, out);
        }
        // The kind was known, what it is for was not.
        StreamKind::Unknown(KIND_FLOW) => put_all(out, [KIND_FLOW, 0, KIND_FLOW]),
        // The kind was known, its wants were not.
        StreamKind::Unknown(KIND_WANTING) => {
            put(out, KIND_WANTING);
            put(out, Wants::ALL.to_wire().saturating_add(1));
        }
        StreamKind::Unknown(kind) => put(out, *kind),
    }
}

fn encode_policy(policy: &LanePolicy, out: &mut BytesMut) {
    put(
        out,
        match policy.tier {
            Tier::Primary => TIER_PRIMARY,
            Tier::Backup => TIER_BACKUP,
            Tier::Metered => TIER_METERED,
            Tier::Express => TIER_EXPRESS,
        },
    );
    put(out, policy.link.number());
    put(out, policy.rate_max.map_or(0, |rate| rate.max(LINK_RATE_MIN)));
}

fn encode_params(params: &Params, out: &mut BytesMut) {
    let fields = [
        (PARAM_MAX_DATA, params.initial_max_data),
        (PARAM_MAX_STREAM_DATA, params.initial_max_stream_data),
        (PARAM_MAX_STREAMS, params.initial_max_streams),
        (PARAM_GRACE, params.grace_ms),
        (PARAM_EARLY_MAX_STREAM_DATA, params.early_max_stream_data),
        (PARAM_OPEN_WANTS, params.wants.to_wire()),
        (PARAM_LISTENERS_MAX, params.listeners_max),
        (PARAM_FLOWS_MAX, params.flows_max),
    ];
    for (name, value) in fields {
        put(out, name);
        put(out, size(value) as u64);
        put(out, value);
    }
}
