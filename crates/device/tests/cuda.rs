//! The CUDA device: the suite in every precision, and whole networks against the CPU device.
//!
//! Skipped by name where there is no card; `TESSERA_REQUIRE_CUDA=1` turns that into a failure. Every input is random and new: `TESSERA_SEED`
//! repeats a run that failed.

#![cfg(any(target_os = "linux", windows))]
#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

#[path = "cuda/joined.rs"]
mod joined;
mod nodes;
#[path = "cuda/partitions.rs"]
mod partitions;

use bytes::Bytes;
use nodes::device::OnDevice;
use nodes::guarded;
use nodes::ledger::{Ledger, Stage, Stop};
use nodes::suite::cases;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tessera_core::{DType, LaunchId, PartitionId, PlanKey, Precision, ProgramId};
use tessera_device::conformance::{self, Case, Subject, bell, floats, relative_l2};
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};
use tessera_device::cuda::{CudaDevice, CudaOptions, probe};
use tessera_device::{Device, Finished, Lane, LaneRequest, Launch, Room, Slot};
use tessera_planner::class::{self, Model};
use tessera_planner::graph::ParamId;
use tessera_planner::infer::DimValue;
use tessera_planner::pack::pack;
use tessera_planner::{Plan, SlotLayout};

fn cuda() -> Option<(CudaDevice, Receiver<()>)> {
    parted(None)
}

/// A device with a partition over all multiprocessors, and one that is kept to a few if so many are asked for.
fn parted(aside: Option<NonZeroU32>) -> Option<(CudaDevice, Receiver<()>)> {
    opened(aside, &[], None, cache())
}

fn opened(
    aside: Option<NonZeroU32>,
    behind: &[NonZeroU32],
    tuning: Option<Duration>,
    kernel_cache: Option<PathBuf>,
) -> Option<(CudaDevice, Receiver<()>)> {
    match probe() {
        Ok(()) => {}
        Err(why) if std::env::var_os("TESSERA_REQUIRE_CUDA").is_none() => {
            eprintln!("skipped: {why}");
            return None;
        }
        Err(why) => panic!("{why}"),
    }
    let (wake, bell) = bell();
    let partitions = NonZeroUsize::MIN;
    let options = CudaOptions {
        ordinal: 0,
        partitions,
        aside,
        behind: behind.to_vec(),
        memory_limit: None,
        kernel_cache,
        tuning,
    };
    Some((CudaDevice::open(&options, wake).unwrap(), bell))
}

/// Kernels are kept between the tests of a run.
fn cache() -> Option<PathBuf> {
    Some(std::env::temp_dir().join("tessera-test-kernels"))
}

/// The suite's cases, or those of them whose names `TESSERA_CASES` holds, with semicolons between: for tools under which all of them take
/// hours (`scripts/sanitize`).
fn chosen() -> Vec<Case> {
    let Ok(named) = std::env::var("TESSERA_CASES") else { return conformance::cases() };
    let all = conformance::cases();
    let case = |name: &str| {
        let found = all.iter().find(|case| case.name == name.trim());
        found
            .unwrap_or_else(|| panic!("`TESSERA_CASES` names {name:?}, which is no case of the suite"))
            .clone()
    };
    named.split(';').map(case).collect()
}

fn conforms(precision: Precision) {
    let Some((device, bell)) = cuda() else { return };
    passes(&Subject { device: &device, wake: &bell, partition: PartitionId(0), precision });
}

fn passes(subject: &Subject<'_>) {
    let fault = |case: &Case| Some((case.name.clone(), conformance::check(subject, case).err()?));
    let failed: BTreeMap<String, String> = chosen().iter().filter_map(fault).collect();
    assert!(failed.is_empty(), "{}: {failed:#?}", subject.precision);
}

#[test]
fn the_cuda_device_conforms_in_fp32() {
    conforms(Precision::Fp32);
}

#[test]
fn the_cuda_device_conforms_in_tf32() {
    conforms(Precision::Tf32);
}

#[test]
fn the_cuda_device_conforms_in_bf16() {
    conforms(Precision::Bf16);
}

