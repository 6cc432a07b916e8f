//! Frames to bytes and back, with quinn's integers.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quinn_proto::coding::Codec;

use super::frame::{Frame, Params, Secret, StreamKind, types};
use super::wants::Wants;
use crate::proto::error::{Code, DecodeError};
use crate::proto::ids::{LaneId, LinkId, SessionId, StreamId, VarInt};
use crate::proto::limits::{
    DESTINATION_BYTES_MAX, LINK_RATE_MIN, NEXT_KEY_BYTES, REASON_BYTES_MAX, VERSIONS_MAX,
};
use crate::proto::policy::{LanePolicy, Tier};

/// A field did not fit: the body is too short, too long, or out of bounds.
pub(super) struct Malformed;

impl From<quinn_proto::coding::UnexpectedEnd> for Malformed {
    fn from(_: quinn_proto::coding::UnexpectedEnd) -> Self {
        Self
    }
}

type Field<T> = Result<T, Malformed>;

const PARAM_MAX_DATA: u64 = 0x00;
const PARAM_MAX_STREAM_DATA: u64 = 0x01;
const PARAM_MAX_STREAMS: u64 = 0x02;
const PARAM_GRACE: u64 = 0x03;
const PARAM_EARLY_MAX_STREAM_DATA: u64 = 0x04;
const PARAM_OPEN_WANTS: u64 = 0x05;
const PARAM_LISTENERS_MAX: u64 = 0x06;

const TIER_PRIMARY: u64 = 0;
const TIER_BACKUP: u64 = 1;
const TIER_METERED: u64 = 2;
const TIER_EXPRESS: u64 = 3;

const KIND_DEFAULT: u64 = 0;
const KIND_NAMED: u64 = 1;
const KIND_RAW: u64 = 2;
const KIND_WANTING: u64 = 3;
const KIND_LISTENING: u64 = 4;
const KIND_VISITOR: u64 = 5;

/// A number as a variable-length integer. Offsets never come near 2^62 (53 days at 1 TB/s); one
/// that did would be truncated, and the receiver would reject it.
fn varint(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}

