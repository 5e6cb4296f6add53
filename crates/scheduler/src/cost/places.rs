//! What was measured of one plan.
//!
//! ```text
//!   plan ─▶ place: units, company ─▶ cell: lanes step, items step ─▶ last few of took ÷ shape
//!                      └─ surfaces, made of all of its cells
//! ```

use super::guess::Kin;
use super::surface::{GUESSED, Step, Surface};
use super::work::{PlanWork, Size};
use super::{CostSettings, Measured, percentile};
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use tessera_core::Moment;

/// A surface that is nearer than this to what was measured last is left as it is: making one anew costs more than it tells.
const SAME: f64 = 0.003;

/// So many launches of a plan are planned for as if others ran beside them after one that was.
pub(super) const BESIDE: u64 = 32;

/// Whether a launch has the device's units to itself, where partitions share them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Company {
    /// Nothing else runs, or not on its units.
    Alone,
    /// Something runs on another partition of the same units.
    Beside,
}

impl Company {
    pub(crate) fn of(beside: bool) -> Company {
        if beside { Company::Beside } else { Company::Alone }
    }
}

/// One plan.
#[derive(Clone, Debug, Default)]
pub(super) struct PlanCost {
    pub(super) work: Option<PlanWork>,
    pub(super) kin: Option<Kin>,
    /// What was measured, by size of partition and company: a handful.
    pub(super) places: Vec<Place>,
    /// Launches that were measured.
    launches: u64,
    /// Which of them was the last beside others.
    beside: Option<u64>,
    pub(super) measured_at: Option<Moment>,
    /// Seconds from launch to launch beyond what each computes, where they follow each other without a pause: an average, and signed, since an end that is heard of
    /// late makes one longer and the next shorter.
    pub(super) between: f64,
}

/// What a plan takes on partitions of one size, beside others or not.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) units: NonZeroU32,
    company: Company,
    /// Units that those beside it may have.
    others: NonZeroU32,
    pub(super) cells: BTreeMap<Step, Cell>,
    /// What is predicted.
    pub(super) surface: Surface,
    /// What promises rest on: the same with what few launches may not have shown.
    bound: Surface,
}

impl Place {
    fn surface(&self, certain: Certain) -> &Surface {
        match certain {
            Certain::Likely => &self.surface,
            Certain::Bound => &self.bound,
        }
    }
}

/// What a cost is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Certain {
    /// To say how long a launch will take.
    Likely,
    /// To promise by.
    Bound,
}

impl PlanCost {
    /// A plan that never ran.
    pub(super) fn of(kin: Kin, work: PlanWork) -> PlanCost {
        PlanCost { work: Some(work), kin: Some(kin), ..PlanCost::default() }
    }

    /// Seconds that are counted between launches.
    pub(super) fn pause(&self) -> f64 {
        self.between.max(0.0)
    }

    /// Where it was measured, as near as can be to partitions of so many units: those, else the next larger, else the next smaller; and in this company, where that is known
    /// there. Beside others that have other units than those that it was measured beside it is taken to be alone: nobody is refused for what others did elsewhere.
    pub(super) fn nearest(&self, units: NonZeroU32, company: Company, others: NonZeroU32) -> Option<&Place> {
        let unlike = |place: &Place| match (company, place.company) {
            (Company::Alone, Company::Alone) => 0,
            (Company::Beside, Company::Beside) if place.others == others => 0,
            (Company::Beside, Company::Alone) => 1,
            (_, Company::Beside) => 2,
        };
        let near =
            |place: &&Place| (place.units < units, place.units.get().abs_diff(units.get()), unlike(place));
        self.places.iter().min_by_key(near)
    }

    /// Seconds at a place. Nobody is quicker beside others: where little was seen of that, sizes that were not are guessed from others in proportion to their work, and a small
    /// launch takes longer than its part of a large one's.
    pub(super) fn at_least_alone(&self, place: &Place, certain: Certain, size: Size) -> f64 {
        let is_alone = |other: &&Place| other.units == place.units && other.company == Company::Alone;
        let alone = self.places.iter().find(is_alone).map_or(0.0, |alone| alone.surface(certain).at(size));
        place.surface(certain).at(size).max(if place.company == Company::Beside { alone } else { 0.0 })
    }

