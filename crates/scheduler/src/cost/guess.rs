//! What a plan that never ran is taken to need.
//!
//! ```text
//!   its kin: the class at other free dimensions, say texts of other lengths
//!            measured, more to do ─▶ no more than that takes ───────────┐
//!            measured, less to do ─▶ as much more as there is to do ────┴─▶ the least of them, and a quarter more
//!   none ─▶ the ratio of all plans to what their FLOP and bytes say
//! ```
//! Others are promised what is left beside such a launch, so the guess has to be a bound rather than a mean. Kin give one: whatever rates a device has, more of the same work takes
//! longer. Where work gets slower as it grows, or a measurement was lucky, the quarter is for that.

use super::surface::GUESSED;
use super::{Company, Costs, PlanCost, Size, shape, stretch};
use std::num::NonZeroU32;
use tessera_core::{ClassId, PlanKey, Precision};

/// Plans that differ in their free dimensions alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kin {
    class: ClassId,
    precision: Precision,
}

impl Kin {
    pub(crate) fn of(key: &PlanKey) -> Kin {
        Kin { class: key.class, precision: key.precision }
    }
}

impl Costs {
    /// Seconds for a launch of a plan that never ran; nothing for one of unknown work: its shape is invented, and what others take says nothing of it.
    pub(super) fn guess(
        &self,
        known: &PlanCost,
        company: Company,
        size: Size,
        units: NonZeroU32,
    ) -> Option<f64> {
        let work = known.work?;
        let by_kin = known.kin.and_then(|kin| {
            self.bound_by_kin(kin, shape(self.settings, Some(work), size), company, size, units)
        });
        Some(by_kin.unwrap_or_else(|| {
            shape(self.settings, Some(work), size)
                * self.common_ratio.unwrap_or(1.0)
                * stretch(self.whole, units)
        }))
    }

    /// What a launch of this shape takes at most, by what its kin that were measured take; `None` where none was.
    fn bound_by_kin(
        &self,
        kin: Kin,
        shaped: f64,
        company: Company,
        size: Size,
        units: NonZeroU32,
    ) -> Option<f64> {
        // What one tenant takes by itself says nothing of others.
        let kin = self.plans.iter().filter(|(plan, other)| other.kin == Some(kin) && !plan.is_own());
        let bounds = kin.filter_map(|(_, other)| {
            let place = other.nearest(units, company, self.others)?;
            let takes = place.surface.at(size) * stretch(place.units, units) + other.pause();
            Some(takes * (shaped / shape(self.settings, other.work, size)).max(1.0) * GUESSED)
        });
        bounds.min_by(f64::total_cmp)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CostSettings, Measured, PlanWork};
    use super::*;
    use crate::plans::PlanIx;
    use std::time::Duration;
    use tessera_core::{Bytes, Moment};

    const WHOLE: NonZeroU32 = NonZeroU32::new(4).expect("four units");
    const ONE: Size = Size { lanes: 1, items: 1 };
    const TEXTS: Kin = Kin { class: ClassId([1; 16]), precision: Precision::Fp32 };
    const IMAGES: Kin = Kin { class: ClassId([2; 16]), precision: Precision::Fp32 };

    /// Plans of so many GFLOP, by number.
    fn costs(plans: &[(Kin, u64)]) -> Costs {
        let mut costs = Costs::new(CostSettings::default(), Size { lanes: 32, items: 128 }, WHOLE);
        for (number, (kin, gflop)) in (0..).zip(plans) {
            let work = PlanWork {
                flops_per_item: gflop * 1_000_000_000,
                bytes_per_item: Bytes(0),
                weight_bytes: Bytes(0),
            };
            costs.plan_known(PlanIx(number), *kin, work);
        }
        costs
    }

    fn ran(costs: &mut Costs, plan: u32, micros: u64) {
        let measured = Measured {
            at: Moment::START,
            units: WHOLE,
            company: Company::Alone,
            others: WHOLE,
            took: Duration::from_micros(micros),
            predicted: None,
            first: true,
        };
        costs.learn(PlanIx(plan), ONE, measured);
    }

    fn micros(costs: &Costs, plan: u32) -> f64 {
        1e6 * costs.predict(PlanIx(plan), ONE, WHOLE).expect("its work is known").as_secs_f64()
    }

    #[test]
    fn a_plan_is_taken_for_no_more_than_kin_with_more_to_do_and_a_quarter() {
        let mut costs = costs(&[(TEXTS, 10), (TEXTS, 20), (TEXTS, 5), (IMAGES, 10)]);
        // An image of as much work takes a hundred times as long, and says nothing of texts.
        ran(&mut costs, 3, 100_000);
        ran(&mut costs, 1, 1000);
        assert!((micros(&costs, 0) - 1250.0).abs() < 1e-6);
        // With half its work done in 600 µs, it may take 1200; and texts that take more than that with more to do bound nothing.
        ran(&mut costs, 2, 300);
        assert!((micros(&costs, 0) - 750.0).abs() < 1.0, "{}", micros(&costs, 0));
    }

    #[test]
    fn without_kin_that_ran_it_borrows_the_ratio_of_all() {
        let mut costs = costs(&[(TEXTS, 10), (TEXTS, 20), (IMAGES, 10)]);
        ran(&mut costs, 2, 500);
        assert!((micros(&costs, 0) - 500.0).abs() < 1e-6 && micros(&costs, 1) > 990.0);
    }

    #[test]
    fn what_one_tenant_takes_by_itself_is_no_measure_of_others() {
        let mut costs = costs(&[(TEXTS, 10), (TEXTS, 20), (IMAGES, 10)]);
        let own = PlanIx(9 | 1 << 31);
        costs.known_by(own, PlanIx(1), 5.0);
        let measured = |costs: &mut Costs| ran(costs, own.0, 90_000);
        measured(&mut costs);
        ran(&mut costs, 2, 500);
        assert!(micros(&costs, 0) < 50_000.0);
    }
}