#[test]
fn the_cuda_device_conforms_in_fp16() {
    conforms(Precision::Fp16);
}

/// Largest relative L2 distance of a whole network's answer from the CPU device's fp32 one. Errors of layers add up, so halves get more room
/// than in one step.
fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::Fp32 => 1e-5,
        Precision::Tf32 => 4e-3,
        Precision::Fp16 => 5e-3,
        Precision::Bf16 => 4e-2,
    }
}

/// Tenants of one class: files, and the value of dimensions that are free besides the items.
const NETWORKS: [(&[&str], u64); 7] = [
    (&["mlp-0", "mlp-1", "mlp-2", "mlp-3"], 1),
    (&["lstm-0", "lstm-1", "lstm-2", "lstm-3"], 13),
    (&["block_fresh", "block_tuned"], 1),
    (&["resnet26_narrow-0", "resnet26_narrow-1", "resnet26_narrow-2"], 1),
    (&["mobilenet_v2_035-0", "mobilenet_v2_035-1"], 1),
    (&["timm_test_vit"], 1),
    (&["bert_tiny-0", "bert_tiny-1"], 21),
];

fn fixture(name: &str) -> PathBuf {
    let built = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures"));
    // A binary that was built elsewhere finds them where it is run.
    let folder = if built.exists() { built } else { PathBuf::from("fixtures") };
    folder.join(format!("{name}.onnx"))
}

/// A device with one class's tenants on it.
struct Loaded<'a> {
    device: &'a dyn Device,
    bell: &'a Receiver<()>,
    plan: Arc<Plan>,
    program: ProgramId,
    slots: Vec<Slot>,
}

fn load<'a>(
    device: &'a dyn Device,
    bell: &'a Receiver<()>,
    models: &[Model],
    free: u64,
    precision: Precision,
) -> Loaded<'a> {
    load_on(PartitionId(0), device, bell, models, free, precision)
}

fn load_on<'a>(
    partition: PartitionId,
    device: &'a dyn Device,
    bell: &'a Receiver<()>,
    models: &[Model],
    free: u64,
    precision: Precision,
) -> Loaded<'a> {
    let class = &models[0].class;
    let target = device.pack_target(precision).unwrap();
    let layout = Arc::new(SlotLayout::of(class.folded(), target).unwrap());
    let items = class.bind_without_free_dims().map_or_else(
        || class.free_dims.iter().position(|name| name.contains("batch")).expect("the batch is free"),
        |bound| bound.item_dim.expect("the batch is free"),
    );
    let values: Vec<DimValue> = (0..class.free_dims.len())
        .map(|dim| if dim == items { DimValue::Items } else { DimValue::Fixed(free) })
        .collect();
    let key = PlanKey { class: class.id, dims: [free].into(), precision };
    let plan = Arc::new(tessera_planner::plan(key, class.folded(), &layout, &values).unwrap());
    let slots = models.iter().map(|model| {
        let mut source = |id: ParamId| Ok(model.weights[id.0 as usize].clone());
        let packed = pack(&class.graph, class.folded(), &layout, &mut source).unwrap();
        device.upload(class.id, &layout, packed).unwrap()
    });
    let slots = slots.collect();
    let room = Room { lanes: 32, items: 128 };
    let program = device.compile(&plan, &layout, room, partition).unwrap();
    Loaded { device, bell, plan, program, slots }
}

/// A request for one of the tenants.
#[derive(Clone)]
struct Question {
    tenant: usize,
    items: u32,
    inputs: Vec<Bytes>,
}

