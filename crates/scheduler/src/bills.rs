//! What a launch costs those whose requests were in it.
//!
//! ```text
//!   requests, lane by lane ─▶ [owner A: 5 requests, 0.9 ms]     an owner moves in the orders of owners once for each launch,
//!                             [owner B: 2 requests, 0.4 ms]     however many lanes and requests it had there
//! ```
//! Cost: O(log n) of n owners, and O(plans that it has loose requests of, times log n), for each owner in the launch; for each request no more than what it takes to
//! forget it.

use crate::plans::PlanIx;
use crate::scheduler::Scheduler;
use crate::waiting::Waiting;
use std::collections::BTreeMap;
use std::time::Duration;
use tessera_core::OwnerId;

/// What each owner is charged. In order of owners: what is decided afterwards must not depend on a hash.
#[derive(Debug, Default)]
pub(crate) struct Bills(BTreeMap<OwnerId, Bill>);

#[derive(Debug, Default)]
struct Bill {
    requests: u64,
    /// Of the device.
    time: Duration,
    /// What was counted in advance.
    committed: Duration,
}

impl Bills {
    /// A request is over, and took so much of the device's time.
    pub(crate) fn add(&mut self, request: &Waiting, time: Duration) {
        let bill = self.0.entry(request.owner).or_default();
        bill.requests += 1;
        bill.time += time;
        bill.committed += request.committed;
    }
}

impl Scheduler {
    /// Charges owners for requests of a plan that are over.
    pub(crate) fn charge(&mut self, plan: PlanIx, bills: Bills) {
        for (owner, Bill { requests, time, committed }) in bills.0 {
            self.owners.settle(owner, committed);
            if !time.is_zero() {
                let before = self.owners.virtual_time(owner);
                let after = self.owners.charge(owner, time, Duration::ZERO);
                self.queues.owner_moved(owner, before, after);
            }
            self.owners.work_left(owner, requests);
            self.plans.released(plan, requests);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forming::Rider;
    use tessera_core::TenantId;

    #[test]
    fn requests_of_an_owner_are_on_one_bill_whichever_tenants_they_are_of() {
        let ms = Duration::from_millis;
        let mut bills = Bills::default();
        for (request, tenant, owner, time) in [(1, 1, 1, 3), (2, 4, 2, 5), (3, 7, 1, 4)] {
            let of = Waiting::one(Rider::one(request, TenantId(tenant)), OwnerId(owner));
            bills.add(&Waiting { committed: ms(request), ..of }, ms(time));
        }
        let of = |owner| {
            let Bill { requests, time, committed } = bills.0[&OwnerId(owner)];
            (requests, time, committed)
        };
        assert_eq!((of(1), of(2)), ((2, ms(7), ms(4)), (1, ms(5), ms(2))));
    }
}
