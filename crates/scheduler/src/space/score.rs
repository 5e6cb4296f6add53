//! What a partition would make of the classes that run on it: the part of their requests that is answered in time, predicted.
//!
//! ```text
//!   rates, costs ─▶ how large launches get ─▶ load ρ ───────────────────────────▶ served = min(1, 0.9 / ρ)
//!                                           └▶ a launch of q that is longer than p's slack blocks p for the rest ─▶ p in time
//!                                                   └▶ but where q stands back for p, as often as q bears it
//! ```
//! While a launch of class *q* runs that takes longer than a request of *p* can wait, whatever of *p* comes in its first part is
//! late: that is the time `cost(q) − (allowed(p) − cost(p))` of every launch of *q*. It is what sharing a line costs a class with a tight SLO, and what a
//! partition of its own spares it; what the partition costs is that everything takes longer on a part of the device. Both are seconds out of measured costs,
//! so they can be compared.
//!
//! On a device that yields, *q* stands back for *p* at the end of a segment (`express`), where segment and launch together are in time for *p* and *q* bears them: all of
//! them together no more than its own cost, nor than what is left of its slack, which is half of it on average when it is launched. So of what comes in that
//! time as many are in time as that divides into; as many as all, mostly. What else is promised behind *q* may bear less, which is not looked at.
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
    /// Per size of partition: seconds of the longest segment, after which a launch stands back; none where it does not, or never told.
    pub(super) segments: Vec<Option<f64>>,
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

    /// For what part of so many launches, that take `each` and are allowed so long, a launch of this class stands back.
    fn stands_back(&self, cost: f64, place: usize, (delays, each): (f64, f64), allowed: f64) -> f64 {
        let Some(segment) = self.segments[place] else { return 0.0 };
        let delay = segment + each;
        let bears = self.allowed.map_or(cost, |own| cost.min((own - cost) / 2.0));
        if delay > allowed.min(bears) {
            return 0.0;
        }
        (bears / (delays * delay).max(f64::MIN_POSITIVE)).min(1.0)
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
        let others = launches.iter().zip(classes).enumerate().filter(|(other, _)| *other != number);
        let blocks = |(_, (&(often, cost), other)): (usize, (&(f64, f64), &&Class))| {
            let blocked = (cost - slack).max(0.0);
            let delays = launches[number].0 * blocked;
            often * blocked * (1.0 - other.stands_back(cost, place, (delays, launches[number].1), allowed))
        };
        let blocked: f64 = others.map(blocks).sum();
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
        Class { per_second, allowed, costs: vec![costs(1.0), costs(2.0)], segments: vec![None; 2] }
    }

    fn yields(class: Class, segment: f64) -> Class {
        Class { segments: vec![Some(segment); 2], ..class }
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
    fn a_long_launch_that_stands_back_blocks_nobody_whom_it_bears() {
        let light = class(100.0, Some(0.02), 0.001);
        let heavy = |allowed| class(5.0, allowed, 0.05);
        for allowed in [Some(1.0), None] {
            let together = in_time(&[&light, &yields(heavy(allowed), 0.002)], 0);
            assert!((together - 105.0).abs() < 1e-9, "3 of 3 ms each, and it bears 50: {together}");
        }
        let blocked = in_time(&[&light, &heavy(Some(1.0))], 0);
        let slow = in_time(&[&light, &yields(heavy(Some(1.0)), 0.0195)], 0);
        assert_eq!(slow, blocked, "whose segments are too long for who is urgent");
        let tight = || class(5.0, Some(0.055), 0.05);
        let with = |heavy| in_time(&[&light, &heavy], 0);
        assert_eq!(
            with(yields(tight(), 0.002)),
            with(tight()),
            "which has 5 ms of slack and does not bear 3"
        );
    }

    #[test]
    fn a_launch_stands_back_as_often_as_it_bears() {
        // In the 32 ms of a launch that are too long come four of 1.7 ms, each behind a segment of 2: 15 ms, and it bears 10, half of its slack.
        let light = class(1_000.0, Some(0.02), 0.0005);
        let heavy = class(5.0, Some(0.07), 0.05);
        let blocked = in_time(&[&light, &heavy], 0);
        let standing = in_time(&[&light, &yields(heavy, 0.002)], 0);
        let spared = (standing - blocked) / (1_005.0 - blocked);
        assert!((spared - 0.68).abs() < 0.01, "{spared} of {}", 1_005.0 - blocked);
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
