//! Whole bodies of frames to frames, with quinn's integers.

use bytes::{Buf, Bytes};
use quinn_proto::coding::{Codec, UnexpectedEnd};

use super::frame::{Datagram, Frame, Params, Secret, StreamKind, types};
use super::numbers::*;
use super::wants::Wants;
use crate::proto::error::{Code, DecodeError};
use crate::proto::ids::{LaneId, LinkId, SessionId, StreamId, VarInt};
use crate::proto::limits::{
    DATAGRAM_BYTES_MAX, DATAGRAM_PART_BYTES_MIN, DESTINATION_BYTES_MAX, LINK_RATE_MIN,
    NEXT_KEY_BYTES, REASON_BYTES_MAX, VERSIONS_MAX,
};
use crate::proto::policy::{LanePolicy, Tier};

/// A field did not fit: the body is too short, too long, or out of bounds.
struct Malformed;

impl From<UnexpectedEnd> for Malformed {
    fn from(_: UnexpectedEnd) -> Self {
        Self
    }
}

type Field<T> = Result<T, Malformed>;

/// Reads the body of a frame of type `kind`. Copies the payload, so that a kept frame pins no
/// larger buffer.
pub(super) fn decode_body(kind: u64, body: &[u8]) -> Result<Frame, DecodeError> {
    let mut rest = body;
    let frame = match kind {
        types::STREAM | types::STREAM_FIN => decode_stream(kind, &mut rest),
        types::DATAGRAM => decode_datagram(&mut rest),
        types::DATAGRAM_PART => decode_datagram_part(&mut rest),
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

fn decode_datagram(rest: &mut &[u8]) -> Field<Option<Frame>> {
    let (id, number, waited_ms) = (stream_id(rest)?, get(rest)?, get(rest)?);
    let data = Bytes::copy_from_slice(std::mem::take(rest));
    let total = data.len();
    Ok(Some(Frame::Datagram(Datagram { id, number, waited_ms, total, offset: 0, data })))
}

/// Many small parts would cost more than they carry.
fn decode_datagram_part(rest: &mut &[u8]) -> Field<Option<Frame>> {
    let (id, number, waited_ms) = (stream_id(rest)?, get(rest)?, get(rest)?);
    let [total, offset] =
        [get(rest)?, get(rest)?].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let data = Bytes::copy_from_slice(std::mem::take(rest));
    let end = offset.saturating_add(data.len());
    let is_part = !data.is_empty() && data.len() < total && end <= total;
    let is_tiny = data.len() < DATAGRAM_PART_BYTES_MIN && end < total;
    if !is_part || is_tiny || total > DATAGRAM_BYTES_MAX {
        return Err(Malformed);
    }
    Ok(Some(Frame::Datagram(Datagram { id, number, waited_ms, total, offset, data })))
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
        KIND_FLOW => decode_flow(rest),
        unknown => {
            *rest = &[];
            Ok(StreamKind::Unknown(unknown))
        }
    }
}

/// A flow that is for something else is of an unknown kind.
fn decode_flow(rest: &mut &[u8]) -> Field<StreamKind> {
    let deadline_ms = get(rest)?;
    let mut ahead = *rest;
    match get(&mut ahead)? {
        KIND_DEFAULT | KIND_NAMED | KIND_RAW | KIND_VISITOR => {
            Ok(StreamKind::Flow { deadline_ms, kind: Box::new(decode_kind(rest)?) })
        }
        _ => {
            decode_rest(rest)?;
            Ok(StreamKind::Unknown(KIND_FLOW))
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
        flows_max: 0,
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
            PARAM_FLOWS_MAX => &mut params.flows_max,
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
