//! Points of the curves: the median of launches of one size.

use super::asking::{Asker, Together};
use super::{ITEMS, LEAST_MS, median, ms};
use crate::simulate::recorder::Ran;
use crate::simulate::slow::Slow;
use crate::simulate::turns;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};
use tessera_scheduler::Size;

/// How often a model's requests are sent to an idle device, one by one and several at once.
const ALONE: usize = 100;
const TOGETHER: usize = 20;

/// A point of fewer launches is left out.
pub(super) const FEWEST: usize = 5;

/// How often a point is tried that had too few.
const TRIES: usize = 8;

/// What was measured of a model: `[count, ms]` each.
#[derive(Default)]
pub(super) struct Points {
    pub(super) lanes: Vec<(f64, f64)>,
    pub(super) items: Vec<(f64, f64)>,
    /// Of whole launches on an idle device, from their submission to word of their end.
    pub(super) turnaround: Vec<(f64, f64)>,
    pub(super) gap: Vec<(f64, f64)>,
}

/// A launch's time on the device, and what lay between it and the one before, in milliseconds.
#[derive(Clone, Copy)]
struct Point {
    took: f64,
    gap: Option<f64>,
}

/// A launch on an idle device, in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Idle {
    /// On the device.
    took: f64,
    /// From its submission to word of its end.
    whole: f64,
}

impl Idle {
    /// The typical one.
    fn of<'a>(ran: impl Iterator<Item = &'a Ran> + Clone) -> Idle {
        let took = median(ran.clone().map(|ran| ms(ran.took)).collect());
        Idle { took, whole: median(ran.map(|ran| ms(ran.heard - ran.submitted)).collect()) }
    }
}

/// What launches of a model take on an idle device, by count.
type ByCount = Vec<(usize, Idle)>;

/// Of the largest launch that is no larger than this.
fn up_to(idle: &ByCount, count: usize) -> Option<Idle> {
    idle.iter().rev().find(|(of, _)| *of <= count).map(|(_, idle)| *idle)
}

/// What was seen beside the points.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) way_in: Vec<Duration>,
    pub(super) way_out: Vec<Duration>,
    pub(super) gaps: Vec<f64>,
    pub(super) slow: Slow,
}

