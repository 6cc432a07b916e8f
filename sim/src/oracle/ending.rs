//! Why a session may end.

use imux::proto::SessionError;

use crate::net::Time;

/// What led to a session's end, as seen from outside.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cause {
    pub closed_here: bool,
    pub closed_there: bool,
    /// How long it has had no lane.
    pub alone_for: Option<Time>,
    /// How long it must bear that.
    pub grace: Time,
}

impl Cause {
    /// Checks the session's account of its end against what led to it.
    pub fn check(&self, error: &SessionError) -> Result<(), String> {
        let fine = match error {
            SessionError::Closed(_) => self.closed_here,
            SessionError::ClosedByPeer { .. } => self.closed_there,
            SessionError::GraceExpired => self.alone_for.is_some_and(|time| time >= self.grace),
            // Both ends are honest.
            SessionError::PeerMisbehaved { .. } => false,
        };
        if fine { Ok(()) } else { Err(format!("ended its session: {error}")) }
    }
}

#[cfg(test)]
mod tests {
    use imux::proto::Code;

    use super::*;

    #[test]
    fn a_session_ends_for_a_cause_only() {
        let closed = SessionError::Closed(Code::NONE);
        let by_peer = SessionError::ClosedByPeer { code: Code::NONE, reason: String::new() };
        let here = Cause { closed_here: true, ..Cause::default() };
        let there = Cause { closed_there: true, ..Cause::default() };
        assert_eq!(here.check(&closed), Ok(()));
        assert_eq!(there.check(&by_peer), Ok(()));
        there.check(&closed).unwrap_err();
        here.check(&by_peer).unwrap_err();
        let accused = SessionError::PeerMisbehaved { code: Code::PROTOCOL, detail: "" };
        let all = Cause { closed_here: true, closed_there: true, alone_for: Some(9), grace: 1 };
        all.check(&accused).unwrap_err();
    }

    #[test]
    fn the_grace_time_is_borne_to_its_end() {
        let alone = |alone_for| Cause { alone_for, grace: 100, ..Cause::default() };
        assert_eq!(alone(Some(100)).check(&SessionError::GraceExpired), Ok(()));
        alone(Some(99)).check(&SessionError::GraceExpired).unwrap_err();
        alone(None).check(&SessionError::GraceExpired).unwrap_err();
    }
}
