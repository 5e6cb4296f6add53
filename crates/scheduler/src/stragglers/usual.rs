//! What a launch of a size usually takes, and how far launches stray from that.
//!
//! ```text
//!   ln time │            ●━━━━●        knots at the corners of half octaves of lanes and items; between them
//!           │   ●━━━●━━━┛              times are interpolated, so that a size between two corners is not taken for a slow one
//!           └──────────────── lanes, items
//! ```
//! Costs (`cost`) are high percentiles, to promise by; this is the middle, to see by that a launch is unlike others of its size. Each launch moves the knots around its
//! size by a part of what it was off (normalised least mean squares, Widrow and Hoff 1960), a wild one by no more than [`WILD`]: the usual is no mean
//! that a few slow launches pull up. It moves slowly, so that a tenant that turns slow is seen before it is usual, and quickly again after [`Usual::doubt`].
//!
//! In logarithms, as noise of launches is a factor.

use crate::cost::{Company, Size, between, corner};
use crate::plans::PlanIx;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;
use tessera_core::IdMap;

/// Launches near a size that make a usual time.
const RIPE: f64 = 8.0;

/// The least part of what it was off that a launch moves the usual by: 512 launches are most of a second at full load, while a slow tenant is accused after a tenth of that.
const LEAST_STEP: f64 = 1.0 / 512.0;

/// The most that a launch counts as being off, in logarithms.
const WILD: f64 = 0.25;

/// What launches stray by where little is known, and what they stray by at least: clocks of devices are no more exact.
const FIRST_SPREAD: f64 = 0.1;
const LEAST_SPREAD: f64 = 0.03;

/// How much one launch moves the spread.
const SPREAD_STEP: f64 = 1.0 / 64.0;

/// Standard deviations in a mean deviation, of normal noise: √(π/2).
const DEVIATIONS: f64 = 1.2533;

/// Corners that sizes lie between; beyond the last none is ever asked for.
const CORNERS: usize = 62;

/// Launches that compare with each other, size apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Kind {
    pub(crate) plan: PlanIx,
    /// Of the partition.
    pub(crate) units: NonZeroU32,
    /// Beside others a launch may take twice as long.
    pub(crate) company: Company,
}

/// Of every kind.
#[derive(Debug, Default)]
pub(crate) struct Usual {
    places: IdMap<Kind, Place>,
}

#[derive(Debug)]
struct Place {
    knots: BTreeMap<(usize, usize), Knot>,
    /// The mean deviation of launches from what was usual.
    spread: f64,
}

#[derive(Clone, Copy, Debug)]
struct Knot {
    /// Of seconds.
    log: f64,
    /// Launches near it.
    launches: f64,
}

/// How a launch compares with what its size usually takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unlike {
    /// The logarithm of what it took over what is usual.
    pub(crate) log_ratio: f64,
    /// The standard deviation of that, of ordinary launches.
    pub(crate) spread: f64,
}

/// The corners around a size, and how much each counts.
fn corners(size: Size) -> impl Iterator<Item = ((usize, usize), f64)> {
    let ((lane, more_lanes), (item, more_items)) =
        (between(size.lanes, CORNERS), between(size.items, CORNERS));
    let all = [
        ((lane, item), (1.0 - more_lanes) * (1.0 - more_items)),
        ((lane, item + 1), (1.0 - more_lanes) * more_items),
        ((lane + 1, item), more_lanes * (1.0 - more_items)),
        ((lane + 1, item + 1), more_lanes * more_items),
    ];
    all.into_iter().filter(|(_, part)| *part > 0.0)
}

fn log(took: Duration) -> f64 {
    took.as_secs_f64().max(1e-9).ln()
}

impl Usual {
    /// How a launch compares; `None` while too few of about its size have run.
    pub(crate) fn compare(&self, kind: Kind, size: Size, took: Duration) -> Option<Unlike> {
        let place = self.places.get(&kind)?;
        let (mut usual, mut launches) = (0.0, 0.0);
        for (corner, part) in corners(size) {
            let knot = place.knots.get(&corner)?;
            usual += part * knot.log;
            launches += part * knot.launches;
        }
        let spread = (DEVIATIONS * place.spread).max(LEAST_SPREAD);
        (launches >= RIPE).then(|| Unlike { log_ratio: log(took) - usual, spread })
    }

    /// How many times what it may take at most a launch of a size took of which too few have run: no more than several of a smaller size together that do as much. `None`
    /// where no smaller one is known.
    pub(crate) fn beyond_most(&self, kind: Kind, size: Size, took: Duration) -> Option<f64> {
        let known = self.places.get(&kind)?.knots.iter().filter(|(_, knot)| knot.launches >= RIPE);
        let most = known.filter_map(|((lanes, items), knot)| {
            let (lanes, items) = (corner(*lanes), corner(*items));
            let times = size.lanes.div_ceil(lanes).max(size.items.div_ceil(items));
            (lanes <= size.lanes && items <= size.items).then(|| knot.log.exp() * f64::from(times))
        });
        most.min_by(f64::total_cmp).map(|most| took.as_secs_f64() / most)
    }

