//! Warm-up: what the cache of programs misses from a cold start on, and what a miss costs.
//!
//! **The claim** (paper, §4). Super-kernels cannot be made ahead of time, as requests arrive stochastically; "overheads gradually decrease if we cache super-kernels as workloads
//! stabilize over time".
//!
//! **The expected shape.** Ours is steeper: a program of a class serves every mix of tenants and any number of items up to its room, so what is cached is not one super-kernel per combination. What can
//! be missed is a class at a length that nobody brought before. From a cold start the first requests wait, once, for plan and program (and, where kernels are not on disk, for the compiler); from then on
//! every request hits, by construction. A new length while serving costs a plan and no compiling, and those that are served do not wait for it.
//!
//! **What would refute it.** A miss after the first answer of a length; others' p99 while a new length is made more than twice what it was, and by more than a millisecond; on a card a start from kernels
//! on disk that is no faster than one without.
//!
//! Three starts of the same: kernels nowhere; kernels on disk, from the first; and a third length that comes in the middle. Sequences through two linear layers, tenants in turn at two lengths. Every
//! answer has the bits of the tenant's first one at its length.

mod house;

use super::ask::Ask;
use super::made::{Claim, Figure, Verdict, drawn};
use super::plot::Plot;
use crate::latency::Latencies;
use crate::load;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use house::{Asked, House, LATER, LENGTHS, Served, network, serve};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use tessera_core::{Policy, TenantId};
use tessera_device::Slot;
use tessera_planner::class;
use tessera_server::backstage::Backstage;
use tessera_server::classes::ClassEntry;
use tessera_server::devices;

/// Parts of a run that are shown.
const SLICES: usize = 10;

/// The figure.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// What it ran on.
    pub device: String,
    /// How many tenants.
    pub tenants: usize,
    /// One start each.
    pub starts: Vec<Start>,
}

/// One start, and what was served after it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Start {
    /// Which.
    pub name: &'static str,
    /// Until the device was open, in milliseconds.
    pub open_ms: f64,
    /// Until the tenants' weights were on it, in milliseconds.
    pub load_ms: f64,
    /// From the first request to its answer, in milliseconds.
    pub first_answer_ms: f64,
    /// Of requests that hit, in milliseconds.
    pub p50_ms: f64,
    /// As `p50_ms`.
    pub p99_ms: f64,
    /// How long a tenth of the run is, in milliseconds.
    pub slice_ms: f64,
    /// By tenth of the run: the part of requests whose program was there, and their mean latency in milliseconds; `null` where none came.
    pub slices: Vec<Option<Slice>>,
    /// Requests that waited for a program.
    pub misses: u64,
    /// Misses at a length of which an answer had been given.
    pub late_misses: u64,
    /// The length that came later, where one did.
    pub later: Option<Later>,
}

/// A tenth of a run.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Slice {
    /// Of its requests, those whose program was there.
    pub hit_rate: f64,
    /// The mean latency of all.
    pub mean_ms: f64,
}

/// A length that came while others were served; times in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Later {
    /// Its first request, which waited for plan and program.
    pub first_ms: f64,
    /// Its second.
    pub second_ms: f64,
    /// The others' p99 before.
    pub others_before_ms: f64,
    /// The others' p99 of requests that were on their way while it was made.
    pub others_during_ms: f64,
}

/// Measures the three starts.
pub fn run(ask: &Ask, heard: &mut dyn FnMut(&str)) -> Result<Report> {
    let cache = tempfile::tempdir().context("no folder can be made; TMPDIR names where")?;
    let tenants = ask.or_quick(8, 2);
    let length = ask.run_length(0.5, 3);
    let mut report = Report { device: String::new(), tenants, starts: Vec::new() };
    for (name, later) in
        [("kernels nowhere", false), ("kernels on disk", false), ("a new length while serving", true)]
    {
        let (start, device) = start(ask, name, cache.path(), (tenants, length, later)).context(name)?;
        heard(&start.to_string());
        report.device = device;
        report.starts.push(start);
    }
    Ok(report)
}