impl Loaded<'_> {
    fn question(&self, random: &mut StdRng, items: u32) -> Question {
        let tenant = random.random_range(0..self.slots.len());
        let inputs = self.plan.inputs.iter().map(|port| {
            let count = port.bytes_per_item() / port.dtype.size() * items as usize;
            let bytes: Vec<u8> = match port.dtype {
                DType::F32 => {
                    (0..count).flat_map(|_| random.random_range(-1.0f32..1.0).to_le_bytes()).collect()
                }
                // Token ids, and masks that hide some tokens but never all.
                _ => (0..count).flat_map(|index| i64::from(index % 7 != 3).to_le_bytes()).collect(),
            };
            Bytes::from(bytes)
        });
        Question { tenant, items, inputs: inputs.collect() }
    }

    fn ask(&self, lanes: &[Vec<Question>]) -> Vec<Vec<Vec<Bytes>>> {
        let answers = self.launch(lanes).answers.into_iter();
        answers.map(|lane| lane.into_iter().map(|answer| answer.unwrap()).collect()).collect()
    }

    /// A launch by that name.
    fn of(&self, id: LaunchId, lanes: &[Vec<Question>]) -> Launch {
        let lane = |asked: &Vec<Question>| Lane {
            slot: self.slots[asked[0].tenant].clone(),
            requests: asked
                .iter()
                .map(|question| LaneRequest { items: question.items, inputs: question.inputs.clone() })
                .collect(),
        };
        Launch { id, program: self.program, lanes: lanes.iter().map(lane).collect(), urgent: false }
    }

    fn launch(&self, lanes: &[Vec<Question>]) -> Finished {
        self.device.submit(self.of(LaunchId(7), lanes)).unwrap();
        loop {
            if let Some(finished) = self.device.poll().pop() {
                return finished;
            }
            conformance::wait(self.device, self.bell).unwrap();
        }
    }
}

/// Every answer is the CPU device's within the tolerance, and the same bits alone and among others.
fn answers_as_the_cpu_does(
    names: &[&str],
    free: u64,
    precision: Precision,
    random: &mut StdRng,
) -> Result<(), String> {
    let Some((cuda, cuda_bell)) = cuda() else { return Ok(()) };
    let (wake, cpu_bell) = bell();
    let options = CpuOptions { cores: Cores::All, partitions: None, memory_limit: None };
    let cpu = CpuDevice::open(&options, wake).unwrap();
    let models: Vec<Model> = names.iter().map(|name| class::load(&fixture(name)).unwrap()).collect();
    let truth = load(&cpu, &cpu_bell, &models, free, Precision::Fp32);
    let tested = load(&cuda, &cuda_bell, &models, free, precision);
    let mut worst: f64 = 0.0;
    for lane_count in [1, 3, 32] {
        let lanes: Vec<Vec<Question>> = (0..lane_count)
            .map(|lane| {
                let first = truth.question(random, [1, 2, 5][lane % 3]);
                if lane % 4 != 1 {
                    return vec![first];
                }
                let second = Question { tenant: first.tenant, ..truth.question(random, 1) };
                vec![first, second]
            })
            .collect();
        let together = tested.ask(&lanes);
        let wanted: Vec<_> =
            lanes.iter().map(|lane| truth.ask(std::slice::from_ref(lane)).remove(0)).collect();
        for ((lane, got), want) in lanes.iter().zip(&together).zip(&wanted) {
            for ((question, got), want) in lane.iter().zip(got).zip(want) {
                for (got, want) in got.iter().zip(want) {
                    let distance = relative_l2(&floats(want), &floats(got));
                    worst = if distance.is_nan() { distance } else { worst.max(distance) };
                    if distance.is_nan() || distance > tolerance(precision) {
                        return Err(format!(
                            "{} in {precision}: {distance:e} from the CPU's answer",
                            names[0]
                        ));
                    }
                }
                let alone = tested.ask(&[vec![question.clone()]]).remove(0).remove(0);
                if &alone != got {
                    return Err(format!(
                        "{} in {precision}: other bits alone than among {lane_count}",
                        names[0]
                    ));
                }
            }
        }
    }
    println!("{:<22} {precision}: {worst:.1e} from the CPU's fp32", names[0]);
    Ok(())
}

