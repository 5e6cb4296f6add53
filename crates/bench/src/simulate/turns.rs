//! Groups of requests in turns: each is followed by another when all of it is answered.
//!
//! ```text
//!   device     [ group 1 ][ group 2 ][ group 3 ][ group 4 ] …       as many on their way as the device is handed launches at once
//!   asked      1 2 3      4          5          6
//! ```
//! With fewer, what lies between two launches would be the way of a group out and in again, which is hidden where more wait. With more, groups would wait for each other
//! in the queue, and be launched as one.
//!
//! Groups that were launched as one are answered at once, and whatever follows them comes at once, too: they would go on as one, in launches larger than was
//! meant. So nobody is asked on the heels of the group before.

use anyhow::Result;
use std::time::{Duration, Instant};
use tessera_device::PartitionInfo;
use tokio::task::JoinSet;

/// Two at least: one computes while the other waits.
const LEAST: u32 = 2;

/// How many groups whose launches take so long a partition is handed at once: as many as it takes, where they are shorter than what a launch needs to get there. Of longer
/// ones the third would wait in the queue until it is joined by the next.
pub(super) fn at_once(partition: &PartitionInfo, took: Duration) -> u32 {
    if took <= partition.lead { partition.ahead.max(LEAST) } else { LEAST }
}

/// Keeps so many groups on their way until a moment. To be run on a thread of its own: it sleeps.
pub(super) async fn take<G>(groups: u32, until: Instant, mut ask: impl FnMut() -> G) -> Result<()>
where
    G: Future<Output = Result<()>> + Send + 'static,
{
    let mut on_their_way: JoinSet<Result<Duration>> = JoinSet::new();
    let mut pace = Pace { groups, last: Instant::now() };
    let mut start = |on_their_way: &mut JoinSet<Result<Duration>>| {
        let (group, asked) = (ask(), Instant::now());
        on_their_way.spawn(async move {
            group.await?;
            Ok(asked.elapsed())
        });
        asked
    };
    for _ in 0..groups {
        pace.last = start(&mut on_their_way);
    }
    while let Some(whole) = on_their_way.join_next().await {
        let whole = whole??;
        if Instant::now() < until {
            // The runtime's timers are good to a millisecond, a sleeping thread to a tenth.
            std::thread::sleep(pace.next(whole).saturating_duration_since(Instant::now()));
            pace.last = start(&mut on_their_way);
        }
    }
    Ok(())
}

/// Of so many groups on their way, when the last one was asked for.
struct Pace {
    groups: u32,
    last: Instant,
}

impl Pace {
    /// From when on the next may be asked for, behind one that was answered after so long: half of what is between them where each has its turn, so that nobody
    /// is held back then.
    fn next(&self, whole: Duration) -> Instant {
        self.last + whole / (2 * self.groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_core::PartitionId;

    fn partition(ahead: u32, lead: Duration) -> PartitionInfo {
        PartitionInfo { id: PartitionId(0), units: 1, ahead, lead, aside: false }
    }

    #[test]
    fn a_device_is_handed_as_many_groups_as_it_takes_where_they_are_shorter_than_their_way() {
        let us = Duration::from_micros;
        let card = partition(3, us(1000));
        assert_eq!([at_once(&card, us(280)), at_once(&card, us(1000)), at_once(&card, us(1001))], [3, 3, 2]);
        let cpu = partition(2, Duration::ZERO);
        assert_eq!([at_once(&cpu, us(50)), at_once(&partition(1, Duration::ZERO), us(50))], [2, 2]);
    }

    const TAKES: Duration = Duration::from_millis(8);
    /// From the end of a launch to what follows its groups.
    const WAY: Duration = Duration::from_micros(80);

    /// How many groups each launch has of an engine that launches two at once at first, then all that waits, or comes soon where nobody does.
    fn sizes(launches: usize, next: impl Fn(&Pace, Duration) -> Instant) -> Vec<usize> {
        let begin = Instant::now();
        let mut pace = Pace { groups: 2, last: begin };
        let (mut now, mut waiting) = (begin, vec![begin; 2]);
        let launch = |_| {
            let first = *waiting.iter().min().unwrap();
            let begins = if first <= now { now } else { first + TAKES / 8 };
            now = begins + TAKES;
            let launched: Vec<Instant> = waiting.extract_if(.., |asked| *asked <= begins).collect();
            for asked in &launched {
                pace.last = (now + WAY).max(next(&pace, now - *asked));
                waiting.push(pace.last);
            }
            launched.len()
        };
        (0..launches).map(launch).collect()
    }

    #[test]
    fn groups_that_were_launched_as_one_part_again() {
        let mut apart = vec![1; 12];
        apart[0] = 2;
        assert_eq!(sizes(12, Pace::next), apart, "both came at once at first");
        assert_eq!(sizes(12, |pace, _| pace.last), [2; 12], "at once they would stay together");
    }

    #[test]
    fn groups_that_are_answered_at_once_are_not_followed_at_once() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        let mut asked = Vec::new();
        let group = || {
            asked.push(Instant::now());
            let number = asked.len();
            async move {
                match number {
                    1 | 2 => tokio::time::sleep(TAKES).await,
                    3 => std::future::pending().await,
                    _ => anyhow::bail!("that is all"),
                }
                Ok(())
            }
        };
        runtime.block_on(take(2, Instant::now() + Duration::from_secs(3600), group)).unwrap_err();
        // It holds however busy the machine is: nobody sleeps for less than was said.
        assert!(asked[3] - asked[2] >= TAKES / 4, "{:?}", asked[3] - asked[2]);
    }
}
