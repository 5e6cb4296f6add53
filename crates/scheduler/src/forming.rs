//! A launch being formed: who has a place in it, and who still finds one.
//!
//!   plan p   lane 0: tenant 4  ● ●          open: tenant 4's next batchable request joins it
//!            lane 1: tenant 9  ●            shut: tenant batching is off, or the request cannot be batched
//!            …          max_lanes, and max_items over all lanes

use crate::cost::Size;
use crate::launch::LanePlan;
use crate::plans::PlanIx;
use crate::waiting::Ticket;
use std::num::NonZeroU32;
use tessera_core::{Moment, RequestId, TenantId};

/// How large a launch may be, and whether lanes take more than one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_lanes: u32,
    pub(crate) max_items: u32,
    pub(crate) tenant_batching: bool,
}

/// What a request needs of a launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rider {
    pub(crate) request: RequestId,
    pub(crate) ticket: Ticket,
    pub(crate) tenant: TenantId,
    pub(crate) items: NonZeroU32,
    pub(crate) batchable: bool,
}

#[cfg(test)]
impl Rider {
    /// A request of one item.
    pub(crate) fn one(request: u64, tenant: TenantId) -> Rider {
        let ticket = Ticket(request as u32);
        Rider { request: RequestId(request), ticket, tenant, items: NonZeroU32::MIN, batchable: true }
    }
}

/// Flat, with room for all: a launch is formed while the device waits, and what each lane would allocate takes longer than all the rest.
#[derive(Clone, Debug)]
pub(crate) struct Forming {
    pub(crate) plan: PlanIx,
    /// The tightest due of those that are promised to be in it.
    pub(crate) promised: Option<Moment>,
    lanes: Vec<Lane>,
    /// Everybody aboard, in the order in which they came.
    seated: Vec<Seated>,
    items: u32,
    /// Lanes that are open.
    open: u32,
}

#[derive(Clone, Copy, Debug)]
struct Lane {
    tenant: TenantId,
    requests: u32,
    items: u32,
    open: bool,
}

#[derive(Clone, Copy, Debug)]
struct Seated {
    lane: u32,
    ticket: Ticket,
    request: RequestId,
    items: NonZeroU32,
}

/// Where a rider would sit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seat {
    Lane(usize),
    NewLane,
}

impl Forming {
    pub(crate) fn new(plan: PlanIx) -> Forming {
        Forming { plan, promised: None, lanes: Vec::new(), seated: Vec::new(), items: 0, open: 0 }
    }

    /// Makes room for as many as may come, of so many that wait.
    pub(crate) fn reserve(&mut self, limits: Limits, waiting: usize) {
        let places = if limits.tenant_batching { limits.max_items } else { limits.max_lanes };
        let more = |most: u32, there: usize| (most as usize).saturating_sub(there).min(waiting);
        self.lanes.reserve_exact(more(limits.max_lanes, self.lanes.len()));
        self.seated.reserve_exact(more(places, self.seated.len()));
    }

