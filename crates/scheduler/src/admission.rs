//! Who may enter.
//!
//! ```text
//!   known? ─▶ bounds: items, requests, bytes ─▶ no deadline, or a plan never measured ──────────▶ waits loose
//!                                             └▶ a deadline ─▶ booked in a line (`promises`) ───▶ promised
//!                                                            ├▶ no room ─▶ before what runs (`express`) ──▶ promised
//!                                                            └▶ nor there ─▶ a probe, or refused with the predicted time
//! ```
//! Bounds come first, exactly. Then time: under `space-time` a request with a deadline is let in when a place in a planned launch is found at which it and
//! everything planned are in time; that is a proof, given in `promises`. It is refused otherwise, on arrival, while its sender can still go elsewhere. A
//! best-effort request is never refused for lateness, and a plan that was never measured never either, so that it can be; one that seems too slow is let in once
//! in a while to be measured again. Without that a slow morning would shut a tenant out for ever.
//!
//! **Shares.** What is promised cannot be taken back, so fairness between owners with deadlines is decided here. Who is ahead of its share
//! (`Owners::ahead`) is promised only what leaves a part of its time unused, the more the further ahead it is, up to `Config::reserve`. An owner within its share finds that
//! part free whatever the others ask; nothing of the device is lost, since what is limited is how far ahead work is promised, not how much of it. Likewise
//! while best effort has waited beyond its patience, owners ahead of its owner leave room for its launch.
//!
//! The other policies promise nothing: their test is the backlog, an estimate.

use crate::cost::Size;
use crate::forming::Rider;
use crate::loose::Whose;
use crate::offer::{Admitted, Offer, Refusal, Terms};
use crate::plans::PlanIx;
use crate::promises::{Booked, Wish};
use crate::scheduler::Scheduler;
use crate::timeline::nanos;
use crate::waiting::Waiting;
use std::time::Duration;
use tessera_core::{Moment, Policy};

/// What the door found.
enum Entry {
    Booked(Booked),
    Loose { predicted: Option<Duration> },
}

impl Scheduler {
    pub(crate) fn admit(&mut self, now: Moment, offer: &Offer) -> Result<Admitted, Refusal> {
        let terms = self.within_bounds(offer)?;
        let plan = self.plan_for(now, offer.tenant, &offer.plan);
        let whose = Whose { owner: terms.owner, plan };
        let rider = Rider {
            request: offer.request,
            ticket: self.queues.next_ticket(),
            tenant: offer.tenant,
            items: offer.items,
            batchable: offer.batchable,
        };
        let due = offer.deadline.or_else(|| terms.slo.map(|slo| now + slo));
        let measured = self.plans.is_measured(plan);
        self.note_demand(now, plan, offer.items, due.map(|due| due.since(now)));
        let entry = match due {
            Some(due) if measured && self.config.policy == Policy::SpaceTime => {
                let entry = self.promise(now, whose, rider, due);
                if let Err(Refusal::TooLate { allowed, .. }) = entry {
                    self.note_lost(plan, offer.items, allowed);
                }
                entry?
            }
            Some(due) if self.config.policy != Policy::SpaceTime => self.estimate(now, whose, rider, due)?,
            _ => Entry::Loose { predicted: None },
        };
        self.owners.work_came(terms.owner);
        self.plans.used(plan);
        // Of a plan never measured the cost is to be learnt soon, whatever its deadline allows.
        let alone = self.plans.predict_on(self.space.units(plan), plan, Size::one_lane(offer.items));
        let alone = alone.unwrap_or_default();
        let latest_start = due.map(|due| if measured { due - alone } else { now });
        let (booked, predicted) = match entry {
            Entry::Booked(booked) => (Some(booked), Some(booked.finish.since(now))),
            Entry::Loose { predicted } => (None, predicted),
        };
        let committed = booked.map_or(Duration::ZERO, |booked| booked.added.mul_f64(self.space.weight(plan)));
        self.owners.commit(terms.owner, committed);
        let waiting = Waiting {
            owner: terms.owner,
            plan,
            rider,
            bytes: offer.bytes,
            arrived: now,
            due: due.into(),
            urgency: latest_start.unwrap_or(now + self.config.patience),
            number: 0,
            booked: booked.map(|booked| booked.booking),
            committed,
            runs: false,
        };
        self.queues.insert(waiting, &self.owners);
        Ok(Admitted { deadline: due, predicted, promised: booked.is_some() })
    }

