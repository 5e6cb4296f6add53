//! What a partition would make of the classes that run on it: the part of their requests that is answered in time, predicted.
//!
//! ```text
//!   rates, costs ─▶ how large launches get ─▶ load ρ ───────────────────────────▶ served = min(1, 0.9 / ρ)
//!                                           └▶ a launch of q that is longer than p's slack blocks p for the rest ─▶ p in time
//! ```
//! Here a launch cannot be stopped, though on a device that yields it stands back for a promise that could not be kept else (`express`): how often the deadlines of those
//! behind it bear that is not known beforehand, so a partition of its own is rated for a class as if nothing yielded, that is rather too high than too low. So while one of class *q* runs that takes longer than a request of *p* can wait, whatever of *p* comes in its first part is
//! late: that is the time `cost(q) − (allowed(p) − cost(p))` of every launch of *q*. It is what sharing a line costs a class with a tight SLO, and what a
//! partition of its own spares it; what the partition costs is that everything takes longer on a part of the device. Both are seconds out of measured costs,
//! so they can be compared.
//!
//! An estimate, that decides which layout is tried and nothing else: promises are proven by their lines (`promises`).

/// Load above which waiting grows without bound, as requests do not come evenly.
const FULL: f64 = 0.9;

/// How long a round of launches may be: the shortest, and longer by this factor each time.
const GROWTH: f64 = 1.5;
const ROUNDS: usize = 12;

/// A plan as a layout is judged by it.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Class {
    /// Requests.
    pub(super) per_second: f64,
    /// Seconds from arrival to deadline; none for best effort.
    pub(super) allowed: Option<f64>,
    /// Per size of partition: seconds that launches of 1, 2, 4, … lanes take, a request in each.
    pub(super) costs: Vec<Vec<f64>>,
}

impl Class {
    /// Seconds of a launch of so many lanes.
    fn cost(&self, place: usize, lanes: f64) -> f64 {
        let costs = &self.costs[place];
        let octave = lanes.max(1.0).log2().min((costs.len() - 1) as f64);
        let (below, above) = (octave.floor() as usize, octave.ceil() as usize);
        costs[below] + (costs[above] - costs[below]) * (octave - octave.floor())
    }

    /// Most lanes of a launch that leaves half of the time allowed for waiting.
    fn most_lanes(&self, place: usize) -> f64 {
        let costs = &self.costs[place];
        let fits = |cost: &f64| self.allowed.is_none_or(|allowed| *cost <= allowed / 2.0);
        let octaves = costs.iter().take_while(|cost| fits(cost)).count().saturating_sub(1);
        (1u32 << octaves).into()
    }
}

/// What a partition would do.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Outlook {
    /// Requests in time per second.
    pub(super) in_time: f64,
    /// The part of its time that it computes; above 1 where it cannot keep up.
    pub(super) load: f64,
}

/// What a partition of the size numbered `place` would do for these classes.
pub(super) fn outlook(classes: &[&Class], place: usize) -> Outlook {
    let launches = launches(classes, place);
    let load = load(&launches);
    let served = (FULL / load.max(1e-9)).min(1.0);
    let of_class = |(number, class): (usize, &&Class)| {
        let Some(allowed) = class.allowed else { return class.per_second * served };
        let slack = allowed - launches[number].1;
        if slack < 0.0 {
            return 0.0;
        }
        let others = launches.iter().enumerate().filter(|(other, _)| *other != number);
        let blocked: f64 = others.map(|(_, (often, cost))| often * (cost - slack).max(0.0)).sum();
        class.per_second * served * (1.0 - blocked).max(0.0)
    };
    Outlook { in_time: classes.iter().enumerate().map(of_class).sum(), load }
}

/// Launches per second of each class, and seconds that each takes: every class in turn, in the shortest round that takes in all that comes during it, or
/// as large as their deadlines allow.
fn launches(classes: &[&Class], place: usize) -> Vec<(f64, f64)> {
    let sized = |round: f64| -> Vec<(f64, f64)> {
        let lanes = |class: &Class| (class.per_second * round).clamp(1.0, class.most_lanes(place));
        let launch = |class: &&Class| {
            let lanes = lanes(class);
            (class.per_second / lanes, class.cost(place, lanes))
        };
        classes.iter().map(launch).collect()
    };
    let shortest = classes.iter().map(|class| class.cost(place, 1.0)).sum();
    let rounds = std::iter::successors(Some(shortest), |round: &f64| Some(round * GROWTH)).take(ROUNDS);
    let mut tried = rounds.map(sized);
    let first = tried.next().unwrap_or_default();
    if load(&first) <= FULL {
        return first;
    }
    tried.reduce(|before, next| if load(&before) <= FULL { before } else { next }).unwrap_or(first)
}

/// The part of its time that a partition computes.
fn load(launches: &[(f64, f64)]) -> f64 {
    launches.iter().map(|(often, cost)| often * cost).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_time(classes: &[&Class], place: usize) -> f64 {
        outlook(classes, place).in_time
    }

    /// Takes `seconds` on the whole device, twice as long on half of it, and half as much again for each doubling of lanes.
    fn class(per_second: f64, allowed: Option<f64>, seconds: f64) -> Class {
        let costs = |stretch: f64| (0..4).map(|octave| seconds * stretch * 1.5f64.powi(octave)).collect();
        Class { per_second, allowed, costs: vec![costs(1.0), costs(2.0)] }
    }

    #[test]
    fn a_class_alone_is_in_time_until_the_partition_is_full() {
        let easy = class(10.0, Some(0.1), 0.01);
        assert!((in_time(&[&easy], 0) - 10.0).abs() < 1e-9);
        let too_much = class(10_000.0, Some(0.1), 0.01);
        let served = in_time(&[&too_much], 0);
        assert!((200.0..400.0).contains(&served), "eight in 34 ms, {served}");
    }

    #[test]
    fn a_long_launch_blocks_those_that_cannot_wait_for_it() {
        let light = class(100.0, Some(0.02), 0.001);
        let heavy = class(5.0, Some(1.0), 0.05);
        let together = in_time(&[&light, &heavy], 0);
        let apart = in_time(&[&light], 1) + in_time(&[&heavy], 1);
        // Five times a second 50 ms, of which all but the last 19 are too long.
        assert!((together - (5.0 + 100.0 * (1.0 - 5.0 * 0.031))).abs() < 1.0, "{together}");
        assert!(apart > 104.9, "{apart}");
    }

    #[test]
    fn best_effort_waits_for_anything() {
        let patient = class(10.0, None, 0.001);
        let heavy = class(5.0, None, 0.05);
        assert!((in_time(&[&patient, &heavy], 0) - 15.0).abs() < 1e-9);
    }

    #[test]
    fn what_cannot_be_in_time_there_is_not() {
        assert_eq!(in_time(&[&class(10.0, Some(0.015), 0.01)], 1), 0.0);
    }
}
