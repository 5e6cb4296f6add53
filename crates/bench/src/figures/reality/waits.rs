//! What requests of a real run waited for: the slowest of a hundred beside all.
//!
//! ```text
//!   due ─late─▶ sent ─queued─▶ handed over ─behind─▶ the launch before is over ─way, computing─▶ heard of ─answer─▶ answered
//! ```
//! Launches know slots and not requests. But requests of a tenant are launched in the order in which they come, so those that were answered and the places in
//! launches that carry its slot belong to each other one by one; a tenant of whom there are not as many of both is left out.

use crate::figures::still::Still;
use crate::load::{Ended, Sample};
use crate::simulate::{Launched, Launches};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;
use tessera_core::SlotId;

/// One of so many is among the slowest.
const OF: usize = 100;

/// The parts of a time, in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Waits {
    /// Until it was sent: the load generator's own fault.
    pub late_ms: f64,
    /// Until its launch was handed to the device.
    pub queued_ms: f64,
    /// Behind launches that the device had.
    pub behind_ms: f64,
    /// To the device and back.
    pub way_ms: f64,
    /// On the device.
    pub computing_ms: f64,
    /// From word of the launch's end to the answer.
    pub answer_ms: f64,
}

/// What was seen of a real run beside its latencies.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Watched {
    /// Of the slowest, on average.
    pub slowest: Waits,
    /// Of all.
    pub all: Waits,
    /// By how much a thread beside them overslept: 999 of 1,000 times no more than this.
    pub overslept_p999_ms: f64,
    /// And at most.
    pub overslept_most_ms: f64,
    /// How often in a second the host stood still.
    pub still_per_s: f64,
    /// The part of the slowest that were on their way when it did.
    pub slowest_in_still: f64,
    /// The part of all.
    pub all_in_still: f64,
}

/// What is known of a real run.
pub(crate) struct Run<'a> {
    /// Everything that was sent, from the begin of the warm-up on.
    pub(crate) samples: &'a [Sample],
    pub(crate) launches: &'a Launches,
    /// By tenant: its model's number, and its weights.
    pub(crate) seats: &'a [(usize, SlotId)],
    pub(crate) still: &'a Still,
    /// What is due before is not told of.
    pub(crate) warmup: Duration,
}

impl Watched {
    pub(crate) fn of(run: &Run<'_>) -> Watched {
        let mut all: Vec<(&Sample, Waits)> = of_each(run);
        all.retain(|(sample, _)| sample.due >= run.warmup);
        all.sort_by_key(|(sample, _)| std::cmp::Reverse(sample.latency));
        let slowest = &all[..all.len().div_ceil(OF)];
        let in_still = |of: &[(&Sample, Waits)]| {
            let met = of.iter().filter(|(sample, _)| run.still.met(sample.due, sample.due + sample.latency));
            met.count() as f64 / of.len().max(1) as f64
        };
        let Still { overslept, .. } = run.still;
        Watched {
            slowest: Waits::mean(slowest),
            all: Waits::mean(&all),
            overslept_p999_ms: ms(overslept.percentile(99.9)),
            overslept_most_ms: ms(overslept.most()),
            still_per_s: run.still.per_second(),
            slowest_in_still: in_still(slowest),
            all_in_still: in_still(&all),
        }
    }
}

/// What each answered request waited for.
fn of_each<'a>(run: &Run<'a>) -> Vec<(&'a Sample, Waits)> {
    let mut by_seat: HashMap<(usize, SlotId), Vec<(&Launched, Duration)>> = HashMap::new();
    for (launched, before) in in_order(run.launches) {
        for &(slot, requests) in &launched.lanes {
            let places = by_seat.entry((launched.model, slot)).or_default();
            places.extend((0..requests).map(|_| (launched, before)));
        }
    }
    let mut by_tenant: Vec<Vec<&Sample>> = vec![Vec::new(); run.seats.len()];
    let answered = run.samples.iter().filter(|sample| sample.ended == Ended::Answered);
    answered.for_each(|sample| by_tenant[sample.tenant].push(sample));
    let mut found = Vec::with_capacity(run.samples.len());
    for (seat, mut samples) in run.seats.iter().zip(by_tenant) {
        let places = by_seat.remove(seat).unwrap_or_default();
        if places.len() == samples.len() {
            samples.sort_by_key(|sample| sample.due + sample.lag);
            let waits = |(sample, (launched, before))| (sample, Waits::of(sample, launched, before));
            found.extend(samples.into_iter().zip(places).map(waits));
        }
    }
    found
}

