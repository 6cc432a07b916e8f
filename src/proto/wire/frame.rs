//! The frames that a lane can carry.

use bytes::Bytes;

use crate::proto::error::Code;
use crate::proto::ids::{LaneId, SessionId, StreamId};
use crate::proto::policy::LanePolicy;

use super::wants::Wants;

/// Frame types. Even ones must be understood; odd ones may be skipped (PROTOCOL.md, 2.3).
pub(super) mod types {
    pub const PING: u64 = 0x00;
    pub const ACK: u64 = 0x02;
    pub const STREAM: u64 = 0x04;
    pub const STREAM_FIN: u64 = 0x06;
    pub const OPEN: u64 = 0x08;
    pub const REDUNDANT: u64 = 0x09;
    pub const RESET: u64 = 0x0a;
    pub const STOP: u64 = 0x0c;
    pub const MAX_DATA: u64 = 0x0e;
    pub const MAX_STREAM_DATA: u64 = 0x10;
    pub const MAX_STREAMS: u64 = 0x12;
    pub const LANE_CLOSED: u64 = 0x14;
    pub const CLOSE: u64 = 0x16;
    pub const DRAIN: u64 = 0x18;
    pub const EARLY_STREAMS: u64 = 0x1a;
    pub const NEXT_KEY: u64 = 0x1b;
    pub const DATAGRAM: u64 = 0x1c;
    pub const EXPRESS: u64 = 0x1d;
    pub const DATAGRAM_PART: u64 = 0x1e;
    pub const CREATE: u64 = 0x20;
    pub const INVITATION: u64 = 0x21;
    pub const CREATED: u64 = 0x22;
    pub const LANE_POLICY: u64 = 0x23;
    pub const JOIN: u64 = 0x24;
    pub const JOINED: u64 = 0x26;
    pub const REFUSED: u64 = 0x28;

    /// Types `0x40 n + 0x3f` are reserved for exercising the rule that odd ones are skipped.
    pub const fn reserved(n: u8) -> u64 {
        ((n as u64) << 6) | 0x3f
    }
}

/// One frame. Each variant's fields are in wire order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Asks for an acknowledgement and nothing else.
    Ping,
    /// Everything on `lane` up to `position` (bytes of frames since its handshake) has arrived.
    Ack {
        /// The lane acknowledged: not necessarily the one this frame travels on.
        lane: LaneId,
        /// Cumulative, in bytes.
        position: u64,
    },
    /// Bytes of a stream.
    Stream {
        /// Which.
        id: StreamId,
        /// Where in the stream `data` starts.
        offset: u64,
        /// The stream ends after `data`.
        fin: bool,
        /// The bytes; may be empty only with `fin`.
        data: Bytes,
    },
    /// Opens a stream. Its data may travel with it, or overtake it on another lane.
    Open {
        /// Which.
        id: StreamId,
        /// What it is for.
        kind: StreamKind,
    },
    /// The opener of a stream wants its bytes, both ways, on two lanes. Stands right before the
    /// OPEN.
    Redundant {
        /// Which.
        id: StreamId,
    },
    /// The sender abandons its direction of a stream.
    Reset {
        /// Which.
        id: StreamId,
        /// Why.
        code: Code,
        /// How many bytes of credit it had used.
        final_size: u64,
    },
    /// The receiver wants no more of a stream.
    Stop {
        /// Which.
        id: StreamId,
        /// Why.
        code: Code,
    },
    /// Credit for all streams together, in bytes since the session began.
    MaxData {
        /// Absolute.
        max: u64,
    },
    /// Credit for one stream, as an absolute offset.
    MaxStreamData {
        /// Which.
        id: StreamId,
        /// Absolute.
        max: u64,
    },
    /// A datagram of a flow, or a part of one. It is never sent again.
    Datagram(Datagram),
    /// How many streams the peer may have opened since the session began.
    MaxStreams {
        /// Absolute.
        max: u64,
    },
    /// Streams with a lower index start with `Params::early_max_stream_data`.
    EarlyStreams {
        /// Absolute.
        count: u64,
    },
    /// The sender of this frame has given `lane` up, having received it up to `position`.
    LaneClosed {
        /// Which.
        lane: LaneId,
        /// The last acknowledgement there will be for it.
        position: u64,
        /// Why.
        code: Code,
    },
    /// The session is over.
    Close {
        /// Why.
        code: Code,
        /// For a log; at most `limits::REASON_BYTES_MAX`.
        reason: Bytes,
    },
    /// The sender accepts no more streams; open ones continue.
    Drain,
    /// From a server: its next key, with proof that it holds it.
    NextKey {
        /// `limits::NEXT_KEY_BYTES` bytes. The core knows no cryptography: their meaning is
        /// decided outside.
        announcement: Bytes,
    },
    /// From a server: urgent data waits behind bulk, and an express lane on each link would help.
    Express,
    /// From a client, ahead of its CREATE: what its key is to be authorised by.
    Invitation {
        /// The secret that the server issued.
        secret: Secret,
    },
    /// How the lane that carries this may be used. Precedes the client's CREATE or JOIN.
    LanePolicy(LanePolicy),
    /// First frame of a session's first lane, from the client.
    Create {
        /// Versions the client speaks, best first.
        versions: Vec<u32>,
        /// The client's limits.
        params: Params,
    },
    /// The answer to it.
    Created {
        /// The client's version that is used from here on.
        version: u32,
        /// The session that further lanes join.
        session: SessionId,
        /// The server's limits.
        params: Params,
    },
    /// First frame of every further lane, from the client.
    Join {
        /// Which session.
        session: SessionId,
        /// A number not used in the session before.
        lane: LaneId,
        /// Proof of the session's secret, bound to this lane.
        mac: [u8; 32],
    },
    /// The answer to it, with the server's own proof.
    Joined {
        /// Proof of the session's secret, bound to this lane.
        mac: [u8; 32],
    },
    /// The answer to a CREATE or JOIN that is not granted.
    Refused {
        /// Why.
        code: Code,
        /// For a log; at most `limits::REASON_BYTES_MAX`.
        reason: Bytes,
    },
    /// A frame of a type that may be skipped.
    Ignored,
}

