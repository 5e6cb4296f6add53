//! What the benches that have commands of their own say of their claims: one place each for the claim, the verdict and the picture.

use super::made::{Claim, Figure, Verdict, drawn};
use super::plot::Plot;
use super::{figure7, goodput, isolation, mixed, table1};
use crate::tenants::{self, residency::Residency};
use tessera_core::Policy;

impl Figure for table1::Report {
    const CLAIM: Claim = Claim {
        title: "Table 1: merging the same product of many tenants",
        source: "paper, §4.1; V100, fp32",
        says: "merged, R products have more throughput than under the next best scheduler: geometric mean over 2 ≤ R ≤ 120 2.48x for an RNN's matrix-vector product, 3.23x for a convolution of \
               ResNet-18, 4.93x for a square matrix",
        refuted: "a gain of about 1 in any of the three",
    };

    fn verdict(&self) -> Verdict {
        let strict = self.gains.iter().filter(|gain| gain.precision == "fp32");
        let gains: Vec<(&str, f64, f64)> =
            strict.filter_map(|gain| Some((gain.shape, gain.geomean?, gain.paper.geomean))).collect();
        if gains.is_empty() {
            return Verdict::Undecided("fp32 was not measured".to_owned());
        }
        let told = gains.iter().map(|(shape, ours, paper)| format!("{shape} {ours:.2}x (paper {paper:.2}x)"));
        let because = format!("Over the next best scheduler, fp32: {}.", told.collect::<Vec<_>>().join(", "));
        Verdict::of(gains.iter().all(|(_, ours, _)| *ours > 1.1), because)
    }

    fn pictures(&self) -> Vec<String> {
        let line = |rows: &[super::products::Row]| {
            let first = rows.first()?;
            let gain = |row: &super::products::Row| {
                Some((row.tenants as f64, row.next_best()?.over_super_kernel.as_ref()?.median))
            };
            Some((first.shape.to_owned(), rows.iter().filter_map(gain).collect::<Vec<_>>()))
        };
        let strict =
            self.sheet.groups().filter(|rows| rows.first().is_some_and(|row| row.precision == "fp32"));
        drawn([Plot {
            title: "Next best scheduler's time over the merged product's, fp32".to_owned(),
            x: "tenants".to_owned(),
            y: "times".to_owned(),
            mark: Some((1.0, "no gain".to_owned())),
            lines: strict.filter_map(line).collect(),
        }])
    }
}

impl Figure for figure7::Report {
    const CLAIM: Claim = Claim {
        title: "Figure 7: throughput of a merged convolution by number of tenants",
        source: "paper, §4.1; V100, fp32",
        says: "throughput by merging grows up to what the card can do; side by side on streams it stays far below (3.23x by geometric mean), one after the other it does not grow (7.71x)",
        refuted: "streams reaching the merged product at 10 tenants or more, or a merged product below 70 % of the floor at 32 and more",
    };

    fn verdict(&self) -> Verdict {
        let Some(strict) = self.curves.iter().find(|curves| curves.precision == "fp32") else {
            return Verdict::Undecided("fp32 was not measured".to_owned());
        };
        let many = strict.points.iter().filter(|point| point.tenants >= 10);
        let gains = |theirs: fn(&figure7::Point) -> Option<f64>| -> Vec<f64> {
            strict
                .points
                .iter()
                .filter(|point| point.tenants >= 2)
                .filter_map(|point| Some(point.super_kernel? / theirs(point)?))
                .collect()
        };
        let mean = |ratios: &[f64]| crate::spread::geomean(ratios).unwrap_or(f64::NAN);
        let (space, time) = (gains(|point| point.space_only), gains(|point| point.time_only));
        let of_floor = strict.points.iter().filter(|point| point.tenants >= 32);
        let least = of_floor.filter_map(|point| Some(point.super_kernel? / point.most?)).reduce(f64::min);
        let below =
            many.filter_map(|point| Some(point.super_kernel? > 1.05 * point.space_only?)).all(|below| below);
        let because = format!(
            "fp32, geometric means: {:.2}x over streams (paper 3.23x), {:.2}x over one after the other (paper 7.71x); {} of the floor at 32 tenants and more.",
            mean(&space),
            mean(&time),
            least.map_or("unknown".to_owned(), |least| format!("at least {:.0} %", 100.0 * least))
        );
        Verdict::of(below && !space.is_empty() && least.is_none_or(|least| least >= 0.7), because)
    }