fn start(
    ask: &Ask,
    name: &'static str,
    cache: &Path,
    (tenants, length, later): (usize, Duration, bool),
) -> Result<(Start, String)> {
    let runtime = tessera_server::runtime::build(2, &mut tokio::runtime::Builder::new_multi_thread())?;
    let settings = load::settings([
        ("device", ask.device.clone()),
        ("policy", Policy::SpaceTime.to_string()),
        ("precision", ask.precision.to_string()),
        ("kernel_cache", cache.display().to_string()),
    ])?;
    let inside = runtime.enter();
    let began = Instant::now();
    let backstage = Backstage::start(&settings, |wake| devices::open(&settings, wake))?;
    let open_ms = ms(began.elapsed());
    let info = backstage.means.device.info();
    let began = Instant::now();
    let net = network("sequences");
    let load = |tenant: usize| -> Result<(TenantId, Arc<ClassEntry>, Slot)> {
        let file = class::load_bytes(net.to_bytes(ask.seed.wrapping_add(tenant as u64)), None)?;
        Ok(backstage.add_tenant(&file, ask.precision, None)?)
    };
    let loaded = (0..tenants).map(load).collect::<Result<_>>()?;
    let load_ms = ms(began.elapsed());
    drop(inside);
    let house = Arc::new(House { backstage, tenants: loaded, requests: AtomicU64::new(0) });
    let begun = Instant::now();
    let served = serve(&runtime, &house, length, later)?;
    let house = Arc::into_inner(house).context("nobody asks any more")?;
    drop(house.tenants);
    house.backstage.stop();
    let start = Start { name, open_ms, load_ms, ..summed(name, &served, begun, length)? };
    Ok((start, format!("{} ({})", info.name, info.description)))
}

fn ms(length: Duration) -> f64 {
    length.as_secs_f64() * 1e3
}

/// The p99 of some requests, in milliseconds.
fn p99_ms<'a>(of: impl Iterator<Item = &'a Asked>) -> f64 {
    ms(of.map(|asked| asked.took).collect::<Latencies>().percentile(99.0))
}

/// What was served, but for the times of opening and loading.
fn summed(name: &'static str, served: &Served, begun: Instant, length: Duration) -> Result<Start> {
    let (asked, newcomer) = (&served.tenants, served.newcomer.as_deref());
    for of_tenant in asked {
        let mut first: HashMap<u64, &Vec<Bytes>> = HashMap::new();
        for Asked { length, answer, .. } in of_tenant {
            let first = *first.entry(*length).or_insert(answer);
            ensure!(
                answer == first,
                "a tenant's answer at length {length} has other bits than its first one"
            );
        }
    }
    let all = || asked.iter().flatten();
    let answered_first = |of: u64| {
        let of_length = all().filter(|asked| asked.length == of);
        of_length.map(|asked| asked.sent + asked.took).min()
    };
    let firsts: HashMap<u64, Instant> =
        LENGTHS.iter().filter_map(|length| Some((*length, answered_first(*length)?))).collect();
    let is_late =
        |asked: &&Asked| !asked.hit && firsts.get(&asked.length).is_some_and(|first| asked.sent > *first);
    let slice = |number: usize| {
        let within = all().chain(newcomer.into_iter().flatten()).filter(|asked| {
            let at = asked.sent.duration_since(begun).as_secs_f64() / length.as_secs_f64();
            ((at * SLICES as f64) as usize).min(SLICES - 1) == number
        });
        let (mut count, mut hits, mut took) = (0u32, 0u32, Duration::ZERO);
        for asked in within {
            count += 1;
            hits += u32::from(asked.hit);
            took += asked.took;
        }
        let hit_rate = f64::from(hits) / f64::from(count.max(1));
        (count > 0).then(|| Slice { hit_rate, mean_ms: ms(took) / f64::from(count) })
    };
    let hits: Latencies = all().filter(|asked| asked.hit).map(|asked| asked.took).collect();
    let first = all().min_by_key(|asked| asked.sent + asked.took).context("somebody was answered")?;
    Ok(Start {
        name,
        open_ms: 0.0,
        load_ms: 0.0,
        first_answer_ms: ms(first.took),
        p50_ms: ms(hits.percentile(50.0)),
        p99_ms: ms(hits.percentile(99.0)),
        slice_ms: ms(length) / SLICES as f64,
        slices: (0..SLICES).map(slice).collect(),
        misses: all().chain(newcomer.into_iter().flatten()).filter(|asked| !asked.hit).count() as u64,
        late_misses: all().filter(is_late).count() as u64,
        later: newcomer.and_then(|newcomer| later(asked, newcomer, &firsts)),
    })
}

fn later(asked: &[Vec<Asked>], newcomer: &[Asked], firsts: &HashMap<u64, Instant>) -> Option<Later> {
    let [first, second] = newcomer else { return None };
    let made = first.sent + first.took;
    // The cold start's own misses say nothing of serving.
    let warm = firsts.values().max()?;
    let others = || asked.iter().flatten().filter(|asked| asked.hit && asked.sent > *warm);
    let before = others().filter(|asked| asked.sent + asked.took < first.sent);
    let during = others().filter(|asked| asked.sent < made && asked.sent + asked.took > first.sent);
    Some(Later {
        first_ms: ms(first.took),
        second_ms: ms(second.took),
        others_before_ms: p99_ms(before),
        others_during_ms: p99_ms(during),
    })
}

