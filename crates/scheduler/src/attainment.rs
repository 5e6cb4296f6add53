//! How many deadlines were kept.
//!
//! Every offer with a deadline counts once: answered in time, answered late, expired while it waited, or refused for want of time. What its sender called off, what
//! failed and what never ran counts nowhere. These are offers to one scheduler: of a request that is offered in parts each part counts, and one that is refused here may be
//! answered in time by another device.

use tessera_core::{IdMap, TenantId};

/// What became of a tenant's offers with deadlines, since it was added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Attainment {
    /// Answered before their deadlines.
    pub in_time: u64,
    /// Answered after them.
    pub late: u64,
    /// Let in, and dropped when their deadlines passed.
    pub expired: u64,
    /// Not let in: they would have been late, or others had a right to the time.
    pub refused: u64,
}

impl Attainment {
    /// The part of those let in that was answered in time; 1 when there were none.
    pub fn kept(&self) -> f64 {
        let all = self.in_time + self.late + self.expired;
        if all == 0 { 1.0 } else { self.in_time as f64 / all as f64 }
    }

    /// Whether that is what was agreed, in percent.
    pub fn keeps(&self, percentile: f64) -> bool {
        let all = self.in_time + self.late + self.expired;
        self.in_time as f64 * 100.0 >= percentile * all as f64
    }
}

/// The counts of every tenant.
#[derive(Debug, Default)]
pub(crate) struct Attained(IdMap<TenantId, Attainment>);

impl Attained {
    pub(crate) fn of(&self, tenant: TenantId) -> Attainment {
        self.0.get(&tenant).copied().unwrap_or_default()
    }

    pub(crate) fn count(&mut self, tenant: TenantId, what: impl FnOnce(&mut Attainment) -> &mut u64) {
        *what(self.0.entry(tenant).or_default()) += 1;
    }

    pub(crate) fn forget(&mut self, tenant: TenantId) {
        self.0.remove(&tenant);
    }
}