    /// Takes in what an ordinary launch took.
    pub(crate) fn learn(&mut self, kind: Kind, size: Size, took: Duration) {
        let first = || Place { knots: BTreeMap::new(), spread: FIRST_SPREAD / DEVIATIONS };
        let Place { knots, spread } = self.places.entry(kind).or_insert_with(first);
        let took = log(took);
        let (mut usual, mut launches, mut square) = (0.0, 0.0, 0.0);
        for (corner, part) in corners(size) {
            let knot = knots.entry(corner).or_insert(Knot { log: took, launches: 0.0 });
            usual += part * knot.log;
            launches += part * knot.launches;
            square += part * part;
        }
        let mut off = took - usual;
        if launches >= RIPE {
            off = off.clamp(-WILD, WILD);
            *spread += SPREAD_STEP * (off.abs() - *spread);
        }
        for (corner, part) in corners(size) {
            if let Some(knot) = knots.get_mut(&corner) {
                let step = (1.0 / (knot.launches + 1.0)).max(LEAST_STEP);
                knot.log += step * off * part / square;
                knot.launches += part;
            }
        }
    }

    /// What is usual of a plan may not be any more: the next launches count for much.
    pub(crate) fn doubt(&mut self, plan: PlanIx) {
        let places = self.places.iter_mut().filter(|(kind, _)| kind.plan == plan);
        let knots = places.flat_map(|(_, place)| place.knots.values_mut());
        knots.for_each(|knot| knot.launches = knot.launches.min(RIPE));
    }

    pub(crate) fn forget(&mut self, plan: PlanIx) {
        self.places.retain(|kind, _| kind.plan != plan);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind { plan: PlanIx(0), units: NonZeroU32::MIN, company: Company::Alone };

    /// 300 microseconds and 30 for every lane.
    fn micros(lanes: u32) -> f64 {
        300.0 + 30.0 * f64::from(lanes)
    }

    fn ran(usual: &mut Usual, lanes: u32, factor: f64) -> Option<Unlike> {
        let (size, took) =
            (Size { lanes, items: lanes }, Duration::from_secs_f64(1e-6 * micros(lanes) * factor));
        let unlike = usual.compare(KIND, size, took);
        usual.learn(KIND, size, took);
        unlike
    }

    #[test]
    fn launches_of_any_size_are_as_usual_once_all_were_seen() {
        let mut usual = Usual::default();
        for round in 0..40 {
            for lanes in 1..=32 {
                let unlike = ran(&mut usual, lanes, 1.0);
                if round == 39 {
                    let ratio = unlike.unwrap().log_ratio;
                    assert!(ratio.abs() < 0.02, "{lanes} lanes seem to take e^{ratio} of the usual");
                }
            }
        }
    }

    #[test]
    fn a_size_that_never_ran_takes_no_more_than_several_smaller_ones() {
        let mut usual = Usual::default();
        let beyond = |usual: &Usual, lanes, us| {
            usual.beyond_most(KIND, Size { lanes, items: lanes }, Duration::from_micros(us))
        };
        assert_eq!(beyond(&usual, 4, 1000), None);
        (0..20).for_each(|_| _ = ran(&mut usual, 2, 1.0));
        assert!((beyond(&usual, 4, 1440).unwrap() - 2.0).abs() < 1e-6, "two of 360 µs do as much");
        assert!((beyond(&usual, 5, 1080).unwrap() - 1.0).abs() < 1e-6, "three");
        assert_eq!(beyond(&usual, 1, 1000), None, "of a smaller one it says nothing");
    }

    #[test]
    fn a_size_is_judged_only_after_some_launches_and_wild_ones_hardly_move_it() {
        let mut usual = Usual::default();
        assert!((0..8).all(|_| ran(&mut usual, 4, 1.0).is_none()));
        for launch in 0..200 {
            let factor = if launch % 10 == 0 { 50.0 } else { 1.0 };
            let unlike = ran(&mut usual, 4, factor).unwrap();
            assert!(
                (unlike.log_ratio - f64::ln(factor)).abs() < 0.15,
                "{unlike:?} of one {factor} times as long"
            );
        }
    }

    #[test]
    fn what_is_new_becomes_usual_slowly_and_after_a_doubt_quickly() {
        let mut usual = Usual::default();
        (0..1000).for_each(|_| _ = ran(&mut usual, 8, 1.0));
        (0..50).for_each(|_| _ = ran(&mut usual, 8, 1.3));
        let seen = ran(&mut usual, 8, 1.3).unwrap().log_ratio;
        assert!(seen > 0.8 * f64::ln(1.3), "{seen}");
        usual.doubt(KIND.plan);
        (0..50).for_each(|_| _ = ran(&mut usual, 8, 1.3));
        let left = ran(&mut usual, 8, 1.3).unwrap().log_ratio;
        assert!(left < 0.2 * f64::ln(1.3), "{left}");
    }
}
