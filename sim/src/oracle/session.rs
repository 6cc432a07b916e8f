//! What must hold for a session's credit and lanes at every step, and for what it keeps at the end.

use imux::proto::{CreditStats, SessionStats};

/// At every step: credit is never overdrawn, and no more than the session's `window` is unread.
pub fn check_credit(credit: CreditStats, window: u64) -> Result<(), String> {
    if credit.sent > credit.sent_max || credit.received > credit.announced {
        return Err(format!("credit overdrawn: {credit:?}"));
    }
    if credit.consumed > credit.received {
        return Err(format!("more read than received: {credit:?}"));
    }
    if credit.received - credit.consumed > window {
        return Err(format!("more unread than the window: {credit:?}"));
    }
    Ok(())
}

/// At every step: the session counts no lane that the driver has dropped.
pub fn check_lanes(of_driver: usize, of_session: usize) -> Result<(), String> {
    if of_driver < of_session {
        return Err("the session has lanes that the driver has not".into());
    }
    Ok(())
}

/// Once all streams are over: nothing is kept, and both ends agree on the credit used.
pub fn check_drained(own: &SessionStats, memory: u64, peer: CreditStats) -> Result<(), String> {
    let credit = own.credit;
    if memory + own.pending_bytes + own.held_bytes + own.reorder_bytes != 0 {
        Err(format!("keeps {memory} bytes of no stream: {own:?}"))
    } else if credit.sent != peer.received || peer.consumed != peer.received {
        Err(format!("credit leaks: {credit:?}, peer {peer:?}"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAIR: CreditStats =
        CreditStats { sent: 10, sent_max: 10, received: 20, consumed: 15, announced: 20 };

    fn drained(credit: CreditStats) -> SessionStats {
        SessionStats {
            sent_bytes: 10,
            resent_bytes: 0,
            received_bytes: 20,
            duplicate_bytes: 0,
            pending_bytes: 0,
            held_bytes: 0,
            held_bytes_max: 7,
            reorder_bytes: 0,
            reorder_bytes_max: 7,
            lanes_lost: 0,
            lanes_suspected: 0,
            credit,
            streams: 0,
            flows: 0,
            datagrams: imux::proto::FlowStats::default(),
            lanes: Vec::new(),
        }
    }

    #[test]
    fn credit_is_not_overdrawn() {
        assert_eq!(check_credit(FAIR, 5), Ok(()));
        let lies = [
            CreditStats { sent: 11, ..FAIR },
            CreditStats { received: 21, consumed: 21, ..FAIR },
            CreditStats { consumed: 21, ..FAIR },
            CreditStats { consumed: 14, ..FAIR },
        ];
        for lie in lies {
            check_credit(lie, 5).unwrap_err();
        }
    }

    #[test]
    fn a_lane_that_is_gone_is_gone_for_both() {
        assert_eq!(check_lanes(2, 1), Ok(()), "a lane may be down for the session first");
        check_lanes(1, 2).unwrap_err();
    }

    #[test]
    fn nothing_is_left_over() {
        let peer = CreditStats { received: 10, consumed: 10, ..FAIR };
        let own = drained(FAIR);
        assert_eq!(check_drained(&own, 0, peer), Ok(()));
        check_drained(&own, 1, peer).unwrap_err();
        check_drained(&SessionStats { pending_bytes: 1, ..own.clone() }, 0, peer).unwrap_err();
        check_drained(&SessionStats { held_bytes: 1, ..own.clone() }, 0, peer).unwrap_err();
        check_drained(&SessionStats { reorder_bytes: 1, ..own.clone() }, 0, peer).unwrap_err();
        let unheard = CreditStats { received: 9, consumed: 9, ..peer };
        check_drained(&own, 0, unheard).unwrap_err();
        let unread = CreditStats { consumed: 9, ..peer };
        check_drained(&own, 0, unread).unwrap_err();
    }
}
