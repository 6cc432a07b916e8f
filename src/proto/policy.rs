//! How a lane may be used. Whoever dials a lane decides, and tells the other end.

use std::fmt;
use std::str::FromStr;

use super::ids::LinkId;

/// Which lanes are preferred, best first; the first two are equally good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Carries whatever the scheduler gives it.
    #[default]
    Primary,
    /// Carries what should not wait behind bulk: control frames, and streams that sent little
    /// lately. Bulk only while no primary lane answers.
    Express,
    /// Is kept up, and carries streams only while no primary or express lane answers.
    Backup,
    /// Costs money by the byte: carries streams only while no other lane answers, sends nothing
    /// twice to save time, and is pinged four times less often while others answer.
    Metered,
}

impl Tier {
    /// All of them, in order of preference.
    pub const ALL: [Self; 4] = [Self::Primary, Self::Express, Self::Backup, Self::Metered];

    /// The name to choose it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Express => "express",
            Self::Backup => "backup",
            Self::Metered => "metered",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No tier has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no tier is called {0:?}; there are primary, express, backup and metered")]
pub struct UnknownTier(String);

impl FromStr for Tier {
    type Err = UnknownTier;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|tier| tier.name() == name);
        found.ok_or_else(|| UnknownTier(name.to_owned()))
    }
}

/// What both ends of a lane observe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LanePolicy {
    /// When the lane carries streams at all.
    pub tier: Tier,
    /// The link it uses. Lanes of one link share its cap, and deliberate copies use two links.
    pub link: LinkId,
    /// Most bytes of frames a second that the link's lanes carry together, in each direction; a
    /// lower value than [`LINK_RATE_MIN`](super::limits::LINK_RATE_MIN) counts as that.
    pub rate_max: Option<u64>,
}