impl Asker<'_> {
    /// The points of each model, and what was seen beside them.
    pub(super) fn points(&self) -> Result<(Vec<Points>, Seen)> {
        let mut seen = Seen::default();
        let mut points: Vec<Points> = self.programs.iter().map(|_| Points::default()).collect();
        self.groups(
            Together::Lanes(1),
            turns::at_once(&self.partition, Duration::ZERO),
            self.options.length / 2,
        )?;
        self.log.take();
        let mut idle: Vec<ByCount> = Vec::with_capacity(points.len());
        for (model, points) in points.iter_mut().enumerate() {
            let mut here = vec![(1, self.alone(model, &mut seen)?)];
            for count in counts(self.most).into_iter().filter(|count| *count > 1) {
                here.extend(self.all_at_once(model, count)?.map(|idle| (count, idle)));
            }
            points.turnaround.extend(here.iter().map(|(count, idle)| (*count as f64, idle.whole)));
            idle.push(here);
        }
        for count in counts(self.most) {
            let lanes = self.point(Together::Lanes(count), &idle, &mut seen)?;
            // One lane of one item begins both curves.
            let items = match count {
                1 => lanes.clone(),
                _ => self.point(Together::Items(count), &idle, &mut seen)?,
            };
            for (number, points) in points.iter_mut().enumerate() {
                // On a busy machine the engine may never launch two groups that come together one by one: then as on an idle device.
                let alone = idle[number].iter().find(|(of, _)| *of == count);
                let alone = alone.map(|(_, Idle { took, .. })| Point { took: *took, gap: None });
                let at = |ms: f64| (count as f64, ms);
                let (lanes, items) =
                    (lanes[number].or(alone), items[number].or(alone.filter(|_| count == 1)));
                points.lanes.extend(lanes.map(|point| at(point.took)));
                points.items.extend(items.map(|point| at(point.took)));
                points.gap.extend(lanes.and_then(|point| point.gap).map(|gap| at(gap.max(LEAST_MS))));
            }
        }
        for count in counts(ITEMS as usize).into_iter().filter(|count| *count > self.most) {
            // Larger ones are on a line with the last, where launches are so long that a point of them would take for ever, or are not made.
            let short = |points: &Points| points.items.last().is_some_and(|(_, took)| self.fits(*took));
            if !points.iter().all(short) {
                break;
            }
            let items = self.point(Together::Items(count), &idle, &mut seen)?;
            if items.iter().any(Option::is_none) {
                break;
            }
            for (points, item) in points.iter_mut().zip(items) {
                points.items.extend(item.map(|point| (count as f64, point.took)));
            }
        }
        Ok((points, seen))
    }

    /// Whether a point of launches twice as long as this, in milliseconds, is measured within its time.
    fn fits(&self, took: f64) -> bool {
        2.0 * took * FEWEST as f64 <= ms(self.options.length)
    }

    /// Requests to an idle device, one by one: what the way takes.
    fn alone(&self, model: usize, seen: &mut Seen) -> Result<Idle> {
        let rounds = self.rounds(model, Together::Lanes(1), ALONE)?;
        for (due, end, ran) in &rounds {
            ensure!(ran.len() == 1, "{} launches of one request alone", ran.len());
            for Ran { submitted, heard, .. } in ran {
                seen.way_in.push(*submitted - *due);
                seen.way_out.push(*end - *heard);
            }
        }
        Ok(Idle::of(rounds.iter().flat_map(|(.., ran)| ran)))
    }

    /// So many tenants' requests to an idle device, all at once; none where the engine did not launch them together.
    fn all_at_once(&self, model: usize, count: usize) -> Result<Option<Idle>> {
        let rounds = self.rounds(model, Together::Lanes(count), TOGETHER)?;
        // What was launched behind another one waited for it.
        let firsts = rounds.iter().filter_map(|(.., ran)| ran.first());
        let whole = firsts.filter(|ran| ran.size == Together::Lanes(count).size());
        Ok((whole.clone().count() >= FEWEST).then(|| Idle::of(whole)))
    }

    /// The point of each model; none where the engine did not make such launches.
    fn point(&self, together: Together, idle: &[ByCount], seen: &mut Seen) -> Result<Vec<Option<Point>>> {
        let Size { items, .. } = together.size();
        let alone: Vec<Idle> = idle.iter().filter_map(|idle| up_to(idle, items as usize)).collect();
        let longest = alone.iter().map(|idle| idle.took).fold(0.0, f64::max);
        let groups = turns::at_once(&self.partition, Duration::from_secs_f64(longest / 1e3));
        let mut of_size: Vec<Vec<f64>> = vec![Vec::new(); self.programs.len()];
        let mut gaps: Vec<Vec<f64>> = vec![Vec::new(); self.programs.len()];
        let mut meant: Vec<(usize, Instant, f64)> = Vec::new();
        // Where both groups come together, as on a busy machine, launches are larger than was meant: then it takes longer.
        for _ in 0..TRIES {
            self.groups(together, groups, self.options.length * self.programs.len() as u32)?;
            let ran = self.log.take();
            let model_of = |ran: &Ran| self.programs.iter().position(|other| *other == ran.program);
            let as_meant = |ran: &Ran| ran.size == together.size();
            for here in ran.iter().filter(|ran| as_meant(ran)) {
                let (took, model) = (&here.took, model_of(here));
                meant.extend(model.map(|model| (model, here.submitted, ms(*took))));
                model.into_iter().for_each(|model| of_size[model].push(ms(*took)));
            }
            for two in ran.windows(2) {
                // Two groups that follow each other as was meant: the second waited while the first was computed. Where both came together in a larger launch nobody did,
                // and what lies between is the way out and in again.
                let Some(model) = model_of(&two[1]).filter(|_| two.iter().all(as_meant)) else { continue };
                if self.was_there(two, alone[model]) {
                    gaps[model].push(ms((two[1].heard - two[0].heard).saturating_sub(two[1].took)));
                }
            }
            if of_size.iter().all(|times| times.len() >= FEWEST) {
                break;
            }
        }
        seen.gaps.extend(gaps.iter().flatten());
        let enough = |times: Vec<f64>| (times.len() >= FEWEST).then(|| median(times));
        let points = of_size.into_iter().zip(gaps);
        let points = points.map(|(times, gaps)| Some(Point { took: enough(times)?, gap: enough(gaps) }));
        let points: Vec<Option<Point>> = points.collect();
        let ratio = |(model, at, ms): (usize, Instant, f64)| Some((at, ms / points[model]?.took));
        seen.slow.add(meant.into_iter().filter_map(ratio));
        Ok(points)
    }

    /// Whether the second of two launches was on the device when the first of them ended: where copies run beside kernels, its way may be over by then.
    fn was_there(&self, two: &[Ran], idle: Idle) -> bool {
        let way = Duration::from_secs_f64((idle.whole - idle.took).max(0.0) / 1e3);
        self.partition.lead.is_zero() || two[1].submitted + way <= two[0].heard
    }
}

/// 1, 2, 4, …, and the most itself; and one more than each. A device that computes 4 items for 3 takes a step there, and is on a line from 3 to 4.
fn counts(most: usize) -> Vec<usize> {
    let doubled = std::iter::successors(Some(1), |count| Some(count * 2)).take_while(|count| *count < most);
    let mut counts: Vec<usize> =
        doubled.flat_map(|count| [count, count + 1]).filter(|count| *count < most).collect();
    counts.push(most);
    counts.dedup();
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_doubled_with_what_follows_each_up_to_the_most_and_end_with_it() {
        assert_eq!(counts(1), [1]);
        assert_eq!(counts(2), [1, 2]);
        assert_eq!(counts(6), [1, 2, 3, 4, 5, 6]);
        assert_eq!(counts(12), [1, 2, 3, 4, 5, 8, 9, 12]);
    }
}
