//! Who may enter.
//!
//! Bounds first, exactly: requests and bytes per tenant. Then time: a request with a deadline is refused on arrival when it is
//! predicted to be late, while its sender can still go elsewhere. A best-effort request is never refused for lateness, and a
//! plan that was never measured never either, so that it can be; one that seems too slow is let in once in a while to
//! be measured again. Without that a slow morning would shut a tenant out for ever.
//!
//! The prediction is the first one that is worth having: what runs now, then everything that waits in full launches, then
//! the request itself. It does not know that more urgent work will overtake, nor that its own urgency will.

use crate::cost::Size;
use crate::offer::{Admitted, Offer, Refusal};
use crate::plans::PlanIx;
use crate::queues::Waiting;
use crate::scheduler::Scheduler;
use std::time::Duration;
use tessera_core::Moment;

impl Scheduler {
    pub(crate) fn admit(&mut self, now: Moment, offer: &Offer) -> Result<Admitted, Refusal> {
        let tenant = offer.tenant;
        let terms = self.tenants.get(&tenant).copied().ok_or(Refusal::UnknownTenant(tenant))?;
        if self.queues.contains(offer.request) || self.in_flight_requests.contains_key(&offer.request) {
            return Err(Refusal::KnownRequest(offer.request));
        }
        if offer.items > self.config.max_items {
            return Err(Refusal::TooManyItems { items: offer.items, limit: self.config.max_items });
        }
        let depth = self.queues.depth(tenant);
        let limit = self.config.queue_requests;
        if depth.requests >= limit.get() {
            return Err(Refusal::QueueFull { tenant, queued: depth.requests, limit });
        }
        let limit = self.config.queue_bytes;
        if depth.bytes + offer.bytes > limit {
            return Err(Refusal::QueueBytesFull { tenant, queued: depth.bytes, brings: offer.bytes, limit });
        }
        let plan = self.plans.number(&offer.plan);
        let due = offer.deadline.or_else(|| terms.slo.map(|slo| now + slo));
        let alone = self.plans.predict(plan, Size::one_lane(offer.items));
        let predicted = alone.map(|alone| self.backlog(now) + alone);
        let on_time = predicted.zip(due).is_none_or(|(predicted, due)| now + predicted <= due);
        if let (false, Some(predicted), Some(due)) = (on_time, predicted, due)
            && self.plans.is_measured(plan)
            && !self.plans.probe(plan, now, self.config.probe_after)
        {
            return Err(Refusal::TooLate { predicted, allowed: due.since(now) });
        }
        self.owners.work_came(terms.owner);
        self.plans.used(plan);
        let latest_start = due.map(|due| due - alone.unwrap_or_default());
        let waiting = Waiting {
            whose: crate::loose::Whose { owner: terms.owner, tenant, plan },
            rider: crate::forming::Rider {
                request: offer.request,
                tenant,
                items: offer.items,
                batchable: offer.batchable,
            },
            bytes: offer.bytes,
            arrived: now,
            due,
            urgency: latest_start.unwrap_or(now + self.config.patience),
            number: 0,
        };
        self.queues.insert(waiting, &self.owners);
        Ok(Admitted { deadline: due, predicted, promised: due.is_some() && on_time && alone.is_some() })
    }

    /// Time until everything that runs and waits now could be done.
    fn backlog(&self, now: Moment) -> Duration {
        let running: Duration = self.in_flight.values().map(|launch| launch.left(now)).sum();
        let waiting: Duration = self.queues.backlog().map(|(plan, items)| self.time_for(plan, items)).sum();
        (running + waiting) / self.lanes_at_once()
    }

    /// How many launches run side by side.
    fn lanes_at_once(&self) -> u32 {
        match self.config.policy {
            tessera_core::Policy::Time | tessera_core::Policy::Exclusive => 1,
            _ => u32::try_from(self.config.partitions.len()).unwrap_or(u32::MAX).max(1),
        }
    }

    /// Time for so many items of a plan, in launches as full as the policy makes them.
    fn time_for(&self, plan: PlanIx, items: u64) -> Duration {
        let limits = self.limits();
        let batch =
            if limits.tenant_batching { limits.max_items } else { limits.max_lanes.min(limits.max_items) };
        let full = if limits.max_lanes == 1 && !limits.tenant_batching { 1 } else { batch.max(1) };
        let cost = |items: u32| {
            let size = Size { lanes: items.min(limits.max_lanes).max(1), items };
            self.plans.predict(plan, size).unwrap_or_default()
        };
        let launches = u32::try_from(items / u64::from(full)).unwrap_or(u32::MAX);
        let rest = u32::try_from(items % u64::from(full)).unwrap_or(0);
        let full_cost = if launches == 0 { Duration::ZERO } else { cost(full) };
        let rest_cost = if rest == 0 { Duration::ZERO } else { cost(rest) };
        full_cost.saturating_mul(launches).saturating_add(rest_cost)
    }
}
