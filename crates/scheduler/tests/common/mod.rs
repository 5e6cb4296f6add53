//! What the tests offer, and a device that takes as long as it says.
#![allow(dead_code)] // each test file uses some of it
#![allow(clippy::unwrap_used)] // the lint spares tests, but not the functions that they share

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tessera_core::{Bytes, ClassId, Moment, PlanKey, Precision, RequestId, TenantId};
use tessera_scheduler::{CostTable, Offer, Size};

pub(crate) fn us(us: u64) -> Moment {
    Moment::at(Duration::from_micros(us))
}

pub(crate) fn ms(ms: u64) -> Moment {
    Moment::at(Duration::from_millis(ms))
}

pub(crate) fn count(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

pub(crate) fn plan(class: u8) -> PlanKey {
    PlanKey { class: ClassId([class; 16]), dims: [].into(), precision: Precision::Fp32 }
}

/// One item, best effort.
pub(crate) fn offer(request: u64, tenant: u64, class: u8) -> Offer {
    Offer {
        request: RequestId(request),
        tenant: TenantId(tenant),
        plan: plan(class),
        items: NonZeroU32::MIN,
        bytes: Bytes(100),
        deadline: None,
        batchable: true,
    }
}

/// Class c takes c milliseconds a launch on the whole device, a fifth of that for every lane beyond the first, a tenth for every item; and in proportion
/// longer on a part of it.
#[derive(Clone, Debug)]
pub(crate) struct Exact;

impl CostTable for Exact {
    fn cost(&self, plan: &PlanKey, size: Size) -> Option<Duration> {
        let tenths = 10 + 2 * (size.lanes - 1) + size.items;
        Some(Duration::from_micros(u64::from(tenths) * 100 * u64::from(plan.class.0[0])))
    }
}

/// The same on a device that yields, after so many equal segments.
#[derive(Clone, Debug)]
pub(crate) struct Segments(pub(crate) u32);

impl CostTable for Segments {
    fn cost(&self, plan: &PlanKey, size: Size) -> Option<Duration> {
        Exact.cost(plan, size)
    }

    fn segment(&self, plan: &PlanKey, size: Size, share: f64) -> Option<Duration> {
        Some(Exact.cost(plan, size)?.div_f64(share) / self.0)
    }
}

/// The same, give or take: every launch takes up to a tenth less or more, and the scheduler has to learn it.
#[derive(Debug, Default)]
pub(crate) struct Noisy(pub(crate) AtomicU64);

impl CostTable for Noisy {
    fn cost(&self, plan: &PlanKey, size: Size) -> Option<Duration> {
        let n = self.0.fetch_add(1, Ordering::Relaxed);
        let spread = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / (1u64 << 24) as f64;
        Exact.cost(plan, size).map(|cost| cost.mul_f64(0.9 + 0.2 * spread))
    }
}
