//! The plans that a class keeps, by their free dimensions, and those that could not be made.
//!
//! ```text
//!   dims ─▶ cell: being made │ a plan │ none, for good │ none before a time ─ its time has come ─▶ a new cell
//! ```
//! A bounded number is kept. Failures go first, then the plan used longest ago, but none that a request holds: then there are more for a while.
//!
//! What a device refused is remembered until it is worth asking again ([`Again`]): memory comes free and cards recover, but each try costs the compilation of every step,
//! and requests come by the thousand.

use super::{NoPlan, Planned};
use crate::again::Again;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

/// What came of planning.
#[derive(Clone, Debug)]
pub(super) enum Made {
    /// A plan.
    Plan(Arc<Planned>),
    /// None for any number of items: they are not independent, and each count has a plan of its own.
    ItemsMix,
}

/// What came of it where there is no plan.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) why: NoPlan,
    /// When it may be tried again; `None` is never.
    pub(super) again: Option<Again>,
}

impl Failure {
    /// What a request hears that asks `now`.
    pub(super) fn told(self, now: Instant) -> NoPlan {
        match (self.why, self.again) {
            (NoPlan::Device(why), Some(again)) => NoPlan::NotNow { why, again: again.left(now) },
            (why, _) => why,
        }
    }
}

/// A plan, or why there is none, once it is known.
pub(super) type PlanCell = Arc<OnceCell<Result<Made, Failure>>>;

#[derive(Debug)]
struct Kept {
    cell: PlanCell,
    /// When it was used last, as the number of that use.
    used: u64,
    /// The failure before, if it is tried again.
    before: Option<Again>,
}

impl Kept {
    /// Whether nobody waits for what the cell is for, or holds it. Asked under the lock that cells are handed out under.
    fn is_idle(&self) -> bool {
        let held = |made: &Result<Made, Failure>| match made {
            Ok(Made::Plan(planned)) => Arc::strong_count(planned) > 1,
            Ok(Made::ItemsMix) | Err(_) => false,
        };
        Arc::strong_count(&self.cell) == 1 && !self.cell.get().is_some_and(held)
    }

    fn has_failed(&self) -> bool {
        matches!(self.cell.get(), Some(Err(_)))
    }

    /// Whether it failed, and that may pass and its time has come.
    fn is_due(&self, now: Instant) -> Option<Again> {
        match self.cell.get() {
            Some(Err(Failure { again: Some(again), .. })) if again.is_due(now) => Some(*again),
            _ => None,
        }
    }
}

/// Who asks for a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asker {
    /// A request, which waits.
    Request,
    /// A loader: there is time to tune, and what failed before is tried again at once, since a tenant that comes is news.
    Loader,
}

/// The cells of a class.
#[derive(Debug, Default)]
pub(super) struct Plans {
    /// By free dimensions. Mostly one or a few, which a tree finds without hashing.
    cells: BTreeMap<Vec<u64>, Kept>,
    uses: u64,
    /// When a failure was told of last, and how many there were since.
    told: Option<Instant>,
    untold: u32,
}

/// How often failures of one class are told of: a client that tries every length is one piece of news.
const TELL_EVERY: Duration = Duration::from_secs(60);

impl Plans {
    /// The cell for these dimensions, of which `most` are kept; others may have to go for it.
    pub(super) fn cell(&mut self, dims: &[u64], asker: Asker, most: NonZeroU32, now: Instant) -> PlanCell {
        self.uses += 1;
        let uses = self.uses;
        if let Some(kept) = self.cells.get_mut(dims) {
            kept.used = uses;
            let again = kept.is_due(now);
            if again.is_some() || (asker == Asker::Loader && kept.has_failed()) {
                (kept.cell, kept.before) = (PlanCell::default(), again);
            }
            return kept.cell.clone();
        }
        while self.cells.len() >= most.get() as usize {
            let idle = self.cells.iter().filter(|(_, kept)| kept.is_idle());
            let first = idle.min_by_key(|(_, kept)| (!kept.has_failed(), kept.used));
            let Some(first) = first.map(|(dims, _)| dims.clone()) else { break };
            self.cells.remove(&first);
        }
        let cell = PlanCell::default();
        self.cells.insert(dims.to_vec(), Kept { cell: cell.clone(), used: uses, before: None });
        cell
    }

