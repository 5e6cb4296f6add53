//! Cores that share a step: whoever runs it, and those of its partition that have nothing else to do.
//!
//! ```text
//!   runs ≥ cores       every core has a run of its own, nobody is idle, nothing is shared
//!   runs < cores       step ─▶ parts ─▶ ▣ ▣ ▢ ▢ ▢ ▢     who is free takes the next one; the step is over when all are
//! ```
//! A part is some rows or columns of a step's output. Its numbers come from the same sequences of arithmetic whoever computes them, so parts
//! change no bit. What is over sooner than others could come is not shared.

use super::fence::{Lent, lend};
use super::steps::Scratch;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Multiply-adds that are worth sharing: ten microseconds of a fast core. To hand a part over and wait for it takes about one.
pub(crate) const WORTH: usize = 1 << 20;

/// Parts for each core: with more than one, a core that others disturb does fewer.
const PARTS: usize = 2;

/// Where those are who could help.
pub(crate) trait Hands: Sync {
    /// How many would help with a step of so many multiply-adds: those that have nothing to do, if it is worth it.
    fn free_for(&self, multiply_adds: usize) -> usize;
    /// Shows them what is lent.
    fn offer(&self, lent: &Arc<Lent<Scratch>>);
    /// It is lent no more.
    fn withdraw(&self, lent: &Arc<Lent<Scratch>>);
}

/// Who works on a step.
#[derive(Clone, Copy)]
pub(crate) struct Crew<'a> {
    hands: Option<&'a dyn Hands>,
    parts: usize,
}

impl fmt::Debug for Crew<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew").field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl<'a> Crew<'a> {
    /// One core.
    pub(crate) const ALONE: Crew<'static> = Crew { hands: None, parts: 1 };

    /// One core, and others when they are free.
    pub(crate) fn with(hands: &'a dyn Hands) -> Crew<'a> {
        Crew { hands: Some(hands), parts: 1 }
    }

    /// For a step of so many multiply-adds, or of other work that takes as long: one core if it is not worth sharing, or nobody is free.
    pub(crate) fn for_work(self, multiply_adds: usize) -> Crew<'a> {
        match self.hands.map_or(0, |hands| hands.free_for(multiply_adds)) {
            0 => Crew::ALONE,
            free => Crew { parts: (free + 1) * PARTS, ..self },
        }
    }

    /// Into how many parts a step is best cut; one when nobody shares it.
    pub(crate) fn parts(&self) -> usize {
        self.parts
    }

    /// Whether nobody shares the step.
    pub(crate) fn is_alone(&self) -> bool {
        self.parts == 1
    }

    /// How many of `count` things each part has, when things are cut evenly. At least one.
    pub(crate) fn share(&self, count: usize) -> usize {
        count.div_ceil(self.parts).max(1)
    }

    /// Does `work` for every part, each on whichever core is free; all of them are done when this returns. `own` is the working memory of the
    /// core that asks, the others have theirs.
    pub(crate) fn each<T>(
        &self,
        own: &mut Scratch,
        parts: impl Iterator<Item = T> + Send,
        work: impl Fn(T, &mut Scratch) + Sync,
    ) {
        let Some(hands) = self.hands else { return parts.for_each(|part| work(part, own)) };
        let parts = Mutex::new(parts);
        let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
        let all = |scratch: &mut Scratch| {
            while let Some(part) = next() {
                work(part, scratch);
            }
        };
        let mut offered = None;
        lend(&all, own, |lent| {
            hands.offer(lent);
            offered = Some(lent.clone());
        });
        offered.iter().for_each(|lent| hands.withdraw(lent));
    }
}
