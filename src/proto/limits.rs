//! Every bound on what a peer can make us keep or do, each with its reason.

use std::time::Duration;

/// Most bytes of one frame, header included: the plaintext of one TLS record (RFC 8446, 5.1), so
/// that a frame written at a record's start is complete when the record is.
pub const FRAME_BYTES_MAX: usize = 16_384;

/// Most bytes of a frame's type and length fields: two eight-byte variable-length integers.
pub const FRAME_HEADER_BYTES_MAX: usize = 16;

/// Frames decoded before they are handed to the session. Full frames fill a read's 256 KiB long
/// before; with two-byte frames, a read would take some 100 times its size in memory.
pub const BATCH_FRAMES_MAX: usize = 1_024;

/// Longest destination an OPEN may name: a DNS name has at most 253 characters (RFC 1035, 2.3.4),
/// then a colon and a port; rounded up for bracketed IPv6 addresses with zones.
pub const DESTINATION_BYTES_MAX: usize = 300;

/// Longest reason in a CLOSE or REFUSED frame: a line for a log, not a place to store things.
pub const REASON_BYTES_MAX: usize = 256;

/// A server's next key, Ed25519 (RFC 8032), and a signature with it.
pub const NEXT_KEY_BYTES: usize = 32 + 64;

/// Versions listed in a CREATE. Only one exists so far.
pub const VERSIONS_MAX: usize = 16;

/// Separate gaps in what one stream has received out of order. An honest peer causes one per lane
/// and overtaken chunk; twenty lanes with 200 chunks each stay below this.
pub const STREAM_GAPS_MAX: usize = 4_096;

/// What one stored piece of out-of-order data costs besides its bytes: its map entry, its
/// reference-counted allocation, and the allocator's own. Counted, so that tiny frames cannot
/// multiply memory.
pub const SEGMENT_OVERHEAD_BYTES: u64 = 160;

/// Memory for out-of-order data, as a multiple of the session's whole window: enough for the
/// overhead of small but honest segments, not for a flood of them.
pub const REORDER_OVERHEAD_FACTOR: u64 = 2;

/// Out-of-order memory allowed on top of that multiple, for one stream's gaps: in a window smaller
/// than a segment's bookkeeping, the first piece out of order would be an offence.
pub const REORDER_OVERHEAD_BYTES: u64 = STREAM_GAPS_MAX as u64 * SEGMENT_OVERHEAD_BYTES;

/// What is kept for a peer until it acknowledges it, in windows of our own (of a stream, of the
/// session): credit bounds it if the peer's windows are like ours, and one more allows for
/// acknowledgements that come after the credit. A peer that grants more than it acknowledges waits.
pub const UNACKED_WINDOWS: u64 = 2;

/// Dead lanes whose ledgers are kept until the peer says how much it received on them. Beyond this
/// the oldest is forgotten: its ranges are sent again, which is safe but costs more.
pub const DEAD_LANES_MAX: usize = 256;

/// Lanes alive at once in one session. The command allows 256; a client returning after an outage
/// adds as many new ones before the old ones are found dead.
pub const LANES_MAX: usize = 512;

/// Frames allowed in one burst that make us work without moving a byte of payload (pings, opens,
/// resets, stops, credit, lane notices, ignorable frames).
pub const BUSY_FRAMES_BURST: u64 = 100_000;

/// Busy frames (as listed above) allowed per second. Opening and resetting streams as fast as one
/// machine can make sockets stays well below; a flood on a fast link is far above.
pub const BUSY_FRAMES_PER_SECOND: u64 = 50_000;

/// Acknowledgements that count as one busy frame: each is only a map look-up. Hundreds of lanes
/// that send one a millisecond, and one more by a faster path, stay below.
pub const ACKS_PER_BUSY_FRAME: u64 = 16;

/// STREAM frames that carry less than this count as busy frames, unless they end the stream.
pub const TINY_PAYLOAD_BYTES: usize = 16;

/// Lowest cap for a link, in bytes a second (64 kbit/s): below it, acknowledgements and signs of
/// life would come so late that the lane is taken for dead.
pub const LINK_RATE_MIN: u64 = 8_000;

/// Total bytes a lane may send before it is created or joined, and receive in reply: the frame
/// itself and as much again.
pub const GREETING_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;

/// Lanes in their handshake at once: each costs a task, a socket and a TLS state, some 60 KB.
pub const WAITING_LANES_MAX: usize = 512;