fn put<B: BufMut>(out: &mut B, value: u64) {
    varint(value).encode(out);
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

/// Writes a frame of a reserved type, which every receiver must skip.
pub(super) fn encode_reserved(out: &mut BytesMut, n: u8) {
    put_header(out, types::reserved(n), usize::from(n % 8));
    out.put_bytes(n, usize::from(n % 8));
}

/// Writes one frame.
pub fn encode_frame(frame: &Frame, out: &mut BytesMut) {
    let payload = match frame {
        Frame::Stream { data, .. } => data.as_ref(),
        _ => &[],
    };
    // All others are a few bytes: written first, to learn their length.
    let mut fields = BytesMut::new();
    let kind = encode_fields(frame, &mut fields);
    put_header(out, kind, fields.len().saturating_add(payload.len()));
    out.put_slice(&fields);
    out.put_slice(payload);
}

/// Writes the body, except the payload of a STREAM frame; returns the type.
fn encode_fields(frame: &Frame, out: &mut BytesMut) -> u64 {
    match frame {
        Frame::Ping => types::PING,
        Frame::Ack { lane, position } => {
            put(out, lane.number());
            put(out, *position);
            types::ACK
        }
        Frame::Stream { id, offset, fin, .. } => {
            VarInt::from(*id).encode(out);
            put(out, *offset);
            if *fin { types::STREAM_FIN } else { types::STREAM }
        }
        Frame::Open { id, kind } => {
            VarInt::from(*id).encode(out);
            encode_kind(kind, out);
            types::OPEN
        }
        Frame::Redundant { id } => {
            VarInt::from(*id).encode(out);
            types::REDUNDANT
        }
        Frame::Reset { id, code, final_size } => {
            VarInt::from(*id).encode(out);
            code.to_wire().encode(out);
            put(out, *final_size);
            types::RESET
        }
        Frame::Stop { id, code } => {
            VarInt::from(*id).encode(out);
            code.to_wire().encode(out);
            types::STOP
        }
        Frame::MaxData { max } => {
            put(out, *max);
            types::MAX_DATA
        }
        Frame::MaxStreamData { id, max } => {
            VarInt::from(*id).encode(out);
            put(out, *max);
            types::MAX_STREAM_DATA
        }
        Frame::MaxStreams { max } => {
            put(out, *max);
            types::MAX_STREAMS
        }
        Frame::EarlyStreams { count } => {
            put(out, *count);
            types::EARLY_STREAMS
        }
        Frame::LaneClosed { lane, position, code } => {
            put(out, lane.number());
            put(out, *position);
            code.to_wire().encode(out);
            types::LANE_CLOSED
        }
        Frame::Close { code, reason } => {
            code.to_wire().encode(out);
            out.put_slice(reason);
            types::CLOSE
        }
        Frame::Drain => types::DRAIN,
        Frame::NextKey { announcement } => {
            out.put_slice(announcement);
            types::NEXT_KEY
        }
        Frame::Express => types::EXPRESS,
        Frame::Invitation { secret } => {
            out.put_slice(&secret.0);
            types::INVITATION
        }
        Frame::LanePolicy(policy) => {
            encode_policy(policy, out);
            types::LANE_POLICY
        }
        Frame::Create { versions, params } => {
            put(out, versions.len() as u64);
            versions.iter().for_each(|&version| put(out, version.into()));
            encode_params(params, out);
            types::CREATE
        }
        Frame::Created { version, session, params } => {
            put(out, (*version).into());
            out.put_slice(session.as_bytes());
            encode_params(params, out);
            types::CREATED
        }
        Frame::Join { session, lane, mac } => {
            out.put_slice(session.as_bytes());
            put(out, lane.number());
            out.put_slice(mac);
            types::JOIN
        }
        Frame::Joined { mac } => {
            out.put_slice(mac);
            types::JOINED
        }
        Frame::Refused { code, reason } => {
            code.to_wire().encode(out);
            out.put_slice(reason);
            types::REFUSED
        }
        Frame::Ignored => types::reserved(0),
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
    ];
    for (name, value) in fields {
        put(out, name);
        put(out, size(value) as u64);
        put(out, value);
    }
}

/// Reads the body of a frame of type `kind`. Copies the payload, so that a kept frame pins no
/// larger buffer.
pub(super) fn decode_body(kind: u64, body: &[u8]) -> Result<Frame, DecodeError> {
    let mut rest = body;
    let frame = match kind {
        types::STREAM | types::STREAM_FIN => decode_stream(kind, &mut rest),
        _ => decode_control(kind, &mut rest),
    };
    match frame {
        Ok(Some(frame)) if rest.is_empty() => Ok(frame),
        Ok(Some(_)) | Err(Malformed) => Err(DecodeError::Malformed(kind)),
        Ok(None) if kind & 1 == 1 => Ok(Frame::Ignored),
        Ok(None) => Err(DecodeError::UnknownType(kind)),
    }
}

fn decode_stream(kind: u64, rest: &mut &[u8]) -> Field<Option<Frame>> {
    let id = stream_id(rest)?;
    let offset = get(rest)?;
    let payload = std::mem::take(rest);
    let fin = kind == types::STREAM_FIN;
    if payload.is_empty() && !fin {
        return Err(Malformed);
    }
    Ok(Some(Frame::Stream { id, offset, fin, data: Bytes::copy_from_slice(payload) }))
}

fn decode_control(kind: u64, rest: &mut &[u8]) -> Field<Option<Frame>> {
    let frame = match kind {
        types::PING => Frame::Ping,
        types::ACK => Frame::Ack { lane: lane_id(rest)?, position: get(rest)? },
        types::OPEN => Frame::Open { id: stream_id(rest)?, kind: decode_kind(rest)? },
        types::REDUNDANT => Frame::Redundant { id: stream_id(rest)? },
        types::RESET => {
            Frame::Reset { id: stream_id(rest)?, code: code(rest)?, final_size: get(rest)? }
        }
        types::STOP => Frame::Stop { id: stream_id(rest)?, code: code(rest)? },
        types::MAX_DATA => Frame::MaxData { max: get(rest)? },
        types::MAX_STREAM_DATA => Frame::MaxStreamData { id: stream_id(rest)?, max: get(rest)? },
        types::MAX_STREAMS => Frame::MaxStreams { max: get(rest)? },
        types::EARLY_STREAMS => Frame::EarlyStreams { count: get(rest)? },
        types::LANE_CLOSED => {
            Frame::LaneClosed { lane: lane_id(rest)?, position: get(rest)?, code: code(rest)? }
        }
        types::CLOSE => Frame::Close { code: code(rest)?, reason: reason(rest)? },
        types::DRAIN => Frame::Drain,
        types::NEXT_KEY => {
            let announcement = array::<NEXT_KEY_BYTES>(rest)?;
            Frame::NextKey { announcement: Bytes::copy_from_slice(&announcement) }
        }
        types::EXPRESS => Frame::Express,
        types::INVITATION => Frame::Invitation { secret: Secret(array(rest)?) },
        types::LANE_POLICY => Frame::LanePolicy(decode_policy(rest)?),
        types::CREATE => {
            let versions = decode_versions(rest)?;
            Frame::Create { versions, params: decode_params(rest)? }
        }
        types::CREATED => {
            let version = u32::try_from(get(rest)?).map_err(|_| Malformed)?;
            let session = SessionId::new(array(rest)?);
            Frame::Created { version, session, params: decode_params(rest)? }
        }
        types::JOIN => {
            let session = SessionId::new(array(rest)?);
            Frame::Join { session, lane: lane_id(rest)?, mac: array(rest)? }
        }
        types::JOINED => Frame::Joined { mac: array(rest)? },
        types::REFUSED => Frame::Refused { code: code(rest)?, reason: reason(rest)? },
        _ => {
            *rest = &[];
            return Ok(None);
        }
    };
    Ok(Some(frame))
}

fn get(rest: &mut &[u8]) -> Field<u64> {
    Ok(VarInt::decode(rest)?.into_inner())
}

fn stream_id(rest: &mut &[u8]) -> Field<StreamId> {
    Ok(StreamId::from(VarInt::decode(rest)?))
}

fn lane_id(rest: &mut &[u8]) -> Field<LaneId> {
    Ok(LaneId::new(get(rest)?))
}

fn code(rest: &mut &[u8]) -> Field<Code> {
    Ok(Code::from_wire(VarInt::decode(rest)?))
}

fn array<const N: usize>(rest: &mut &[u8]) -> Field<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(Malformed)?;
    *rest = tail;
    Ok(*head)
}

