//! The model road: import, plan and pack of convolutional networks and of a transformer, and a hit of the pack cache, from files in the system's cache.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;
use tempfile::TempDir;
use tessera_bench::zoo::{Sizes, find, write_tenants};
use tessera_core::{Bytes, PlanKey, Precision};
use tessera_device::cpu::PACK_TARGET;
use tessera_planner::class::{self, Class};
use tessera_planner::graph::ParamId;
use tessera_planner::infer::DimValue;
use tessera_planner::pack_cache::{PackCache, Wanted};
use tessera_planner::{Plan, SlotLayout, pack, plan};

/// Large enough for weights to matter, small enough for a minute.
const ARCHITECTURES: [&str; 3] = ["mobilenet-v2", "resnet-50", "bert-small"];
const TOKENS: u64 = 32;

fn planned(class: &Class, layout: &SlotLayout) -> Plan {
    // One axis counts items, and a second free one counts tokens.
    let items = class
        .bind(&shapes(class).iter().map(Vec::as_slice).collect::<Vec<_>>())
        .expect("shapes fit")
        .item_dim;
    let value = |dim| if Some(dim) == items { DimValue::Items } else { DimValue::Fixed(TOKENS) };
    let dims: Vec<DimValue> = (0..class.free_dims.len()).map(value).collect();
    let key = PlanKey { class: class.id, dims: [TOKENS].into(), precision: Precision::Fp32 };
    plan(key, class.folded(), layout, &dims).expect("the zoo can be planned")
}

fn shapes(class: &Class) -> Vec<Vec<u64>> {
    let size = |(axis, dim): (usize, i64)| match dim {
        -1 if axis == 0 => 1,
        -1 => TOKENS,
        dim => dim as u64,
    };
    class.input_shapes().map(|(_, dims)| dims.into_iter().enumerate().map(size).collect()).collect()
}

fn model_road(criterion: &mut Criterion) {
    let folder = TempDir::new().expect("a folder for models");
    for name in ARCHITECTURES {
        let zoo = find(name).expect("in the zoo").model(&Sizes::default()).expect("usual sizes");
        write_tenants(&zoo, 1, 1, folder.path(), &mut |_| {}).expect("models are written");
    }
    // The pack cache does not keep what a file holds that was just written.
    sleep(Duration::from_millis(2500));
    for name in ARCHITECTURES {
        of_file(criterion, name, &folder.path().join(format!("{name}-0.onnx")));
    }
}

fn of_file(criterion: &mut Criterion, name: &str, file: &Path) {
    let model = class::load(file).expect("the zoo can be imported");
    let class = &model.class;
    let layout = SlotLayout::of(class.folded(), PACK_TARGET).expect("a slot fits memory");
    let mut group = criterion.benchmark_group("model_road");
    group.sample_size(10);
    group.bench_function(BenchmarkId::new("import", name), |bencher| {
        bencher.iter(|| class::load(black_box(file)));
    });
    group.bench_function(BenchmarkId::new("plan", name), |bencher| {
        bencher.iter(|| planned(black_box(class), &layout));
    });
    group.throughput(Throughput::Bytes(layout.bytes.0));
    group.bench_function(BenchmarkId::new("pack", name), |bencher| {
        let mut source = |id: ParamId| Ok(model.weights[id.0 as usize].clone());
        bencher.iter(|| pack::pack(&class.graph, class.folded(), &layout, &mut source));
    });
    let wanted = Wanted { class: class.id, graph: &class.graph, folded: class.folded(), layout: &layout };
    let folder = file.with_extension("packs");
    let open = || {
        let complain = Arc::new(|error| panic!("{error}"));
        PackCache::open(&folder, Bytes(1 << 30), complain).expect("a folder for packs")
    };
    let mut source = |id: ParamId| Ok(model.weights[id.0 as usize].clone());
    // Dropped, and with that written.
    open().pack(&wanted, &mut source).expect("the zoo can be packed");
    let cache = open();
    group.bench_function(BenchmarkId::new("hit of the pack cache", name), |bencher| {
        bencher.iter(|| cache.pack(&wanted, &mut source));
    });
    group.finish();
}

criterion_group!(benches, model_road);
criterion_main!(benches);
