//! One kind of arrivals: what callers saw on the device, twice, and in the simulator, and what follows of it.

use super::known::Known;
use super::{LEAST, WITHIN, Watched};
use crate::load::Row;
use serde::Serialize;
use std::fmt;

/// What callers saw.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Seen {
    /// Requests in time per second.
    pub goodput: f64,
    /// Of answered requests, in milliseconds.
    pub p50_ms: f64,
    /// The 99th of 100.
    pub p99_ms: f64,
    /// The same percentile of each tenth of the run; empty where the run is too short for them.
    pub p99_ms_by_part: Vec<f64>,
    /// The part that was not let in.
    pub refused: f64,
    /// How late the load generator sent 99 of 100 requests at most, in milliseconds; never, in the simulator.
    pub sent_late_p99_ms: f64,
    /// Items in a launch, on average.
    pub items_per_launch: f64,
}

impl Seen {
    pub(super) fn of(row: &Row, items_per_launch: f64) -> Seen {
        let parts = &row.p99_ms_by_part;
        let enough = row.answered >= LEAST * parts.len() as u64;
        Seen {
            goodput: row.goodput,
            p50_ms: row.latency_ms.p50,
            p99_ms: row.latency_ms.p99,
            p99_ms_by_part: if enough { parts.clone() } else { Vec::new() },
            refused: (row.refused + row.expired) as f64 / row.sent.max(1) as f64,
            sent_late_p99_ms: row.send_lag_p99_ms,
            items_per_launch,
        }
    }
}

/// The same arrivals on the device and in the simulator.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Round {
    /// Decides the arrivals.
    pub seed: u64,
    /// What the device did.
    pub real: Seen,
    /// The same once more, with the same arrivals.
    pub again: Seen,
    /// What the simulator said.
    pub simulated: Seen,
    /// The same with launches as slow as those of the first real run, on a host that stands still when that one did.
    pub replayed: Seen,
    /// How much longer the first real run's launches took than the table says of their sizes, less one.
    pub launches_off: f64,
    /// What was seen of both real runs beside their latencies.
    pub watched: [Watched; 2],
}

/// What a row shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Both are as near as they should be.
    Within,
    /// One of them is not.
    NotWithin,
    /// Goodput is near enough, and the percentile is not known well enough to judge it.
    NotJudged,
}

/// One kind of arrivals.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Workload {
    /// Which.
    pub name: &'static str,
    /// With other arrivals each.
    pub rounds: Vec<Round>,
    /// Simulated over real goodput, less one; real is the mean of both runs. Of all rounds.
    pub goodput_off: f64,
    /// Simulated over real 99th percentile, less one, on average of the rounds; known as well as tenths of them agree on it.
    pub p99_off: Known,
    /// The second real 99th percentile over the first, less one, likewise: the host's part.
    pub p99_of_itself_off: Known,
    /// As `p99_off`, by the tenth in the middle instead of the whole: what struck the host in some tenths counts for nothing there.
    pub p99_middle_off: f64,
    /// With the launches' own times and the host's over the first real run's, less one: the part of `p99_off` that neither a better table nor a quieter host could mend.
    pub p99_replayed_off: f64,
    /// How much longer launches took than the table says, less one.
    pub launches_off: f64,
    /// What of it.
    pub verdict: Verdict,
}

/// One of a round's runs.
type Run = fn(&Round) -> &Seen;

fn mean(of: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = of.fold((0.0, 0.0), |(sum, count), one| (sum + one, count + 1.0));
    sum / f64::max(count, 1.0)
}

