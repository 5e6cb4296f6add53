//! Rewrites, folding, packing, placing and the CPU device together change no answer: random networks, as imported through the reference
//! against their plans through the plan's definition and through the device, for batches of 1, 2 and 7.
//!
//! `TESSERA_SEED` repeats a run, `TESSERA_CASES` makes it longer. What fails is made small before it is shown; it then becomes a named test
//! below.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

#[path = "../../../planner/tests/common/mod.rs"]
mod common;
#[path = "../cpu/mod.rs"]
mod cpu;
mod network;

use bytes::Bytes;
use cpu::Cpu;
use network::{Layer, Network, network};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tessera_core::{LaunchId, PartitionId, PlanKey, Precision};
use tessera_device::conformance::floats;
use tessera_device::{Device, Lane, LaneRequest, Launch, Room};
use tessera_planner::class::{self, Model};
use tessera_planner::graph::{ParamData, ParamId};
use tessera_planner::infer::DimValue;
use tessera_planner::onnx::import::import_bytes;
use tessera_planner::pack::pack;
use tessera_planner::{Packed, SlotLayout, Tensor, interpret, reference, source};

/// Items of the largest request.
const BATCH: usize = 7;

/// What the network is, by the reference: every output, all items.
fn truth(file: &[u8], x: &Tensor) -> Result<Vec<Tensor>, String> {
    let graph = import_bytes(file.to_vec(), None).map_err(|error| error.to_string())?.graph;
    let weight = |id: ParamId| {
        let param = &graph.params[id.0 as usize];
        let ParamData::Weight(from) = &param.data else { unreachable!("only weights are asked for") };
        Ok(source::read_weight(from, param.dtype, &param.dims)?)
    };
    reference::run(&graph, &weight, std::slice::from_ref(x)).map_err(|error| format!("{error:?}"))
}

/// Sums in another order, of values around one: an error of 1e-4 of the answer's size, or of 1e-5 of an element where answers cancel.
fn close(who: &str, want: &[Tensor], got: &[Vec<u8>]) -> Result<(), String> {
    for (index, (want, got)) in want.iter().zip(got).enumerate() {
        let (want, got) = (floats(want.bytes()), floats(got));
        if want.len() != got.len() {
            return Err(format!(
                "{who}: output {index} has {} elements instead of {}",
                got.len(),
                want.len()
            ));
        }
        let square = |x: f32| f64::from(x) * f64::from(x);
        let apart = want.iter().zip(&got).map(|(want, got)| square(want - got)).sum::<f64>().sqrt();
        let size = want.iter().map(|&x| square(x)).sum::<f64>().sqrt();
        let allowed = 1e-4 * size + 1e-5 * (want.len() as f64).sqrt();
        if apart.is_nan() || apart > allowed {
            let worst = want.iter().zip(&got).position(|(want, got)| (want - got).abs() > 1e-4).unwrap_or(0);
            return Err(format!(
                "{who}: output {index} is {apart:.1e} away ({allowed:.1e} allowed); element {worst} is {} instead of {}",
                got[worst], want[worst]
            ));
        }
    }
    Ok(())
}

fn packed(model: &Model, layout: &SlotLayout) -> Result<Packed, String> {
    let class = &model.class;
    let mut source = |id: ParamId| Ok(model.weights[id.0 as usize].clone());
    pack(&class.graph, class.folded(), layout, &mut source).map_err(|error| error.to_string())
}