fn reason(rest: &mut &[u8]) -> Field<Bytes> {
    let text = std::mem::take(rest);
    if text.len() > REASON_BYTES_MAX {
        return Err(Malformed);
    }
    Ok(Bytes::copy_from_slice(text))
}

fn decode_kind(rest: &mut &[u8]) -> Field<StreamKind> {
    match get(rest)? {
        KIND_DEFAULT => Ok(StreamKind::Default),
        KIND_NAMED => Ok(StreamKind::Named(decode_destination(rest)?.ok_or(Malformed)?)),
        KIND_RAW => Ok(StreamKind::Raw),
        KIND_WANTING => {
            let Some(wants) = Wants::from_wire(get(rest)?) else {
                // Whoever accepts it refuses wants that were never granted; what those add is not
                // known.
                decode_rest(rest)?;
                return Ok(StreamKind::Unknown(KIND_WANTING));
            };
            let claim = if wants.has(Wants::CLAIM) { decode_claim(rest)? } else { None };
            let destination = decode_destination(rest)?;
            Ok(StreamKind::Wanting { wants, claim, destination })
        }
        KIND_LISTENING => {
            let number = get(rest)?;
            Ok(StreamKind::Listening { number, place: decode_destination(rest)?.ok_or(Malformed)? })
        }
        KIND_VISITOR => {
            Ok(StreamKind::Visitor { number: get(rest)?, source: decode_destination(rest)? })
        }
        unknown => {
            *rest = &[];
            Ok(StreamKind::Unknown(unknown))
        }
    }
}