    fn pictures(&self) -> Vec<String> {
        let plot = |curves: &figure7::Curves| {
            let line = |name: &str, what: fn(&figure7::Point) -> Option<f64>| {
                let points =
                    curves.points.iter().filter_map(|point| Some((point.tenants as f64, what(point)?)));
                (name.to_owned(), points.collect::<Vec<_>>())
            };
            Plot {
                title: format!("{} in {}", curves.shape, curves.precision),
                x: "tenants".to_owned(),
                y: "TFLOP/s".to_owned(),
                mark: None,
                lines: vec![
                    line("super-kernel", |point| point.super_kernel),
                    line("space-only", |point| point.space_only),
                    line("time-only", |point| point.time_only),
                    line("cuBLAS batched", |point| point.cublas_batched),
                    line("floor", |point| point.most),
                ],
            }
        };
        drawn(self.curves.iter().map(plot))
    }
}

/// Ours, and the best other one, of named rates.
fn best_other<'a>(rates: impl Iterator<Item = (&'a str, f64)>) -> Option<(f64, &'a str, f64)> {
    let (mut ours, mut best) = (None, None::<(&str, f64)>);
    for (name, rate) in rates {
        if name == Policy::SpaceTime.name() {
            ours = Some(rate);
        } else if best.is_none_or(|(_, other)| rate > other) {
            best = Some((name, rate));
        }
    }
    let (name, other) = best?;
    Some((ours?, name, other))
}

impl Figure for goodput::Report {
    const CLAIM: Claim = Claim {
        title: "Goodput: the highest rate with 99 % in time",
        source: "paper, §4; measured as Clockwork (OSDI '20) and AlpaServe (OSDI '23) do",
        says: "merging tenants meets objectives at loads where the others cannot; here: at least twice the best other policy's rate, many tenants, Zipf popularity, open loop",
        refuted: "another policy with more than half of our rate",
    };

    fn verdict(&self) -> Verdict {
        let rates = self.policies.iter().map(|found| (&*found.policy, found.rate));
        let Some((ours, name, other)) = best_other(rates) else {
            return Verdict::Undecided("space-time and one other policy are needed".to_owned());
        };
        if ours == 0.0 && other == 0.0 {
            return Verdict::Undecided("no policy kept 99 % in time at the lowest rate".to_owned());
        }
        let because = format!("99 % within {} ms: ours {ours:.0}/s, {name} {other:.0}/s.", self.slo_ms);
        Verdict::of(ours >= 2.0 * other, because)
    }

    fn pictures(&self) -> Vec<String> {
        drawn([self.plot()])
    }
}

impl Figure for isolation::Report {
    const CLAIM: Claim = Claim {
        title: "Isolation: the others beside one that is loud, then slow",
        source: "paper, §2 and §4",
        says: "space-only sharing leaves tenants to each other; latencies monitored per kernel and the eviction of degraded workers keep the others as they were",
        refuted: "under space-time, the others' p99 more than 5 % above that before while one is loud, from the second second of its being slow on, or after",
    };

    fn verdict(&self) -> Verdict {
        let ours = self.policies.iter().find(|under| under.policy == Policy::SpaceTime.name());
        let Some((ours, moved)) = ours.zip(self.kept()) else {
            return Verdict::Undecided("space-time did not run".to_owned());
        };
        if let Some((first, last)) = ours.restless() {
            return Verdict::Undecided(format!(
                "the others' p99 was {first:.1} ms before any trouble, and {last:.1} ms when all was well again"
            ));
        }
        let told = ours.acts.iter().skip(1).map(|seen| format!("{} {:+.1} %", seen.act, 100.0 * seen.moved));
        let because = format!("The others' p99 under space-time: {}.", told.collect::<Vec<_>>().join(", "));
        Verdict::of(moved.is_empty(), because)
    }

    fn pictures(&self) -> Vec<String> {
        drawn([self.plot()])
    }
}

impl Figure for mixed::Report {
    const CLAIM: Claim = Claim {
        title: "Mixed: tenants of several architectures, each class with its objective",
        source: "none of the paper's: its future work (§2); ours",
        says: "classes that cannot share launches are all kept in time at rates where the baselines lose the one with the tightest objective",
        refuted: "a baseline with a higher rate, layouts below one partition by more than 5 %, or interruptions below none by as much",
    };

