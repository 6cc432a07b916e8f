//! The wire: frames, their encoding, and decoding as bytes come in. The specification is
//! docs/PROTOCOL.md; this is its only implementation.
//!
//! Every frame is `type, length, body`, the first two QUIC variable-length integers, so that a
//! frame of unknown type can be skipped. A leaf: it knows ids, codes and limits, nothing else.

mod decode;
mod decoder;
mod encode;
mod frame;
mod lane_buf;
mod numbers;
mod wants;

pub use decoder::{Decoder, FrameBatch};
pub use encode::{datagram_len, encode_frame, stream_header_len};
pub use frame::{Datagram, Frame, Params, Secret, StreamKind, printable};
pub use lane_buf::LaneBuf;
pub use wants::Wants;

#[cfg(test)]
mod tests;
