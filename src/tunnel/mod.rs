//! Streams into forwarded sockets and back: listen, dial, copy, half-close, reset.

mod copy;
mod dial;
mod listen;
mod socket;

pub use dial::serve;
pub use listen::forward;
