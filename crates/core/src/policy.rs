//! Who runs when: the four policies that the paper compares, in one engine.

use std::fmt;
use std::str::FromStr;

/// Who runs when.
///
/// | policy | one launch carries | launches at once | paper |
/// |---|---|---|---|
/// | `space-time` | up to R tenants of one plan | one per partition | §4, ours |
/// | `space` | one tenant | one per tenant | §3, space-only multiplexing |
/// | `time` | one tenant, tenants in turn | one | §3, time-only multiplexing |
/// | `exclusive` | one tenant, until its queue is empty | one | §2, the upper bound |
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Policy {
    /// Requests of several tenants of one plan share a launch.
    #[default]
    SpaceTime,
    /// Every tenant launches by itself; launches of different tenants overlap.
    Space,
    /// Tenants take turns; one launch at a time.
    Time,
    /// One tenant keeps the device until its queue is empty.
    Exclusive,
}

impl Policy {
    /// Every policy, ours first.
    pub const ALL: [Policy; 4] = [Policy::SpaceTime, Policy::Space, Policy::Time, Policy::Exclusive];

    /// The word used on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Policy::SpaceTime => "space-time",
            Policy::Space => "space",
            Policy::Time => "time",
            Policy::Exclusive => "exclusive",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Policy {
    type Err = String;
    fn from_str(word: &str) -> Result<Policy, String> {
        let known = Policy::ALL.into_iter().find(|policy| policy.name() == word);
        known.ok_or_else(|| format!("`{word}` is not a policy; choose space-time, space, time or exclusive"))
    }
}
