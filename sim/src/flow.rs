//! The users of flows: one sends datagrams as the plan says, the other may send as many back.

use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use imux::proto::limits::FLOW_DEADLINE_MAX;
use imux::proto::{Code, DatagramError, ReadError, Session, StreamId};

use crate::net::{MS, Time, ms};
use crate::options::FlowPlan;
use crate::oracle::flow::{Arrivals, NUMBER_BYTES, Truth, number_of};
use crate::rng::mix;

/// After the last datagram, a flow is kept this long beyond its deadline.
const LINGER: Time = 500 * MS;

/// One end of one flow.
#[derive(Debug)]
pub struct FlowApp {
    pub plan: usize,
    pub id: StreamId,
    opener: bool,
    send_at: Time,
    pub over: bool,
}

/// Length of datagram `number`.
fn length(plan: usize, half: usize, options: &FlowPlan, number: u64) -> usize {
    let [least, most] = options.bytes.map(|bytes| bytes.max(NUMBER_BYTES as u64));
    let random = mix(number ^ ((plan * 2 + half) as u64) << 32);
    (least + random % (most.max(least) - least + 1)) as usize
}

fn content(plan: usize, half: usize, options: &FlowPlan, number: u64) -> Bytes {
    let len = length(plan, half, options, number);
    let mut data = BytesMut::with_capacity(len);
    data.put_u64(number);
    let key = mix(number ^ 0x666c_6f77);
    data.extend((NUMBER_BYTES..len).map(|at| (key >> (at % 8)) as u8 ^ at as u8));
    data.freeze()
}

impl FlowApp {
    pub fn new(now: Time, plan: usize, id: StreamId, opener: bool) -> Self {
        Self { plan, id, opener, send_at: now, over: false }
    }

    /// The half this end sends; it reads the other.
    pub fn own_half(&self) -> usize {
        usize::from(!self.opener)
    }

    /// Reads what there is, and sends what is due; returns when to come again. An error is a rule
    /// the core broke.
    #[allow(clippy::too_many_arguments, reason = "what a user sees of the world, item by item")]
    pub fn serve(
        &mut self,
        now: Time,
        at: Instant,
        session: &mut Session,
        options: &FlowPlan,
        truths: &mut [Truth; 2],
        arrivals: &mut Arrivals,
        late: Time,
    ) -> Result<Option<Time>, String> {
        let deadline = ms(options.deadline_ms as f64).min(FLOW_DEADLINE_MAX.as_nanos() as Time);
        let (own, other) = (self.own_half(), 1 - self.own_half());
        loop {
            match session.flow(self.id).recv(at) {
                Ok(data) => {
                    let number = number_of(&data).ok_or("a datagram of nobody's")?;
                    if data != content(self.plan, other, options, number) {
                        return Err(format!("datagram {number} has changed"));
                    }
                    let arrived = arrivals.whole_at(number);
                    truths[other].on_read(now, number, deadline, arrived, late)?;
                    if options.echo && !self.opener {
                        self.send(now, at, session, options, &mut truths[own])?;
                    }
                }
                Err(ReadError::Blocked) => break,
                Err(ReadError::Reset(_) | ReadError::Closed) => {
                    self.check(now, session, deadline, &truths[other], arrivals, late)?;
                    self.close(session);
                    return Ok(None);
                }
            }
        }
        self.check(now, session, deadline, &truths[other], arrivals, late)?;
        if !self.opener {
            return Ok(None);
        }
        while !self.over && now >= self.send_at {
            if truths[own].sent() >= options.count {
                self.close(session);
                return Ok(None);
            }
            self.send(now, at, session, options, &mut truths[own])?;
            let last = truths[own].sent() >= options.count;
            let wait = if last { deadline + LINGER } else { ms(options.every_ms) };
            self.send_at = now + wait.max(1);
        }
        Ok((!self.over).then_some(self.send_at))
    }

    /// All that has come for it was read, or dropped for a reason.
    fn check(
        &self,
        now: Time,
        session: &mut Session,
        deadline: Time,
        truth: &Truth,
        arrivals: &Arrivals,
        late: Time,
    ) -> Result<(), String> {
        let Some(stats) = session.flow(self.id).stats() else { return Ok(()) };
        arrivals.check(now, truth.read, &stats, deadline, late)
    }

    fn send(
        &mut self,
        now: Time,
        at: Instant,
        session: &mut Session,
        options: &FlowPlan,
        truth: &mut Truth,
    ) -> Result<(), String> {
        let number = truth.on_send(now);
        let data = content(self.plan, self.own_half(), options, number);
        match session.flow(self.id).send(at, data) {
            Ok(()) => Ok(()),
            Err(DatagramError::TooLarge(bytes)) => Err(format!("{bytes} bytes are too many")),
            Err(DatagramError::Ended(_) | DatagramError::Closed) => {
                self.close(session);
                Ok(())
            }
        }
    }

    fn close(&mut self, session: &mut Session) {
        session.flow(self.id).close(Code::NONE);
        self.over = true;
    }
}
