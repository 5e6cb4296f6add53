//! Which device a request goes to: the home of that decision.
//!
//! ```text
//!   finish on a device = backlog (what was promised there and is not answered yet) + what the request's own launch takes there
//! ```
//! Both are numbers that a device's engine publishes and requests read without a lock. A backlog counts what a request adds to launches that
//! are under way anyway, so devices that fuse well are not taken for slow ones. It decides between devices only; whether a deadline
//! can be kept is decided by the scheduler of the device that is asked, and if it says no the next device is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Device time that was promised to requests and is not used up yet, of one device. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Backlog(Arc<AtomicU64>);

impl Backlog {
    /// Counts `work` for as long as the answer lives: no way out of a device can forget to count.
    pub fn charge(&self, work: Duration) -> Charge {
        let nanos = nanos(work);
        self.0.fetch_add(nanos, Ordering::Relaxed);
        Charge { backlog: self.clone(), nanos }
    }

    /// How much there is.
    pub fn length(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// One request's part of a [`Backlog`].
#[derive(Debug)]
#[must_use = "it counts until it is dropped"]
pub struct Charge {
    backlog: Backlog,
    nanos: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.backlog.0.fetch_sub(self.nanos, Ordering::Relaxed);
    }
}

/// What a plan costs on one device, as its engine last said. Zero until it has said anything.
#[derive(Debug, Default)]
pub struct Pace {
    alone: AtomicU64,
    per_item: AtomicU64,
}

impl Pace {
    /// A launch of one item takes `alone`, by prediction.
    pub fn predicted(&self, alone: Duration) {
        self.alone.store(nanos(alone), Ordering::Relaxed);
    }

    /// A launch of so many items took so long.
    pub fn measured(&self, took: Duration, items: u32) {
        self.per_item.store(nanos(took) / u64::from(items.max(1)), Ordering::Relaxed);
    }

    /// What a request adds to a device's work: its part of launches such as the last, or, before any, launches of its own.
    pub fn share(&self, items: u64) -> Duration {
        let measured = self.per_item.load(Ordering::Relaxed);
        let per_item = if measured == 0 { self.alone.load(Ordering::Relaxed) } else { measured };
        Duration::from_nanos(per_item.saturating_mul(items))
    }

    /// When a request is done on a device with this backlog, from now.
    pub fn finish(&self, backlog: Duration, items: u64) -> Duration {
        let alone = Duration::from_nanos(self.alone.load(Ordering::Relaxed));
        backlog.saturating_add(alone.max(self.share(items)))
    }
}

/// A request may well be slower than that, but nobody waits for it.
fn nanos(time: Duration) -> u64 {
    const MOST: Duration = Duration::from_secs(24 * 3600);
    time.min(MOST).as_nanos() as u64
}

/// The devices to ask, by their predicted finish. Of equal ones the first: what ran there lately is in its caches.
pub fn order(finishes: &[Duration]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..finishes.len()).collect();
    order.sort_by_key(|&index| finishes[index]);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_device_that_is_done_first_is_asked_first_though_it_is_the_slower_one() {
        let (fast, slow) = (Pace::default(), Pace::default());
        fast.predicted(2 * MS);
        slow.predicted(5 * MS);
        assert_eq!(order(&[fast.finish(10 * MS, 1), slow.finish(MS, 1)]), [1, 0]);
        assert_eq!(order(&[fast.finish(MS, 1), slow.finish(MS, 1)]), [0, 1]);
    }

    #[test]
    fn equal_devices_are_asked_in_their_order() {
        assert_eq!(order(&[MS, MS, Duration::ZERO]), [2, 0, 1]);
    }

    #[test]
    fn a_backlog_is_what_is_not_answered_yet() {
        let backlog = Backlog::default();
        let first = backlog.charge(3 * MS);
        let second = backlog.clone().charge(4 * MS);
        assert_eq!(backlog.length(), 7 * MS);
        drop(first);
        assert_eq!(backlog.length(), 4 * MS);
        drop(second);
        assert_eq!(backlog.length(), Duration::ZERO);
    }

    #[test]
    fn a_request_that_shares_launches_adds_its_part_of_them() {
        let pace = Pace::default();
        pace.predicted(4 * MS);
        assert_eq!(pace.share(2), 8 * MS, "before any launch: one of its own for each item");
        pace.measured(8 * MS, 16);
        assert_eq!(pace.share(2), MS);
        assert_eq!(pace.finish(MS, 2), 5 * MS, "its own launch is not over sooner than one item alone");
    }
}
