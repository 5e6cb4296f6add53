//! Models of torchvision and timm as both of PyTorch's exporters write them: they import, answer as PyTorch does, and two with
//! other weights are one class.
//!
//! `scripts/make-exports.py` makes the small ones in `fixtures/exports` and the wide survey, which is not in the repository.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod cpu;

use bytes::Bytes;
use cpu::Cpu;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tessera_core::{ClassId, LaunchId, PartitionId, PlanKey, Precision};
use tessera_device::conformance::{floats, relative_l2};
use tessera_device::{Device, Lane, LaneRequest, Launch, Room};
use tessera_planner::class::{self, Model};
use tessera_planner::graph::ParamId;
use tessera_planner::infer::{DimValue, InferError};
use tessera_planner::pack::pack;
use tessera_planner::{Plan, PlanError, SlotLayout, Tensor, npz};

/// What the project asks of every device in fp32, relative L2.
const TOLERANCE: f64 = 1e-5;

impl Cpu {
    /// The answer to `x`, whose axis 0 is the batch, and whether its items were proven independent.
    fn answer(&self, model: &Model, x: &Tensor) -> Result<(Vec<f32>, bool), String> {
        let class = &model.class;
        let target = self.device.pack_target(Precision::Fp32).unwrap();
        let layout = Arc::new(SlotLayout::of(class.folded(), target).map_err(|error| error.to_string())?);
        let batch = x.dims()[0] as u32;
        let plan = |dim: DimValue, named: &[u64]| {
            let key = PlanKey { class: class.id, dims: named.into(), precision: Precision::Fp32 };
            tessera_planner::plan(key, class.folded(), &layout, &[dim])
        };
        let (plan, items): (Plan, u32) = match plan(DimValue::Items, &[]) {
            Err(PlanError::Infer(InferError::MixesItems { .. })) => {
                let whole = plan(DimValue::Fixed(u64::from(batch)), &[u64::from(batch)]);
                (whole.map_err(|error| error.to_string())?, 1)
            }
            planned => (planned.map_err(|error| error.to_string())?, batch),
        };
        let (plan, proven) = (Arc::new(plan), items == batch);
        let mut source = |id: ParamId| Ok(model.weights[id.0 as usize].clone());
        let packed =
            pack(&class.graph, class.folded(), &layout, &mut source).map_err(|error| error.to_string())?;
        let slot = self.device.upload(class.id, &layout, packed).map_err(|error| error.to_string())?;
        let room = Room { lanes: 1, items };
        let program =
            self.device.compile(&plan, &layout, room, PartitionId(0)).map_err(|error| error.to_string())?;
        let requests = vec![LaneRequest { items, inputs: vec![Bytes::copy_from_slice(x.bytes())] }];
        let launch = Launch { id: LaunchId(0), program, lanes: vec![Lane { slot, requests }], urgent: false };
        self.device.submit(launch).map_err(|error| error.to_string())?;
        let mut finished = loop {
            match self.device.poll().pop() {
                Some(finished) => break finished,
                None => self.bell.recv_timeout(Duration::from_secs(300)).map_err(|_| "it does not end")?,
            }
        };
        self.device.discard(program);
        let answer = finished.answers.remove(0).remove(0).map_err(|error| error.to_string())?;
        Ok((floats(&answer[0]), proven))
    }

    /// The largest distance of an answer from PyTorch's, and whether items were proven independent.
    fn distance(&self, model: &Model, arrays: &BTreeMap<String, Tensor>) -> Result<(f64, bool), String> {
        let (mut worst, mut proven) = (0.0f64, true);
        for set in ["", "alt."] {
            let (got, batched) = self.answer(model, &arrays[&format!("{set}in.x")])?;
            let distance = relative_l2(&floats(arrays[&format!("{set}out.y")].bytes()), &got);
            worst = if distance.is_nan() { f64::INFINITY } else { worst.max(distance) };
            proven &= batched;
        }
        Ok((worst, proven))
    }
}

/// Names of the exports in a folder, without `.WEIGHTS.onnx`.
fn exports(folder: &Path) -> BTreeSet<String> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    files
        .filter_map(|file| {
            let file = file.into_string().unwrap();
            let stem = file.strip_suffix(".onnx").or(file.strip_suffix(".failed"))?;
            Some(stem.rsplit_once('.')?.0.to_owned())
        })
        .collect()
}

fn load(folder: &Path, export: &str, weights: &str) -> Result<Model, String> {
    class::load(&folder.join(format!("{export}.{weights}.onnx"))).map_err(|error| error.to_string())
}

fn fixtures() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/exports"))
}

