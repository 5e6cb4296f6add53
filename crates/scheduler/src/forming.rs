//! A launch being formed: who has a place in it, and who still finds one.
//!
//!   plan p   lane 0: tenant 4  ● ●          open: tenant 4's next batchable request joins it
//!            lane 1: tenant 9  ●            shut: tenant batching is off, or the request cannot be batched
//!            …          max_lanes, and max_items over all lanes

use crate::cost::Size;
use crate::launch::LanePlan;
use crate::plans::PlanIx;
use std::num::NonZeroU32;
use tessera_core::{RequestId, TenantId};

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
    pub(crate) tenant: TenantId,
    pub(crate) items: NonZeroU32,
    pub(crate) batchable: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Forming {
    pub(crate) plan: PlanIx,
    lanes: Vec<Lane>,
    items: u32,
}

#[derive(Clone, Debug)]
struct Lane {
    plan: LanePlan,
    open: bool,
}

/// Where a rider would sit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seat {
    Lane(usize),
    NewLane,
}

impl Forming {
    pub(crate) fn new(plan: PlanIx) -> Forming {
        Forming { plan, lanes: Vec::new(), items: 0 }
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
        self.items >= limits.max_items || (no_lane && !self.lanes.iter().any(|lane| lane.open))
    }

    /// Whether no other tenant finds a place.
    pub(crate) fn has_all_lanes(&self, limits: Limits) -> bool {
        self.items >= limits.max_items || self.lanes.len() as u32 >= limits.max_lanes
    }

    /// Where `rider` would sit, and how large the launch would be. Costs a look at every lane.
    pub(crate) fn seat(&self, rider: Rider, limits: Limits) -> Option<(Seat, Size)> {
        let items = self.items.checked_add(rider.items.get()).filter(|&items| items <= limits.max_items)?;
        let lanes = self.lanes.len() as u32;
        let joins = limits.tenant_batching && rider.batchable;
        let open = |lane: &Lane| lane.open && lane.plan.tenant == rider.tenant;
        if let Some(lane) = joins.then(|| self.lanes.iter().position(open)).flatten() {
            return Some((Seat::Lane(lane), Size { lanes, items }));
        }
        (lanes < limits.max_lanes).then_some((Seat::NewLane, Size { lanes: lanes + 1, items }))
    }

    pub(crate) fn add(&mut self, rider: Rider, seat: Seat, limits: Limits) {
        self.items += rider.items.get();
        let place = (rider.request, rider.items);
        match seat {
            Seat::Lane(lane) => {
                let plan = &mut self.lanes[lane].plan;
                plan.items += rider.items.get();
                plan.requests.push(place);
            }
            Seat::NewLane => self.lanes.push(Lane {
                plan: LanePlan { tenant: rider.tenant, requests: vec![place], items: rider.items.get() },
                open: limits.tenant_batching && rider.batchable,
            }),
        }
    }

    /// Takes a request's place away, and its lane when nobody else is in it.
    pub(crate) fn remove(&mut self, request: RequestId) {
        let seated = |lane: &Lane| lane.plan.requests.iter().position(|(other, _)| *other == request);
        let found = self.lanes.iter().enumerate().find_map(|(at, lane)| Some((at, seated(lane)?)));
        let Some((at, seat)) = found else { return };
        let lane = &mut self.lanes[at].plan;
        let (_, items) = lane.requests.remove(seat);
        lane.items -= items.get();
        self.items -= items.get();
        if lane.requests.is_empty() {
            self.lanes.remove(at);
        }
    }

    /// Each lane's tenant and how many requests are in it.
    pub(crate) fn riders_by_lane(&self) -> impl Iterator<Item = (TenantId, u32)> {
        self.lanes.iter().map(|lane| (lane.plan.tenant, lane.plan.requests.len() as u32))
    }

    pub(crate) fn requests(&self) -> impl Iterator<Item = RequestId> {
        self.lanes.iter().flat_map(|lane| lane.plan.requests.iter().map(|(request, _)| *request))
    }

    pub(crate) fn into_lanes(self) -> Vec<LanePlan> {
        self.lanes.into_iter().map(|lane| lane.plan).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_lanes: 2, max_items: 4, tenant_batching: true };

    fn rider(request: u64, tenant: u64, items: u32) -> Rider {
        let items = NonZeroU32::new(items).expect("items");
        Rider { request: RequestId(request), tenant: TenantId(tenant), items, batchable: true }
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
