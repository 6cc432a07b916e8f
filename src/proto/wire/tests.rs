//! PROTOCOL.md, section 2: every frame survives the round trip, however it is cut.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::proto::error::{Code, DecodeError};
use crate::proto::ids::{Dir, LaneId, LinkId, SessionId, Side, StreamId, VarInt};
use crate::proto::limits::{DATAGRAM_PART_BYTES_MIN, FRAME_BYTES_MAX, LINK_RATE_MIN};
use crate::proto::policy::{LanePolicy, Tier};

fn any_offset() -> impl Strategy<Value = u64> {
    prop_oneof![0..64u64, 0..0x4000u64, 0..=VarInt::MAX.into_inner()]
}

fn any_id() -> impl Strategy<Value = StreamId> {
    (any::<bool>(), 0u64..1 << 40).prop_map(|(client, index)| {
        StreamId::new(if client { Side::Client } else { Side::Server }, Dir::Bi, index)
    })
}

fn any_code() -> impl Strategy<Value = Code> {
    any::<u32>().prop_map(|n| Code::from_wire(VarInt::from_u32(n)))
}

fn any_params() -> impl Strategy<Value = Params> {
    let offset = any_offset;
    let seven = (offset(), offset(), offset(), offset(), offset(), offset(), offset());
    (seven, any_wants()).prop_map(|((a, b, c, d, e, f, g), wants)| Params {
        initial_max_data: a,
        initial_max_stream_data: b,
        initial_max_streams: c,
        grace_ms: d,
        early_max_stream_data: e,
        wants,
        listeners_max: f,
        flows_max: g,
    })
}

fn any_wants() -> impl Strategy<Value = Wants> {
    (0..=Wants::ALL.to_wire()).prop_map(Wants::known_of)
}

fn any_text(max: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn any_datagram() -> impl Strategy<Value = Datagram> {
    let fields =
        (any_id(), any_offset(), any_offset(), prop::option::of((0..60_000usize, 1..3usize)));
    (fields, prop::collection::vec(any::<u8>(), 0..2000)).prop_map(
        |((id, number, waited_ms, part), mut data)| {
            let (total, offset) = part.map_or((data.len(), 0), |(offset, more)| {
                data.resize(DATAGRAM_PART_BYTES_MIN, 7);
                (offset + data.len() + more, offset)
            });
            Datagram { id, number, waited_ms, total, offset, data: data.into() }
        },
    )
}

fn any_frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        6 => any_of_a_stream(),
        6 => any_open(),
        4 => any_of_a_lane(),
        7 => any_of_the_session(),
        6 => any_handshake(),
    ]
}

fn any_of_a_stream() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (any_id(), any_offset(), any::<bool>(), prop::collection::vec(any::<u8>(), 1..2000))
            .prop_map(|(id, offset, fin, data)| Frame::Stream {
                id,
                offset,
                fin,
                data: data.into()
            }),
        (any_id(), any_offset()).prop_map(|(id, offset)| Frame::Stream {
            id,
            offset,
            fin: true,
            data: Bytes::new()
        }),
        any_datagram().prop_map(Frame::Datagram),
        (any_id(), any_code(), any_offset()).prop_map(|(id, code, final_size)| Frame::Reset {
            id,
            code,
            final_size
        }),
        (any_id(), any_code()).prop_map(|(id, code)| Frame::Stop { id, code }),
        any_id().prop_map(|id| Frame::Redundant { id }),
        (any_id(), any_offset()).prop_map(|(id, max)| Frame::MaxStreamData { id, max }),
    ]
}

fn any_open() -> impl Strategy<Value = Frame> {
    let kind = prop_oneof![
        Just(StreamKind::Default),
        Just(StreamKind::Raw),
        "[a-z0-9.:]{1,200}".prop_map(StreamKind::Named),
        (any_wants(), prop::option::of("[a-z0-9.:]{1,200}")).prop_map(|(wants, destination)| {
            let claim = wants.has(Wants::CLAIM).then(|| "[2001:db8::1]:1".to_owned());
            StreamKind::Wanting { wants, claim, destination }
        }),
        (any_offset(), "[a-z:]{1,30}")
            .prop_map(|(number, place)| StreamKind::Listening { number, place }),
        (any_offset(), prop::option::of("[a-z0-9:.]{1,30}"))
            .prop_map(|(number, source)| StreamKind::Visitor { number, source }),
        (any_offset(), "[a-z:]{1,30}").prop_map(|(deadline_ms, name)| StreamKind::Flow {
            deadline_ms,
            kind: Box::new(StreamKind::Named(name)),
        }),
    ];
    (any_id(), kind).prop_map(|(id, kind)| Frame::Open { id, kind })
}