/// Everything left; `None` if there is nothing.
fn decode_destination(rest: &mut &[u8]) -> Field<Option<String>> {
    let name = std::mem::take(rest);
    if name.len() > DESTINATION_BYTES_MAX {
        return Err(Malformed);
    }
    let name = std::str::from_utf8(name).map_err(|_| Malformed)?;
    Ok((!name.is_empty()).then(|| name.to_owned()))
}

/// The rest of an unknown kind, within the bounds of a known one.
fn decode_rest(rest: &mut &[u8]) -> Field<()> {
    if std::mem::take(rest).len() > 2 * DESTINATION_BYTES_MAX { Err(Malformed) } else { Ok(()) }
}

/// An address ahead of another one, with its length.
fn decode_claim(rest: &mut &[u8]) -> Field<Option<String>> {
    let length = usize::try_from(get(rest)?).map_err(|_| Malformed)?;
    let (mut claim, tail) = rest.split_at_checked(length).ok_or(Malformed)?;
    *rest = tail;
    decode_destination(&mut claim)
}

/// An unknown tier counts as primary, which asks for nothing.
fn decode_policy(rest: &mut &[u8]) -> Field<LanePolicy> {
    let tier = match get(rest)? {
        TIER_BACKUP => Tier::Backup,
        TIER_METERED => Tier::Metered,
        TIER_EXPRESS => Tier::Express,
        _ => Tier::Primary,
    };
    let link = LinkId::new(get(rest)?);
    let rate_max = match get(rest)? {
        0 => None,
        rate if rate < LINK_RATE_MIN => return Err(Malformed),
        rate => Some(rate),
    };
    Ok(LanePolicy { tier, link, rate_max })
}

fn decode_versions(rest: &mut &[u8]) -> Field<Vec<u32>> {
    let count = get(rest)?;
    if count == 0 || count > VERSIONS_MAX as u64 {
        return Err(Malformed);
    }
    (0..count).map(|_| u32::try_from(get(rest)?).map_err(|_| Malformed)).collect()
}

/// Each parameter is `name, length, value`. Unknown names are skipped; a missing limit is 0.
fn decode_params(rest: &mut &[u8]) -> Field<Params> {
    let mut params = Params {
        initial_max_data: 0,
        initial_max_stream_data: 0,
        initial_max_streams: 0,
        grace_ms: 0,
        early_max_stream_data: 0,
        wants: Wants::default(),
        listeners_max: 0,
    };
    let mut wants = 0;
    while rest.has_remaining() {
        let name = get(rest)?;
        let length = usize::try_from(get(rest)?).map_err(|_| Malformed)?;
        let (mut value, tail) = rest.split_at_checked(length).ok_or(Malformed)?;
        *rest = tail;
        let field = match name {
            PARAM_MAX_DATA => &mut params.initial_max_data,
            PARAM_MAX_STREAM_DATA => &mut params.initial_max_stream_data,
            PARAM_MAX_STREAMS => &mut params.initial_max_streams,
            PARAM_GRACE => &mut params.grace_ms,
            PARAM_EARLY_MAX_STREAM_DATA => &mut params.early_max_stream_data,
            PARAM_OPEN_WANTS => &mut wants,
            PARAM_LISTENERS_MAX => &mut params.listeners_max,
            _ => continue,
        };
        *field = get(&mut value)?;
        if value.has_remaining() {
            return Err(Malformed);
        }
    }
    params.wants = Wants::known_of(wants);
    Ok(params)
}
