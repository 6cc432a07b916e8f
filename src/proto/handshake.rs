//! How lanes and sessions begin: which version is used, and what a proof of membership covers. The
//! proof itself, an HMAC, is made outside: the core knows no cryptography.

use super::ids::{LaneId, SessionId, Side};

/// The protocol version implemented here (docs/PROTOCOL.md).
pub const VERSION: u32 = 1;

/// The client's first version that this end supports too.
pub fn choose_version(offered: &[u32]) -> Option<u32> {
    offered.iter().copied().find(|&version| version == VERSION)
}

/// Bytes of a keying-material export.
pub const EXPORT_LEN: usize = 32;

const LABEL: &[u8; 16] = b"imux/1 join lane";

/// Length in bytes of what a proof covers.
pub const JOIN_MESSAGE_LEN: usize = LABEL.len() + SessionId::LEN + 1 + 8 + EXPORT_LEN;

/// What `side` authenticates with the session's secret to prove that a lane belongs to it: session,
/// its own role (so that a proof cannot be reflected), the lane's number, and the lane's own keying
/// material (so that a proof cannot be replayed on another lane).
pub fn join_message(
    session: SessionId,
    side: Side,
    lane: LaneId,
    exported: &[u8; EXPORT_LEN],
) -> [u8; JOIN_MESSAGE_LEN] {
    let role = match side {
        Side::Client => b'c',
        Side::Server => b's',
    };
    let number = lane.number().to_be_bytes();
    let parts: [&[u8]; 5] = [LABEL, session.as_bytes(), &[role], &number, exported];
    let mut message = [0; JOIN_MESSAGE_LEN];
    let bytes = parts.into_iter().flatten();
    message.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_part_of_a_proof_matters() {
        let (a, b) = (SessionId::new([1; 16]), SessionId::new([2; 16]));
        let lane = LaneId::new;
        let messages = [
            join_message(a, Side::Client, lane(1), &[3; 32]),
            join_message(b, Side::Client, lane(1), &[3; 32]),
            join_message(a, Side::Server, lane(1), &[3; 32]),
            join_message(a, Side::Client, lane(2), &[3; 32]),
            join_message(a, Side::Client, lane(1), &[4; 32]),
        ];
        assert_eq!(messages.iter().collect::<BTreeSet<_>>().len(), messages.len());
        assert_eq!(choose_version(&[9, 1]), Some(1));
        assert_eq!(choose_version(&[9]), None);
    }
}
