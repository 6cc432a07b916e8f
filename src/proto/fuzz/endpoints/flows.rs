//! Flows between two honest ends, against plain lists of what was sent.

use std::time::Duration;

use bytes::Bytes;

use super::nth;
use crate::proto::ids::StreamId;
use crate::proto::testing::pair::{CLIENT, Pair, SERVER, pattern};
use crate::proto::wire::StreamKind;
use crate::proto::{Code, DatagramError};

/// A flow, and what each end has sent on it.
struct Flow {
    id: StreamId,
    opener: usize,
    sent: [Vec<Bytes>; 2],
}

/// All flows of a run.
#[derive(Default)]
pub(super) struct Flows(Vec<Flow>);

impl Flows {
    pub(super) fn open(
        &mut self,
        pair: &mut Pair,
        opener: usize,
        deadline_ms: u16,
        redundant: bool,
    ) {
        let deadline = Duration::from_millis(deadline_ms.into());
        let end = &mut pair.ends[opener];
        let Some(id) = end.session.open_flow(pair.now, deadline, StreamKind::Raw) else { return };
        if redundant {
            end.session.send_stream(id).set_redundant();
        }
        end.datagrams.insert(id, Vec::new());
        self.0.push(Flow { id, opener, sent: [Vec::new(), Vec::new()] });
    }

    /// One end sends a datagram, if it knows the flow.
    pub(super) fn send(&mut self, pair: &mut Pair, flow: usize, end: usize, bytes: usize) {
        let Some(flow) = nth(&mut self.0, flow) else { return };
        if !pair.ends[end].datagrams.contains_key(&flow.id) {
            return;
        }
        let sent = &mut flow.sent[end];
        let data = pattern(bytes, sent.len() as u64 * 2 + end as u64);
        match pair.ends[end].session.flow(flow.id).send(pair.now, data.clone()) {
            Ok(()) => sent.push(data),
            Err(DatagramError::TooLarge(told)) => assert_eq!(told, bytes),
            Err(DatagramError::Ended(_) | DatagramError::Closed) => {}
        }
    }

    /// One end ends it.
    pub(super) fn end(&mut self, pair: &mut Pair, flow: usize, end: usize) {
        let Some(flow) = nth(&mut self.0, flow) else { return };
        if pair.ends[end].datagrams.contains_key(&flow.id) {
            pair.ends[end].session.flow(flow.id).close(Code::NONE);
        }
    }

    /// Everybody is done with all of them.
    pub(super) fn finish(&self, pair: &mut Pair) {
        for flow in &self.0 {
            for end in &mut pair.ends {
                end.session.flow(flow.id).close(Code::NONE);
            }
        }
    }

    /// What was received is some of what was sent, unchanged, in order, each at most once; and
    /// nothing is left.
    pub(super) fn check_delivery(&self, pair: &Pair) {
        for flow in &self.0 {
            for (end, sent) in flow.sent.iter().enumerate() {
                let mut sent = sent.iter();
                let received = pair.ends[1 - end].datagrams.get(&flow.id);
                for (_, data) in received.into_iter().flatten() {
                    let from = if end == flow.opener { "opener" } else { "other end" };
                    let found = sent.any(|datagram| datagram == data);
                    assert!(found, "{}: {} bytes its {from} has not sent", flow.id, data.len());
                }
            }
        }
        for end in [CLIENT, SERVER] {
            let session = &pair.ends[end].session;
            assert_eq!((session.flow_count(), session.flow_bytes()), (0, 0), "flows are left over");
        }
    }
}
