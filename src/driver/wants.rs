//! What is asked for at a stream's opening beside its destination, as far as the peer grants it.

use super::error::OpenError;
use crate::proto::wire::{StreamKind, Wants};

/// What a stream is for, and how it is carried. A [`StreamKind`] alone will do.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// What it is for.
    pub kind: StreamKind,
    /// Latency at any price: every byte, both ways, goes on the two lanes that get it there first,
    /// over two links if there are two. It costs twice the bytes. Metered lanes carry no second
    /// copy.
    pub redundant: bool,
    /// What is wanted besides. With a peer that grants no [`Wants::ANSWER`] the stream
    /// counts as connected once it is open; where it does not grant [`Wants::SOURCE`] it is not
    /// opened.
    pub wants: Wants,
}

impl From<StreamKind> for OpenOptions {
    fn from(kind: StreamKind) -> Self {
        Self { kind, ..Self::default() }
    }
}

/// The first byte that comes back on a stream whose opener wants an answer.
pub(super) const ANSWER: &[u8] = &[0];

/// The kind of stream to open at a peer that grants `granted` and so many listeners, and whether an
/// answer comes.
pub(super) fn asked(
    options: &OpenOptions,
    granted: Wants,
    listeners_max: u64,
) -> Result<(StreamKind, bool), OpenError> {
    let (destination, more) = match options.kind.clone() {
        StreamKind::Default => (None, Wants::default()),
        StreamKind::Named(name) => (Some(name), Wants::default()),
        StreamKind::Wanting(wants, destination) => (destination, wants),
        StreamKind::Listening { .. } if listeners_max == 0 => {
            return Err(OpenError::ListeningNotKnown);
        }
        kind @ StreamKind::Listening { .. } => return Ok((kind, true)),
        // They lead to no destination, or to one that is not named.
        kind @ (StreamKind::Raw | StreamKind::Visitor { .. } | StreamKind::Unknown(_)) => {
            return Ok((kind, false));
        }
    };
    let wants = options.wants.and(more);
    if wants.has(Wants::SOURCE) && !granted.has(Wants::SOURCE) {
        return Err(OpenError::SourceNotTold);
    }
    let wants = wants.within(granted);
    let kind = match destination {
        destination if !wants.is_empty() => StreamKind::Wanting(wants, destination),
        Some(name) => StreamKind::Named(name),
        None => StreamKind::Default,
    };
    Ok((kind, wants.has(Wants::ANSWER)))
}

/// Where a stream leads that was opened as `kind`, and what is wanted besides.
pub(super) fn heard(kind: StreamKind) -> (StreamKind, Wants) {
    match kind {
        StreamKind::Wanting(wants, Some(name)) => (StreamKind::Named(name), wants),
        StreamKind::Wanting(wants, None) => (StreamKind::Default, wants),
        kind @ StreamKind::Listening { .. } => (kind, Wants::ANSWER),
        kind => (kind, Wants::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_does_not_grant_is_done_without_or_refused() {
        let asked = |options: &_, granted| asked(options, granted, 0);
        let named = || StreamKind::Named("a:1".to_owned());
        let options = |kind, wants| OpenOptions { wants, ..OpenOptions::from(kind) };
        let answer = options(named(), Wants::ANSWER);
        let wanting = StreamKind::Wanting(Wants::ANSWER, Some("a:1".to_owned()));
        assert_eq!(asked(&answer, Wants::ALL), Ok((wanting.clone(), true)));
        assert_eq!(asked(&answer, Wants::default()), Ok((named(), false)));
        assert_eq!(heard(wanting), (named(), Wants::ANSWER));
        let source = options(StreamKind::Default, Wants::SOURCE);
        let wanting = StreamKind::Wanting(Wants::SOURCE, None);
        assert_eq!(asked(&source, Wants::ALL), Ok((wanting.clone(), false)));
        assert_eq!(asked(&source, Wants::ANSWER), Err(OpenError::SourceNotTold));
        assert_eq!(heard(wanting), (StreamKind::Default, Wants::SOURCE));
        let raw = options(StreamKind::Raw, Wants::ALL);
        assert_eq!(asked(&raw, Wants::default()), Ok((StreamKind::Raw, false)));
    }

    #[test]
    fn a_peer_that_takes_no_connections_for_others_is_not_asked_to() {
        let kind = StreamKind::Listening { number: 1, place: "localhost:80".to_owned() };
        let options = OpenOptions::from(kind.clone());
        assert_eq!(asked(&options, Wants::ALL, 0), Err(OpenError::ListeningNotKnown));
        assert_eq!(asked(&options, Wants::default(), 1), Ok((kind.clone(), true)));
        assert_eq!(heard(kind.clone()), (kind, Wants::ANSWER));
    }
}
