//! What one pull of a lane yields: headers are written here, payloads referenced.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::encode::{encode_datagram_header, encode_frame, encode_reserved, encode_stream_header};
use super::frame::{Datagram, Frame};
use crate::proto::count::{Count, end_of};
use crate::proto::ids::StreamId;

/// Bytes to be written to a lane, in order, as pieces: no payload is copied.
#[derive(Debug, Default)]
pub struct LaneBuf {
    /// Complete pieces, none empty.
    pieces: VecDeque<Bytes>,
    /// Headers not yet made into a piece; they come after all of `pieces`.
    headers: BytesMut,
    /// Bytes in `pieces`.
    pieces_len: Count,
}

/// Headers are cut from blocks of this size: some two hundred frames' worth.
const HEADER_BLOCK_BYTES: usize = 4096;

impl LaneBuf {
    /// Nothing to write.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes to be written.
    pub fn len(&self) -> usize {
        end_of(self.pieces_len.get(), self.headers.len() as u64) as usize
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a frame that is not STREAM data.
    pub fn push(&mut self, frame: &Frame) {
        self.reserve();
        encode_frame(frame, &mut self.headers);
    }

    /// Appends a frame that the receiver must skip.
    pub fn push_reserved(&mut self, n: u8) {
        self.reserve();
        encode_reserved(&mut self.headers, n);
    }

    /// Appends a STREAM frame; its `payload` bytes must be added at once with `push_payload`.
    pub fn push_stream(&mut self, id: StreamId, offset: u64, payload: usize, fin: bool) {
        self.reserve();
        encode_stream_header(&mut self.headers, id, offset, payload, fin);
    }

    /// Appends a datagram, or a part of one.
    pub fn push_datagram(&mut self, datagram: &Datagram) {
        self.reserve();
        encode_datagram_header(&mut self.headers, datagram);
        self.push_payload(datagram.data.clone());
    }

    /// Appends a part of the payload announced by `push_stream`.
    pub fn push_payload(&mut self, data: Bytes) {
        // Copying a short payload is cheaper than carrying it as a piece of its own.
        if data.len() <= 64 {
            self.headers.extend_from_slice(&data);
            return;
        }
        self.finish_headers();
        self.pieces_len.add(data.len() as u64);
        self.pieces.push_back(data);
    }

    /// The pieces, in order. Call after the last push.
    pub fn pieces(&mut self) -> impl Iterator<Item = &[u8]> {
        self.finish_headers();
        self.pieces.iter().map(AsRef::as_ref)
    }

    /// Advances over `written` bytes at the front.
    pub fn advance(&mut self, written: usize) {
        self.finish_headers();
        let mut left = written;
        while let Some(front) = self.pieces.front_mut() {
            let step = left.min(front.len());
            front.advance(step);
            left = left.saturating_sub(step);
            self.pieces_len.take(step as u64);
            if !front.is_empty() {
                break;
            }
            self.pieces.pop_front();
        }
    }

    fn reserve(&mut self) {
        if self.headers.capacity().saturating_sub(self.headers.len()) < 64 {
            self.headers.reserve(HEADER_BLOCK_BYTES);
        }
    }

    fn finish_headers(&mut self) {
        if !self.headers.is_empty() {
            let headers = self.headers.split().freeze();
            self.pieces_len.add(headers.len() as u64);
            self.pieces.push_back(headers);
        }
    }
}
