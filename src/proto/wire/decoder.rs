//! Frames out of a byte stream that arrives in pieces of any size.

use bytes::{Buf, BytesMut};
use quinn_proto::coding::Codec;

use super::decode::decode_body;
use super::frame::Frame;
use crate::proto::error::DecodeError;
use crate::proto::ids::VarInt;
use crate::proto::limits::{BATCH_FRAMES_MAX, FRAME_BYTES_MAX, FRAME_HEADER_BYTES_MAX};

/// Frames decoded from one lane, and how far on that lane they reach.
#[derive(Debug, Default)]
pub struct FrameBatch {
    /// In the order of the wire.
    pub frames: Vec<Frame>,
    /// Their total length on the wire, skipped frames included.
    pub wire_bytes: u64,
}

impl FrameBatch {
    /// Forgets the frames but keeps their space, except what a flood of tiny frames has taken.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.frames.shrink_to(BATCH_FRAMES_MAX);
        self.wire_bytes = 0;
    }

    /// Whether to hand over the batch, however few bytes it has: a tiny frame takes many times its
    /// length on the wire in memory.
    pub fn is_full(&self) -> bool {
        self.frames.len() >= BATCH_FRAMES_MAX
    }

    /// Whether there is nothing to hand to the session.
    pub fn is_empty(&self) -> bool {
        self.wire_bytes == 0
    }
}

/// Cuts a lane's bytes into frames. Holds at most one unfinished frame, and never space for bytes
/// that have not arrived.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The start of a frame whose end has not arrived.
    partial: BytesMut,
}

/// Type, length of the body, and length of the header itself.
struct Header {
    kind: u64,
    body: usize,
    len: usize,
}

impl Header {
    fn total(&self) -> usize {
        self.len.saturating_add(self.body)
    }
}

impl Decoder {
    /// A decoder at the start of a frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes all of `input` and appends the complete frames.
    pub fn decode(&mut self, mut input: &[u8], out: &mut FrameBatch) -> Result<(), DecodeError> {
        while !input.is_empty() {
            let Some((frame, wire_len)) = self.decode_one(&mut input)? else { break };
            out.frames.push(frame);
            out.wire_bytes = out.wire_bytes.saturating_add(wire_len as u64);
        }
        Ok(())
    }

    /// Takes at most one frame from the front of `input`; `None`: all of `input` was taken and the
    /// frame is still unfinished. The number is the frame's length on the wire.
    pub fn decode_one(&mut self, input: &mut &[u8]) -> Result<Option<(Frame, usize)>, DecodeError> {
        if !self.partial.is_empty() {
            return self.resume(input);
        }
        if let Some(header) = read_header(input)?
            && let Some(whole) = input.get(..header.total())
        {
            let body = whole.get(header.len..).unwrap_or_default();
            let frame = decode_body(header.kind, body)?;
            input.advance(header.total());
            return Ok(Some((frame, header.total())));
        }
        self.partial.extend_from_slice(input);
        *input = &[];
        Ok(None)
    }

    /// Completes the frame whose start was kept.
    fn resume(&mut self, input: &mut &[u8]) -> Result<Option<(Frame, usize)>, DecodeError> {
        let header = loop {
            if let Some(header) = read_header(&self.partial)? {
                break header;
            }
            let Some((first, rest)) = input.split_first() else { return Ok(None) };
            self.partial.extend_from_slice(std::slice::from_ref(first));
            *input = rest;
        };
        let missing = header.total().saturating_sub(self.partial.len());
        let (now, later) = input.split_at(missing.min(input.len()));
        self.partial.extend_from_slice(now);
        *input = later;
        if self.partial.len() < header.total() {
            return Ok(None);
        }
        let body = self.partial.get(header.len..).unwrap_or_default();
        let frame = decode_body(header.kind, body)?;
        self.partial.clear();
        Ok(Some((frame, header.total())))
    }
}

/// Type and length, if all of both has arrived.
fn read_header(input: &[u8]) -> Result<Option<Header>, DecodeError> {
    let mut rest = input;
    let (Ok(kind), Ok(body)) = (VarInt::decode(&mut rest), VarInt::decode(&mut rest)) else {
        debug_assert!(input.len() < FRAME_HEADER_BYTES_MAX);
        return Ok(None);
    };
    let len = input.len().saturating_sub(rest.len());
    let body = body.into_inner();
    let fits = usize::try_from(body).is_ok_and(|body| body.saturating_add(len) <= FRAME_BYTES_MAX);
    if !fits {
        return Err(DecodeError::TooLong(body));
    }
    Ok(Some(Header { kind: kind.into_inner(), body: body as usize, len }))
}
