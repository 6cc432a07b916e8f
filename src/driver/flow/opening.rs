//! Opening flows, and taking those that the peer opens.

use super::{Flow, FlowOptions};
use crate::driver::clock;
use crate::driver::error::OpenError;
use crate::driver::session::{Incoming, Session};
use crate::driver::state::State;
use crate::driver::stream::Stream;
use crate::driver::wait::wait;
use crate::proto::ids::StreamId;
use crate::proto::wire::StreamKind;

impl Session {
    /// Opens a flow of datagrams, which may be sent at once. It waits only for room among the
    /// streams the peer allows.
    ///
    /// Cancel safe: no flow is opened before it is ready.
    ///
    /// # Errors
    /// The session is over, or one end is shutting down; the peer knows no flows, or allows no
    /// more.
    pub async fn open_flow(&self, options: impl Into<FlowOptions>) -> Result<Flow, OpenError> {
        let options = options.into();
        let stream = self.open_as_stream(&options).await?;
        Ok(Flow::new(stream, options.deadline))
    }

    /// The stream that opens a flow.
    pub(in crate::driver) async fn open_as_stream(
        &self,
        options: &FlowOptions,
    ) -> Result<Stream, OpenError> {
        let opened = wait(
            self.shared(),
            |state| &mut state.opening,
            |state| open_flow(state, options).transpose(),
        );
        Ok(Stream::new(self.handle().clone(), opened.await?).awaiting_answer(true))
    }

    /// How many flows the peer allows to be open to it at once; 0: it knows none.
    pub fn flows_granted(&self) -> u64 {
        self.shared().peek(|state| state.core.granted_flows())
    }
}

impl Incoming {
    /// The flow that the peer opened, and what it is for. Until [`Flow::answer`] the peer does not
    /// know whether it is taken; [`Flow::reset`] refuses it.
    ///
    /// # Errors
    /// It is a stream: here it is.
    #[allow(clippy::result_large_err, reason = "what is no flow comes back as it was")]
    pub fn into_flow(self) -> Result<(Flow, StreamKind), Self> {
        let StreamKind::Flow { kind, .. } = self.kind else { return Err(self) };
        let id = self.stream.id();
        let deadline = self.stream.shared().ask(|state| state.core.flow(id).deadline());
        // It may be over already; then nothing depends on this.
        Ok((Flow::new(self.stream.owing_answer(true), deadline.unwrap_or_default()), *kind))
    }
}

/// Opens a flow; `None`: not yet.
fn open_flow(state: &mut State, options: &FlowOptions) -> Result<Option<StreamId>, OpenError> {
    use StreamKind::{Default, Named, Raw, Visitor};
    if let Some(over) = &state.over {
        return Err(OpenError::Session(over.clone()));
    }
    let kind = match &options.kind {
        kind @ (Default | Named(_) | Raw | Visitor { .. }) => kind.clone(),
        _ => return Err(OpenError::WrongKind),
    };
    if state.core.is_draining() {
        return Err(OpenError::Draining);
    }
    if !state.core.may_open_flow() {
        let none = state.core.granted_flows() == 0;
        return Err(if none { OpenError::FlowsNotKnown } else { OpenError::TooManyFlows });
    }
    let opened = state.core.open_flow(clock::now(), options.deadline, kind);
    if let Some(id) = opened {
        if options.redundant {
            state.core.send_stream(id).set_redundant();
        }
        state.core.flow(id).set_idle_timeout(options.idle_timeout);
        state.streams.insert(id, Stream::wakers());
    }
    Ok(opened)
}
