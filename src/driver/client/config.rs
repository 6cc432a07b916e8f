//! A client's settings.

use std::sync::Arc;

use crate::lane::Dialer;
use crate::proto::{Config, LanePolicy, LinkId, Tier};
use crate::trust::HostTrust;

/// How to make lanes over one local address or device, how many, and what they may carry.
#[derive(Clone)]
#[non_exhaustive]
pub struct Link {
    /// Makes them.
    pub dialer: Arc<dyn Dialer>,
    /// How many to keep up.
    pub lanes: u16,
    /// When they carry streams at all.
    pub tier: Tier,
    /// Whether primary lanes get one of the express tier beside them once something urgent had to
    /// wait behind bulk.
    pub express: bool,
    /// Most bytes a second that they carry together, in each direction, before TLS, TCP and IP add
    /// some 4 %. At least 8,000 (64 kbit/s): anything less counts as that.
    pub rate_max: Option<u64>,
}

impl Link {
    /// Most lanes that the links of one client may have together, express lanes not counted.
    pub const LANES_MAX: u16 = 256;

    /// Primary lanes without a cap, and an express lane beside them when it helps.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use imux::lane::memory;
    /// use imux::{Link, Tier};
    ///
    /// # let (dialer, _listener) = memory::network(memory::DEFAULT_CAPACITY);
    /// let dsl = Link::new(Arc::new(dialer.clone()), 4);
    /// // Used only while the other does not answer, and never for more than 20 Mbit/s.
    /// let lte = Link::new(Arc::new(dialer), 1)
    ///     .with_tier(Tier::Backup)
    ///     .with_rate_max(20_000_000 / 8);
    /// ```
    pub fn new(dialer: Arc<dyn Dialer>, lanes: u16) -> Self {
        Self { dialer, lanes, tier: Tier::default(), express: true, rate_max: None }
    }

    /// Sets [`tier`](Self#structfield.tier).
    #[must_use]
    pub fn with_tier(self, tier: Tier) -> Self {
        Self { tier, ..self }
    }

    /// Sets [`express`](Self#structfield.express).
    #[must_use]
    pub fn with_express(self, express: bool) -> Self {
        Self { express, ..self }
    }

    /// Sets [`rate_max`](Self#structfield.rate_max), in bytes a second.
    #[must_use]
    pub fn with_rate_max(self, rate_max: impl Into<Option<u64>>) -> Self {
        Self { rate_max: rate_max.into(), ..self }
    }

    /// What its lanes tell the server.
    pub(super) fn policy(&self, link: LinkId) -> LanePolicy {
        LanePolicy { tier: self.tier, link, rate_max: self.rate_max }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({} x {}, {})", self.dialer.name(), self.lanes, self.tier)
    }
}

/// A client's settings.
#[derive(Clone)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Settings of the session.
    pub session: Config,
    /// Decides whether the server is the right one, once.
    pub trust: Arc<dyn HostTrust>,
}

impl ClientConfig {
    /// The default session settings, with a server that `trust` accepts.
    pub fn new(trust: Arc<dyn HostTrust>) -> Self {
        Self { session: Config::default(), trust }
    }

    /// Sets [`session`](Self#structfield.session). [`Client::connect`](super::Client::connect)
    /// checks it.
    #[must_use]
    pub fn with_session(self, session: Config) -> Self {
        Self { session, ..self }
    }
}

impl std::fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientConfig").field("session", &self.session).finish_non_exhaustive()
    }
}
