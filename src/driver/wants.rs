//! What a stream asks for at its opening besides a destination, as far as the peer grants it.

use std::net::SocketAddr;

use super::error::OpenError;
use crate::proto::wire::{StreamKind, Wants};

/// What a stream is for, and how it is carried. A [`StreamKind`] alone is enough.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// What it is for.
    pub kind: StreamKind,
    /// Latency at any price: every byte, both ways, goes on the two fastest lanes, over two links
    /// if there are two. It costs twice the bytes. Metered lanes carry no second copy.
    pub redundant: bool,
    /// What else is wanted. If the peer grants no [`Wants::ANSWER`], the stream counts as
    /// connected once it is open; if it grants no [`Wants::SOURCE`], the stream is not opened.
    pub wants: Wants,
    /// Who connects, as this end sees it: it counts only with [`Wants::SOURCE`], and only if the
    /// peer trusts this end with it. A peer that does not know claims is sent none.
    pub source: Option<SocketAddr>,
}

impl From<StreamKind> for OpenOptions {
    fn from(kind: StreamKind) -> Self {
        Self { kind, ..Self::default() }
    }
}

/// The first byte back on a stream whose opener wants an answer.
pub(super) const ANSWER: &[u8] = &[0];

/// The kind of stream to open at a peer that grants `granted` and this many listeners and flows,
/// and whether an answer will come.
pub(super) fn asked(
    options: &OpenOptions,
    granted: Wants,
    listeners_max: u64,
    flows_max: u64,
) -> Result<(StreamKind, bool), OpenError> {
    let (destination, more) = match options.kind.clone() {
        StreamKind::Default => (None, Wants::default()),
        StreamKind::Named(name) => (Some(name), Wants::default()),
        StreamKind::Wanting { wants, destination, .. } => (destination, wants),
        StreamKind::Listening { .. } if listeners_max == 0 => {
            return Err(OpenError::ListeningNotKnown);
        }
        StreamKind::Listening { place, .. } if place.starts_with("udp:") && flows_max == 0 => {
            return Err(OpenError::FlowsNotKnown);
        }
        kind @ StreamKind::Listening { .. } => return Ok((kind, true)),
        StreamKind::Flow { .. } => return Err(OpenError::WrongKind),
        // These lead to no destination, or to an unnamed one.
        kind @ (StreamKind::Raw | StreamKind::Visitor { .. } | StreamKind::Unknown(_)) => {
            return Ok((kind, false));
        }
    };
    let wants = options.wants.and(more);
    if wants.has(Wants::SOURCE) && !granted.has(Wants::SOURCE) {
        return Err(OpenError::SourceNotTold);
    }
    // Send no claim that was not asked for.
    let source = options.source.filter(|_| wants.has(Wants::SOURCE));
    let claims = if source.is_some() { Wants::CLAIM } else { Wants::default() };
    let wants = wants.without(Wants::CLAIM).and(claims).within(granted);
    let claim = source.filter(|_| wants.has(Wants::CLAIM)).map(|source| source.to_string());
    let kind = match destination {
        destination if !wants.is_empty() => StreamKind::Wanting { wants, claim, destination },
        Some(name) => StreamKind::Named(name),
        None => StreamKind::Default,
    };
    Ok((kind, wants.has(Wants::ANSWER)))
}

