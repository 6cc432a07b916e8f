//! Every bound on what a peer can make us keep or do, each with its reason.

use std::time::Duration;

/// Most bytes of one frame, header included: the plaintext of one TLS record (RFC 8446, 5.1), so
/// that a frame written at a record's start is whole when the record is.
pub const FRAME_BYTES_MAX: usize = 16_384;

/// Most bytes of a frame's type and length fields: two eight-byte variable-length integers.
pub const FRAME_HEADER_BYTES_MAX: usize = 16;

/// Frames decoded before they are handed to the session: full ones reach a read's 256 KiB long
/// before; of two bytes each, a read would be some 100 times its size in memory.
pub const BATCH_FRAMES_MAX: usize = 1_024;

/// Longest destination an OPEN may name: a DNS name has at most 253 characters (RFC 1035, 2.3.4),
/// then a colon and a port; rounded up for bracketed IPv6 addresses with zones.
pub const DESTINATION_BYTES_MAX: usize = 300;

/// Longest reason in a CLOSE or REFUSED frame: a line for a log, not a place to store things.
pub const REASON_BYTES_MAX: usize = 256;

/// A server's next key, Ed25519 (RFC 8032), and a signature with it.
pub const NEXT_KEY_BYTES: usize = 32 + 64;

/// Versions listed in a CREATE. One exists; the rest is room.
pub const VERSIONS_MAX: usize = 16;

/// Separate gaps in what one stream has received out of order. An honest peer makes one a lane for
/// each chunk overtaken; twenty lanes with 200 chunks each stay below this.
pub const STREAM_GAPS_MAX: usize = 4_096;

/// What one stored piece of out-of-order data costs beside its bytes: its map entry, its
/// reference-counted allocation, and the allocator's own. Counted, so that tiny frames cannot
/// multiply memory.
pub const SEGMENT_OVERHEAD_BYTES: u64 = 160;

/// Memory for out-of-order data, over the session's whole window: overhead of small but honest
/// segments is let through up to this multiple, a flood of them is not ...
pub const REORDER_OVERHEAD_FACTOR: u64 = 2;

/// ... and beside it what the gaps of one stream may cost: in a window smaller than a segment's own
/// bookkeeping, the first piece out of order would be an offence.
pub const REORDER_OVERHEAD_BYTES: u64 = STREAM_GAPS_MAX as u64 * SEGMENT_OVERHEAD_BYTES;

/// What is kept for a peer until it acknowledges it, in windows of our own (of a stream, of the
/// session): credit bounds it with a peer whose windows are like ours, and one more makes up for
/// acknowledgements that come after the credit. A peer that grants more than it acknowledges waits.
pub const UNACKED_WINDOWS: u64 = 2;

/// Dead lanes whose ledgers are kept until the peer says how far it had received on them. Beyond
/// it the oldest is forgotten: its ranges are sent again, which is safe, only dearer.
pub const DEAD_LANES_MAX: usize = 256;

/// Lanes alive at once in one session. The command allows 256; a client that comes back after an
/// outage joins with as many new ones before the old ones are found dead.
pub const LANES_MAX: usize = 512;

/// Frames that make us work without moving a byte of payload (pings, opens, resets, stops, credit,
/// lane notices, ignorable frames) allowed in one burst ...
pub const BUSY_FRAMES_BURST: u64 = 100_000;

/// ... and a second. Opening and resetting streams as fast as sockets can be made on one machine
/// stays well below; a flood on a fast link is far above.
pub const BUSY_FRAMES_PER_SECOND: u64 = 50_000;

/// So many acknowledgements count as one of them: each is a look-up. Hundreds of lanes that send
/// one a millisecond, and one more by a faster way, stay below.
pub const ACKS_PER_BUSY_FRAME: u64 = 16;

/// STREAM frames that carry less than this count as busy frames, unless they end the stream.
pub const TINY_PAYLOAD_BYTES: usize = 16;