    fn within_bounds(&self, offer: &Offer) -> Result<Terms, Refusal> {
        let tenant = offer.tenant;
        let terms = self.tenants.get(&tenant).copied().ok_or(Refusal::UnknownTenant(tenant))?;
        if self.queues.ticket(offer.request).is_some() {
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
        Ok(terms)
    }

    /// A place in a line, or a way round, or the reason why not.
    fn promise(&mut self, now: Moment, whose: Whose, rider: Rider, due: Moment) -> Result<Entry, Refusal> {
        let must = due - self.config.margin;
        self.owners.advance(now);
        let ahead = self.owners.ahead(whose.owner);
        let part = ahead.as_secs_f64() / self.config.burst.as_secs_f64().max(1e-9);
        let reserve = must.since(now).mul_f64(self.config.reserve.clamp(0.0, 1.0) * part.min(1.0));
        let leave = reserve.max(self.claim(now, whose));
        let open = self.open(now, whose.plan);
        let limits = self.limits();
        let wish =
            Wish { plan: whose.plan, rider, arrived: now, due: must, by: must - leave, leave: nanos(leave) };
        let (plans, lines) = (&self.plans, self.space.lines());
        let cost = |size, line| plans.cost_on(lines.units(line), whose.plan, size);
        let booked = self.promises.book(wish, limits, &open, cost);
        let finish = match booked {
            Ok(booked) => return Ok(Entry::Booked(booked)),
            Err(finish) => finish,
        };
        if let Some(booked) = self.book_express(now, wish, &open) {
            return Ok(Entry::Booked(booked));
        }
        let (predicted, allowed) = (finish.since(now), due.since(now));
        if self.plans.probe(whose.plan, now, self.config.probe_after) {
            return Ok(Entry::Loose { predicted: Some(predicted) });
        }
        let alone = self.plans.cost_on(self.space.units(whose.plan), whose.plan, Size::one_lane(rider.items));
        if now + alone <= must {
            self.owners.wants(whose.owner, due);
        }
        if finish <= must && !leave.is_zero() {
            return Err(Refusal::OverShare { owner: whose.owner, ahead, predicted, allowed });
        }
        Err(Refusal::TooLate { predicted, allowed })
    }

    /// Room that best effort may claim from an owner that asks for a promise: the time of its next launch, once it has waited beyond its patience and
    /// its owner has not had more than the one that asks. What belongs on other partitions claims nothing here.
    fn claim(&self, now: Moment, Whose { owner: asks, plan }: Whose) -> Duration {
        let next = match self.space.home(plan) {
            // Of what belongs nowhere in particular, as all does while nobody is apart, and no class.
            None if !self.plans.any_own() && !self.space.is_cut() => self.queues.fair().next(),
            home => self.queues.fair().next_of(|plan| self.space.home(plan) == home),
        };
        let next = next.and_then(|request| self.queues.get(request));
        let claims = next.filter(|next| {
            next.urgency < now && self.owners.virtual_time(next.owner) <= self.owners.virtual_time(asks)
        });
        claims.map_or(Duration::ZERO, |next| {
            let (plan, size) = (next.plan, Size::one_lane(next.rider.items));
            self.plans.cost_on(self.space.units(plan), plan, size)
        })
    }

    /// For the policies that plan nothing ahead: what runs, then everything that waits in full launches, then the request itself.
    fn estimate(&mut self, now: Moment, whose: Whose, rider: Rider, due: Moment) -> Result<Entry, Refusal> {
        let alone = self.plans.predict(whose.plan, Size::one_lane(rider.items));
        let predicted = alone.map(|alone| self.backlog(now) + alone);
        if let Some(predicted) = predicted
            && now + predicted > due
            && self.plans.is_measured(whose.plan)
            && !self.plans.probe(whose.plan, now, self.config.probe_after)
        {
            return Err(Refusal::TooLate { predicted, allowed: due.since(now) });
        }
        Ok(Entry::Loose { predicted })
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
            Policy::Time | Policy::Exclusive => 1,
            _ => u32::try_from(self.space.open_to_all().len()).unwrap_or(u32::MAX).max(1),
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