/// Everything that is promised of one network.
fn check(cpu: &Cpu, network: &Network) -> Result<(), String> {
    let file = network.file(0);
    let dims: Vec<usize> = std::iter::once(BATCH).chain(network.input.iter().copied()).collect();
    let mut random = StdRng::seed_from_u64(network.weights);
    let elements: Vec<f32> = (0..dims.iter().product()).map(|_| random.random_range(-1.0..1.0)).collect();
    let x = Tensor::from_elements(&dims, &elements);
    let want = truth(&file, &x)?;

    let model = class::load_bytes(file, None).map_err(|error| error.to_string())?;
    let other = class::load_bytes(network.file(1), None).map_err(|error| error.to_string())?;
    if model.class.id != other.class.id {
        return Err("other weights make another class".into());
    }
    let class = &model.class;
    let target = cpu.device.pack_target(Precision::Fp32).unwrap();
    let layout = Arc::new(SlotLayout::of(class.folded(), target).map_err(|error| error.to_string())?);
    let packed = packed(&model, &layout)?;
    let plan = |dim: DimValue, named: &[u64]| {
        let key = PlanKey { class: class.id, dims: named.into(), precision: Precision::Fp32 };
        tessera_planner::plan(key, class.folded(), &layout, &[dim]).map_err(|error| error.to_string())
    };

    let whole = plan(DimValue::Fixed(BATCH as u64), &[BATCH as u64])?;
    let answer = interpret::run(&whole, &layout, &packed, &[x.bytes()]).map_err(|error| error.to_string())?;
    close("the plan of whole requests", &want, &answer)?;

    let items = Arc::new(plan(DimValue::Items, &[])?);
    let item_bytes = x.bytes().len() / BATCH;
    let mut joined = vec![Vec::new(); want.len()];
    for item in x.bytes().chunks_exact(item_bytes) {
        let one = interpret::run(&items, &layout, &packed, &[item]).map_err(|error| error.to_string())?;
        joined.iter_mut().zip(one).for_each(|(all, one)| all.extend(one));
    }
    close("the plan of items", &want, &joined)?;

    let slot = cpu.device.upload(class.id, &layout, packed).map_err(|error| error.to_string())?;
    let room = Room { lanes: 1, items: BATCH as u32 };
    let program =
        cpu.device.compile(&items, &layout, room, PartitionId(0)).map_err(|error| error.to_string())?;
    let mut answers = Vec::new();
    for count in [1, 2, BATCH] {
        let inputs = vec![Bytes::copy_from_slice(&x.bytes()[..count * item_bytes])];
        let requests = vec![LaneRequest { items: count as u32, inputs }];
        let launch = Launch {
            id: LaunchId(0),
            program,
            lanes: vec![Lane { slot: slot.clone(), requests }],
            urgent: false,
        };
        cpu.device.submit(launch).map_err(|error| error.to_string())?;
        let mut finished = loop {
            match cpu.device.poll().pop() {
                Some(finished) => break finished,
                None => {
                    cpu.bell.recv_timeout(Duration::from_secs(60)).map_err(|_| "no wake within a minute")?;
                }
            }
        };
        let answer = finished.answers.remove(0).remove(0).map_err(|error| error.to_string())?;
        answers.push(answer.iter().map(|output| output.to_vec()).collect::<Vec<_>>());
    }
    cpu.device.discard(program);
    let all = answers.pop().unwrap();
    close("the CPU device", &want, &all)?;
    for (fewer, count) in answers.iter().zip([1, 2]) {
        if fewer.iter().zip(&all).any(|(few, all)| few[..] != all[..few.len()]) {
            return Err(format!("other bits in a batch of {count} than of {BATCH}"));
        }
    }
    Ok(())
}

#[test]
fn no_rewrite_changes_what_a_random_network_answers() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("TESSERA_SEED").unwrap_or(u64::from(now.subsec_nanos()));
    println!("TESSERA_SEED={seed}");
    let cases = number("TESSERA_CASES").unwrap_or(200) as u32;
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let bytes: [u8; 32] = std::array::from_fn(|at| seed.to_le_bytes()[at % 8]);
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let cpu = Cpu::open();
    let outcome = runner.run(&network(), |network| check(&cpu, &network).map_err(TestCaseError::fail));
    if let Err(failure) = outcome {
        panic!("TESSERA_SEED={seed}: {failure}");
    }
}

/// Checks a network that once failed.
fn passes(input: &[usize], layers: Vec<Layer>) {
    let network = Network { input: input.to_vec(), layers, weights: 0 };
    check(&Cpu::open(), &network).unwrap();
}

#[test]
fn rows_from_the_last_to_the_first_are_multiplied_in_that_order() {
    passes(&[5, 3], vec![Layer::Flip(0), Layer::Linear { out: 2, bias: true }]);
}

#[test]
fn one_head_of_attention_in_a_whole_request_keeps_its_requests_apart() {
    passes(&[2, 3], vec![Layer::Attention { heads: 3 }]);
}

#[test]
fn a_convolution_of_one_pixel_and_one_channel_reads_its_weight_as_it_is_packed() {
    let conv =
        Layer::Conv { out: 1, kernel: 0, stride: 1, groups: 0, dilation: 1, padded: false, bias: false };
    passes(&[1, 1, 1], vec![conv]);
}
