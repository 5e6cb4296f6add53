//! A lane beside its neighbours.
//!
//! ```text
//!   launch   lane a ██            lane b ███████████      lane c ██         neighbours of b: a and c, of the same number of items
//!   alone    lane b ███████████                                             neighbours of b: lanes that others lately had
//! ```
//! Whatever slows a whole launch (a busy machine, a hot card, a cold cache) slows neighbours too, so a ratio to their median says what is the tenant's own.
//! Lanes are compared with lanes that carry as many items, to half an octave: how time grows with items differs from plan to plan, and by an order of
//! magnitude between devices that read weights fast and slowly.

use crate::cost::half_octave;
use crate::plans::PlanIx;
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;
use tessera_core::{IdMap, TenantId};

/// One lane of a launch that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneTime {
    pub(crate) tenant: TenantId,
    pub(crate) items: u32,
    pub(crate) took: Duration,
}

impl LaneTime {
    fn seconds_per_item(&self) -> f64 {
        self.took.as_secs_f64() / f64::from(self.items.max(1))
    }
}

/// Lanes that are remembered of a plan on one size of partition.
const RECENT: usize = 32;

/// Most of them that are one tenant's: a busy tenant does not become the measure of itself.
const OF_ONE: usize = 4;

/// Fewest lanes of others that a lane alone in its launch is compared with.
const ENOUGH: usize = 4;

/// What lanes took lately, one of each launch.
#[derive(Debug, Default)]
pub(super) struct Recent {
    lanes: IdMap<(PlanIx, NonZeroU32), VecDeque<LaneTime>>,
}

impl Recent {
    fn push(&mut self, key: (PlanIx, NonZeroU32), lane: LaneTime) {
        let lanes = self.lanes.entry(key).or_default();
        let mine = |other: &LaneTime| other.tenant == lane.tenant;
        if lanes.iter().filter(|other| mine(other)).count() >= OF_ONE {
            let oldest = lanes.iter().position(mine);
            oldest.and_then(|oldest| lanes.remove(oldest));
        } else if lanes.len() >= RECENT {
            lanes.pop_front();
        }
        lanes.push_back(lane);
    }

    fn typical(&self, key: (PlanIx, NonZeroU32), lane: LaneTime) -> Option<f64> {
        let beside = |other: &&LaneTime| {
            other.tenant != lane.tenant && half_octave(other.items) == half_octave(lane.items)
        };
        let others = self.lanes.get(&key)?.iter().filter(beside);
        let others: Vec<f64> = others.map(LaneTime::seconds_per_item).collect();
        (others.len() >= ENOUGH).then(|| lower_median(others))?
    }

    pub(super) fn forget(&mut self, plan: PlanIx) {
        self.lanes.retain(|(of, _), _| *of != plan);
    }

    /// For each lane, what it took per item over what its neighbours did; `None` for one that has none. A lane alone in its launch is compared with what others had
    /// lately, and its time is remembered for them if `representative`.
    pub(super) fn ratios(
        &mut self,
        key: (PlanIx, NonZeroU32),
        lanes: &[LaneTime],
        representative: bool,
    ) -> Vec<Option<f64>> {
        let mut order: Vec<usize> = (0..lanes.len()).collect();
        order.sort_unstable_by(|&a, &b| {
            let (a, b) = (&lanes[a], &lanes[b]);
            let octaves = half_octave(a.items).cmp(&half_octave(b.items));
            octaves.then(a.seconds_per_item().total_cmp(&b.seconds_per_item()))
        });
        let mut ratios = vec![None; lanes.len()];
        let groups = order.chunk_by(|&a, &b| half_octave(lanes[a].items) == half_octave(lanes[b].items));
        for group in groups {
            for &lane in group {
                let mine = lanes[lane];
                let typical = beside(lanes, group, mine.tenant).or_else(|| self.typical(key, mine));
                let ratio = |typical: f64| mine.seconds_per_item() / typical.max(1e-9);
                ratios[lane] = typical.map(ratio);
            }
        }
        if let Some(&middle) = order.get(order.len().saturating_sub(1) / 2).filter(|_| representative) {
            self.push(key, lanes[middle]);
        }
        ratios
    }
}

/// The lower median of the lanes of a group, in order of their times, that are not a tenant's own. It takes one look where the tenant has one lane.
fn beside(lanes: &[LaneTime], group: &[usize], tenant: TenantId) -> Option<f64> {
    let others = group.len() - group.iter().filter(|lane| lanes[**lane].tenant == tenant).count();
    let middle = others.checked_sub(1)? / 2;
    let mut others = group.iter().filter(|lane| lanes[**lane].tenant != tenant);
    others.nth(middle).map(|lane| lanes[*lane].seconds_per_item())
}

fn lower_median(mut values: Vec<f64>) -> Option<f64> {
    let middle = values.len().checked_sub(1)? / 2;
    let (_, median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*median)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: (PlanIx, NonZeroU32) = (PlanIx(0), NonZeroU32::MIN);

    fn lane(tenant: u64, items: u32, micros: u64) -> LaneTime {
        LaneTime { tenant: TenantId(tenant), items, took: Duration::from_micros(micros) }
    }

    #[test]
    fn a_lane_is_compared_with_neighbours_of_as_many_items() {
        let mut recent = Recent::default();
        let lanes = [lane(1, 1, 100), lane(2, 1, 500), lane(3, 1, 100), lane(4, 8, 150)];
        let ratios = recent.ratios(KEY, &lanes, true);
        assert_eq!(ratios, [Some(1.0), Some(5.0), Some(1.0), None], "eight items have no like");
        let slow = lanes.map(|lane| LaneTime { took: 7 * lane.took, ..lane });
        assert_eq!(
            recent.ratios(KEY, &slow, true),
            ratios,
            "a launch that is slow as a whole accuses nobody"
        );
    }

    #[test]
    fn two_slow_ones_of_three_do_not_make_the_third_look_fast_enough_to_excuse_them() {
        let lanes = [lane(1, 1, 500), lane(2, 1, 500), lane(3, 1, 100)];
        let ratios = Recent::default().ratios(KEY, &lanes, true);
        assert_eq!(ratios, [Some(5.0), Some(5.0), Some(0.2)]);
    }

    #[test]
    fn a_lane_alone_is_compared_with_what_others_had_lately() {
        let mut recent = Recent::default();
        for round in 0..100 {
            // One tenant is busy and slow, and does not become the measure.
            (0..10).for_each(|_| _ = recent.ratios(KEY, &[lane(9, 1, 500)], true));
            recent.ratios(KEY, &[lane(round % 5, 1, 100)], true);
        }
        assert_eq!(recent.ratios(KEY, &[lane(9, 1, 500)], false), [Some(5.0)]);
        assert_eq!(recent.ratios(KEY, &[lane(1, 1, 100)], false), [Some(1.0)]);
        assert_eq!(recent.ratios(KEY, &[lane(1, 4, 100)], false), [None], "nobody else had four items");
    }
}
