//! Work lent to other threads for as long as its lender waits for it.
//!
//! ```text
//!   lender   lend ─▶ offer ─▶ works itself ──────▶ takes back: waits until nobody is inside
//!   others              └───▶ help: works ──▶ leaves          comes later: finds nothing
//! ```
//! The work may borrow what lives on the lender's stack: that is the point, and why this is behind the fence.

use std::any::Any;
use std::fmt;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Times that a lender looks whether all have left before it sleeps: parts of a step end within microseconds of each other, unless the system
/// has taken a core away.
const LOOKS: usize = 500;

/// Work with an environment of the helper's own.
type Work<C> = dyn Fn(&mut C) + Sync;

/// Where work is found that somebody lends.
pub(crate) struct Lent<C> {
    state: Mutex<State<C>>,
    left: Condvar,
}

struct State<C> {
    /// `None` once it is taken back.
    work: Option<Pointer<C>>,
    /// Helpers that are at it.
    inside: usize,
    /// What a helper's panic said.
    panic: Option<Box<dyn Any + Send>>,
}

struct Pointer<C>(*const Work<C>);

// SAFETY: what it points to may be shared between threads.
unsafe impl<C> Send for Pointer<C> {}

impl<C> Lent<C> {
    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works with the lender, if the work is still lent.
    pub(crate) fn help(&self, own: &mut C) {
        let work = {
            let mut state = self.state();
            let Some(Pointer(work)) = state.work else { return };
            state.inside += 1;
            work
        };
        // SAFETY: the lender does not go on, and so does not end what the work borrows, until nobody is inside.
        let done = catch_unwind(AssertUnwindSafe(|| unsafe { (*work)(own) }));
        let mut state = self.state();
        state.inside -= 1;
        if let Err(panic) = done {
            state.panic.get_or_insert(panic);
        }
        if state.inside == 0 {
            self.left.notify_one();
        }
    }

    /// Nobody is inside when this returns, and nobody comes in any more.
    fn take_back(&self) {
        self.state().work = None;
        for _ in 0..LOOKS {
            if self.state().inside == 0 {
                return;
            }
            (0..16).for_each(|_| spin_loop());
            // A helper may be waiting for this very core.
            thread::yield_now();
        }
        let mut state = self.state();
        while state.inside > 0 {
            state = self.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<C> fmt::Debug for Lent<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").finish_non_exhaustive()
    }
}

/// Does `work` together with whoever helps with what `offer` is given. All of it is done when this returns. Panics as the work does,
/// wherever that is.
pub(crate) fn lend<C: 'static>(
    work: &(dyn Fn(&mut C) + Sync),
    own: &mut C,
    offer: impl FnOnce(&Arc<Lent<C>>),
) {
    struct TakesBack<'a, C>(&'a Lent<C>);
    impl<C> Drop for TakesBack<'_, C> {
        fn drop(&mut self) {
            self.0.take_back();
        }
    }
    // SAFETY: only the lifetime differs. `take_back` ends before this function does, by return or by panic, and after it nobody
    // uses the pointer.
    let pointer = unsafe { std::mem::transmute::<*const (dyn Fn(&mut C) + Sync + '_), *const Work<C>>(work) };
    let state = State { work: Some(Pointer(pointer)), inside: 0, panic: None };
    let lent = Arc::new(Lent { state: Mutex::new(state), left: Condvar::new() });
    let takes_back = TakesBack(&lent);
    offer(&lent);
    work(own);
    drop(takes_back);
    let panic = lent.state().panic.take();
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn all_that_is_lent_is_done_once_and_borrows_the_lenders_stack() {
        for _ in 0..200 {
            let tasks = Mutex::new(0..50usize);
            let done = AtomicUsize::new(0);
            let work = |own: &mut usize| {
                loop {
                    let task = tasks.lock().unwrap().next();
                    let Some(task) = task else { return };
                    done.fetch_add(task, Ordering::Relaxed);
                    *own += 1;
                }
            };
            let (mut own, mut helpers) = (0, Vec::new());
            lend(&work, &mut own, |lent| {
                for _ in 0..3 {
                    let lent = lent.clone();
                    helpers.push(thread::spawn(move || {
                        let mut own = 0usize;
                        lent.help(&mut own);
                        own
                    }));
                }
            });
            assert_eq!(done.load(Ordering::Relaxed), 50 * 49 / 2, "done when it returns");
            let helped: usize = helpers.into_iter().map(|helper| helper.join().unwrap()).sum();
            assert_eq!(own + helped, 50);
        }
    }

    #[test]
    fn whoever_comes_late_finds_nothing() {
        let mut kept = None;
        lend(&|own: &mut usize| *own += 1, &mut 0, |lent| kept = Some(lent.clone()));
        let mut own = 0;
        kept.unwrap().help(&mut own);
        assert_eq!(own, 0);
    }

    #[test]
    fn a_helpers_panic_is_the_lenders() {
        let barrier = std::sync::Barrier::new(2);
        let work = |is_helper: &mut bool| {
            barrier.wait();
            assert!(!*is_helper, "a kernel's bug");
        };
        let lent = catch_unwind(AssertUnwindSafe(|| {
            lend(&work, &mut false, |lent| {
                let lent = lent.clone();
                thread::spawn(move || lent.help(&mut true));
            });
        }));
        assert_eq!(lent.unwrap_err().downcast_ref::<&str>(), Some(&"a kernel's bug"));
    }
}
