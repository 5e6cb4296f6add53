//! The ways of sharing a device that the paper compares: our engine under every policy, and a process per tenant.
//!
//! Processes come to a card in turns (`time-slicing`), or side by side through the driver's service (`mps`). What they say is a rate each; with one
//! request on its way its inverse is the mean latency.

use super::ask::Ask;
use crate::tenants::processes::{self, Processes, Sharing};
use crate::tenants::{Options, TUNE};
use crate::zoo::{self, Architecture, Sizes};
use anyhow::{Result, ensure};
use std::ffi::OsString;
use std::time::Duration;
use tessera_core::{Policy, Precision};

/// Both kinds of processes.
pub(super) const PROCESSES: [Sharing; 2] = [Sharing::TimeSlicing, Sharing::Mps];

/// Why a way is not measured here; `None` where it is.
pub(super) fn absent(ask: &Ask, how: Sharing) -> Option<String> {
    match ask {
        _ if !ask.is_card() => {
            Some(format!("{how}: not measured, since processes share cores by the system's own means"))
        }
        _ if ask.program.as_os_str().is_empty() => {
            Some(format!("{how}: not measured, since no binary was named to start"))
        }
        _ => None,
    }
}

/// Tenants for our own engine, to be run under these policies.
pub(super) fn tenants(
    ask: &Ask,
    name: &str,
    precision: Precision,
    tenants: usize,
    policies: &[Policy],
) -> Result<Options> {
    Ok(Options {
        model: ask.model(name)?,
        tenants,
        policies: policies.to_vec(),
        device: ask.device.clone(),
        precision,
        items: 1,
        length: Duration::from_secs(1),
        rounds: 1,
        in_flight: 1,
        steps: false,
        tune: Some(TUNE),
        seed: ask.seed,
    })
}

/// Runs every way so often, the order turned round every time, so that a drift of the machine meets all alike.
pub(super) fn in_rounds<W: Copy, T>(
    ways: &[W],
    rounds: usize,
    run: &mut dyn FnMut(W) -> Result<T>,
) -> Result<Vec<(W, Vec<T>)>> {
    let mut all: Vec<(W, Vec<T>)> = ways.iter().map(|&way| (way, Vec::new())).collect();
    for number in 0..rounds {
        let mut order: Vec<usize> = (0..all.len()).collect();
        if number % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let (way, of_way) = &mut all[index];
            of_way.push(run(*way)?);
        }
    }
    Ok(all)
}

/// Runs a process per tenant of an architecture for a second, each with one request on its way.
pub(super) fn workers(
    ask: &Ask,
    name: &str,
    precision: Precision,
    how: Sharing,
    tenants: usize,
) -> Result<Processes> {
    ensure!(
        tenants <= ask.processes,
        "{tenants} processes are more than the {} allowed by --processes",
        ask.processes
    );
    let architecture = zoo::find(name)?;
    processes::run(how, tenants, &ask.program, |number| arguments(ask, architecture, precision, number))
}

/// What a worker is told on its command line.
fn arguments(ask: &Ask, architecture: &Architecture, precision: Precision, number: usize) -> Vec<OsString> {
    let Sizes { width, image_size, tokens } = ask.sizes_of(architecture);
    let pairs = [
        ("model", Some(architecture.name.to_owned())),
        ("device", Some(ask.device.clone())),
        ("precision", Some(precision.name().to_owned())),
        ("tenants", Some("1".to_owned())),
        ("items", Some("1".to_owned())),
        ("in-flight", Some("1".to_owned())),
        ("seconds", Some("1".to_owned())),
        ("seed", Some(ask.seed.wrapping_add(number as u64).to_string())),
        ("width", Some(width.to_string())),
        ("image-size", image_size.map(|side| side.to_string())),
        ("tokens", tokens.map(|tokens| tokens.to_string())),
    ];
    let flags = pairs.into_iter().filter_map(|(name, value)| Some([format!("--{name}"), value?])).flatten();
    ["bench", "worker"].map(str::to_owned).into_iter().chain(flags).map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_told_the_sizes_that_its_network_takes() {
        let ask = super::super::ask::quick("cuda:0");
        let told = |name: &str| {
            let told = arguments(&ask, zoo::find(name).unwrap(), Precision::Bf16, 3);
            told.into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>().join(" ")
        };
        let image = told("mobilenet-v2");
        assert!(
            image.starts_with("bench worker --model mobilenet-v2 --device cuda:0 --precision bf16"),
            "{image}"
        );
        assert!(
            image.contains("--seed 4 --width 0.125 --image-size 32") && !image.contains("tokens"),
            "{image}"
        );
        assert!(told("lstm").ends_with("--tokens 4"));
    }

    #[test]
    fn the_order_of_policies_turns_round_every_time() {
        let mut ran = Vec::new();
        let all = in_rounds(&[Policy::Time, Policy::Space], 2, &mut |policy| {
            ran.push(policy.name());
            Ok(ran.len())
        });
        assert_eq!(all.unwrap(), [(Policy::Time, vec![1, 4]), (Policy::Space, vec![2, 3])]);
        assert_eq!(ran, ["time", "space", "space", "time"]);
    }

    #[test]
    fn processes_are_left_out_by_name_where_there_is_no_card() {
        let said = absent(&super::super::ask::quick("cpu"), Sharing::Mps).unwrap();
        assert!(said.starts_with("mps: not measured"), "{said}");
    }
}
