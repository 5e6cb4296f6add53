//! The fuzz targets on their seeds and a few thousand mutations of them, the same in every run. `fuzz/run` searches for real.

#![allow(clippy::unwrap_used)] // the lint spares tests, but not the functions that they share

#[path = "../../../fuzz/targets/mod.rs"]
mod targets;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use std::fs;
use std::path::Path;
use targets::TARGETS;

/// What inputs are made from: the seeds of a target, and a random one for those whose every input means something.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let folder =
        if target == "model" { "fixtures/torch_export".into() } else { format!("fuzz/seeds/{target}") };
    let mut random = vec![0; 400];
    StdRng::seed_from_u64(1).fill_bytes(&mut random);
    let files = fs::read_dir(root.join(folder)).into_iter().flatten();
    let files = files.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_none_or(|end| end != "npz")).collect();
    files.sort();
    files.iter().map(|path| fs::read(path).unwrap()).chain([random]).collect()
}

/// Changes a few bytes, or takes some out, or puts some in.
fn mutate(bytes: &mut Vec<u8>, random: &mut StdRng) {
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=bytes.len());
        let end = bytes.len().min(at + random.random_range(1..16));
        match random.random_range(0..6) {
            0 => drop(bytes.drain(at..end)),
            1 => drop(bytes.splice(
                at..at,
                (0..random.random_range(1..8)).map(|_| random.random()).collect::<Vec<u8>>(),
            )),
            2 => bytes[at..end].fill(*[0, 1, 0x7f, 0x80, 0xff].choose(random).unwrap()),
            3 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            _ => bytes[at..end].iter_mut().take(1).for_each(|byte| *byte = random.random()),
        }
    }
}

fn short_run(name: &str, mutations: u64) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    for (index, seed) in seeds(name).iter().enumerate() {
        (target.run)(seed);
        for number in 0..mutations {
            let mut bytes = seed.clone();
            mutate(&mut bytes, &mut StdRng::seed_from_u64(number));
            let told = std::panic::catch_unwind(|| (target.run)(&bytes));
            assert!(told.is_ok(), "target {name}, seed {index}, mutation {number}: {bytes:?}");
        }
    }
}

#[test]
fn models_are_refused_or_taken() {
    short_run("model", 1000);
}

#[test]
fn graphs_of_any_operators_are_refused_or_taken() {
    short_run("graph", 4000);
}

#[test]
fn weights_are_refused_or_taken() {
    short_run("weights", 1000);
}

#[test]
fn requests_are_refused_or_taken() {
    short_run("request", 2000);
}

#[test]
fn settings_are_refused_or_taken() {
    short_run("config", 1000);
}