fn any_of_a_lane() -> impl Strategy<Value = Frame> {
    let lane = || any_offset().prop_map(LaneId::new);
    prop_oneof![
        Just(Frame::Ping),
        (lane(), any_offset()).prop_map(|(lane, position)| Frame::Ack { lane, position }),
        (lane(), any_offset(), any_code()).prop_map(|(lane, position, code)| Frame::LaneClosed {
            lane,
            position,
            code
        }),
        (0..3usize, any_offset(), prop::option::of(LINK_RATE_MIN..1 << 62)).prop_map(
            |(tier, number, rate_max)| {
                let link = LinkId::new(number);
                Frame::LanePolicy(LanePolicy { tier: Tier::ALL[tier], link, rate_max })
            }
        ),
    ]
}

fn any_of_the_session() -> impl Strategy<Value = Frame> {
    prop_oneof![
        Just(Frame::Drain),
        Just(Frame::Express),
        prop::collection::vec(any::<u8>(), 96)
            .prop_map(|bytes| Frame::NextKey { announcement: bytes.into() }),
        any_offset().prop_map(|max| Frame::MaxData { max }),
        any_offset().prop_map(|max| Frame::MaxStreams { max }),
        any_offset().prop_map(|count| Frame::EarlyStreams { count }),
        (any_code(), any_text(256)).prop_map(|(code, reason)| Frame::Close { code, reason }),
    ]
}

fn any_handshake() -> impl Strategy<Value = Frame> {
    let lane = any_offset().prop_map(LaneId::new);
    prop_oneof![
        (prop::collection::vec(any::<u32>().prop_map(|v| v >> 2), 1..16), any_params())
            .prop_map(|(versions, params)| Frame::Create { versions, params }),
        (any::<u16>(), any::<[u8; 16]>(), any_params()).prop_map(|(version, id, params)| {
            Frame::Created { version: version.into(), session: SessionId::new(id), params }
        }),
        (any::<[u8; 16]>(), lane, any::<[u8; 32]>()).prop_map(|(id, lane, mac)| Frame::Join {
            session: SessionId::new(id),
            lane,
            mac
        }),
        any::<[u8; 32]>().prop_map(|mac| Frame::Joined { mac }),
        any::<[u8; 32]>().prop_map(|secret| Frame::Invitation { secret: Secret(secret) }),
        (any_code(), any_text(256)).prop_map(|(code, reason)| Frame::Refused { code, reason }),
    ]
}

proptest! {
    #[test]
    fn round_trip_however_cut(
        frames in prop::collection::vec(any_frame(), 1..8),
        cuts in prop::collection::vec(1usize..600, 1..40),
    ) {
        let mut wire = BytesMut::new();
        for frame in &frames {
            let before = wire.len();
            encode_frame(frame, &mut wire);
            if let Frame::Stream { id, offset, data, .. } = frame {
                prop_assert_eq!(
                    wire.len() - before - data.len(),
                    stream_header_len(*id, *offset, data.len())
                );
            }
            if let Frame::Datagram(datagram) = frame {
                prop_assert_eq!(wire.len() - before, datagram_len(datagram));
            }
        }
        let mut batch = FrameBatch::default();
        let mut decoder = Decoder::new();
        let mut rest = &wire[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() { break }
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            decoder.decode(now, &mut batch).unwrap();
            rest = later;
        }
        prop_assert_eq!(batch.wire_bytes, wire.len() as u64);
        prop_assert_eq!(batch.frames, frames);
    }

    #[test]
    fn lane_buf_yields_the_same_bytes(frames in prop::collection::vec(any_frame(), 1..8), step in 1usize..500) {
        let mut wire = BytesMut::new();
        let mut buf = LaneBuf::new();
        for frame in &frames {
            encode_frame(frame, &mut wire);
            match frame {
                Frame::Stream { id, offset, fin, data } => {
                    buf.push_stream(*id, *offset, data.len(), *fin);
                    buf.push_payload(data.clone());
                }
                Frame::Datagram(datagram) => buf.push_datagram(datagram),
                other => buf.push(other),
            }
        }
        prop_assert_eq!(buf.len(), wire.len());
        let mut seen = Vec::new();
        while !buf.is_empty() {
            let taken: Vec<u8> = buf.pieces().flatten().copied().take(step).collect();
            buf.advance(taken.len());
            seen.extend(taken);
        }
        prop_assert_eq!(seen, wire.to_vec());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let mut whole = FrameBatch::default();
        let at_once = Decoder::new().decode(&bytes, &mut whole);
        let mut single = FrameBatch::default();
        let mut decoder = Decoder::new();
        let one_by_one = bytes.iter().try_for_each(|b| decoder.decode(&[*b], &mut single));
        prop_assert_eq!(at_once, one_by_one);
        prop_assert_eq!(whole.frames, single.frames);
    }
}