/// Slowest cap a link may be given, in bytes a second (64 kbit/s): at less, acknowledgements and
/// signs of life would come so late that the lane is taken for dead.
pub const LINK_RATE_MIN: u64 = 8_000;

/// What a lane may say before it is created or joined, and be answered with, in all: the frame
/// itself and as much again.
pub const GREETING_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;

/// Lanes in their handshake at once: each costs a task, a socket and a TLS state, some 60 KB.
pub const WAITING_LANES_MAX: usize = 512;

/// Of these, from one source (an IPv4 address, an IPv6 /64): a user with 20 lanes on each of five
/// links comes back after an outage with all of them at once.
pub const WAITING_LANES_PER_SOURCE_MAX: usize = 128;

/// TLS handshakes with one source, in one burst: ten users behind one address who come back after
/// an outage with 20 lanes on each of five links ...
pub const HANDSHAKES_PER_SOURCE_BURST: u32 = 1_000;

/// ... and a second: each costs the server some 0.4 ms of a core (measured, X25519MLKEM768 and
/// Ed25519), so that one source takes a twenty-fifth of it; one that is hung up on instead, 0.03
/// ms.
pub const HANDSHAKES_PER_SOURCE_PER_SECOND: u32 = 100;

/// Sources whose handshakes are counted, some 80 bytes each.
pub const HANDSHAKE_SOURCES_MAX: usize = 16_384;

/// Sessions a server keeps at once, those that wait for a lane to come back included; each may cost
/// up to its windows in memory.
pub const SESSIONS_MAX: usize = 1_024;

/// Of these, created from one source: as many as there are users behind one address, and far from
/// all.
pub const SESSIONS_PER_SOURCE_MAX: usize = 256;

/// Of these, created with one client key. One process has one session; one that is killed and
/// started again each second leaves one behind each time, for the grace time.
pub const SESSIONS_PER_CLIENT_MAX: usize = 128;

/// Places at which a server takes connections for one client. Each costs two descriptors at most,
/// a task, and a port that nobody else has; whoever forwards more services than that forwards
/// hosts.
pub const LISTENERS_PER_CLIENT_MAX: usize = 32;

/// The same for all clients together. Their sessions give way to nobody: a quarter of those there
/// may be.
pub const LISTENERS_MAX: usize = 256;

/// Connections at once that were taken at one of them: strangers make them, and what one port gets
/// must not be all that its client may have.
pub const VISITORS_PER_LISTENER_MAX: usize = 1_024;

/// Bookkeeping of an open stream, beside its bytes: its entry, who waits for it, the tasks at both
/// of its ends.
pub const STREAM_OVERHEAD_BYTES: u64 = 1_024;

/// Memory that a process keeps for all its peers together, unless it is told otherwise: this part
/// of what there is ...
pub const MEMORY_PART: u64 = 4;

/// ... and no more than this, in which three sessions have all the windows that they may.
pub const MEMORY_BYTES_MAX: u64 = 1 << 30;

/// What a session may keep for its peer in any case, both ways together: a quarter of the budget
/// for as many sessions as there may be, but not less than lets a connection go on ...
pub const MEMORY_FLOOR_BYTES_MIN: u64 = 16 * 1024;

/// ... and not more than it has use for.
pub const MEMORY_FLOOR_BYTES_MAX: u64 = 256 * 1024;

/// What a session begins with of it is at most this part of what is free ...
pub const FIRST_MEMORY_PART: u64 = 32;

/// ... and what it may receive, if there is as much: a whole first window for whoever is not read
/// yet, and the same for some others. It grows with what is read ...
pub const FIRST_MEMORY_BYTES: u64 = 16 << 20;

/// ... and of what may be unacknowledged: what a first answer on a fast and long path is before it
/// grows.
pub const FIRST_UNACKED_BYTES: u64 = 1 << 20;

/// Longest time between accepting a connection and a verified JOIN or CREATE.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
