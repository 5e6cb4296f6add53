//! How a thread waits for a launch: it looks at the launch's signal, and sleeps in between.
//!
//! ```text
//!   began ──────────────────── seven eighths ────·───·──·─·······──·──·───·────·─────▶ over
//!         asleep                looks, each half as far    awake   ever further apart
//!                               from the usual time
//! ```
//! The card writes the signal into the host's memory itself, so looking is a load. An event that a thread sleeps on is told by an interrupt and by a thread of the
//! driver: a launch of 12 µs was heard of 30 µs later, and cost processors 40 µs more (H100, 2026-11-26). A thread that looks all the time would hear at
//! once, and keep a core for as long as the card works; this one sleeps some ten times through a launch of 1.5 ms, and is awake where a sleep would cost as much as what is left.
//! With thirty sleeps of 5 µs around the usual end, ending a launch of 32 lanes of ResNet-50 took 100 µs of a core, and so it takes 71 (H200, 2026-11-26).
//!
//! A sleep costs 5 to 7 µs of a core, whatever its length, and lasts about 5 µs longer than was asked for; one of up to 3 µs never leaves the core (an H100's host,
//! 2026-11-27). To ask for that much less and to stay awake for the rest cost more: 14.2 and 13.1 µs of the reaper for 9.3 and 9.8 of a launch of an mlp that takes
//! 12.3. To sleep through what is ahead of a launch that has not begun gained nothing (both on an H200's host).
//!
//! A card that fails writes nothing. So from time to time the driver is asked as well, which knows.

use crate::cuda::abi::Signal;
use crate::cuda::fence::{CudaError, Pinned, Stream};
use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The shortest sleep: about as long as the system takes to put a thread to sleep and to wake it.
const SHORTEST: Duration = Duration::from_micros(5);
/// What is expected so soon, or was expected so lately, is waited for awake: a sleep costs a core no less.
const NEAR: Duration = Duration::from_micros(2);
/// The longest, and how often the driver is asked.
const LONGEST: Duration = Duration::from_millis(1);
/// What is waited for beyond the usual is heard of late by this part of it, at most.
const LATE: u32 = 4;
/// Likewise of what nothing is known of: its whole wait is beyond.
const UNKNOWN: u32 = 16;

/// What counts as usual after something was seen: the least at once, more little by little. Whoever sleeps too long is late, and whoever looks too early only
/// looks again.
fn usual(before: i64, seen: i64) -> i64 {
    if seen < before { seen } else { before + (seen - before) / 8 }
}

/// How long launches of one graph take until the host hears of them; nothing is known at first.
#[derive(Debug, Default)]
pub(crate) struct Waits(AtomicU64);

impl Waits {
    fn usual(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn learn(&self, took: Duration) {
        let (before, took) = (self.0.load(Ordering::Relaxed) as i64, took.as_nanos() as i64);
        let learnt = if before == 0 { took } else { usual(before, took) };
        self.0.store(learnt as u64, Ordering::Relaxed);
    }
}

/// The card's clock, as far as it can be seen from here.
#[derive(Debug)]
pub(super) struct CardClock {
    /// When the host's nanoseconds begin.
    start: Instant,
    /// What the host's are ahead by when an end is heard of; the clocks drift.
    ahead: Option<i64>,
}

impl Default for CardClock {
    fn default() -> CardClock {
        CardClock { start: Instant::now(), ahead: None }
    }
}

impl CardClock {
    fn host(&self) -> i64 {
        self.start.elapsed().as_nanos() as i64
    }

    /// How long ago the card's clock showed this; `None` before anything is known of it.
    fn since(&self, card: u64) -> Option<Duration> {
        let ago = self.host() - (card as i64 + self.ahead?);
        Some(Duration::from_nanos(ago.max(0) as u64))
    }

    /// An end at this time of the card's was heard of now.
    fn heard(&mut self, card: u64) {
        let ahead = self.host() - card as i64;
        self.ahead = Some(self.ahead.map_or(ahead, |before| usual(before, ahead)));
    }
}

/// How long to sleep before looking again, having waited for so long; not at all when it is worth no sleep.
fn nap(waited: Duration, usual: Duration) -> Option<Duration> {
    let (early, late) = (usual * 7 / 8, waited.saturating_sub(usual));
    let left = usual.saturating_sub(waited);
    let nap = match early.checked_sub(waited) {
        Some(rest) if rest > NEAR => rest,
        _ if left > NEAR => left / 2,
        _ if usual.is_zero() => (late / UNKNOWN).max(SHORTEST),
        _ if late > NEAR => (late / LATE).max(SHORTEST),
        _ => return None,
    };
    Some(nap.min(LONGEST))
}

/// The signal of a launch, at the start of what it leaves on the host, and the stream in which it is given.
pub(super) struct Signalled<'a> {
    pub(super) signal: &'a Pinned,
    /// Whether outputs are copied to the host behind the kernels.
    pub(super) copied: bool,
    pub(super) stream: &'a Stream,
    /// What such launches take.
    pub(super) waits: &'a Waits,
}