#[test]
fn unknown_odd_types_are_skipped_and_even_ones_refused() {
    let mut batch = FrameBatch::default();
    let mut buf = LaneBuf::new();
    buf.push_reserved(5);
    buf.push(&Frame::Ping);
    let wire: Vec<u8> = buf.pieces().flatten().copied().collect();
    Decoder::new().decode(&wire, &mut batch).unwrap();
    assert_eq!(batch.frames, vec![Frame::Ignored, Frame::Ping]);
    assert_eq!(batch.wire_bytes, wire.len() as u64);

    let refused = Decoder::new().decode(&[0x3e, 0x00], &mut FrameBatch::default());
    assert_eq!(refused, Err(DecodeError::UnknownType(0x3e)));
}

#[test]
fn a_length_beyond_one_record_is_refused_before_its_bytes_come() {
    let mut wire = BytesMut::new();
    wire.extend_from_slice(&[0x04]);
    quinn_proto::coding::Codec::encode(&VarInt::from_u32(FRAME_BYTES_MAX as u32), &mut wire);
    let refused = Decoder::new().decode(&wire, &mut FrameBatch::default());
    assert_eq!(refused, Err(DecodeError::TooLong(FRAME_BYTES_MAX as u64)));
}

#[test]
fn truncated_and_padded_bodies_are_malformed() {
    for wire in
        [&[0x0e, 0x00][..], &[0x00, 0x01, 0x00], &[0x04, 0x02, 0x00, 0x00], &[0x26, 0x01, 7]]
    {
        let refused = Decoder::new().decode(wire, &mut FrameBatch::default());
        assert_eq!(refused, Err(DecodeError::Malformed(wire[0].into())), "{wire:?}");
    }
}

#[test]
fn a_policy_that_asks_too_little_is_malformed_and_an_unknown_tier_is_primary() {
    let decode = |wire: &[u8]| {
        let mut batch = FrameBatch::default();
        Decoder::new().decode(wire, &mut batch).map(|()| batch.frames)
    };
    // Tier 1, link 5, 8,000 bytes a second.
    let policy =
        |tier, rate_max| Frame::LanePolicy(LanePolicy { tier, link: LinkId::new(5), rate_max });
    let backup = policy(Tier::Backup, Some(LINK_RATE_MIN));
    assert_eq!(decode(&[0x23, 4, 1, 5, 0x5f, 0x40]), Ok(vec![backup]));
    assert_eq!(decode(&[0x23, 3, 2, 5, 0]), Ok(vec![policy(Tier::Metered, None)]));
    assert_eq!(decode(&[0x23, 3, 3, 5, 0]), Ok(vec![policy(Tier::Express, None)]));
    assert_eq!(decode(&[0x23, 3, 9, 5, 0]), Ok(vec![policy(Tier::Primary, None)]));
    for wire in [&[0x23, 4, 1, 5, 0x5f, 0x3f][..], &[0x23, 3, 0, 0, 1], &[0x23, 2, 0, 0]] {
        assert_eq!(decode(wire), Err(DecodeError::Malformed(0x23)), "{wire:?}");
    }
}

#[test]
fn a_listening_stream_names_its_number_and_place_and_a_visitor_its_number() {
    let decode = |wire: &[u8]| {
        let mut batch = FrameBatch::default();
        Decoder::new().decode(wire, &mut batch).map(|()| batch.frames.pop().unwrap())
    };
    let id = StreamId::new(Side::Client, Dir::Bi, 0);
    let open = |kind| Ok(Frame::Open { id, kind });
    let place = "a:1".to_owned();
    assert_eq!(
        decode(b"\x08\x06\x00\x04\x07a:1"),
        open(StreamKind::Listening { number: 7, place })
    );
    assert_eq!(decode(&[8, 3, 0, 5, 7]), open(StreamKind::Visitor { number: 7, source: None }));
    let source = Some("b:2".to_owned());
    assert_eq!(decode(b"\x08\x06\x00\x05\x07b:2"), open(StreamKind::Visitor { number: 7, source }));
    for wire in [&[8, 3, 0, 4, 7][..], &[8, 2, 0, 4], &[8, 2, 0, 5], &[8, 4, 0, 5, 7, 0xff]] {
        assert_eq!(decode(wire), Err(DecodeError::Malformed(8)), "{wire:?}");
    }
}

