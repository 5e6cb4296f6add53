//! The time limit on a request's head, without an alarm set and cleared for each.
//!
//! ```text
//!   request │answer │ request │answer │ request …         hyper asks for a sleep after every answer, and mostly drops it at once
//!   alarm ──┴───────┴─────────┴───────┴─▶ rings           one per connection: left as it is, and set anew when it rings too early
//! ```
//! Setting an alarm of the runtime takes the lock of all its alarms, clearing it again. A connection that is asked thousands of times per
//! `idle_timeout` is woken once in that time for nothing instead.

use hyper::rt::{Sleep, Timer};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

type Alarm = Pin<Box<tokio::time::Sleep>>;

/// The timer of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct HeadTimer {
    /// Made at the first sleep. Sleeps of a connection come one after the other, so nobody waits for the lock.
    alarm: Arc<Mutex<Option<Alarm>>>,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(HeadSleep { deadline: deadline.into(), timer: self.clone() })
    }

    fn now(&self) -> Instant {
        // The runtime's clock, which tests may turn.
        tokio::time::Instant::now().into()
    }
}

/// Over at its deadline.
#[derive(Debug)]
struct HeadSleep {
    deadline: tokio::time::Instant,
    timer: HeadTimer,
}

impl Future for HeadSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut alarm = self.timer.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        let alarm = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(self.deadline)));
        if alarm.deadline() > self.deadline {
            alarm.as_mut().reset(self.deadline);
        }
        loop {
            ready!(alarm.as_mut().poll(context));
            if alarm.deadline() == self.deadline {
                return Poll::Ready(());
            }
            // Set for an earlier request.
            alarm.as_mut().reset(self.deadline);
        }
    }
}

impl Sleep for HeadSleep {}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn a_sleep_ends_at_its_deadline_though_the_alarm_was_set_for_an_earlier_one() {
        runtime().block_on(async {
            let timer = HeadTimer::default();
            let started = Instant::now();
            let begun = tokio::time::timeout(MS, timer.sleep(40 * MS)).await;
            assert!(begun.is_err(), "the first sleep sets the alarm, and is dropped");
            timer.sleep(120 * MS).await;
            assert!(started.elapsed() >= 120 * MS);
        });
    }

    #[test]
    fn a_sleep_with_an_earlier_deadline_than_the_alarm_does_not_wait_for_it() {
        runtime().block_on(async {
            let timer = HeadTimer::default();
            let begun = tokio::time::timeout(MS, timer.sleep(Duration::from_secs(3600))).await;
            assert!(begun.is_err());
            timer.sleep(MS).await;
        });
    }

    #[test]
    fn sleeps_that_follow_each_other_each_take_their_time() {
        runtime().block_on(async {
            let timer = HeadTimer::default();
            for _ in 0..3 {
                let started = Instant::now();
                timer.sleep(5 * MS).await;
                assert!(started.elapsed() >= 5 * MS);
            }
        });
    }
}
