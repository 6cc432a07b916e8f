//! A lane's first frames, which create or join a session.

use std::fmt;
use std::io;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use super::error::ConnectError;
use crate::lane::Lane;
use crate::proto::handshake::{self, EXPORT_LEN};
use crate::proto::wire::{Decoder, Frame, LaneBuf, Params, Secret, printable};
use crate::proto::{Code, LaneId, LanePolicy, SessionId, Side, limits};
use crate::trust::{InvitationSecret, LANE_EXPORTER_LABEL, SESSION_EXPORTER_LABEL, SessionSecret};

/// A session that two ends have agreed on.
#[derive(Clone, Debug)]
pub(super) struct Agreed {
    pub(super) id: SessionId,
    pub(super) secret: SessionSecret,
    /// What the other end said about itself.
    pub(super) peer: Params,
}

impl Agreed {
    /// A seed for the core's own choices; none of them is secret.
    pub(super) fn seed(&self) -> u64 {
        let bytes = self.id.as_bytes().iter();
        bytes.fold(0, |seed, byte| u64::rotate_left(seed, 8) ^ u64::from(*byte))
    }
}

/// Asks the server for a session on its first lane; shows an invitation, if there is one.
pub(super) async fn create(
    lane: &mut Box<dyn Lane>,
    params: Params,
    policy: LanePolicy,
    invitation: Option<&InvitationSecret>,
) -> Result<Agreed, ConnectError> {
    let secret = session_secret(lane.as_ref()).map_err(ConnectError::Handshake)?;
    let mut frames = vec![Frame::LanePolicy(policy)];
    frames.extend(invitation.map(|it| Frame::Invitation { secret: Secret(*it.as_bytes()) }));
    frames.push(Frame::Create { versions: vec![handshake::VERSION], params });
    write_frames(lane, &frames).await.map_err(ConnectError::Handshake)?;
    match FirstWords::default().next(lane).await.map_err(ConnectError::Handshake)? {
        Frame::Created { version: handshake::VERSION, session, params } => {
            Ok(Agreed { id: session, secret, peer: params })
        }
        Frame::Created { .. } => {
            Err(ConnectError::Refused { code: Code::VERSION, reason: String::new() })
        }
        Frame::Refused { code, reason } => {
            Err(ConnectError::Refused { code, reason: printable(&reason) })
        }
        _ => Err(ConnectError::Handshake(unexpected("an answer to CREATE"))),
    }
}

/// Says which session the lane belongs to, with proof; returns the proof the server must answer
/// with. Data may follow at once: the lane's other end has a key that is already trusted.
pub(super) async fn join(
    lane: &mut Box<dyn Lane>,
    agreed: &Agreed,
    number: LaneId,
    policy: LanePolicy,
) -> io::Result<JoinProof> {
    let proof = JoinProof::new(lane.as_ref(), agreed, number)?;
    let mac = proof.mac(Side::Client);
    let join = Frame::Join { session: agreed.id, lane: number, mac };
    write_frames(lane, &[Frame::LanePolicy(policy), join]).await?;
    Ok(proof)
}

/// Waits for the server's answer to JOIN, on a lane that carries nothing before it.
pub(super) async fn joined(
    lane: &mut Box<dyn Lane>,
    proof: &JoinProof,
) -> Result<(), ConnectError> {
    match FirstWords::default().next(lane).await.map_err(ConnectError::Handshake)? {
        Frame::Joined { mac } if proof.verify(Side::Server, &mac) => Ok(()),
        Frame::Refused { code, reason } => {
            Err(ConnectError::Refused { code, reason: printable(&reason) })
        }
        _ => Err(ConnectError::Handshake(unexpected("the server's proof"))),
    }
}

/// What both ends of a lane use to prove that they belong to the session.
#[derive(Clone)]
pub(super) struct JoinProof {
    id: SessionId,
    number: LaneId,
    secret: SessionSecret,
    exported: Zeroizing<[u8; EXPORT_LEN]>,
}