    /// What is in a cell, if something is.
    pub(super) fn get(&self, dims: &[u64]) -> Option<&Result<Made, Failure>> {
        self.cells.get(dims)?.cell.get()
    }

    /// When what has just failed for something that may pass is tried again.
    pub(super) fn failed(&self, dims: &[u64], now: Instant) -> Again {
        Again::after(self.cells.get(dims).and_then(|kept| kept.before), now)
    }

    /// A device has refused: how many such failures are to be told of now, if they are.
    pub(super) fn count_failure(&mut self, now: Instant) -> Option<u32> {
        self.untold += 1;
        if self.told.is_some_and(|told| now < told + TELL_EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }

    /// The next to ask for these dimensions gets a new cell.
    pub(super) fn forget(&mut self, dims: &[u64], cell: &PlanCell) {
        if self.cells.get(dims).is_some_and(|kept| Arc::ptr_eq(&kept.cell, cell)) {
            self.cells.remove(dims);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_device::DeviceError;

    const THREE: NonZeroU32 = NonZeroU32::new(3).expect("3 is not zero");

    fn refused() -> NoPlan {
        NoPlan::Device(DeviceError::Failed { device: "cpu".into(), why: "on purpose, in a test".into() })
    }

    /// Asks, and fails where nothing is known. Says whether it had to be tried.
    fn ask(plans: &mut Plans, dims: &[u64], asker: Asker, now: Instant) -> bool {
        let cell = plans.cell(dims, asker, THREE, now);
        let is_new = cell.get().is_none();
        if is_new {
            let again = Some(plans.failed(dims, now));
            cell.set(Err(Failure { why: refused(), again })).unwrap();
        }
        is_new
    }

    #[test]
    fn what_a_device_refused_is_tried_again_once_its_time_has_come_and_not_by_every_request() {
        let (mut plans, start) = (Plans::default(), Instant::now());
        let tried = (0..20_000u64).filter(|tenth| {
            ask(&mut plans, &[7], Asker::Request, start + Duration::from_millis(100 * tenth))
        });
        let tried: Vec<u64> = tried.map(|tenth| tenth / 10).collect();
        assert_eq!(tried[..8], [0, 1, 3, 7, 15, 31, 63, 123], "seconds");
        assert!(tried.len() < 45, "{tried:?}");
    }

    #[test]
    fn a_loader_tries_at_once_and_what_it_finds_counts_as_new() {
        let (mut plans, now) = (Plans::default(), Instant::now());
        assert!(ask(&mut plans, &[7], Asker::Request, now));
        assert!(!ask(&mut plans, &[7], Asker::Request, now));
        assert!(ask(&mut plans, &[7], Asker::Loader, now));
        assert!(!ask(&mut plans, &[7], Asker::Request, now));
        assert!(ask(&mut plans, &[7], Asker::Request, now + Duration::from_secs(1)));
    }

    #[test]
    fn failures_are_bounded_and_go_before_plans() {
        let (mut plans, now) = (Plans::default(), Instant::now());
        let plan = plans.cell(&[1], Asker::Request, THREE, now);
        plan.set(Ok(Made::ItemsMix)).unwrap();
        drop(plan);
        (2..1000).for_each(|dim| _ = ask(&mut plans, &[dim], Asker::Request, now));
        assert_eq!(plans.cells.len(), 3);
        assert!(matches!(plans.get(&[1]), Some(Ok(Made::ItemsMix))), "though it was used longest ago");
    }

    #[test]
    fn many_failures_of_a_class_are_told_of_once_a_minute() {
        let (mut plans, start) = (Plans::default(), Instant::now());
        let told = (0..90).map(|second| plans.count_failure(start + Duration::from_secs(second)));
        assert_eq!(told.flatten().collect::<Vec<_>>(), [1, 60]);
    }

    #[test]
    fn who_asks_hears_how_long_it_is_until_the_next_try() {
        let now = Instant::now();
        let failure = Failure { why: refused(), again: Some(Again::after(None, now)) };
        let told = failure.told(now + Duration::from_millis(400)).to_string();
        assert_eq!(told, "cpu: on purpose, in a test; it is tried again in 0.6 s");
    }
}
