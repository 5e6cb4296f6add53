//! Tiles chosen by measurement: of the kernels that compute a product to the same bits, the one that is fastest on this card.
//!
//! ```text
//!   load   plan, capacities ─▶ products that differ ─▶ known? ─▶ compile, in parallel ─▶ race on the card ─▶ kept, in memory and on disk
//!                                                        └────────────────────────────────────────────┐       clock.rs, race.rs, kept.rs
//!   compile   program ─▶ what is known now ─▶ its tiles, for as long as it lives  ◀───────────────────┘
//! ```
//! The rules of `steps/product/` choose well for what they were fitted to; a card, a driver or a shape that they were not fitted to is measured here. Rules stay
//! where nothing is clearly faster, where there was no time, and where a product is first seen while others are served: tuning is asked for when a class is
//! loaded, runs only while the card is idle, and stops when it is not.
//!
//! A program takes its choices once, when it is made. What is tuned later changes no program that is there, and no choice changes a bit: the list to
//! choose from holds nothing else, and a winner's results are compared with the rule's before it is taken.

mod clock;
mod ground;
mod kept;
mod race;

use super::call::{KernelCall, KernelSpec};
use super::compile;
use super::fence::{Context, CudaError};
use super::library::{Functions, Library};
use crate::{Room, Tuned};
use clock::{Clock, Ended};
use ground::Ground;
use kept::{Choice, Kept, Key};
use race::Won;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tessera_core::DType;
use tessera_planner::{Plan, SlotLayout};

/// Most kernels that race, the rule's among them: the likeliest come first, and each has to be compiled.
const MOST: usize = 9;
/// Compiling may take so many times as long as timing: it happens once, and its results are kept as well.
const COMPILING: u32 = 10;

/// Chooses among kernels.
#[derive(Debug)]
pub(crate) struct Tuner {
    context: Arc<Context>,
    /// For how long the kernels of one plan are timed at most.
    budget: Duration,
    kept: Kept,
    /// Two that time at once would measure each other.
    turn: Mutex<()>,
}

/// Which of a step's kernels a program takes, by the items of its capacities and the step; those that are not among them take the rule's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tiles(HashMap<(u32, usize), usize>);

impl Tiles {
    /// The place of a step's kernel among those that compute it alike; 0 is the rule's.
    pub(crate) fn of(&self, items: u32, step: usize) -> usize {
        self.0.get(&(items, step)).copied().unwrap_or_default()
    }
}

/// What else uses the card.
pub(crate) struct Beside<'a> {
    /// Whether nothing does.
    pub(crate) idle: &'a dyn Fn() -> bool,
    /// Whether so many bytes more may be taken.
    pub(crate) has_room: &'a dyn Fn(usize) -> bool,
}

/// A product to be timed.
struct Product {
    key: Key,
    ground: Ground,
    kernels: Vec<KernelCall>,
}

impl Tuner {
    /// Times for `budget` at most for each plan; `folder` is where choices are kept.
    pub(crate) fn new(
        context: &Arc<Context>,
        compiler: String,
        folder: Option<PathBuf>,
        budget: Duration,
    ) -> Tuner {
        let card = [context.name.clone(), context.multiprocessors.to_string()];
        let software = [context.driver_version.to_string(), compiler];
        let common = card.into_iter().chain(software).chain(compile::sources());
        Tuner { context: context.clone(), budget, kept: Kept::new(folder, common), turn: Mutex::default() }
    }

    /// What is known of a plan's products now. What was measured on the whole card says nothing of a part of it.
    pub(crate) fn tiles(
        &self,
        plan: &Plan,
        layout: &SlotLayout,
        capacities: impl Iterator<Item = Room>,
        multiprocessors: u32,
    ) -> Tiles {
        let mut tiles = HashMap::new();
        let whole = multiprocessors == self.context.multiprocessors;
        for capacity in capacities.filter(|_| whole) {
            for step in 0..plan.steps.len() {
                let Some(product) = self.product(plan, layout, step, capacity, multiprocessors) else {
                    continue;
                };
                let known = self.kept.find(product.key, product.kernels.len());
                // Files that are no choices were told of when it was tuned.
                if let Ok(Some(Choice::Won(Won { place: place @ 1.., .. }))) = known {
                    tiles.insert((capacity.items, step), place);
                }
            }
        }
        Tiles(tiles)
    }

