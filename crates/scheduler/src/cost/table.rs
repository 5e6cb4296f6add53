//! Costs that are known from outside: measured before, and exact for who believes them.

use super::Size;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tessera_core::PlanKey;

/// Costs known from elsewhere: a profile, a simulated device. Costs should not fall as lanes or items grow; where
/// they do, growing a launch counts as free.
pub trait CostTable: fmt::Debug + Send + Sync {
    /// How long a launch takes, `None` where the table cannot say. Must answer the same for the same question.
    fn cost(&self, plan: &PlanKey, size: Size) -> Option<Duration>;

    /// How long a launch takes on a share of the device, above 0 and at most 1: the largest partition is 1. As much longer as the share is smaller, where
    /// the table knows nothing else.
    fn on_share(&self, plan: &PlanKey, size: Size, share: f64) -> Option<Duration> {
        let cost = self.cost(plan, size)?;
        Some(if share < 1.0 { cost.div_f64(share) } else { cost })
    }

    /// How long a launch takes that begins while so many others run side by side with it, as under `space`: what a simulated device does, which
    /// no decision asks for. As long as alone, where the table knows nothing else.
    fn beside(&self, plan: &PlanKey, size: Size, _others: u32) -> Option<Duration> {
        self.cost(plan, size)
    }

    /// How long a launch takes on a share of units that others share with it, which have so many times all units between them as it begins: what a simulated device
    /// does whose partitions overlap, which no decision asks for. As long as alone, where the table knows nothing else.
    fn among(&self, plan: &PlanKey, size: Size, share: f64, _others: f64) -> Option<Duration> {
        self.on_share(plan, size, share)
    }

    /// The longest segment of a launch on a share of the device, after which it may stand back for an urgent one. `None` of a device that does not yield.
    fn segment(&self, _plan: &PlanKey, _size: Size, _share: f64) -> Option<Duration> {
        None
    }

    /// How long a launch is on its way to an idle device, whose time is not counted yet: what a simulated device needs, which no decision asks for. No
    /// time, where the table knows nothing else.
    fn hand_over(&self, _plan: &PlanKey, _size: Size) -> Duration {
        Duration::ZERO
    }

    /// How long a device does nothing before a launch that waited for the one before: what a simulated device needs, which no decision asks for. `None`, where the table
    /// knows nothing of it.
    fn gap(&self, _plan: &PlanKey, _size: Size) -> Option<Duration> {
        None
    }
}

impl<T: CostTable + ?Sized> CostTable for Arc<T> {
    fn cost(&self, plan: &PlanKey, size: Size) -> Option<Duration> {
        (**self).cost(plan, size)
    }

    fn on_share(&self, plan: &PlanKey, size: Size, share: f64) -> Option<Duration> {
        (**self).on_share(plan, size, share)
    }

    fn segment(&self, plan: &PlanKey, size: Size, share: f64) -> Option<Duration> {
        (**self).segment(plan, size, share)
    }

    fn beside(&self, plan: &PlanKey, size: Size, others: u32) -> Option<Duration> {
        (**self).beside(plan, size, others)
    }

    fn among(&self, plan: &PlanKey, size: Size, share: f64, others: f64) -> Option<Duration> {
        (**self).among(plan, size, share, others)
    }

    fn hand_over(&self, plan: &PlanKey, size: Size) -> Duration {
        (**self).hand_over(plan, size)
    }

    fn gap(&self, plan: &PlanKey, size: Size) -> Option<Duration> {
        (**self).gap(plan, size)
    }
}
