//! A run's launches beside what a table says of them, and a simulation in which launches are as slow as those were.
//!
//! ```text
//!   launches of a run: [model, lanes and items, when, how long] ─ over the table's time of that size ─▶ (moment, ratio) … ─▶ a simulation of the same arrivals
//! ```
//! Where a simulation with a table's times is off and one with the run's own is not, the table is wrong, or the machine was slower than when it was measured, or the host
//! stood still meanwhile, which is replayed, too; where both are off, it is what lies around launches, or the order in which they went.

use super::costs::Costs;
use super::recorder::Ran;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tessera_core::{Moment, PlanKey, ProgramId, SlotId};
use tessera_scheduler::{CostTable, Size};

/// What of a run is simulated again.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct AsRan {
    /// How slow its launches were beside the costs, and when: then those of the simulation are. With none, they differ as the costs say.
    pub slowness: Arc<[(Moment, f64)]>,
    /// When its host stood still, and for how long.
    pub still: Arc<[(Moment, Duration)]>,
}

/// The launches of a run.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Launches {
    /// Items in one, on average.
    pub(crate) items: f64,
    /// Each that was written down, in the order in which they ended.
    pub(crate) ran: Vec<Launched>,
}

/// A launch of a run.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Launched {
    /// Of which model, by number.
    pub(crate) model: usize,
    pub(crate) size: Size,
    /// When it was handed over, from the start of the load.
    pub(crate) at: Duration,
    /// When its end was heard of.
    pub(crate) heard: Duration,
    /// Time on the device.
    pub(crate) took: Duration,
    /// Whose weights each lane read, and for how many requests.
    pub(crate) lanes: Vec<(SlotId, u32)>,
}

impl Launches {
    /// Those of models' programs; the load's clock started at `began`.
    pub(crate) fn of(ran: Vec<Ran>, programs: &[ProgramId], began: Instant) -> Launches {
        let launched = |ran: Ran| {
            let model = programs.iter().position(|program| *program == ran.program)?;
            let since = |at: Instant| at.saturating_duration_since(began);
            let Ran { size, submitted, heard, took, lanes, .. } = ran;
            Some(Launched { model, size, at: since(submitted), heard: since(heard), took, lanes })
        };
        let ran: Vec<Launched> = ran.into_iter().filter_map(launched).collect();
        let items: u64 = ran.iter().map(|ran| u64::from(ran.size.items)).sum();
        Launches { items: items as f64 / ran.len().max(1) as f64, ran }
    }

    /// How much longer than a table says of their sizes they took, all together and less one.
    pub(crate) fn over(&self, costs: &Costs, plans: &[PlanKey]) -> f64 {
        let says = |ran: &Launched| costs.cost(plans.get(ran.model)?, ran.size);
        let says: Duration = self.ran.iter().filter_map(says).sum();
        let took: Duration = self.ran.iter().map(|ran| ran.took).sum();
        took.as_secs_f64() / says.as_secs_f64().max(1e-9) - 1.0
    }

    /// How slow they were, and when, beside what a table says of their sizes.
    pub(crate) fn slowness(&self, costs: &Costs, plans: &[PlanKey]) -> Arc<[(Moment, f64)]> {
        let slow = |ran: &Launched| {
            let says = costs.cost(plans.get(ran.model)?, ran.size)?;
            Some((Moment::at(ran.at), ran.took.as_secs_f64() / says.as_secs_f64().max(1e-9)))
        };
        let mut slow: Vec<(Moment, f64)> = self.ran.iter().filter_map(slow).collect();
        slow.sort_by_key(|(at, _)| *at);
        slow.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runs_launches_are_told_beside_what_the_table_says_in_the_order_in_which_they_were_handed_over() {
        let costs = Costs::parse(
            "device = 'd'\nsource = 's'\n[[model]]\nname = 'm'\nprecision = 'fp32'\nlanes = [[1, 1], [2, 2]]\nitems = [[1, 1], [2, 2]]\n",
        );
        let costs = costs.unwrap();
        let plans = [costs.plan("m").unwrap()];
        let (began, ms) = (Instant::now(), Duration::from_millis);
        let ran = |program: u64, at, items, took| {
            let submitted = began + ms(at);
            let size = Size { lanes: 1, items };
            let (heard, took) = (submitted + ms(took), ms(took));
            Ran { program: ProgramId(program), size, submitted, heard, took, lanes: vec![] }
        };
        let ran = vec![ran(7, 20, 2, 3), ran(7, 10, 1, 2), ran(8, 15, 1, 9)];
        let launches = Launches::of(ran, &[ProgramId(7)], began);
        assert_eq!(launches.items, 1.5, "what no model runs is left out");
        assert!((launches.over(&costs, &plans) - 2.0 / 3.0).abs() < 1e-9, "5 ms for 3");
        let at = |at| Moment::at(ms(at));
        assert_eq!(launches.slowness(&costs, &plans).to_vec(), [(at(10), 2.0), (at(20), 1.5)]);
    }
}
