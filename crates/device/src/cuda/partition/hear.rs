//! Who hears that launches are over.
//!
//! ```text
//!   begun by whoever submits, few requests ─▶ near ─────── poll: ended there ──────────┬─▶ told
//!                                               └─ due: how long until a look is worth it
//!   all others ─────────────────────────────▶ reaper: asleep until it is over, ends it ┴─▶ wakes whoever polls
//! ```
//! Whoever submits and polls sleeps until something is over, or is awake with other things. A thread that slept for a small launch and then woke the other one was a
//! second sleep, and a call of the system, for each launch. So small launches are watched by whoever asks: it looks when it passes by, and sleeps as long as that thread would have.

use super::InFlight;
use super::end::Ender;
use super::watch::Watch;
use crate::cuda::fence::wake_promptly;
use std::collections::VecDeque;
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::thread::sleep;
use std::time::Duration;

/// The thread that hears of all others.
pub(super) struct Reaper {
    pub(super) ender: Ender,
    /// Launches that it has.
    pub(super) has: Arc<AtomicUsize>,
}

impl Reaper {
    pub(super) fn run(mut self, reaped: &Receiver<InFlight>) {
        wake_promptly();
        for flight in reaped {
            let mut watch = Watch::start();
            let waited = loop {
                if self.ender.is_over(&flight) {
                    break Ok(());
                }
                match self.ender.nap(&flight, &mut watch) {
                    Ok(nap) => nap.map_or_else(spin_loop, sleep),
                    Err(error) => break Err(error),
                }
            };
            match waited {
                Ok(()) => self.ender.end(flight),
                Err(error) => self.ender.lose(flight, &error),
            }
            self.has.fetch_sub(1, Ordering::Relaxed);
            self.ender.outbox.wake();
        }
    }
}

/// Launches that whoever polls hears of, in the order in which they were begun.
#[derive(Debug)]
pub(super) struct Near {
    ender: Ender,
    flights: VecDeque<InFlight>,
    /// For the first of them, once somebody asked.
    watch: Option<Watch>,
}

impl Near {
    pub(super) fn new(ender: Ender) -> Near {
        Near { ender, flights: VecDeque::new(), watch: None }
    }

    pub(super) fn push(&mut self, flight: InFlight) {
        self.flights.push_back(flight);
    }

    /// Ends those that are over.
    pub(super) fn look(&mut self) {
        while self.flights.front().is_some_and(|flight| self.ender.is_over(flight)) {
            let flight = self.flights.pop_front().expect("it was looked at");
            self.watch = None;
            self.ender.end(flight);
        }
    }

    /// See [`crate::Device::due`]. Where the card is lost, so are all launches.
    pub(super) fn due(&mut self) -> Option<Duration> {
        let flight = self.flights.front()?;
        if self.ender.is_over(flight) {
            return Some(Duration::ZERO);
        }
        match self.ender.nap(flight, self.watch.get_or_insert_with(Watch::start)) {
            Ok(nap) => Some(nap.unwrap_or_default()),
            Err(error) => {
                self.flights.drain(..).for_each(|flight| self.ender.lose(flight, &error));
                Some(Duration::ZERO)
            }
        }
    }
}