/// The one in the middle; nothing of none.
fn middle(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Round {
    fn off(&self, of: fn(&Seen) -> f64) -> f64 {
        2.0 * of(&self.simulated) / (of(&self.real) + of(&self.again)).max(1e-9) - 1.0
    }

    /// What tenths of the round say, simulated over real and the second real over the first.
    fn parts(&self) -> impl Iterator<Item = (f64, f64)> {
        let reals = self.real.p99_ms_by_part.iter().zip(&self.again.p99_ms_by_part);
        let parts = self.simulated.p99_ms_by_part.iter().zip(reals);
        parts.map(|(simulated, (real, again))| (2.0 * simulated / (real + again), again / real))
    }
}

impl Workload {
    pub(super) fn of(name: &'static str, rounds: Vec<Round>) -> Workload {
        let goodput_off = mean(rounds.iter().map(|round| round.off(|seen| seen.goodput)));
        let (parts, itself): (Vec<f64>, Vec<f64>) = rounds.iter().flat_map(Round::parts).unzip();
        let p99_off = Known {
            mean: mean(rounds.iter().map(|round| round.off(|seen| seen.p99_ms))),
            within: Known::of(&parts).within,
        };
        let over =
            |of: Run| mean(rounds.iter().map(|round| of(round).p99_ms / round.real.p99_ms.max(1e-9) - 1.0));
        let p99_of_itself_off = Known { mean: over(|round| &round.again), within: Known::of(&itself).within };
        let verdict = match (goodput_off.abs() <= WITHIN.0, p99_off.mean.abs() <= WITHIN.1) {
            (false, _) => Verdict::NotWithin,
            (true, _) if p99_off.within > WITHIN.1 => Verdict::NotJudged,
            (true, true) => Verdict::Within,
            (true, false) => Verdict::NotWithin,
        };
        Workload {
            name,
            goodput_off,
            p99_off,
            p99_of_itself_off,
            p99_middle_off: middle(parts) - 1.0,
            p99_replayed_off: over(|round| &round.replayed),
            launches_off: mean(rounds.iter().map(|round| round.launches_off)),
            verdict,
            rounds,
        }
    }

    /// Heads what rows show.
    pub(super) const HEADER: &str =
        "arrivals               goodput/s    p50 ms    p99 ms         ±   refused  sent late  items a launch";
}

/// A part in percent, and a dash where nobody can say.
fn percent(part: f64) -> String {
    if part.is_finite() { format!("{:.1}%", 100.0 * part) } else { "–".to_owned() }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: [(&str, Run); 4] = [
            ("real", |round| &round.real),
            ("again", |round| &round.again),
            ("simulated", |round| &round.simulated),
            ("replayed", |round| &round.replayed),
        ];
        for (number, (kind, seen)) in kinds.into_iter().enumerate() {
            let name = if number == 0 { self.name } else { "" };
            let of = |of: fn(&Seen) -> f64| mean(self.rounds.iter().map(|round| of(seen(round))));
            let parts: Vec<f64> =
                self.rounds.iter().flat_map(|round| seen(round).p99_ms_by_part.iter().copied()).collect();
            let known = Known::of(&parts);
            writeln!(
                f,
                "{name:<9} {kind:<10} {:>11.1} {:>9.2} {:>9.2} {:>9} {:>8.1}% {:>10.2} {:>15.2}",
                of(|seen| seen.goodput),
                of(|seen| seen.p50_ms),
                of(|seen| seen.p99_ms),
                percent(known.within / known.mean.max(1e-9)),
                100.0 * of(|seen| seen.refused),
                of(|seen| seen.sent_late_p99_ms),
                of(|seen| seen.items_per_launch),
            )?;
        }
        let verdict = match self.verdict {
            Verdict::Within => "within 5 % and 10 %",
            Verdict::NotWithin => "NOT within 5 % and 10 %",
            Verdict::NotJudged => {
                "not judged: the p99 is not known to 10 %, run longer or on a quieter machine"
            }
        };
        let Known { mean, within } = self.p99_off;
        let goodput = 100.0 * self.goodput_off;
        let line = |f: &mut fmt::Formatter<'_>, what, mean: f64, within: f64| {
            let within = if within.is_nan() { String::new() } else { percent(within) };
            let mean = if mean.is_nan() { percent(mean) } else { format!("{:+.1}%", 100.0 * mean) };
            writeln!(f, "{:<9} {:<10} {:>11} {:>9} {mean:>9} {within:>9}  {what}", "", "", "", "")
        };
        writeln!(
            f,
            "{:<9} {:<10} {goodput:>+10.1}% {:>9} {:>+8.1}% {:>9}  {verdict}",
            "",
            "off by",
            "",
            100.0 * mean,
            percent(within)
        )?;
        let itself = self.p99_of_itself_off;
        line(f, "the host: reality against itself", itself.mean, itself.within)?;
        line(f, "the tenth of a run in the middle", self.p99_middle_off, f64::NAN)?;
        let replayed = "what is left with the launches' own times, and where the host stood still";
        line(f, replayed, self.p99_replayed_off, f64::NAN)?;
        line(f, "launches' times over what the table says", self.launches_off, f64::NAN)?;
        // Of the run that was slowest: it is what there is to explain.
        let runs =
            self.rounds.iter().flat_map(|round| [&round.real, &round.again].into_iter().zip(&round.watched));
        let slowest = runs.max_by(|one, other| one.0.p99_ms.total_cmp(&other.0.p99_ms));
        slowest.map_or(Ok(()), |(_, watched)| write!(f, "{watched}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run whose tenths are a part more or less than the whole, in turn.
    fn seen(goodput: f64, p99_ms: f64, differ: f64) -> Seen {
        let part = |part: usize| p99_ms * if part.is_multiple_of(2) { 1.0 + differ } else { 1.0 - differ };
        Seen {
            goodput,
            p50_ms: 1.0,
            p99_ms,
            p99_ms_by_part: (0..10).map(part).collect(),
            refused: 0.0,
            sent_late_p99_ms: 0.0,
            items_per_launch: 1.0,
        }
    }

    fn round([real, again]: [Seen; 2], simulated: Seen) -> Round {
        let watched = Default::default();
        Round { seed: 1, replayed: simulated.clone(), launches_off: 0.0, watched, real, again, simulated }
    }

    #[test]
    fn a_row_is_within_where_goodput_and_the_percentile_are() {
        let real = || [seen(99.0, 9.0, 0.02), seen(101.0, 11.0, 0.02)];
        let verdict = |goodput, p99| Workload::of("w", vec![round(real(), seen(goodput, p99, 0.02))]).verdict;
        assert_eq!([verdict(96.0, 10.9), verdict(104.0, 9.1)], [Verdict::Within; 2]);
        assert_eq!([verdict(94.0, 10.0), verdict(100.0, 11.2), verdict(100.0, 8.8)], [Verdict::NotWithin; 3]);
        let workload = Workload::of("w", vec![round(real(), seen(100.0, 10.0, 0.02))]);
        assert!((workload.p99_of_itself_off.mean - 2.0 / 9.0).abs() < 1e-12, "{workload:?}");
        assert!((workload.p99_replayed_off - 1.0 / 9.0).abs() < 1e-12, "over the first: {workload:?}");
    }

    #[test]
    fn rounds_are_judged_by_their_mean_and_make_it_better_known() {
        let real = || [seen(100.0, 10.0, 0.0), seen(100.0, 10.0, 0.0)];
        let of = |p99: &[f64]| {
            Workload::of("w", p99.iter().map(|p99| round(real(), seen(100.0, *p99, 0.1))).collect())
        };
        let (one, three) = (of(&[11.5]), of(&[11.5, 9.0, 9.5]));
        assert_eq!([one.verdict, three.verdict], [Verdict::NotWithin, Verdict::Within]);
        assert!(three.p99_off.mean.abs() < 1e-9, "{three:?}");
        assert!((three.p99_middle_off - 0.05).abs() < 0.02, "of 0.81 to 1.265: {three:?}");
        let same = of(&[11.5; 3]);
        assert!(same.p99_off.within < 0.6 * one.p99_off.within, "{same:?} beside {one:?}");
    }

    #[test]
    fn what_all_runs_have_in_common_is_no_doubt_and_what_they_have_not_is() {
        let of = |differ: f64, simulated: f64| {
            let real = || seen(100.0, 10.0, differ);
            Workload::of("w", vec![round([real(), real()], seen(100.0, 14.0, simulated))])
        };
        let same = of(0.5, 0.5);
        assert!(same.p99_off.within < 1e-9, "{same:?}");
        assert_eq!(same.verdict, Verdict::NotWithin);
        // Tenths that say 1.4 times 0.8 and 1.2 in turn: a deviation of 0.295, over the root of ten.
        let other = of(0.0, 0.2);
        assert!((other.p99_off.within / (2.262 * 0.2951 / 10f64.sqrt()) - 1.0).abs() < 0.01, "{other:?}");
        assert_eq!(other.verdict, Verdict::NotJudged);
        let short = Seen { p99_ms_by_part: Vec::new(), ..seen(90.0, 10.0, 0.0) };
        let real = [seen(100.0, 10.0, 0.0), seen(100.0, 10.0, 0.0)];
        let short = Workload::of("w", vec![round(real, short)]);
        assert_eq!(
            (short.p99_off.within, short.verdict),
            (f64::INFINITY, Verdict::NotWithin),
            "by its goodput"
        );
        assert!(!short.to_string().contains("NaN") && !short.to_string().contains("inf"), "{short}");
    }
}
