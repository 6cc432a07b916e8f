//! The codec: never a panic, never a byte too many or too few, never two readings of one input.

use arbitrary::{Result, Unstructured};
use bytes::BytesMut;

use super::frames::frame;
use crate::proto::limits::FRAME_BYTES_MAX;
use crate::proto::wire::{
    Decoder, Frame, FrameBatch, LaneBuf, encode_frame, printable, stream_header_len,
};

/// Any bytes: each frame takes exactly as many as it says, and what was decoded means the same when
/// it is encoded again.
pub(crate) fn decode(data: &[u8]) {
    let mut decoder = Decoder::new();
    let mut rest = data;
    loop {
        let before = rest.len();
        match decoder.decode_one(&mut rest) {
            Ok(Some((frame, len))) => {
                assert_eq!(before - rest.len(), len, "{frame:?}");
                assert!((2..=FRAME_BYTES_MAX).contains(&len), "{frame:?} of {len} bytes");
                again(&frame);
            }
            Ok(None) => return assert!(rest.is_empty(), "bytes are left behind"),
            Err(error) => return assert!(error.to_string().contains("frame")),
        }
        if rest.is_empty() {
            return;
        }
    }
}

fn again(frame: &Frame) {
    let mut wire = BytesMut::new();
    encode_frame(frame, &mut wire);
    let mut batch = FrameBatch::default();
    Decoder::new().decode(&wire, &mut batch).expect("what is encoded can be decoded");
    assert_eq!(batch.frames, std::slice::from_ref(frame));
    if let Frame::Close { reason, .. } | Frame::Refused { reason, .. } = frame {
        assert!(printable(reason).bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }
}

/// Any bytes, whole, byte by byte, and cut in any way: the same frames and the same error.
pub(crate) fn cuts(data: &[u8]) {
    let (cuts, data) = data.split_at(data.len().min(4));
    let whole = decode_pieces(std::iter::once(data));
    assert_eq!(whole, decode_pieces(data.chunks(1)));
    let mut rest = data;
    let mut sizes = cuts.iter().cycle();
    let pieces = std::iter::from_fn(|| {
        let size = usize::from(*sizes.next()?).min(rest.len()).max(1);
        let (piece, later) = rest.split_at_checked(size)?;
        rest = later;
        Some(piece)
    });
    if !cuts.is_empty() {
        assert_eq!(whole, decode_pieces(pieces));
    }
}

type Decoded = (std::result::Result<(), crate::proto::DecodeError>, Vec<Frame>, u64);

fn decode_pieces<'a>(mut pieces: impl Iterator<Item = &'a [u8]>) -> Decoded {
    let mut decoder = Decoder::new();
    let mut batch = FrameBatch::default();
    let result = pieces.try_for_each(|piece| decoder.decode(piece, &mut batch));
    assert_eq!(batch.is_empty(), batch.frames.is_empty());
    (result, batch.frames, batch.wire_bytes)
}

/// Any frames: read back as written, from either encoder, with identical bytes.
pub(crate) fn round_trip(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let frames: Vec<Frame> = std::iter::from_fn(|| some_frame(&mut u).ok()).take(16).collect();
    let mut wire = BytesMut::new();
    let mut buf = LaneBuf::new();
    for frame in &frames {
        let before = wire.len();
        encode_frame(frame, &mut wire);
        match frame {
            Frame::Stream { id, offset, fin, data } => {
                let header = wire.len() - before - data.len();
                assert_eq!(header, stream_header_len(*id, *offset, data.len()));
                buf.push_stream(*id, *offset, data.len(), *fin);
                buf.push_payload(data.clone());
            }
            other => buf.push(other),
        }
    }
    assert_eq!(buf.len(), wire.len());
    assert!(buf.pieces().flatten().eq(wire.iter()), "two encoders, two texts");
    let (result, read, bytes) = decode_pieces(wire.chunks(1 + data.len()));
    assert_eq!((result, bytes), (Ok(()), wire.len() as u64));
    assert_eq!(read, frames);
    drain_in_steps(buf, 1 + data.len() * 3, wire.len());
}

fn some_frame(u: &mut Unstructured<'_>) -> Result<Frame> {
    if u.is_empty() { Err(arbitrary::Error::NotEnoughData) } else { frame(u) }
}

fn drain_in_steps(mut buf: LaneBuf, step: usize, len: usize) {
    buf.push_reserved(step as u8);
    let mut left = buf.len();
    assert!(left > len, "a reserved frame is one too");
    while !buf.is_empty() {
        buf.advance(step);
        left = left.saturating_sub(step);
        assert_eq!(buf.len(), left);
    }
}