#[test]
fn whole_networks_answer_as_on_the_cpu_in_every_precision() {
    let seed = std::env::var("TESSERA_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = seed.unwrap_or(u64::from(now.subsec_nanos()));
    println!("TESSERA_SEED={seed}");
    let mut failed = Vec::new();
    for (names, free) in NETWORKS {
        for precision in Precision::ALL {
            let mut random = StdRng::seed_from_u64(seed);
            failed.extend(answers_as_the_cpu_does(names, free, precision, &mut random).err());
        }
    }
    assert!(failed.is_empty(), "seed {seed}: {failed:#?}");
}

#[test]
fn tuning_changes_no_bit_and_no_program_that_is_there_and_lasts() {
    let folder = tempfile::tempdir().unwrap();
    let budget = Some(Duration::from_secs(5));
    let room = Room { lanes: 32, items: 128 };
    for (names, free) in NETWORKS {
        for precision in Precision::ALL {
            let open = || opened(None, &[], budget, Some(folder.path().to_owned()));
            let Some((device, bell)) = open() else { return };
            let models: Vec<Model> = names.iter().map(|name| class::load(&fixture(name)).unwrap()).collect();
            let ruled = load(&device, &bell, &models, free, precision);
            let mut random = StdRng::seed_from_u64(5);
            let mut lanes = |count: usize| -> Vec<Vec<Question>> {
                (0..count).map(|lane| vec![ruled.question(&mut random, [1, 3][lane % 2])]).collect()
            };
            let asked = [lanes(1), lanes(3), lanes(32)];
            let answers = |loaded: &Loaded<'_>| asked.each_ref().map(|lanes| loaded.ask(lanes));
            let before = answers(&ruled);
            let target = device.pack_target(precision).unwrap();
            let layout = SlotLayout::of(models[0].class.folded(), target).unwrap();
            let tuned = device.tune(&ruled.plan, &layout, room).unwrap().expect("it has a budget");
            println!("{:<22} {precision}: {tuned}", names[0]);
            assert_eq!(tuned.remarks, Vec::<String>::new(), "{} in {precision}", names[0]);
            assert!(answers(&ruled) == before, "{} in {precision}: a program that was there", names[0]);
            let chosen = load(&device, &bell, &models, free, precision);
            assert!(answers(&chosen) == before, "{} in {precision}: retuned", names[0]);
            let Some((next, _)) = open() else { return };
            let again = next.tune(&ruled.plan, &layout, room).unwrap().expect("it has a budget");
            assert_eq!(again.products, tuned.products);
            assert!(again.timed <= tuned.left, "what was timed is found on disk: {again}");
            assert!(again.changed >= tuned.changed);
        }
    }
}

#[test]
fn one_launch_of_many_tells_what_each_step_added_and_answers_as_the_others_do() {
    let Some((device, bell)) = cuda() else { return };
    let models = vec![class::load(&fixture("resnet26_narrow-0")).unwrap()];
    let loaded = load(&device, &bell, &models, 1, Precision::Bf16);
    let question = loaded.question(&mut StdRng::seed_from_u64(1), 5);
    let launches: Vec<Finished> = (0..65).map(|_| loaded.launch(&[vec![question.clone()]])).collect();
    let sampled: Vec<usize> = (0..65).filter(|&number| launches[number].steps.is_some()).collect();
    assert_eq!(sampled, [0, 64]);
    for launch in &launches {
        assert_eq!(launch.answers, launches[0].answers);
        let Some(steps) = &launch.steps else { continue };
        assert_eq!((steps.len(), steps[0].len()), (1, loaded.plan.steps.len()), "lanes run merged");
        let sum: Duration = steps[0].iter().sum();
        println!("{} steps add up to {sum:?} of {:?}", steps[0].len(), launch.took);
        // Before the first step the table is fetched, and after the last one outputs are converted.
        assert!(sum <= launch.took + Duration::from_micros(5) && 2 * sum >= launch.took, "{steps:?}");
    }
}

#[test]
fn adopted_inputs_are_answered_like_others_and_their_memory_comes_back() {
    let Some((device, bell)) = cuda() else { return };
    let models: Vec<Model> =
        (0..3).map(|number| class::load(&fixture(&format!("resnet26_narrow-{number}"))).unwrap()).collect();
    let before = device.memory();
    let loaded = load(&device, &bell, &models, 1, Precision::Bf16);
    let mut random = StdRng::seed_from_u64(3);
    let lanes: Vec<Vec<Question>> = (1..9)
        .map(|items| vec![loaded.question(&mut random, items), loaded.question(&mut random, 9)])
        .collect();
    // Both requests of a lane are for one tenant.
    let lanes: Vec<Vec<Question>> = lanes
        .into_iter()
        .map(|lane| {
            lane.iter().map(|question| Question { tenant: lane[0].tenant, ..question.clone() }).collect()
        })
        .collect();
    let expected = loaded.ask(&lanes);
    let adopt = |lane: &[Question], which: &dyn Fn(usize) -> bool| -> Vec<Question> {
        let adopted = |(number, question): (usize, &Question)| {
            let adopt =
                |input: &Bytes| if which(number) { device.adopt(input.clone()) } else { input.clone() };
            Question { inputs: question.inputs.iter().map(adopt).collect(), ..question.clone() }
        };
        lane.iter().enumerate().map(adopted).collect()
    };
    for which in [&|_| true, &|number| number == 0, &|number| number == 1] as [&dyn Fn(usize) -> bool; 3] {
        let lanes: Vec<Vec<Question>> = lanes.iter().map(|lane| adopt(lane, which)).collect();
        assert_eq!(loaded.ask(&lanes), expected);
        assert_eq!(loaded.ask(&lanes), expected, "a piece may be launched again");
    }
    // Four images; of more than six nobody takes a copy alone.
    let large = lanes[3][0].inputs[0].clone();
    let moved = |input: &Bytes| input.as_ptr() != large.as_ptr();
    let once = device.adopt(large.clone());
    assert!(moved(&once) && device.adopt(once.clone()).as_ptr() == once.as_ptr(), "once is enough");
    assert_eq!(device.adopt(Bytes::from_static(b"small")).as_ref(), b"small");
    let kept: Vec<Bytes> =
        std::iter::repeat_with(|| device.adopt(large.clone())).take_while(|input| moved(input)).collect();
    println!("{} pieces of {} bytes find room", kept.len(), large.len());
    assert!(kept.iter().all(|input| *input == large), "each has room of its own");
    assert_eq!(loaded.ask(&lanes), expected, "without room inputs go as they came");
    drop(kept);
    assert!(moved(&device.adopt(large.clone())), "room that was given back is lent again");
    assert!(device.memory().pinned > before.pinned);
    device.discard(loaded.program);
    drop(loaded);
    assert!(once == large && device.memory().pinned > before.pinned, "what is lent stays");
    drop(once);
    assert_eq!(device.memory(), before);
}

#[test]
fn memory_is_accounted_and_comes_back() {
    let Some((device, bell)) = cuda() else { return };
    let models = vec![class::load(&fixture("mlp-0")).unwrap()];
    let before = device.memory();
    let loaded = load(&device, &bell, &models, 1, Precision::Tf32);
    let during = device.memory();
    assert!(during.weights > before.weights && during.arenas > before.arenas, "{during:?}");
    device.discard(loaded.program);
    drop(loaded);
    let after = device.memory();
    assert_eq!(after, before, "with the last program the arena and the staging go too");
}

#[test]
fn the_cuda_device_answers_onnx_s_own_tests_in_fp32() {
    let Some((device, bell)) = cuda() else { return };
    let target = device.pack_target(Precision::Fp32).unwrap();
    let cuda = OnDevice { device: &device, bell: &bell, target };
    let (not_passing, no_kernel) = (Ledger::not_passing(), Ledger::no_cuda_kernel());
    let mut found = BTreeMap::new();
    for case in cases().into_iter().filter(|case| not_passing.stop(case).is_none()) {
        let stop = guarded(|| cuda.answers(&case)).err().map(|why| Stop::new(&case, Stage::Cuda, &why));
        found.insert(case.name, stop);
    }
    no_kernel.settle(&found, &(Stage::Cuda..=Stage::Cuda));
}