/// Lanes in their handshake at once from one source (an IPv4 address, an IPv6 /64): a user with 20
/// lanes on each of five links returns after an outage with all of them at once.
pub const WAITING_LANES_PER_SOURCE_MAX: usize = 128;

/// TLS handshakes with one source, in one burst: ten users behind one address who return after an
/// outage with 20 lanes on each of five links.
pub const HANDSHAKES_PER_SOURCE_BURST: u32 = 1_000;

/// TLS handshakes with one source per second. Each costs the server some 0.4 ms of a core
/// (measured, X25519MLKEM768 and Ed25519), so that one source takes a twenty-fifth of it; hanging
/// up instead costs 0.03 ms.
pub const HANDSHAKES_PER_SOURCE_PER_SECOND: u32 = 100;

/// Sources whose handshakes are counted, some 80 bytes each.
pub const HANDSHAKE_SOURCES_MAX: usize = 16_384;

/// Sessions a server keeps at once, including those waiting for a lane to return; each may cost up
/// to its windows in memory.
pub const SESSIONS_MAX: usize = 1_024;

/// Sessions created from one source: enough for the users behind one address, far fewer than all.
pub const SESSIONS_PER_SOURCE_MAX: usize = 256;

/// Sessions created with one client key. A process has one; one that is killed and restarted every
/// second leaves one behind each time, for the grace time.
pub const SESSIONS_PER_CLIENT_MAX: usize = 128;

/// Places at which a server listens for one client. Each costs at most two descriptors, a task, and
/// a port that nobody else can use; whoever forwards more services than that forwards hosts.
pub const LISTENERS_PER_CLIENT_MAX: usize = 32;

/// Places at which a server listens for all clients together. Their sessions yield to nobody: a
/// quarter of all that are possible.
pub const LISTENERS_MAX: usize = 256;

/// Connections accepted at one such place at once: strangers make them, and what one port gets must
/// not be all that its client may have.
pub const VISITORS_PER_LISTENER_MAX: usize = 1_024;

/// Largest datagram: what UDP over IPv4 can carry (RFC 768, RFC 791).
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Smallest part of a datagram that was cut, its last one excepted: 64 of them make the largest.
pub const DATAGRAM_PART_BYTES_MIN: usize = 1_024;

/// Flows that each end may have opened at once. A resolver or a game opens a few, a network behind
/// one client some hundreds; a server passes each on by a socket of its own.
pub const FLOWS_PER_SESSION_MAX: u64 = 1_024;

/// What a session keeps of datagrams each way: 200 ms of 160 Mbit/s. One flow has half of it at
/// most, and all have no more than a quarter of what the session is allowed.
pub const FLOWS_BYTES_MAX: u64 = 4 << 20;

/// What a kept datagram, or a kept part of one, costs besides its bytes.
pub const DATAGRAM_OVERHEAD_BYTES: u64 = 128;

/// Datagrams of one flow that wait for an earlier one. Lanes differ by tens of milliseconds, and
/// 10,000 datagrams a second are a lot.
pub const DATAGRAMS_HELD_MAX: usize = 1_024;

/// Longest deadline of a flow. Whoever can wait longer wants a stream.
pub const FLOW_DEADLINE_MAX: Duration = Duration::from_secs(10);

/// Bookkeeping of an open stream, besides its bytes: its entry, its waiters, the tasks at both of
/// its ends.
pub const STREAM_OVERHEAD_BYTES: u64 = 1_024;

/// The fraction of available memory that a process keeps for all its peers together, unless set
/// otherwise.
pub const MEMORY_PART: u64 = 4;

/// The most memory that a process keeps by default: enough for three sessions with full windows.
pub const MEMORY_BYTES_MAX: u64 = 1 << 30;

/// What a session may always keep for its peer, both ways together: a quarter of the budget divided
/// among all possible sessions, but at least this, which keeps a connection going.
pub const MEMORY_FLOOR_BYTES_MIN: u64 = 16 * 1024;

/// The most that a session may always keep: it has no use for more.
pub const MEMORY_FLOOR_BYTES_MAX: u64 = 256 * 1024;

/// A session initially gets at most this fraction of the free memory.
pub const FIRST_MEMORY_PART: u64 = 32;

/// What a session may receive initially, if there is that much: a whole first window for a stream
/// not read yet, and as much for a few others. It grows with what is read.
pub const FIRST_MEMORY_BYTES: u64 = 16 << 20;

/// What a session may initially have unacknowledged: a first answer on a fast and long path, before
/// it grows.
pub const FIRST_UNACKED_BYTES: u64 = 1 << 20;

/// Longest time between accepting a connection and a verified JOIN or CREATE.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