    /// Takes in that a launch took so many times its shape, the `clock`-th of all. Says how many of its step were known there before.
    pub(super) fn learn(
        &mut self,
        step: Step,
        ratio: f64,
        launch: &Measured,
        clock: u64,
        (settings, most): (CostSettings, Size),
    ) -> usize {
        let Measured { at, units, company, others, .. } = *launch;
        self.measured_at = Some(at);
        self.launches += 1;
        if company == Company::Beside {
            self.beside = Some(self.launches);
        }
        let here = |place: &&mut Place| {
            (place.units, place.company) == (units, company)
                && (company == Company::Alone || place.others == others)
        };
        let Some(place) = self.places.iter_mut().find(here) else {
            let mut cell = Cell::default();
            cell.push(ratio, settings, clock);
            let cells = BTreeMap::from([(step, cell)]);
            let [surface, bound] = surfaces(&cells, self.work, settings, most);
            self.places.push(Place { units, company, others, surface, bound, cells });
            return 0;
        };
        let cell = place.cells.entry(step).or_default();
        let known_by = cell.ratios.len();
        cell.push(ratio, settings, clock);
        let seconds = cell.high * shape(settings, self.work, step.corner());
        let bound = seconds * cell.unseen(settings);
        let differs =
            |surface: &Surface, seconds: f64| (surface.at(step.corner()) / seconds - 1.0).abs() > SAME;
        if differs(&place.surface, seconds) || differs(&place.bound, bound) {
            [place.surface, place.bound] = surfaces(&place.cells, self.work, settings, most);
        }
        known_by
    }

    /// Everything that was measured took so many times as long.
    pub(super) fn scale(&mut self, factor: f64, settings: CostSettings, most: Size) {
        for place in &mut self.places {
            for cell in place.cells.values_mut() {
                cell.ratios.iter_mut().for_each(|ratio| *ratio *= factor);
                cell.high *= factor;
            }
            [place.surface, place.bound] = surfaces(&place.cells, self.work, settings, most);
        }
    }

    /// In which company launches are planned for.
    pub(super) fn company(&self) -> Company {
        Company::of(self.beside.is_some_and(|last| self.launches - last < BESIDE))
    }
}

/// The last launches of one step.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    ratios: VecDeque<f64>,
    high: f64,
    /// When it was measured last.
    clock: u64,
}

impl Cell {
    fn push(&mut self, ratio: f64, settings: CostSettings, clock: u64) {
        self.clock = clock;
        while self.ratios.len() >= settings.window.max(1) {
            self.ratios.pop_front();
        }
        self.ratios.push_back(ratio);
        self.high = self.percentile(settings.percentile);
    }

    /// Of the last launches, from 0 to 1.
    pub(super) fn percentile(&self, p: f64) -> f64 {
        let mut ratios: Vec<f64> = self.ratios.iter().copied().collect();
        percentile(&mut ratios, p)
    }

    /// How many times the high percentile of so few launches that of a full window may be. Of values spread evenly over a range the largest of n lies 1 ÷ (n + 1) of the range
    /// below its end, and the range is taken to be what a size never run is guessed with.
    fn unseen(&self, settings: CostSettings) -> f64 {
        let short = |launches: usize| (GUESSED - 1.0) / (launches as f64 + 1.0);
        1.0 + (short(self.ratios.len()) - short(settings.window.max(1))).max(0.0)
    }
}

/// What was measured, as costs of every size: what is predicted, and what is promised by.
fn surfaces(
    cells: &BTreeMap<Step, Cell>,
    work: Option<PlanWork>,
    settings: CostSettings,
    most: Size,
) -> [Surface; 2] {
    let of = |high: &dyn Fn(&Cell) -> f64| {
        let cells: Vec<_> = cells.iter().map(|(step, cell)| (*step, high(cell), cell.clock)).collect();
        Surface::new(&cells, most, |size| shape(settings, work, size))
    };
    [of(&|cell| cell.high), of(&|cell| cell.high * cell.unseen(settings))]
}

/// Seconds by roofline arithmetic at guessed rates; never zero, and never less for more lanes or items.
pub(super) fn shape(settings: CostSettings, work: Option<PlanWork>, size: Size) -> f64 {
    let CostSettings { overhead, flops_per_second, bytes_per_second, .. } = settings;
    let overhead = overhead.as_secs_f64().max(1e-9);
    let (lanes, items) = (f64::from(size.lanes), f64::from(size.items));
    match work {
        Some(work) => overhead + work.flops(size) / flops_per_second + work.bytes(size) / bytes_per_second,
        // Unknown work: time in proportion to lanes and items beyond a launch's overhead, half each.
        None => overhead * (1.0 + 0.5 * lanes + 0.5 * items),
    }
}