impl Figure for Report {
    const CLAIM: Claim = Claim {
        title: "Warm-up: the program cache from a cold start",
        source: "paper, §4",
        says: "super-kernels cannot be made ahead of time; overheads gradually decrease if they are cached as workloads stabilise",
        refuted: "a miss after the first answer of a length; others' p99 more than doubled (and by over 1 ms) while a new length is made; on a card, kernels on disk being of no help",
    };

    fn verdict(&self) -> Verdict {
        let [nowhere, on_disk, growing] = self.starts.as_slice() else {
            return Verdict::Undecided("a start is missing".to_owned());
        };
        let Some(later) = growing.later else {
            return Verdict::Undecided("no new length came".to_owned());
        };
        let late: u64 = self.starts.iter().map(|start| start.late_misses).sum();
        let cold = |start: &Start| start.load_ms + start.first_answer_ms;
        let because = format!(
            "{late} misses after a length's first answer: once made, every request hits, by construction. Tenants loaded and the first answered {:.0} ms after a start without kernels, {:.0} ms with kernels on \
             disk; {:.2} ms later on (p50). A new length waited {:.1} ms once, then {:.2} ms; the others' p99 was {:.2} ms before and {:.2} ms meanwhile.",
            cold(nowhere),
            cold(on_disk),
            on_disk.p50_ms,
            later.first_ms,
            later.second_ms,
            later.others_before_ms,
            later.others_during_ms,
        );
        let calm = later.others_during_ms <= 2.0 * later.others_before_ms
            || later.others_during_ms - later.others_before_ms <= 1.0;
        let compiled = !self.device.starts_with("cuda") || cold(on_disk) < cold(nowhere);
        Verdict::of(late == 0 && calm && compiled, because)
    }

    fn pictures(&self) -> Vec<String> {
        let plot = |y: &str, what: fn(&Slice) -> f64| {
            let line = |start: &Start| {
                let slices = start.slices.iter().enumerate();
                let point = |(number, slice): (usize, &Option<Slice>)| {
                    Some(((number as f64 + 0.5) * start.slice_ms / 1e3, what(slice.as_ref()?)))
                };
                (start.name.to_owned(), slices.filter_map(point).collect())
            };
            Plot {
                title: format!("{y} from a cold start, {} tenants", self.tenants),
                x: "seconds after the first request".to_owned(),
                y: y.to_owned(),
                mark: None,
                lines: self.starts.iter().map(line).collect(),
            }
        };
        drawn([
            plot("requests that hit, %", |slice| 100.0 * slice.hit_rate),
            plot("mean latency, ms", |slice| slice.mean_ms),
        ])
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Start { name, open_ms, load_ms, first_answer_ms, p50_ms, p99_ms, slices, misses, .. } = self;
        let rates = slices.iter().map(|slice| match slice {
            Some(Slice { hit_rate, .. }) => format!("{:.0}", 100.0 * hit_rate),
            None => "–".to_owned(),
        });
        let rates = rates.collect::<Vec<_>>().join(" ");
        write!(
            f,
            "{name:<27} {open_ms:>8.0} {load_ms:>8.0} {first_answer_ms:>10.1} {p50_ms:>8.2} {p99_ms:>8.2} {misses:>7}  {rates}"
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "warmup: {} tenants at lengths of {LENGTHS:?} on {}", self.tenants, self.device)?;
        writeln!(
            f,
            "{:<27} {:>8} {:>8} {:>10} {:>8} {:>8} {:>7}  hits by tenth of the run, %",
            "start", "open ms", "load ms", "first ms", "p50 ms", "p99 ms", "misses"
        )?;
        self.starts.iter().try_for_each(|start| writeln!(f, "{start}"))?;
        for Later { first_ms, second_ms, others_before_ms, others_during_ms } in
            self.starts.iter().filter_map(|start| start.later)
        {
            writeln!(
                f,
                "\nlength {LATER}, new while serving: {first_ms:.1} ms, then {second_ms:.2} ms; the others' p99 {others_before_ms:.2} ms before, {others_during_ms:.2} ms meanwhile"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_first_answer_of_a_length_every_request_hits() {
        let report = run(&crate::figures::ask::quick("cpu"), &mut |_| ()).unwrap();
        assert_eq!(report.starts.len(), 3);
        for start in &report.starts {
            assert_eq!(start.late_misses, 0, "{report}");
            assert!(start.misses >= LENGTHS.len() as u64, "the first at each length waits: {report}");
        }
        let later = report.starts[2].later.unwrap();
        assert!(later.first_ms > 0.0 && later.second_ms > 0.0, "{report}");
        assert!(report.verdict().because().starts_with("0 misses"));
    }
}
