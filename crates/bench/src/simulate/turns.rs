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
    let mut last = Instant::now();
    let mut start = |on_their_way: &mut JoinSet<Result<Duration>>, apart: Duration| {
        // The runtime's timers are good to a millisecond, a sleeping thread to a tenth.
        std::thread::sleep((last + apart).saturating_duration_since(Instant::now()));
        last = Instant::now();
        let (asked, group) = (last, ask());
        on_their_way.spawn(async move {
            group.await?;
            Ok(asked.elapsed())
        });
    };
    (0..groups).for_each(|_| start(&mut on_their_way, Duration::ZERO));
    while let Some(whole) = on_their_way.join_next().await {
        let whole = whole??;
        if Instant::now() < until {
            // Half of what is between them where each has its turn: then nobody is held back.
            start(&mut on_their_way, whole / (2 * groups));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};
    use tessera_core::PartitionId;
    use tokio::sync::oneshot;

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

    /// An engine that launches two at once at first, then all that waits, or comes at once where nobody does, and tells how many each launch had.
    fn merging(takes: Duration) -> (Sender<oneshot::Sender<()>>, std::thread::JoinHandle<Vec<usize>>) {
        let (ask, asked) = channel::<oneshot::Sender<()>>();
        let engine = std::thread::spawn(move || {
            let mut sizes = Vec::new();
            loop {
                let waits = asked.try_recv().ok();
                let Some(first) = waits.or_else(|| {
                    let comes = asked.recv().ok();
                    std::thread::sleep(takes / 8);
                    comes
                }) else {
                    return sizes;
                };
                let second = if sizes.is_empty() { asked.recv().ok() } else { None };
                let launched: Vec<_> = std::iter::once(first).chain(second).chain(asked.try_iter()).collect();
                std::thread::sleep(takes);
                sizes.push(launched.len());
                launched.into_iter().for_each(|group| _ = group.send(()));
            }
        });
        (ask, engine)
    }

    #[test]
    fn groups_that_were_launched_as_one_part_again() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let (ask, engine) = merging(Duration::from_millis(4));
        let group = || {
            let (reply, answered) = oneshot::channel();
            ask.send(reply).unwrap();
            async move { Ok(answered.await?) }
        };
        runtime.block_on(take(2, Instant::now() + Duration::from_millis(300), group)).unwrap();
        drop(ask);
        let sizes = engine.join().unwrap();
        let alone = sizes.iter().filter(|size| **size == 1).count();
        // On a busy machine some meet again, and part again.
        assert!(sizes[0] == 2 && 2 * alone > sizes.len(), "both came at once at first: {sizes:?}");
    }
}