/// Launches as they were handed over, each with the end of the one that was over before it.
fn in_order(launches: &Launches) -> Vec<(&Launched, Duration)> {
    let mut by_end: Vec<&Launched> = launches.ran.iter().collect();
    by_end.sort_by_key(|launched| launched.heard);
    let before = std::iter::once(Duration::ZERO).chain(by_end.iter().map(|launched| launched.heard));
    let mut launches: Vec<(&Launched, Duration)> = by_end.iter().copied().zip(before).collect();
    launches.sort_by_key(|(launched, _)| launched.at);
    launches
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Waits {
    fn of(sample: &Sample, launched: &Launched, before: Duration) -> Waits {
        let Launched { at, heard, took, .. } = *launched;
        let on_device = heard.saturating_sub(at);
        let behind = before.saturating_sub(at).min(on_device.saturating_sub(took));
        Waits {
            late_ms: ms(sample.lag),
            queued_ms: ms(at.saturating_sub(sample.due + sample.lag)),
            behind_ms: ms(behind),
            way_ms: ms(on_device.saturating_sub(took + behind)),
            computing_ms: ms(took),
            answer_ms: ms((sample.due + sample.latency).saturating_sub(heard)),
        }
    }

    fn mean(of: &[(&Sample, Waits)]) -> Waits {
        let mean = |part: fn(&Waits) -> f64| {
            of.iter().map(|(_, waits)| part(waits)).sum::<f64>() / of.len().max(1) as f64
        };
        Waits {
            late_ms: mean(|waits| waits.late_ms),
            queued_ms: mean(|waits| waits.queued_ms),
            behind_ms: mean(|waits| waits.behind_ms),
            way_ms: mean(|waits| waits.way_ms),
            computing_ms: mean(|waits| waits.computing_ms),
            answer_ms: mean(|waits| waits.answer_ms),
        }
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Waits { late_ms, queued_ms, behind_ms, way_ms, computing_ms, answer_ms } = self;
        let all = late_ms + queued_ms + behind_ms + way_ms + computing_ms + answer_ms;
        write!(
            f,
            "{all:.2} ms: sent late {late_ms:.2}, queued {queued_ms:.2}, behind others {behind_ms:.2}, \
             way {way_ms:.2}, computing {computing_ms:.2}, answer {answer_ms:.2}"
        )
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Watched { slowest, all, overslept_p999_ms, overslept_most_ms, still_per_s, .. } = self;
        writeln!(f, "{:<10}the slowest of {OF} waited {slowest}", "")?;
        writeln!(f, "{:<10}all waited {all}", "")?;
        writeln!(
            f,
            "{:<10}a thread beside them overslept {overslept_p999_ms:.2} ms (99.9 %), {overslept_most_ms:.2} at most; \
             the host stood still {still_per_s:.1} times a second, in the way of {:.0} % of the slowest and {:.1} % of all",
            "",
            100.0 * self.slowest_in_still,
            100.0 * self.all_in_still,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_scheduler::Size;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn launched(slots: &[(u64, u32)], [at, heard, took]: [u64; 3]) -> Launched {
        let items = slots.iter().map(|(_, requests)| requests).sum();
        let size = Size { lanes: slots.len() as u32, items };
        let lanes = slots.iter().map(|(slot, requests)| (SlotId(*slot), *requests)).collect();
        Launched { model: 0, size, at: ms(at), heard: ms(heard), took: ms(took), lanes }
    }

    fn sample(tenant: usize, [due, lag, latency]: [u64; 3]) -> Sample {
        Sample { tenant, due: ms(due), lag: ms(lag), latency: ms(latency), ended: Ended::Answered }
    }

    #[test]
    fn every_part_of_a_requests_time_is_told_once() {
        let ran = vec![
            launched(&[(4, 1)], [2, 12, 7]),
            launched(&[(4, 1), (5, 2)], [6, 30, 10]),
            // Of a tenant of whom one request was lost.
            launched(&[(6, 1)], [40, 45, 3]),
        ];
        let launches = Launches { items: 1.0, ran };
        let samples = [
            sample(1, [5, 0, 26]),
            sample(0, [0, 1, 13]),
            sample(1, [2, 1, 30]),
            sample(0, [3, 1, 28]),
            sample(2, [30, 0, 20]),
            sample(2, [31, 0, 20]),
        ];
        let still = Still::of(vec![(ms(25), ms(2))], ms(100));
        let seats = [(0, SlotId(4)), (0, SlotId(5)), (0, SlotId(6))];
        let run = Run { samples: &samples, launches: &launches, seats: &seats, still: &still, warmup: ms(2) };
        let mut parts = of_each(&run);
        parts.sort_by_key(|(sample, _)| sample.due);
        assert_eq!(parts.len(), 4, "{parts:?}");
        let of = |late_ms, queued_ms, behind_ms, way_ms, computing_ms, answer_ms| Waits {
            late_ms,
            queued_ms,
            behind_ms,
            way_ms,
            computing_ms,
            answer_ms,
        };
        assert_eq!(parts[0].1, of(1.0, 1.0, 0.0, 3.0, 7.0, 1.0), "on an idle device");
        assert_eq!(parts[1].1, of(1.0, 3.0, 6.0, 8.0, 10.0, 2.0), "behind the first");
        for (sample, Waits { late_ms, queued_ms, behind_ms, way_ms, computing_ms, answer_ms }) in &parts {
            let all = late_ms + queued_ms + behind_ms + way_ms + computing_ms + answer_ms;
            assert!((all - sample.latency.as_secs_f64() * 1e3).abs() < 1e-9, "{sample:?}");
        }
        let watched = Watched::of(&run);
        assert_eq!(watched.slowest, parts[1].1, "one of three, as the warm-up is left out");
        assert_eq!((watched.slowest_in_still, watched.all_in_still, watched.still_per_s), (1.0, 1.0, 10.0));
        assert!(
            watched.to_string().contains("the slowest of 100 waited 30.00 ms: sent late 1.00"),
            "{watched}"
        );
    }
}