    fn verdict(&self) -> Verdict {
        let baselines = self.ways.iter().filter(|found| !found.way.contains(", "));
        let baselines = baselines.map(|found| (&*found.way, found.rate));
        let Some((ours, name, other)) = best_other(baselines) else {
            return Verdict::Undecided("space-time and one other policy are needed".to_owned());
        };
        let rate_of =
            |end: &str| self.ways.iter().find(|found| found.way.ends_with(end)).map(|found| found.rate);
        let (one, uninterrupted) = (rate_of(", whole").unwrap_or_default(), rate_of(", uninterrupted"));
        if ours.max(other).max(one) == 0.0 {
            return Verdict::Undecided(
                "no policy kept 99 % of every class in time at the lowest rate".to_owned(),
            );
        }
        let without = uninterrupted.map(|rate| format!(", {rate:.0}/s there without interruptions"));
        let because = format!(
            "99 % of every class in time: ours {ours:.0}/s ({one:.0}/s on one partition{}), the best baseline ({name}) {other:.0}/s.",
            without.unwrap_or_default()
        );
        let gains = uninterrupted.is_none_or(|rate| one >= 0.95 * rate);
        Verdict::of(ours >= other && ours >= 0.95 * one && gains, because)
    }

    fn pictures(&self) -> Vec<String> {
        drawn([self.plot()])
    }
}

impl Figure for tenants::Report {
    const CLAIM: Claim = Claim {
        title: "Whole models: many tenants under every policy",
        source: "paper, abstract: 3.23x over space-only, 7.73x over time-only (for convolutions)",
        says: "merged, whole models of many tenants have more throughput than one after the other or side by side",
        refuted: "time or space within 5 % of space-time, or above it",
    };

    fn verdict(&self) -> Verdict {
        let sharing = self.policies.iter().filter(|row| row.policy != Policy::Exclusive.name());
        let rates = sharing.map(|row| (row.policy, row.inferences_per_s.median));
        let Some((ours, name, other)) = best_other(rates) else {
            return Verdict::Undecided("space-time and one other policy are needed".to_owned());
        };
        let because = format!(
            "{} tenants of {} in {}: ours {ours:.0} inferences/s, {name} {other:.0}: {:.2}x.",
            self.tenants,
            self.model,
            self.precision,
            ours / other
        );
        Verdict::of(ours > 1.05 * other, because)
    }

    fn pictures(&self) -> Vec<String> {
        let line = |row: &tenants::PolicyReport| {
            let rounds = row.inferences_per_s.rounds.iter().enumerate();
            (row.policy.to_owned(), rounds.map(|(number, rate)| ((number + 1) as f64, *rate)).collect())
        };
        drawn([Plot {
            title: format!("{} tenants of {} in {}", self.tenants, self.model, self.precision),
            x: "round".to_owned(),
            y: "inferences per second".to_owned(),
            mark: None,
            lines: self.policies.iter().map(line).collect(),
        }])
    }
}

impl Figure for Residency {
    const CLAIM: Claim = Claim {
        title: "Residency: tenants that come while others are served",
        source: "none of the paper's; ours",
        says: "loading tenants does not disturb those that are served, and memory comes back when all are gone",
        refuted: "a p99 more than half above what it was while tenants load, or a byte of weights left",
    };

    fn verdict(&self) -> Verdict {
        let [before, during, _] = self.phases.as_slice() else {
            return Verdict::Undecided("a phase is missing".to_owned());
        };
        let because = format!(
            "p99 of {} tenants {:.2} ms before and {:.2} ms while {} more were loaded; {} bytes of weights left at the end.",
            self.tenants,
            before.p99_ms,
            during.p99_ms,
            self.loads_ms.len(),
            self.left_weights_bytes
        );
        Verdict::of(during.p99_ms <= 1.5 * before.p99_ms && self.left_weights_bytes == 0, because)
    }

    fn pictures(&self) -> Vec<String> {
        let line = |name: &str, what: fn(&tenants::residency::Phase) -> f64| {
            let phases = self.phases.iter().enumerate();
            (name.to_owned(), phases.map(|(number, phase)| ((number + 1) as f64, what(phase))).collect())
        };
        drawn([Plot {
            title: format!("{} tenants of {}: before, while tenants load, after", self.tenants, self.model),
            x: "phase".to_owned(),
            y: "ms".to_owned(),
            mark: None,
            lines: vec![line("p50", |phase| phase.p50_ms), line("p99", |phase| phase.p99_ms)],
        }])
    }
}