    /// Times what is not known of a plan's products on the whole card, the largest of `capacities` first. What there was no time for is left to the rule,
    /// also at the next start: loading takes long once, unless more time is given. Errors are the card's, or the compiler's.
    pub(crate) fn tune(
        &self,
        plan: &Plan,
        layout: &SlotLayout,
        capacities: &[Room],
        library: &Library,
        beside: &Beside<'_>,
    ) -> Result<Tuned, String> {
        let said = |error: CudaError| error.to_string();
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tuned = Tuned::default();
        let (mut seen, mut left) = (HashSet::new(), Vec::new());
        let mut clock = None;
        let (mut compiling, multiprocessors) = (Duration::ZERO, self.context.multiprocessors);
        for capacity in largest_first(capacities) {
            let products = (0..plan.steps.len())
                .filter_map(|step| self.product(plan, layout, step, capacity, multiprocessors))
                .filter(|product| seen.insert(product.key));
            let unknown: Vec<Product> = products.filter(|product| !self.knows(product, &mut tuned)).collect();
            let may_go_on =
                tuned.took < self.budget && compiling < self.budget * COMPILING && (beside.idle)();
            if unknown.is_empty() || !may_go_on {
                left.extend(unknown.iter().map(|product| product.key));
                continue;
            }
            let began = Instant::now();
            let specs: BTreeSet<KernelSpec> =
                unknown.iter().flat_map(|product| &product.kernels).map(|call| call.spec.clone()).collect();
            let functions = library.load(specs)?;
            compiling += began.elapsed();
            let clock = match &mut clock {
                Some(clock) => clock,
                none => {
                    let stored = plan.key.precision.stored(DType::F32);
                    none.insert(Clock::new(&self.context, stored).map_err(said)?)
                }
            };
            for product in unknown {
                if !self.time(&product, clock, &functions, beside, &mut tuned).map_err(said)? {
                    left.push(product.key);
                }
            }
        }
        tuned.left += left.len();
        // Where others came in between there may be time the next time.
        if tuned.took >= self.budget || compiling >= self.budget * COMPILING {
            left.into_iter().for_each(|key| self.kept.keep(key, Choice::NoTime(self.budget)));
        }
        Ok(tuned)
    }

    /// Times the kernels of a product, and keeps which is fastest. Whether there was the time and the memory for it.
    fn time(
        &self,
        product: &Product,
        clock: &mut Clock,
        functions: &Functions,
        beside: &Beside<'_>,
        tuned: &mut Tuned,
    ) -> Result<bool, CudaError> {
        let time = self.budget.saturating_sub(tuned.took);
        let began = Instant::now();
        let may_go_on = || began.elapsed() < time && (beside.idle)();
        if !may_go_on() || !(beside.has_room)(clock.growth_for(&product.ground)) {
            return Ok(false);
        }
        let ended = clock.race(&product.ground, product.kernels.len(), functions, &may_go_on)?;
        tuned.took += began.elapsed();
        match ended {
            Ended::Early => return Ok(false),
            Ended::Won(won) => {
                self.kept.keep(product.key, Choice::Won(won));
                count(won, tuned);
            }
            Ended::Differs(place) => tuned.remarks.push(differs(product, place)),
        }
        tuned.timed += 1;
        Ok(true)
    }

    /// A step as a product to choose kernels for; `None` where there is nothing to choose.
    fn product(
        &self,
        plan: &Plan,
        layout: &SlotLayout,
        step: usize,
        capacity: Room,
        multiprocessors: u32,
    ) -> Option<Product> {
        let ground = Ground::new(plan, layout, step, capacity, multiprocessors)?;
        // One that cannot be lowered is refused, with the reason, where programs are made.
        let mut kernels = ground.calls(0, 0).ok()?;
        kernels.truncate(MOST);
        let key = self.kept.key(&kernels);
        (kernels.len() > 1).then_some(Product { key, ground, kernels })
    }

    /// Whether nothing is to be timed, as a choice was made before, or there was no time for it and is no more today; counts it.
    fn knows(&self, product: &Product, tuned: &mut Tuned) -> bool {
        tuned.products += 1;
        match self.kept.find(product.key, product.kernels.len()) {
            Ok(Some(Choice::Won(won))) => {
                count(won, tuned);
                true
            }
            Ok(Some(Choice::NoTime(budget))) => {
                let known = self.budget <= budget;
                tuned.left += usize::from(known);
                known
            }
            Ok(None) => false,
            Err(foreign) => {
                tuned.remarks.push(foreign.to_string());
                false
            }
        }
    }
}

fn largest_first(capacities: &[Room]) -> Vec<Room> {
    let mut capacities = capacities.to_vec();
    capacities.sort_by_key(|capacity| std::cmp::Reverse(capacity.items));
    capacities
}

/// What to say of a kernel that gave other bits than the rule's, and is not taken.
fn differs(product: &Product, place: usize) -> String {
    let [rule, other] = [0, place].map(|place| &product.kernels[place].spec);
    format!("{other} gives other bits than {rule} and is not taken; this is a bug, please report it")
}

fn count(won: Won, tuned: &mut Tuned) {
    let [ruled, chosen] = [won.ruled, won.chosen].map(|us| Duration::from_secs_f64(us / 1e6));
    tuned.count(won.place > 0, ruled, chosen);
}
