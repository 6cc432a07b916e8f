//! The users of an end's flows.

use std::time::Instant;

use imux::proto::StreamId;
use imux::proto::limits::FLOWS_BYTES_MAX;
use imux::proto::wire::{Frame, StreamKind};

use super::{End, Happened};
use crate::flow::FlowApp;
use crate::net::{Time, ms};
use crate::options::Options;
use crate::oracle::flow::Truth;

/// A flow's name begins with this; the number of its plan follows.
const NAME: &str = "flow ";

impl End {
    /// Opens the flows that are to be opened by now.
    pub(super) fn open_flows(
        &mut self,
        now: Time,
        at: Instant,
        options: &Options,
        happened: &mut Vec<Happened>,
    ) {
        while let Some(&plan) = self.flows_to_open.front() {
            let flow = &options.flows[plan];
            let over = self.draining || self.peer_drains || self.session.is_closed();
            let deadline = std::time::Duration::from_millis(flow.deadline_ms);
            let kind = StreamKind::Named(format!("{NAME}{plan}"));
            let Some(id) = self.session.open_flow(at, deadline, kind) else {
                if over {
                    self.flows_to_open.clear();
                }
                return;
            };
            if flow.redundant {
                self.session.send_stream(id).set_redundant();
            }
            if flow.idle_ms > 0.0 {
                let idle = std::time::Duration::from_nanos(ms(flow.idle_ms));
                self.session.flow(id).set_idle_timeout(idle);
            }
            self.flows_to_open.pop_front();
            self.add_flow(FlowApp::new(now, plan, id, true), happened);
        }
    }

    /// Whether what was accepted is a flow of a plan.
    pub(super) fn accept_flow(
        &mut self,
        now: Time,
        id: StreamId,
        kind: &StreamKind,
        options: &Options,
        happened: &mut Vec<Happened>,
    ) -> bool {
        let StreamKind::Flow { kind, .. } = kind else { return false };
        let StreamKind::Named(name) = &**kind else { return false };
        let plan = name.strip_prefix(NAME).and_then(|plan| plan.parse().ok());
        let plan = plan.filter(|plan: &usize| *plan < options.flows.len());
        let Some(plan) = plan.filter(|_| !self.flows.contains_key(&id)) else { return false };
        self.add_flow(FlowApp::new(now, plan, id, false), happened);
        true
    }

    fn add_flow(&mut self, app: FlowApp, happened: &mut Vec<Happened>) {
        happened.push(Happened::Counted("flow"));
        self.todo.insert(app.id);
        self.flows.insert(app.id, app);
    }

    /// Notes when datagrams arrive.
    pub(super) fn note_datagrams(&mut self, now: Time) {
        for frame in &self.batch.frames {
            if let Err(why) = self.openings.on_frame(frame) {
                self.broken.get_or_insert(why);
            }
            if let Frame::Datagram(datagram) = frame {
                // It may come with the flow's opening.
                self.arrivals.entry(datagram.id).or_default().on_arrival(now, datagram);
            }
        }
    }

    /// `true`: `id` is a flow.
    pub(super) fn serve_flow(
        &mut self,
        now: Time,
        at: Instant,
        id: StreamId,
        options: &Options,
        truths: &mut [[Truth; 2]],
        happened: &mut Vec<Happened>,
    ) -> bool {
        let Some(app) = self.flows.get_mut(&id) else { return false };
        if app.over || self.session.is_closed() {
            return true;
        }
        let (plan, late) = (app.plan, options.driver.timer_us_max * 1_000);
        let truths = &mut truths[plan];
        let before = truths[1 - app.own_half()].read;
        let arrivals = self.arrivals.entry(id).or_default();
        let flow = &options.flows[plan];
        match app.serve(now, at, &mut self.session, flow, truths, arrivals, late) {
            Ok(Some(time)) => happened.push(Happened::Again(id, time)),
            Ok(None) => {}
            Err(why) => happened.push(Happened::Failed(format!("flow {id} of plan {plan}: {why}"))),
        }
        let read = truths[1 - app.own_half()].read;
        if read > before {
            happened.push(Happened::Noted("datagrams", plan as u64, read, read - before));
        }
        true
    }

    /// What flows keep is bounded, and what comes for them finds them open.
    pub(super) fn check_flows(&self) -> Result<(), String> {
        if let Some(why) = &self.broken {
            return Err(why.clone());
        }
        let kept = self.session.flow_bytes();
        if kept > 2 * FLOWS_BYTES_MAX {
            return Err(format!("flows keep {kept} bytes"));
        }
        Ok(())
    }
}
