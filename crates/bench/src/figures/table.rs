//! Every bench of the report, one a row: `tessera bench all` goes through it, and a new one joins by a row.

use super::ask::Ask;
use super::made::{Claim, Figure, Made};
use super::place::{Place, Setting, Wrapped};
use super::products::{self, Options as Products};
use super::{
    figure1, figure2, figure3, figure4, figure5, figure7, goodput, isolation, mixed, monitoring, table1,
    warmup, ways,
};
use crate::arrivals::{Gaps, Popularity};
use crate::load::Tenant;
use crate::tenants::{self, Options, residency};
use anyhow::{Context, Result};
use std::sync::Arc;
use std::time::Duration;
use tessera_core::{Policy, Precision};

/// Measures what is asked for; told what goes on, a line at a time.
pub type Run = fn(&Ask, &mut dyn FnMut(&str)) -> Result<Made>;

/// One bench.
#[derive(Clone, Copy, Debug)]
pub struct Bench {
    /// As on the command line.
    pub name: &'static str,
    /// What it is about.
    pub claim: Claim,
    /// Its part of the time, beside the others'.
    pub weight: u32,
    /// Whether `tessera bench NAME` takes the same flags as `tessera bench all`; others have flags of their own.
    pub flags_of_all: bool,
    /// Why it cannot be measured there.
    pub cannot: fn(&Ask) -> Option<String>,
    /// Measures.
    pub run: Run,
}

const fn row(name: &'static str, claim: Claim, weight: u32, run: Run) -> Bench {
    Bench { name, claim, weight, flags_of_all: false, cannot: |_| None, run }
}

const fn figure(name: &'static str, claim: Claim, weight: u32, run: Run) -> Bench {
    Bench { flags_of_all: true, ..row(name, claim, weight, run) }
}

/// The table, in the order of the report.
#[rustfmt::skip] // a bench a line
pub static BENCHES: &[Bench] = &[
    Bench { cannot: without_card, ..row("table1", table1::Report::CLAIM, 3, |ask, heard| table1::run(&products(ask, &products::SHAPES), heard)?.made("table1")) },
    figure("figure1", figure1::Report::CLAIM, 2, |ask, heard| figure1::run(ask, heard)?.made("figure1")),
    figure("figure2", figure2::Report::CLAIM, 2, |ask, heard| figure2::run(ask, heard)?.made("figure2")),
    figure("figure3", figure3::Report::CLAIM, 4, |ask, heard| figure3::run(ask, heard)?.made("figure3")),
    figure("figure4", figure4::Report::CLAIM, 3, |ask, heard| figure4::run(ask, heard)?.made("figure4")),
    figure("figure5", figure5::Report::CLAIM, 4, |ask, heard| figure5::run(ask, heard)?.made("figure5")),
    Bench { cannot: without_card, ..row("figure7", figure7::Report::CLAIM, 1, run_figure7) },
    figure("warmup", warmup::Report::CLAIM, 1, |ask, heard| warmup::run(ask, heard)?.made("warmup")),
    figure("monitoring", monitoring::Report::CLAIM, 1, |ask, heard| monitoring::run(ask, heard)?.made("monitoring")),
    row("tenants", tenants::Report::CLAIM, 1, run_tenants),
    row("goodput", goodput::Report::CLAIM, 3, run_goodput),
    row("isolation", isolation::Report::CLAIM, 3, run_isolation),
    row("mixed", mixed::Report::CLAIM, 3, run_mixed),
    row("residency", residency::Residency::CLAIM, 1, run_residency),
];

fn without_card(ask: &Ask) -> Option<String> {
    (!ask.is_card()).then(|| "its products are measured on a card: name one as `--device cuda:0`".to_owned())
}

fn products(ask: &Ask, shapes: &[products::Shape]) -> Products {
    let ordinal = ask.device.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok());
    Products {
        shapes: shapes.to_vec(),
        precisions: vec![Precision::Fp32, Precision::Bf16],
        tenants: ask.or_quick(vec![1, 2, 4, 10, 20, 32, 64, 120], vec![1, 10]),
        rounds: ask.rounds.max(3),
        ordinal: ordinal.unwrap_or(0),
        tune: Some(tenants::TUNE),
    }
}

