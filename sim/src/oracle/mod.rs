//! The rules for every run, whatever its network does. Each is a function of what can be seen from
//! outside: a test can lie to it and see it complain.

pub mod copies;
pub mod ending;
pub mod flow;
pub mod lanes;
pub mod liveness;
pub mod memory;
pub mod policy;
pub mod promises;
pub mod session;
pub mod stream;

/// A lane on which nothing has happened yet.
#[cfg(test)]
fn lane(id: imux::proto::LaneId, tier: imux::proto::Tier) -> imux::proto::LaneStats {
    imux::proto::LaneStats {
        id,
        sent_bytes: 0,
        received_bytes: 0,
        resent_bytes: 0,
        in_flight_bytes: 0,
        rtt: std::time::Duration::ZERO,
        rtt_min: std::time::Duration::ZERO,
        rate: 0,
        health: imux::proto::Health::Good,
        late: false,
        standby: false,
        tier,
        link: imux::proto::LinkId::default(),
    }
}
