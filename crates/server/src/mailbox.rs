//! The queue between many senders and the one thread that serves them all.
//!
//! ```text
//!   put ─▶ [● ● ● ●]                    take: all of it at once, or sleep until somebody rings
//!   ring ─▶ wakes the taker, if it sleeps and something is there
//! ```
//! Why not a channel: a wake-up costs more than all else that happens to a small request on this thread, so putting and waking are
//! two calls here. Whoever knows that others are about to put their letters, too, rings after the last. A taker that is awake is never
//! rung, and one that sleeps is rung outside the lock, so that it does not run into it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A queue of letters for one taker.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    state: Mutex<State<T>>,
    rung: Condvar,
}

#[derive(Debug)]
struct State<T> {
    letters: Vec<T>,
    /// Whether the taker waits, and nobody has rung it yet.
    asleep: bool,
    closed: bool,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Mailbox<T> {
        let state = State { letters: Vec::new(), asleep: false, closed: false };
        Mailbox { state: Mutex::new(state), rung: Condvar::new() }
    }
}

impl<T> Mailbox<T> {
    /// Leaves a letter, which is taken after the next ring at the latest, and says how many wait now. Gives it back once the box
    /// is closed.
    pub(crate) fn put(&self, letter: T) -> Result<usize, T> {
        let mut state = self.state();
        if state.closed {
            return Err(letter);
        }
        state.letters.push(letter);
        Ok(state.letters.len())
    }

    /// How many letters wait.
    pub(crate) fn len(&self) -> usize {
        self.state().letters.len()
    }

    /// Wakes the taker, if it sleeps over letters.
    pub(crate) fn ring(&self) {
        let mut state = self.state();
        if state.asleep && !state.letters.is_empty() {
            state.asleep = false;
            drop(state);
            self.rung.notify_one();
        }
    }

    /// Moves all letters into `taken`, in the order in which they came. When there are none, sleeps until somebody rings, at most
    /// for `wait`.
    pub(crate) fn take(&self, wait: Option<Duration>, taken: &mut Vec<T>) {
        let until = wait.map(|wait| Instant::now() + wait);
        let mut state = self.state();
        state.asleep = state.letters.is_empty();
        while state.asleep {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            state = match left {
                None => self.rung.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => break,
                Some(left) => self.rung.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        state.asleep = false;
        taken.append(&mut state.letters);
    }

    /// From now on letters are given back to their senders; those that nobody took are the answer.
    pub(crate) fn close(&self) -> Vec<T> {
        let mut state = self.state();
        state.closed = true;
        std::mem::take(&mut state.letters)
    }

    /// Whether it is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    fn taken<T>(mailbox: &Mailbox<T>, wait: Option<Duration>) -> Vec<T> {
        let mut letters = Vec::new();
        mailbox.take(wait, &mut letters);
        letters
    }

    #[test]
    fn letters_are_taken_together_and_in_order() {
        let mailbox = Mailbox::default();
        assert!((0..3).map(|letter| mailbox.put(letter).unwrap()).eq(1..=3));
        assert_eq!(taken(&mailbox, None), [0, 1, 2]);
        assert!(taken(&mailbox, Some(Duration::from_millis(1))).is_empty());
    }

    #[test]
    fn a_sleeping_taker_wakes_at_the_ring_and_finds_all_that_was_put_before() {
        let mailbox = Arc::new(Mailbox::default());
        let taker = thread::spawn({
            let mailbox = mailbox.clone();
            move || taken(&mailbox, None)
        });
        while !mailbox.state().asleep {
            thread::yield_now();
        }
        (0..3).for_each(|letter| _ = mailbox.put(letter).unwrap());
        assert!(mailbox.state().asleep, "putting wakes nobody");
        mailbox.ring();
        assert_eq!(taker.join().unwrap(), [0, 1, 2]);
    }

    #[test]
    fn no_letter_is_lost_between_many_senders_and_a_taker_that_sleeps() {
        let mailbox = Arc::new(Mailbox::default());
        let senders = (0..4).map(|sender| {
            let mailbox = mailbox.clone();
            thread::spawn(move || {
                for letter in 0..1000 {
                    mailbox.put((sender, letter)).unwrap();
                    mailbox.ring();
                }
            })
        });
        let senders: Vec<_> = senders.collect();
        let mut letters = Vec::new();
        while letters.len() < 4000 {
            mailbox.take(None, &mut letters);
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        for sender in 0..4 {
            let of_sender = letters.iter().filter(|letter| letter.0 == sender).map(|letter| letter.1);
            assert!(of_sender.eq(0..1000), "sender {sender}'s letters are in order");
        }
    }

    #[test]
    fn a_closed_box_gives_all_letters_back() {
        let mailbox = Mailbox::default();
        let letter = Arc::new(());
        mailbox.put(letter.clone()).unwrap();
        assert_eq!(mailbox.close().len(), 1);
        assert_eq!(Arc::strong_count(&letter), 1);
        assert!(mailbox.is_closed() && mailbox.put(letter).is_err());
    }
}
