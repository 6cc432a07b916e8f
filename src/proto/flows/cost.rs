//! What keeping datagrams costs.

use bytes::Bytes;

use crate::proto::count::end_of;
use crate::proto::limits::DATAGRAM_OVERHEAD_BYTES;

/// What keeping a datagram costs, or a part of one.
pub fn cost(data: &Bytes) -> u64 {
    end_of(data.len() as u64, DATAGRAM_OVERHEAD_BYTES)
}