fn run_figure7(ask: &Ask, heard: &mut dyn FnMut(&str)) -> Result<Made> {
    figure7::run(&products(ask, &[products::shape(figure7::SHAPE)?]), heard)?.made("figure7")
}

/// What whole models are measured with, each for its part of the time.
fn whole(ask: &Ask, policies: &[Policy], runs: usize) -> Result<Options> {
    let many = match (ask.quick, ask.is_card()) {
        (true, _) => 2,
        (false, true) => 32,
        (false, false) => 8,
    };
    let name = if ask.is_card() { "resnet-50" } else { "mobilenet-v2" };
    let options = ways::tenants(ask, name, ask.precision, many.min(ask.tenants), policies)?;
    Ok(Options { length: ask.run_length(0.5, runs), rounds: ask.rounds, in_flight: 3, ..options })
}

fn run_tenants(ask: &Ask, heard: &mut dyn FnMut(&str)) -> Result<Made> {
    let options = whole(ask, &Policy::ALL, Policy::ALL.len() * ask.rounds)?;
    tenants::run(&options, heard)?.made("tenants")
}

fn run_residency(ask: &Ask, heard: &mut dyn FnMut(&str)) -> Result<Made> {
    let options = whole(ask, &[Policy::SpaceTime], 4)?;
    residency::run(&options, heard)?.made("residency")
}

/// Rates that a search tries until it is close enough, about.
const TRIES: usize = 14;

/// Acts of the bench of isolation.
const ACTS: usize = 6;

/// An open loop of tenants of these architectures, each with what counts as in time in milliseconds.
fn open_loop(ask: &Ask, classes: &[(&str, f64)], tenants: usize, runs: usize) -> Result<Setting> {
    let slo = |ms: f64| Some(Duration::from_secs_f64(ms / 1e3));
    let tenant = |number: usize| Tenant {
        name: format!("tenant-{number}"),
        slo: slo(classes[number % classes.len()].1),
    };
    let class = |(name, ms): &(&str, f64)| Tenant { name: (*name).to_owned(), slo: slo(*ms) };
    let models = classes.iter().map(|(name, _)| Ok(Arc::new(ask.model(name)?))).collect::<Result<_>>()?;
    Ok(Setting {
        models,
        tenants: (0..tenants).map(tenant).collect(),
        groups: if classes.len() > 1 { classes.iter().map(class).collect() } else { Vec::new() },
        popularity: Popularity::Zipf(1.0),
        gaps: Gaps::Poisson,
        length: ask.run_length(0.4, runs * TRIES),
        device: ask.device.clone(),
        precision: ask.precision.name().to_owned(),
        partitions: "auto".to_owned(),
        behind: "off".to_owned(),
        interrupts: true,
        around: Wrapped::Bare,
        seed: ask.seed,
    })
}

/// The rate that a search begins with: a card answers hundreds of requests a second at least, a core some.
fn lowest(ask: &Ask) -> f64 {
    ask.or_quick(if ask.is_card() { 200.0 } else { 2.0 }, 200.0)
}

/// Policies in the order of running: `space` last, since its device is divided as no other's.
fn policies(ask: &Ask) -> Vec<Policy> {
    ask.or_quick(
        vec![Policy::SpaceTime, Policy::Time, Policy::Exclusive, Policy::Space],
        vec![Policy::SpaceTime, Policy::Time],
    )
}

fn run_goodput(ask: &Ask, heard: &mut dyn FnMut(&str)) -> Result<Made> {
    let (classes, tenants): ([(&str, f64); 1], usize) = match (ask.quick, ask.is_card()) {
        (true, _) => ([("mobilenet-v2", 100.0)], 3),
        // Loading, twice, is to leave most of the time.
        (false, true) => ([("resnet-50", 25.0)], (ask.budget.left().as_secs() as usize / 2).clamp(16, 100)),
        (false, false) => ([("mobilenet-v2", 250.0)], 24),
    };
    let policies = policies(ask);
    let tenants = tenants.min(ask.tenants);
    let mut place = Place::new(open_loop(ask, &classes, tenants, policies.len())?)?;
    let about = about(&mut place, &policies, &classes, tenants, heard)?;
    let ways = policies.iter().map(|&policy| {
        ask.budget.go_on()?;
        Ok(goodput::Way { name: policy.to_string(), capacity: place.capacity(policy, heard)? })
    });
    let ways = ways.collect::<Result<Vec<goodput::Way>>>()?;
    let from = (lowest(ask), ask.or_quick(1, 0));
    let report = goodput::run(about, classes[0].1, ways, from, &mut |who, rate| {
        ask.budget.go_on()?;
        place.measured(policies[who], rate, heard)
    })?;
    place.close();
    report.made("goodput")
}