/// Where a stream opened as `kind` leads, what else it wants, and who is said to connect.
pub(super) fn heard(kind: StreamKind) -> (StreamKind, Wants, Option<SocketAddr>) {
    match kind {
        StreamKind::Wanting { wants, claim, destination } => {
            let kind = destination.map_or(StreamKind::Default, StreamKind::Named);
            // Text that is not an address claims nothing.
            (kind, wants, claim.and_then(|claim| claim.parse().ok()))
        }
        kind @ StreamKind::Listening { .. } => (kind, Wants::ANSWER, None),
        kind => (kind, Wants::default(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_does_not_grant_is_done_without_or_refused() {
        let asked = |options: &_, granted| asked(options, granted, 0, 0);
        let named = || StreamKind::Named("a:1".to_owned());
        let options = |kind, wants| OpenOptions { wants, ..OpenOptions::from(kind) };
        let answer = options(named(), Wants::ANSWER);
        let wanting = StreamKind::Wanting {
            wants: Wants::ANSWER,
            claim: None,
            destination: Some("a:1".to_owned()),
        };
        assert_eq!(asked(&answer, Wants::ALL), Ok((wanting.clone(), true)));
        assert_eq!(asked(&answer, Wants::default()), Ok((named(), false)));
        assert_eq!(heard(wanting), (named(), Wants::ANSWER, None));
        let source = options(StreamKind::Default, Wants::SOURCE);
        let wanting = StreamKind::Wanting { wants: Wants::SOURCE, claim: None, destination: None };
        assert_eq!(asked(&source, Wants::ALL), Ok((wanting.clone(), false)));
        assert_eq!(asked(&source, Wants::ANSWER), Err(OpenError::SourceNotTold));
        assert_eq!(heard(wanting), (StreamKind::Default, Wants::SOURCE, None));
        let raw = options(StreamKind::Raw, Wants::ALL);
        assert_eq!(asked(&raw, Wants::default()), Ok((StreamKind::Raw, false)));
    }

    #[test]
    fn a_source_is_claimed_where_it_is_to_be_told_and_the_peer_knows_claims() {
        let source: SocketAddr = "192.0.2.7:5".parse().unwrap();
        let options = |wants| OpenOptions { wants, source: Some(source), ..Default::default() };
        let claim = |options: &_, granted| match asked(options, granted, 0, 0) {
            Ok((StreamKind::Wanting { wants, claim, .. }, _)) => (wants.has(Wants::CLAIM), claim),
            other => panic!("{other:?}"),
        };
        let told = options(Wants::SOURCE);
        assert_eq!(claim(&told, Wants::ALL), (true, Some("192.0.2.7:5".to_owned())));
        assert_eq!(claim(&told, Wants::SOURCE), (false, None));
        assert_eq!(claim(&options(Wants::ANSWER), Wants::ALL), (false, None));
        let none = OpenOptions { source: None, ..options(Wants::SOURCE.and(Wants::CLAIM)) };
        assert_eq!(claim(&none, Wants::ALL), (false, None));
        let kind = |claim: &str| StreamKind::Wanting {
            wants: Wants::CLAIM,
            claim: Some(claim.to_owned()),
            destination: None,
        };
        assert_eq!(heard(kind("192.0.2.7:5")).2, Some(source));
        assert_eq!(heard(kind("192.0.2.7")).2, None);
    }

    #[test]
    fn a_peer_that_takes_no_connections_for_others_is_not_asked_to() {
        let kind = StreamKind::Listening { number: 1, place: "localhost:80".to_owned() };
        let options = OpenOptions::from(kind.clone());
        assert_eq!(asked(&options, Wants::ALL, 0, 9), Err(OpenError::ListeningNotKnown));
        assert_eq!(asked(&options, Wants::default(), 1, 0), Ok((kind.clone(), true)));
        assert_eq!(heard(kind.clone()), (kind, Wants::ANSWER, None));
    }

    #[test]
    fn a_peer_that_knows_no_flows_is_not_asked_to_take_datagrams() {
        let kind = StreamKind::Listening { number: 1, place: "udp:localhost:53".to_owned() };
        let options = OpenOptions::from(kind.clone());
        assert_eq!(asked(&options, Wants::ALL, 1, 0), Err(OpenError::FlowsNotKnown));
        assert_eq!(asked(&options, Wants::ALL, 1, 1), Ok((kind, true)));
        let flow = StreamKind::Flow { deadline_ms: 1, kind: Box::new(StreamKind::Raw) };
        assert_eq!(asked(&flow.into(), Wants::ALL, 1, 1), Err(OpenError::WrongKind));
    }
}