impl fmt::Debug for JoinProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The lane's keying material is secret.
        f.debug_struct("JoinProof")
            .field("id", &self.id)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl JoinProof {
    pub(super) fn new(lane: &dyn Lane, agreed: &Agreed, number: LaneId) -> io::Result<Self> {
        let mut exported = Zeroizing::new([0; EXPORT_LEN]);
        lane.export_keying_material(LANE_EXPORTER_LABEL, &mut exported)?;
        Ok(Self { id: agreed.id, number, secret: agreed.secret.clone(), exported })
    }

    fn message(&self, side: Side) -> [u8; handshake::JOIN_MESSAGE_LEN] {
        handshake::join_message(self.id, side, self.number, &self.exported)
    }

    /// The proof this end gives.
    pub(super) fn mac(&self, side: Side) -> [u8; 32] {
        self.secret.mac(&self.message(side))
    }

    /// Whether `mac` is `side`'s proof.
    pub(super) fn verify(&self, side: Side, mac: &[u8; 32]) -> bool {
        self.secret.verify(&self.message(side), mac)
    }
}

/// The secret of a session whose first lane this is.
pub(super) fn session_secret(lane: &dyn Lane) -> io::Result<SessionSecret> {
    let mut exported = Zeroizing::new([0; EXPORT_LEN]);
    lane.export_keying_material(SESSION_EXPORTER_LABEL, &mut exported)?;
    Ok(SessionSecret::new(&exported))
}

/// Tells the other end that its CREATE or JOIN is refused, and closes the lane.
pub(super) async fn refuse(lane: &mut Box<dyn Lane>, code: Code, reason: &'static str) {
    let refused = Frame::Refused { code, reason: Bytes::from_static(reason.as_bytes()) };
    // The lane is dropped either way.
    if write_frame(lane, &refused).await.is_ok() {
        let _ = lane.shutdown().await;
    }
}

pub(super) async fn write_frame(lane: &mut Box<dyn Lane>, frame: &Frame) -> io::Result<()> {
    write_frames(lane, std::slice::from_ref(frame)).await
}

async fn write_frames(lane: &mut Box<dyn Lane>, frames: &[Frame]) -> io::Result<()> {
    let mut out = LaneBuf::new();
    frames.iter().for_each(|frame| out.push(frame));
    for piece in out.pieces() {
        lane.write_all(piece).await?;
    }
    lane.flush().await
}

/// What a client says before CREATE or JOIN.
#[derive(Default)]
pub(super) struct Prelude {
    /// The invitation it shows, if any.
    pub(super) invitation: Option<InvitationSecret>,
    /// How the lane may be used.
    pub(super) policy: LanePolicy,
}

/// Reads a client's first frames, up to CREATE or JOIN.
pub(super) async fn read_first(lane: &mut Box<dyn Lane>) -> io::Result<(Prelude, Frame)> {
    let mut prelude = Prelude::default();
    let mut words = FirstWords::default();
    loop {
        match words.next(lane).await? {
            Frame::LanePolicy(policy) => prelude.policy = policy,
            Frame::Invitation { secret } if prelude.invitation.is_none() => {
                prelude.invitation = Some(InvitationSecret::from_bytes(secret.0));
            }
            first => return Ok((prelude, first)),
        }
    }
}

/// The few frames of the other end before the lane belongs to a session.
#[derive(Default)]
struct FirstWords {
    decoder: Decoder,
    bytes: usize,
}

impl FirstWords {
    /// Reads exactly one frame that must not be skipped; what follows stays in the lane.
    async fn next(&mut self, lane: &mut Box<dyn Lane>) -> io::Result<Frame> {
        loop {
            let mut input = lane.fill_buf().await?;
            let available = input.len();
            if available == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let frame = self.decoder.decode_one(&mut input).map_err(io::Error::other)?;
            let taken = available - input.len();
            lane.consume(taken);
            self.bytes += taken;
            if self.bytes > limits::GREETING_BYTES_MAX {
                return Err(io::Error::other("more was said than belongs to a greeting"));
            }
            match frame {
                Some((Frame::Ignored, _)) | None => {}
                Some((frame, _)) => return Ok(frame),
            }
        }
    }
}

fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} was expected"))
}