#[test]
fn what_an_opener_may_not_want_is_an_unknown_kind() {
    let decode = |wire: &[u8]| {
        let mut batch = FrameBatch::default();
        Decoder::new().decode(wire, &mut batch).map(|()| batch.frames.pop().unwrap())
    };
    let id = StreamId::new(Side::Client, Dir::Bi, 0);
    let open = |kind| Ok(Frame::Open { id, kind });
    let both = Wants::ANSWER.and(Wants::SOURCE);
    let wanting = |wants, claim: Option<&str>, destination: Option<&str>| {
        let text = |text: &str| text.to_owned();
        let (claim, destination) = (claim.map(text), destination.map(text));
        open(StreamKind::Wanting { wants, claim, destination })
    };
    assert_eq!(decode(&[8, 3, 0, 3, 3]), wanting(both, None, None));
    assert_eq!(decode(b"\x08\x06\x00\x03\x01a:1"), wanting(Wants::ANSWER, None, Some("a:1")));
    assert_eq!(decode(b"\x08\x06\x00\x03\x09a:1"), open(StreamKind::Unknown(3)));
    let claims = Wants::CLAIM.and(Wants::SOURCE);
    let both = wanting(claims, Some("b:2"), Some("a:1"));
    assert_eq!(decode(b"\x08\x0a\x00\x03\x06\x03b:2a:1"), both);
    assert_eq!(decode(b"\x08\x04\x00\x03\x06\x00"), wanting(claims, None, None));
    assert!(decode(b"\x08\x05\x00\x03\x06\x09a").is_err(), "a claim that ends early");
    assert!(decode(&[8, 2, 0, 3]).is_err());
    let mut long = vec![8, 0x41, 0x30, 0, 3, 1];
    long.resize(4 + 0x130 - 1, b'a');
    assert!(decode(&long).is_err());
}

#[test]
fn a_flow_is_for_what_has_one_destination_and_its_datagrams_are_whole_or_in_fair_parts() {
    let decode = |wire: &[u8]| {
        let mut batch = FrameBatch::default();
        Decoder::new().decode(wire, &mut batch).map(|()| batch.frames.pop().unwrap())
    };
    let id = StreamId::new(Side::Client, Dir::Bi, 0);
    let flow = |kind| StreamKind::Flow { deadline_ms: 9, kind: Box::new(kind) };
    let named = flow(StreamKind::Named("a:1".to_owned()));
    assert_eq!(decode(b"\x08\x07\x00\x06\x09\x01a:1"), Ok(Frame::Open { id, kind: named }));
    let raw = flow(StreamKind::Raw);
    assert_eq!(decode(&[8, 4, 0, 6, 9, 2]), Ok(Frame::Open { id, kind: raw }));
    for inner in [3, 4, 6, 7] {
        let unknown = Frame::Open { id, kind: StreamKind::Unknown(6) };
        assert_eq!(decode(&[8, 5, 0, 6, 9, inner, 0]), Ok(unknown), "of kind {inner}");
    }
    for wire in [&[8, 2, 0, 6][..], &[8, 3, 0, 6, 9], &[8, 5, 0, 6, 9, 2, 0]] {
        assert_eq!(decode(wire), Err(DecodeError::Malformed(8)), "{wire:?}");
    }
    let frame = |total: usize, offset: usize, bytes: usize| {
        let mut wire = BytesMut::new();
        let data = vec![1; bytes].into();
        let datagram = Datagram { id, number: 4, waited_ms: 5, total, offset, data };
        encode_frame(&Frame::Datagram(datagram), &mut wire);
        (decode(&wire), wire[0])
    };
    for (total, offset, bytes, kind) in
        [(0, 0, 0, 0x1c), (9, 0, 9, 0x1c), (2_000, 976, 1_024, 0x1e), (65_507, 65_506, 1, 0x1e)]
    {
        let (decoded, told) = frame(total, offset, bytes);
        assert!(decoded.is_ok() && told == kind, "{total} {offset} {bytes}");
    }
    for (total, offset, bytes) in
        [(2_000, 0, 1_023), (2_000, 977, 1_024), (65_508, 0, 2_000), (9, 9, 0), (usize::MAX, 1, 2)]
    {
        let (decoded, _) = frame(total, offset, bytes);
        assert_eq!(decoded, Err(DecodeError::Malformed(0x1e)), "{total} {offset} {bytes}");
    }
    // A whole one that is said to be a part.
    assert_eq!(decode(&[0x1e, 6, 0, 4, 5, 1, 0, 7]), Err(DecodeError::Malformed(0x1e)));
}