impl Signalled<'_> {
    /// Whether the launch is over.
    pub(super) fn is_given(&self) -> bool {
        let over = if self.copied { offset_of!(Signal, copied) } else { offset_of!(Signal, ended) };
        self.signal.word(over) != 0
    }

    /// Of a launch that is over, and was seen to be just now: how long its kernels took.
    pub(super) fn took(&self, clock: &mut CardClock) -> Duration {
        let (began, ended) = (self.began(), self.signal.word(offset_of!(Signal, ended)));
        if let Some(took) = clock.since(began) {
            self.waits.learn(took);
        }
        clock.heard(ended);
        Duration::from_nanos(ended.saturating_sub(began))
    }

    fn began(&self) -> u64 {
        self.signal.word(offset_of!(Signal, began))
    }
}

/// Somebody's wait for a launch.
#[derive(Debug)]
pub(super) struct Watch {
    start: Instant,
    /// When the driver was asked last.
    asked: Instant,
}

impl Watch {
    pub(super) fn start() -> Watch {
        let start = Instant::now();
        Watch { start, asked: start }
    }

    /// How long to sleep before looking again whether the launch is over, which it was not; not at all when it is worth no sleep. The error is the card's, and may be
    /// that of any launch before.
    pub(super) fn nap(
        &mut self,
        of: &Signalled<'_>,
        clock: &CardClock,
    ) -> Result<Option<Duration>, CudaError> {
        if self.asked.elapsed() >= LONGEST {
            self.asked = Instant::now();
            // What was told before the stream was seen to be done can be seen now.
            if of.stream.is_done()? && !of.is_given() {
                return Err(CudaError::new("finish a launch", "it ended without a word".to_owned()));
            }
        }
        Ok(match of.began() {
            0 => nap(self.start.elapsed(), Duration::ZERO),
            began => nap(clock.since(began).unwrap_or_else(|| self.start.elapsed()), of.waits.usual()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_micros(1400);

    /// How a launch that takes so long is waited for.
    #[derive(Debug)]
    struct Waited {
        naps: u32,
        awake: Duration,
        /// How late its end is heard of.
        late: Duration,
    }

    fn wait(took: Duration, usual: Duration) -> Waited {
        const LOOK: Duration = Duration::from_nanos(50);
        let (mut naps, mut awake, mut now) = (0, Duration::ZERO, Duration::ZERO);
        while now < took {
            match nap(now, usual) {
                Some(nap) => (naps, now) = (naps + 1, now + nap),
                None => (awake, now) = (awake + LOOK, now + LOOK),
            }
        }
        Waited { naps, awake, late: now - took }
    }

    #[test]
    fn a_usual_launch_is_slept_through_and_heard_of_at_once() {
        let waited = wait(USUAL, USUAL);
        assert!(waited.naps < 10 && waited.awake <= NEAR && waited.late < NEAR, "{waited:?}");
    }

    #[test]
    fn one_that_takes_a_little_longer_or_less_is_heard_of_soon() {
        for hundredths in 90..110 {
            let waited = wait(USUAL * hundredths / 100, USUAL);
            assert!(waited.naps < 25 && waited.awake <= 2 * NEAR, "{hundredths}: {waited:?}");
            assert!(waited.late <= USUAL / 16, "{hundredths}: {waited:?}");
        }
    }

    #[test]
    fn a_short_launch_is_heard_of_within_the_shortest_sleep() {
        for took in (1..60).map(Duration::from_micros) {
            assert!(wait(took, took).late <= SHORTEST, "{took:?}");
            assert!(wait(took, Duration::ZERO).late <= SHORTEST, "{took:?} for the first time");
        }
    }

    #[test]
    fn what_takes_longer_than_usual_is_looked_at_ever_more_seldom() {
        let waited = wait(100 * USUAL, USUAL);
        assert!(waited.naps < 200 && waited.late <= LONGEST, "{waited:?}");
    }

    #[test]
    fn a_shorter_wait_is_learnt_at_once_and_a_longer_one_slowly() {
        let waits = Waits::default();
        waits.learn(USUAL);
        assert_eq!(waits.usual(), USUAL, "at first nothing is known");
        waits.learn(USUAL / 2);
        assert_eq!(waits.usual(), USUAL / 2);
        waits.learn(USUAL);
        assert_eq!(waits.usual(), USUAL / 2 + USUAL / 16);
    }

    #[test]
    fn a_card_s_clock_is_learnt_from_when_ends_are_heard_of() {
        let mut clock = CardClock::default();
        assert_eq!(clock.since(1 << 60), None);
        clock.heard(1 << 60);
        let ago = clock.since((1 << 60) - 5_000_000).expect("an end was heard of");
        assert!(ago >= Duration::from_millis(5) && ago < Duration::from_secs(5), "{ago:?}");
        assert_eq!(clock.since((1 << 60) + (1 << 50)), Some(Duration::ZERO), "it did not happen yet");
        // Another end is heard of a second late: the clock is taken to be a little slower.
        clock.heard((1 << 60) - 1_000_000_000);
        let ago = clock.since((1 << 60) - 1_000_000_000).expect("an end was heard of");
        assert!(ago >= Duration::from_millis(874) && ago < Duration::from_secs(5), "{ago:?}");
    }
}