    pub(crate) fn size(&self) -> Size {
        Size { lanes: self.lanes.len() as u32, items: self.items }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Whether no further rider finds a place, whoever it is.
    pub(crate) fn is_full(&self, limits: Limits) -> bool {
        let no_lane = self.lanes.len() as u32 >= limits.max_lanes;
        self.items >= limits.max_items || (no_lane && self.open == 0)
    }

    /// Whether no other tenant finds a place.
    pub(crate) fn has_all_lanes(&self, limits: Limits) -> bool {
        self.items >= limits.max_items || self.lanes.len() as u32 >= limits.max_lanes
    }

    /// Where `rider` would sit, and how large the launch would be. Costs a look at every lane.
    pub(crate) fn seat(&self, rider: Rider, limits: Limits) -> Option<(Seat, Size)> {
        let open = |lane: &Lane| lane.open && lane.tenant == rider.tenant;
        self.seat_beside(self.lanes.iter().position(open), rider, limits)
    }

    /// Where a rider would sit whose tenant has this lane open, or none.
    pub(crate) fn seat_beside(
        &self,
        open: Option<usize>,
        rider: Rider,
        limits: Limits,
    ) -> Option<(Seat, Size)> {
        let items = self.items.checked_add(rider.items.get()).filter(|&items| items <= limits.max_items)?;
        let lanes = self.lanes.len() as u32;
        let joins = limits.tenant_batching && rider.batchable;
        if let Some(lane) = open.filter(|_| joins) {
            return Some((Seat::Lane(lane), Size { lanes, items }));
        }
        (lanes < limits.max_lanes).then_some((Seat::NewLane, Size { lanes: lanes + 1, items }))
    }

    /// Says whether the rider's lane is open to others of its tenant.
    pub(crate) fn add(&mut self, rider: Rider, seat: Seat, limits: Limits) -> bool {
        let Rider { request, ticket, tenant, items, batchable } = rider;
        let number = match seat {
            Seat::Lane(lane) => lane,
            Seat::NewLane => {
                let open = limits.tenant_batching && batchable;
                self.open += u32::from(open);
                self.lanes.push(Lane { tenant, requests: 0, items: 0, open });
                self.lanes.len() - 1
            }
        };
        self.items += items.get();
        self.seated.push(Seated { lane: number as u32, ticket, request, items });
        let lane = &mut self.lanes[number];
        lane.requests += 1;
        lane.items += items.get();
        lane.open
    }

    /// Takes a request's place away, and its lane when nobody else is in it.
    pub(crate) fn remove(&mut self, rider: Rider) {
        let Some(at) = self.seated.iter().position(|seated| seated.ticket == rider.ticket) else { return };
        let Seated { lane: number, items, .. } = self.seated.remove(at);
        let lane = &mut self.lanes[number as usize];
        lane.requests -= 1;
        lane.items -= items.get();
        self.items -= items.get();
        if lane.requests == 0 {
            self.open -= u32::from(self.lanes.remove(number as usize).open);
            let behind = self.seated.iter_mut().filter(|seated| seated.lane > number);
            behind.for_each(|seated| seated.lane -= 1);
        }
    }

    /// Lanes that take more requests of their tenants.
    pub(crate) fn open_lanes(&self) -> impl Iterator<Item = (usize, TenantId)> {
        let lanes = self.lanes.iter().enumerate();
        lanes.filter(|(_, lane)| lane.open).map(|(at, lane)| (at, lane.tenant))
    }

    /// Each lane's tenant and how many requests are in it.
    pub(crate) fn riders_by_lane(&self) -> impl Iterator<Item = (TenantId, u32)> {
        self.lanes.iter().map(|lane| (lane.tenant, lane.requests))
    }

    /// Everybody aboard.
    pub(crate) fn tickets(&self) -> impl Iterator<Item = Ticket> {
        self.seated.iter().map(|seated| seated.ticket)
    }

    /// The lanes, and everybody aboard, lane by lane. Everybody is put where its lane has its next place: it is known how many are before it.
    pub(crate) fn into_lanes(self) -> (Vec<LanePlan>, Vec<Ticket>) {
        let mut places: Vec<usize> = Vec::with_capacity(self.lanes.len());
        let mut lanes = Vec::with_capacity(self.lanes.len());
        let mut before = 0;
        for Lane { tenant, requests, items, .. } in self.lanes {
            places.push(before);
            before += requests as usize;
            lanes.push(LanePlan { tenant, requests: Vec::with_capacity(requests as usize), items });
        }
        let mut tickets = vec![Ticket(0); self.seated.len()];
        for Seated { lane, ticket, request, items } in self.seated {
            let place = &mut places[lane as usize];
            tickets[*place] = ticket;
            *place += 1;
            lanes[lane as usize].requests.push((request, items));
        }
        (lanes, tickets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_lanes: 2, max_items: 4, tenant_batching: true };

    fn rider(request: u64, tenant: u64, items: u32) -> Rider {
        let items = NonZeroU32::new(items).expect("items");
        Rider {
            request: RequestId(request),
            ticket: Ticket(request as u32),
            tenant: TenantId(tenant),
            items,
            batchable: true,
        }
    }

    fn board(launch: &mut Forming, rider: Rider, limits: Limits) -> bool {
        let seat = launch.seat(rider, limits);
        seat.map(|(seat, _)| launch.add(rider, seat, limits)).is_some()
    }

    #[test]
    fn a_tenants_requests_share_its_lane_until_lanes_or_items_run_out() {
        let mut launch = Forming::new(PlanIx(0));
        assert!(board(&mut launch, rider(1, 1, 1), LIMITS));
        assert!(board(&mut launch, rider(2, 1, 1), LIMITS));
        assert!(board(&mut launch, rider(3, 2, 1), LIMITS));
        assert!(!board(&mut launch, rider(4, 3, 1), LIMITS), "no third lane");
        assert!(!board(&mut launch, rider(5, 2, 2), LIMITS), "no fifth item");
        assert_eq!(launch.size(), Size { lanes: 2, items: 3 });
        assert!(board(&mut launch, rider(6, 2, 1), LIMITS));
        assert!(launch.is_full(LIMITS));
    }

    #[test]
    fn without_tenant_batching_every_request_is_a_lane() {
        let limits = Limits { tenant_batching: false, ..LIMITS };
        let mut launch = Forming::new(PlanIx(0));
        assert!(board(&mut launch, rider(1, 1, 1), limits));
        assert!(board(&mut launch, rider(2, 1, 1), limits));
        assert_eq!(launch.size(), Size { lanes: 2, items: 2 });
        assert!(launch.is_full(limits));
    }

    #[test]
    fn a_request_that_cannot_be_batched_neither_joins_a_lane_nor_is_joined() {
        let mut launch = Forming::new(PlanIx(0));
        assert!(board(&mut launch, Rider { batchable: false, ..rider(1, 1, 1) }, LIMITS));
        assert!(board(&mut launch, rider(2, 1, 1), LIMITS));
        assert_eq!(launch.size().lanes, 2);
    }
}