#[test]
fn exports_of_both_exporters_answer_as_pytorch_does_and_other_weights_are_the_same_class() {
    let (cpu, folder) = (Cpu::open(), fixtures());
    let mut wrong = Vec::new();
    let mut classes: BTreeMap<ClassId, String> = BTreeMap::new();
    for export in exports(&folder) {
        let mut run = || -> Result<f64, String> {
            let tuned = load(&folder, &export, "tuned")?;
            if load(&folder, &export, "other")?.class.id != tuned.class.id {
                return Err("two with other weights are two classes".into());
            }
            let architecture = export.split('.').next().unwrap().to_owned();
            let first = classes.entry(tuned.class.id).or_insert_with(|| architecture.clone());
            if *first != architecture {
                return Err(format!("of one class with {first}"));
            }
            let arrays = npz::read(&folder.join(format!("{export}.tuned.npz"))).unwrap();
            let (distance, proven) = cpu.distance(&tuned, &arrays)?;
            if !proven {
                return Err("its items are not proven independent".into());
            }
            if distance <= TOLERANCE {
                Ok(distance)
            } else {
                Err(format!("{distance:.1e} from PyTorch's answer"))
            }
        };
        match run() {
            Ok(distance) => println!("{export:<32} {distance:.1e}"),
            Err(why) => wrong.push(format!("{export}: {why}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_item_of_an_export_has_the_same_bits_alone_and_among_others() {
    let (cpu, folder) = (Cpu::open(), fixtures());
    for export in exports(&folder) {
        let model = load(&folder, &export, "tuned").unwrap();
        let x = &npz::read(&folder.join(format!("{export}.tuned.npz"))).unwrap()["in.x"];
        let (together, _) = cpu.answer(&model, x).unwrap();
        let mut one = x.dims().to_vec();
        let items = std::mem::replace(&mut one[0], 1);
        assert!(items > 1, "{export}");
        let bytes = x.bytes().chunks_exact(x.bytes().len() / items);
        for (item, among) in bytes.zip(together.chunks_exact(together.len() / items)) {
            let item = Tensor::new(x.dtype(), one.clone(), item.to_vec()).unwrap();
            let (alone, _) = cpu.answer(&model, &item).unwrap();
            let bits = |all: &[f32]| all.iter().map(|one| one.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&alone), bits(among), "{export}");
        }
    }
}

/// The largest distance from PyTorch's answers in f64 of others that are as right, where they are at hand: its own in f32, and those in f64 of weights
/// that differ in their last bits.
fn own_distance(arrays: &BTreeMap<String, Tensor>) -> Option<f64> {
    let others = arrays.iter().filter_map(|(name, answer)| {
        let (set, name) = name.strip_prefix("alt.").map_or(("", &name[..]), |name| ("alt.", name));
        let other = name.ends_with(".y") && name != "out.y";
        other.then(|| relative_l2(&floats(arrays[&format!("{set}out.y")].bytes()), &floats(answer.bytes())))
    });
    others.reduce(f64::max)
}

/// One line of the survey.
fn surveyed(cpu: &Cpu, folder: &Path, export: &str) -> String {
    let mut words = export.split('.');
    let (model, exporter) = (words.next().unwrap(), words.next().unwrap());
    let first_line = |why: String| why.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let [failed, other_failed] =
        ["tuned", "other"].map(|weights| folder.join(format!("{export}.{weights}.failed")));
    let outcome = || -> Result<String, String> {
        if let Ok(why) = std::fs::read_to_string(failed) {
            return Err(format!("PyTorch does not export it: {}", first_line(why)));
        }
        let tuned = load(folder, export, "tuned")?;
        let one_class = match load(folder, export, "other") {
            Ok(other) if other.class.id == tuned.class.id => "one class",
            Ok(_) => "TWO CLASSES",
            Err(_) if other_failed.exists() => "the other is not exported",
            Err(_) => "the other does not load",
        };
        let arrays = npz::read(&folder.join(format!("{export}.tuned.npz"))).unwrap();
        let (distance, proven) = cpu.distance(&tuned, &arrays)?;
        let own = own_distance(&arrays);
        let verdict = match own {
            _ if distance <= TOLERANCE => "right",
            // Nobody's f32 comes closer: the network makes much of little.
            Some(own) if distance <= 2.0 * own => "as PyTorch",
            _ => "WRONG",
        };
        let own = own.map_or_else(|| "–".to_owned(), |own| format!("{own:.1e}"));
        let items = if proven { "items" } else { "whole requests" };
        Ok(format!("{verdict:<10} {distance:.1e} {own:>7}  {one_class}, {items}"))
    };
    let said = outcome().unwrap_or_else(|why| format!("refused: {}", first_line(why)));
    format!("{model:<42} {exporter:<10} {said}")
}

#[test]
#[ignore = "reads gigabytes that scripts/make-exports.py makes: TESSERA_EXPORTS=DIR"]
fn the_survey_of_exports() {
    let folder = PathBuf::from(std::env::var("TESSERA_EXPORTS").expect("TESSERA_EXPORTS names the folder"));
    let cpu = Cpu::open();
    for export in exports(&folder) {
        println!("{}", surveyed(&cpu, &folder, &export));
    }
}