fn run_mixed(ask: &Ask, heard: &mut dyn FnMut(&str)) -> Result<Made> {
    let (classes, tenants) = match (ask.quick, ask.is_card()) {
        (true, _) => (vec![("mobilenet-v2", 200.0), ("lstm", 100.0)], 4),
        (false, true) => {
            let many = (ask.budget.left().as_secs() as usize / 24 * 4).clamp(8, 32);
            (vec![("resnet-50", 50.0), ("mobilenet-v2", 25.0), ("bert-base", 100.0), ("lstm", 10.0)], many)
        }
        (false, false) => (vec![("resnet-18", 500.0), ("mobilenet-v2", 250.0), ("lstm", 100.0)], 24),
    };
    let policies = policies(ask);
    let mut ways = mixed::Way::all(&policies);
    if !ask.is_card() {
        ways.extend(mixed::Way::uninterrupted(&policies));
    }
    let tenants = tenants.min(ask.tenants);
    let mut place = Place::new(open_loop(ask, &classes, tenants, ways.len())?)?;
    let about = about(&mut place, &policies, &classes, tenants, heard)?;
    let report = mixed::run(about, &ways, lowest(ask), &mut |way, rate| {
        ask.budget.go_on()?;
        place.divide(if way.whole { "1" } else { "auto" });
        place.interrupt(way.interrupts);
        place.row(way.policy, rate, heard)
    })?;
    place.close();
    report.made("mixed")
}

fn run_isolation(ask: &Ask, heard: &mut dyn FnMut(&str)) -> Result<Made> {
    let (name, slo_ms, tenants, rate) = match (ask.quick, ask.is_card()) {
        (true, _) => ("mobilenet-v2", 100.0, 3, 100.0),
        (false, true) => ("resnet-50", 25.0, 24, 500.0),
        (false, false) => ("mobilenet-v2", 250.0, 8, 10.0),
    };
    let (classes, tenants) = ([(name, slo_ms)], tenants.min(ask.tenants));
    let policies = policies(ask);
    let mut acts = isolation::acts(ask.run_length(0.4, policies.len() * ACTS));
    if ask.quick {
        acts.iter_mut().for_each(|act| act.warmup = act.warmup.min(act.length));
    }
    let setting = open_loop(ask, &classes, tenants, 1)?;
    let setting = Setting { around: Wrapped::Slowable, popularity: Popularity::Uniform, ..setting };
    let mut place = Place::new(setting)?;
    let about = about(&mut place, &policies, &classes, tenants, heard)?;
    let about = format!("{about}, {rate:.0} requests/s, SLO {slo_ms} ms");
    let report =
        isolation::run(about, &policies, &acts, &mut |policy, acts| place.acts(policy, rate, acts, heard))?;
    place.close();
    report.made("isolation")
}

fn about(
    place: &mut Place,
    policies: &[Policy],
    classes: &[(&str, f64)],
    tenants: usize,
    heard: &mut dyn FnMut(&str),
) -> Result<String> {
    let first = *policies.first().context("there is a policy")?;
    let names: Vec<&str> = classes.iter().map(|(name, _)| *name).collect();
    Ok(format!("{tenants} tenants of {} on {}", names.join(", "), place.about(first, heard)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bench_has_a_name_of_its_own_and_a_claim_that_can_be_refuted() {
        let mut names: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), BENCHES.len());
        assert!(BENCHES.iter().all(|bench| !bench.claim.refuted.is_empty() && bench.weight > 0));
    }
}