impl Frame {
    /// Whether the frame belongs to a lane's opening and is invalid anywhere else.
    pub const fn is_handshake(&self) -> bool {
        matches!(
            self,
            Self::Invitation { .. }
                | Self::Create { .. }
                | Self::Created { .. }
                | Self::Join { .. }
                | Self::Joined { .. }
                | Self::Refused { .. }
        )
    }

    /// Whether the receiver owes an acknowledgement for it. An ACK elicits none, or two ends would
    /// answer each other for ever (RFC 9000, 13.2); nor does what a receiver may ignore.
    pub const fn is_ack_eliciting(&self) -> bool {
        let ignorable =
            matches!(self, Self::Redundant { .. } | Self::LanePolicy(_) | Self::Ignored);
        !ignorable && !matches!(self, Self::Ack { .. } | Self::Close { .. })
    }
}

/// What a stream is for, as its OPEN says.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum StreamKind {
    /// To the one destination the server was set up with.
    #[default]
    Default,
    /// To a destination the opener names, `host:port`. Granted only where authorised.
    Named(String),
    /// To whatever the two programs using the library have agreed on.
    Raw,
    /// To the named destination, or the one the server was set up with, with extra wants. Only to a
    /// peer that says it knows this.
    Wanting {
        /// What.
        wants: Wants,
        /// Who connects according to the opener, in text: with [`Wants::CLAIM`], and only then.
        claim: Option<String>,
        /// As in [`Named`](Self::Named).
        destination: Option<String>,
    },
    /// From a client: the server accepts connections at `place`, and opens a stream for each, for
    /// as long as this stream lives. Only to a peer that says it knows this.
    Listening {
        /// The number that the streams for its connections refer to.
        number: u64,
        /// As in [`Named`](Self::Named).
        place: String,
    },
    /// From a server: a connection accepted for a stream of the kind
    /// [`Listening`](Self::Listening).
    Visitor {
        /// That stream's number.
        number: u64,
        /// The address that the connection comes from, in text, if it has one.
        source: Option<String>,
    },
    /// A flow of datagrams. What it is for is one of [`Default`](Self::Default),
    /// [`Named`](Self::Named), [`Raw`](Self::Raw) and [`Visitor`](Self::Visitor). Only to a peer
    /// that says it knows this.
    Flow {
        /// A datagram that has waited longer than this, in milliseconds, is not worth sending.
        deadline_ms: u64,
        /// What it is for.
        kind: Box<StreamKind>,
    },
    /// Something this version does not know. Whoever accepts it refuses it; the lane it came on and
    /// the other streams are unaffected.
    Unknown(u64),
}

/// A datagram of a flow, or a part of one that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The flow, by its stream.
    pub id: StreamId,
    /// Counts a flow's datagrams in each direction, from 0.
    pub number: u64,
    /// How long it has waited at the sender, in milliseconds.
    pub waited_ms: u64,
    /// Bytes of the whole datagram.
    pub total: usize,
    /// Where in it `data` begins.
    pub offset: usize,
    /// The bytes; all of them if `data` is as long as `total`.
    pub data: Bytes,
}

impl Datagram {
    /// Whether it is all there.
    pub fn is_whole(&self) -> bool {
        self.data.len() == self.total
    }
}

/// What each end says about itself when the session is created. Unknown ones are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Initial credit for all streams together, in bytes.
    pub initial_max_data: u64,
    /// Initial credit for each stream, in bytes.
    pub initial_max_stream_data: u64,
    /// Initial number of streams the other end may open.
    pub initial_max_streams: u64,
    /// How long a session without lanes is kept, in milliseconds.
    pub grace_ms: u64,
    /// Credit, in bytes, for each stream whose index EARLY_STREAMS covers. Above 0: this end knows
    /// the frame.
    pub early_max_stream_data: u64,
    /// The wants that this end grants to a stream's opener.
    pub wants: Wants,
    /// How many streams of the kind [`StreamKind::Listening`] the other end may have open. Above
    /// 0: this end knows them.
    pub listeners_max: u64,
    /// How many flows the other end may have open. Above 0: this end knows them.
    pub flows_max: u64,
}

/// 32 bytes that must never be logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A peer's words for a log: printable ASCII, the rest shown as dots.
pub fn printable(text: &[u8]) -> String {
    let shown = |byte: u8| if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '.' };
    text.iter().map(|&byte| shown(byte)).collect()
}
