//! The cache of packed weights, through its public face: what it keeps, what it refuses, and who may share it.

#![allow(clippy::unwrap_used)] // the lint spares tests, but not the functions that they share

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tessera_core::{Bytes, ClassId, DType, Precision};
use tessera_planner::fold::{Folded, FoldedWeight, Role, WeightExpr};
use tessera_planner::graph::{Graph, Param, ParamData, ParamId, ValueId, WeightSource};
use tessera_planner::op::{Binary, Op};
use tessera_planner::pack::Matrices;
use tessera_planner::pack::{PackError, Sources, pack};
use tessera_planner::pack_cache::{CacheError, CacheKey, PackCache, Wanted};
use tessera_planner::source::stamp;
use tessera_planner::{PackTarget, Packed, SlotLayout, Tensor};

const TARGET: PackTarget =
    PackTarget { device: "cpu", precision: Precision::Fp32, matrices: Matrices::Panels(4) };

/// A class whose only packed weight is the sum of its two parameters.
fn class() -> (Graph, Folded) {
    let param = |index: u32| Param {
        value: ValueId(index),
        name: format!("p{index}"),
        dtype: DType::F32,
        dims: vec![2, 3],
        data: ParamData::Weight(WeightSource::Inline(weights(0.0))),
    };
    let graph = Graph {
        params: vec![param(0), param(1)],
        values: vec!["p0".into(), "p1".into()],
        ..Graph::default()
    };
    let expr = WeightExpr::Apply {
        op: Op::Binary(Binary::Add),
        inputs: vec![Some(WeightExpr::Param(ParamId(0))), Some(WeightExpr::Param(ParamId(1)))],
        output: 0,
    };
    let weight =
        FoldedWeight { name: "sum".into(), value: ValueId(0), dims: vec![2, 3], expr, role: Role::Matrix };
    (graph.clone(), Folded { graph, weights: vec![weight] })
}

fn weights(first: f32) -> Tensor {
    Tensor::from_elements(&[2, 3], &[first, 1.0, 2.0, 3.0, 4.0, 5.0])
}

fn inline(first: f32) -> WeightSource {
    WeightSource::Inline(weights(first))
}

/// The key of weights, as it is made at a moment.
fn key_of(source: &WeightSource, now: SystemTime) -> Option<CacheKey> {
    let (graph, folded) = class();
    let layout = SlotLayout::of(&folded, TARGET).unwrap();
    let sources = Sources::of(&graph, &folded, &mut |_| Ok(source.clone())).unwrap();
    CacheKey::new(ClassId([0; 16]), &folded, &layout, &sources, now)
}

fn key(number: u8) -> CacheKey {
    key_of(&inline(f32::from(number)), SystemTime::now()).unwrap()
}

fn packed(number: u8, len: usize) -> Packed {
    Packed::from(&vec![number; len][..])
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn open(dir: &TempDir, budget: u64) -> PackCache {
    PackCache::open(dir.path(), Bytes(budget), Arc::new(|error| panic!("{error}"))).unwrap()
}

#[test]
fn what_was_put_comes_back_and_nothing_else_does() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, 1 << 20);
    assert!(cache.get(&key(1), Bytes(100)).unwrap().is_none());
    cache.put(&key(1), &packed(1, 100)).unwrap();
    assert_eq!(cache.get(&key(1), Bytes(100)).unwrap().unwrap().bytes(), [1; 100]);
    assert!(cache.get(&key(2), Bytes(100)).unwrap().is_none());
    assert_eq!(
        open(&dir, 1 << 20).get(&key(1), Bytes(100)).unwrap().unwrap().bytes(),
        [1; 100],
        "after a restart"
    );
}

#[test]
fn a_key_differs_with_everything_that_changes_the_bytes() {
    let (graph, folded) = class();
    let key = |class: ClassId, folded: &Folded, target: PackTarget, weights: u8| {
        let layout = SlotLayout::of(folded, target).unwrap();
        let sources = Sources::of(&graph, folded, &mut |_| Ok(inline(f32::from(weights)))).unwrap();
        CacheKey::new(class, folded, &layout, &sources, SystemTime::now()).unwrap()
    };
    let class = ClassId([0; 16]);
    let mut other = folded.clone();
    let WeightExpr::Apply { op, .. } = &mut other.weights[0].expr else { panic!("a sum") };
    *op = Op::Binary(Binary::Sub);
    let keys = [
        key(class, &folded, TARGET, 0),
        key(ClassId([1; 16]), &folded, TARGET, 0),
        key(class, &other, TARGET, 0),
        key(class, &folded, PackTarget { device: "sm90", ..TARGET }, 0),
        key(class, &folded, PackTarget { precision: Precision::Tf32, ..TARGET }, 0),
        key(class, &folded, PackTarget { matrices: Matrices::Panels(8), ..TARGET }, 0),
        key(class, &folded, TARGET, 1),
    ];
    for (index, one) in keys.iter().enumerate() {
        assert!(keys[..index].iter().all(|other| other != one), "key {index}");
    }
    assert_eq!(keys[0], key(class, &folded, TARGET, 0));
}

#[test]
fn a_damaged_entry_is_named_and_then_gone() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, 1 << 20);
    let damages: [fn(&mut Vec<u8>); 6] = [
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| bytes.truncate(10),
        Vec::clear,
        |bytes| bytes.push(0),
        |bytes| *bytes.last_mut().unwrap() ^= 1,
        |bytes| bytes[9] ^= 1,
    ];
    for damage in damages {
        cache.put(&key(1), &packed(1, 100)).unwrap();
        let [path] = &entries(dir.path())[..] else { panic!("one entry") };
        let mut bytes = fs::read(path).unwrap();
        damage(&mut bytes);
        fs::write(path, bytes).unwrap();
        let error = cache.get(&key(1), Bytes(100)).unwrap_err();
        assert!(matches!(error, CacheError::Damaged { .. }), "{error}");
        assert!(cache.get(&key(1), Bytes(100)).unwrap().is_none());
    }
}

#[test]
fn an_entry_under_another_name_is_not_believed() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, 1 << 20);
    cache.put(&key(1), &packed(1, 100)).unwrap();
    let first = entries(dir.path()).remove(0);
    cache.put(&key(2), &packed(2, 100)).unwrap();
    let second = entries(dir.path()).into_iter().find(|path| *path != first).unwrap();
    fs::copy(&first, &second).unwrap();
    assert!(matches!(cache.get(&key(2), Bytes(100)), Err(CacheError::Damaged { .. })));
}

#[test]
fn the_entry_used_least_recently_makes_room() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, 2500);
    let pause = || thread::sleep(Duration::from_millis(30)); // file systems keep time in ticks of up to 10 ms
    for number in [1, 2] {
        cache.put(&key(number), &packed(number, 1000)).unwrap();
        pause();
    }
    assert!(cache.get(&key(1), Bytes(1000)).unwrap().is_some());
    pause();
    cache.put(&key(3), &packed(3, 1000)).unwrap();
    let left = [1, 2, 3].map(|number| cache.get(&key(number), Bytes(1000)).unwrap().is_some());
    assert_eq!(left, [true, false, true]);
}

#[test]
fn what_is_larger_than_the_budget_is_not_kept_and_evicts_nothing() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, 1200);
    cache.put(&key(1), &packed(1, 1000)).unwrap();
    let error = cache.put(&key(2), &packed(2, 1200)).unwrap_err();
    assert!(matches!(error, CacheError::TooLarge { .. }), "{error}");
    assert!(cache.get(&key(1), Bytes(1000)).unwrap().is_some());
}

#[test]
fn an_entry_put_again_does_not_evict_its_neighbours() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, 2500);
    for number in [1, 2, 2, 2] {
        cache.put(&key(number), &packed(number, 1000)).unwrap();
    }
    assert!(cache.get(&key(1), Bytes(1000)).unwrap().is_some());
}

#[test]
fn unfinished_writes_of_the_dead_are_cleared_and_those_of_the_living_left() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, 1 << 20);
    let (dead, alive) = (dir.path().join("7-0.unfinished"), dir.path().join("8-0.unfinished"));
    fs::write(&dead, "half").unwrap();
    fs::write(&alive, "half").unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 60 * 60);
    fs::File::options().write(true).open(&dead).unwrap().set_modified(long_ago).unwrap();
    cache.put(&key(1), &packed(1, 10)).unwrap();
    assert_eq!((dead.exists(), alive.exists()), (false, true));
}

#[test]
fn threads_may_race_for_one_entry() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, 1 << 30);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| race(&cache));
        }
    });
    assert_eq!(entries(dir.path()).len(), 3, "one file per key and nothing unfinished");
}

/// Puts and gets the same three keys: whoever wins, what is read is whole.
fn race(cache: &PackCache) {
    for round in 0..30u8 {
        let number = round % 3;
        cache.put(&key(number), &packed(number, 50_000)).unwrap();
        let found = cache.get(&key(number), Bytes(50_000)).unwrap().expect("nobody evicts");
        assert!(found.bytes().iter().all(|&byte| byte == number));
    }
}

#[test]
fn processes_may_race_for_one_entry() {
    let dir = TempDir::new().unwrap();
    let run = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_racing_process", "--ignored"])
            .env("RACE_IN", dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let children = [run(), run()];
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(entries(dir.path()).len(), 3);
}

#[test]
#[ignore = "half of processes_may_race_for_one_entry, which starts it twice"]
fn a_racing_process() {
    let dir = std::env::var_os("RACE_IN").expect("started by processes_may_race_for_one_entry");
    race(&PackCache::open(dir, Bytes(1 << 30), Arc::new(|error| panic!("{error}"))).unwrap());
}

/// The weights as a file has them.
fn in_file(path: &Path, first: f32) -> WeightSource {
    fs::write(path, weights(first).bytes()).unwrap();
    let stamp = stamp(path).unwrap();
    WeightSource::File { path: Arc::new(path.to_owned()), len: stamp.len, stamp, offset: 0 }
}

#[test]
fn packing_through_the_cache_computes_once_and_asks_once_for_each_weight() {
    let dir = TempDir::new().unwrap();
    let (graph, folded) = class();
    let layout = SlotLayout::of(&folded, TARGET).unwrap();
    let wanted = Wanted { class: ClassId([0; 16]), graph: &graph, folded: &folded, layout: &layout };
    let want = pack(&graph, &folded, &layout, &mut |_| Ok(inline(7.0))).unwrap();
    let mut written = None;
    for _ in 0..3 {
        let mut asked = 0;
        let mut source = |_| {
            asked += 1;
            Ok(inline(7.0))
        };
        let cache = open(&dir, 1 << 20);
        assert_eq!(cache.pack(&wanted, &mut source).unwrap().bytes(), want.bytes());
        assert_eq!(asked, 2);
        drop(cache); // what is on its way is written then
        let [entry] = &entries(dir.path())[..] else { panic!("one entry") };
        let inode = stamp(entry).unwrap().identity;
        assert_eq!(*written.get_or_insert(inode), inode, "it is written once");
    }
    let other = open(&dir, 1 << 20).pack(&wanted, &mut |_| Ok(inline(8.0))).unwrap();
    assert_ne!(other.bytes(), want.bytes(), "other weights are another entry");
}

#[test]
fn a_load_waits_for_no_writing_and_what_comes_too_fast_is_not_kept() {
    let dir = TempDir::new().unwrap();
    let budget = 1 << 30;
    let cache = open(&dir, budget);
    let (graph, folded) = class();
    let layout = SlotLayout::of(&folded, TARGET).unwrap();
    let wanted = Wanted { class: ClassId([0; 16]), graph: &graph, folded: &folded, layout: &layout };
    for tenant in 0..100u8 {
        let packed = cache.pack(&wanted, &mut |_| Ok(inline(f32::from(tenant)))).unwrap();
        let want = pack(&graph, &folded, &layout, &mut |_| Ok(inline(f32::from(tenant)))).unwrap();
        assert_eq!(packed.bytes(), want.bytes());
    }
    drop(cache);
    let kept = entries(dir.path());
    assert!((1..=100).contains(&kept.len()), "{} entries", kept.len());
    assert!(
        kept.iter().all(|path| path.extension().is_some_and(|extension| extension == "pack")),
        "{kept:?}"
    );
}

#[test]
fn tenants_are_told_apart_by_a_single_bit() {
    let mut bytes = weights(7.0).bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let changed = WeightSource::Inline(Tensor::new(DType::F32, vec![2, 3], bytes).unwrap());
    let now = SystemTime::now();
    assert_eq!(key_of(&inline(7.0), now), key_of(&inline(7.0), now));
    assert_ne!(key_of(&inline(7.0), now), key_of(&changed, now));
}

#[test]
fn a_file_is_known_again_once_its_times_would_tell_of_a_change() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("weights");
    let old = in_file(&path, 1.0);
    let now = SystemTime::now();
    let later = now + Duration::from_secs(10);
    assert_eq!(key_of(&old, now), None, "it could be written again within a tick of its clock");
    assert!(key_of(&old, later).is_some());
    assert_eq!(key_of(&old, later), key_of(&old, later + Duration::from_secs(1)));
    // As long and as old as before, by what a user can set.
    let new = in_file(&path, 2.0);
    let WeightSource::File { stamp, .. } = &old else { unreachable!() };
    fs::File::options().write(true).open(&path).unwrap().set_modified(stamp.modified.unwrap()).unwrap();
    let set_back = in_file_as_it_is(&path);
    assert_ne!(key_of(&new, later), key_of(&old, later));
    assert_ne!(key_of(&set_back, later), key_of(&old, later));
}

fn in_file_as_it_is(path: &Path) -> WeightSource {
    let stamp = stamp(path).unwrap();
    WeightSource::File { path: Arc::new(path.to_owned()), len: stamp.len, stamp, offset: 0 }
}

#[test]
fn a_hit_reads_none_of_the_weights() {
    let (dir, models) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let cache = open(&dir, 1 << 20);
    let (graph, folded) = class();
    let layout = SlotLayout::of(&folded, TARGET).unwrap();
    let wanted = Wanted { class: ClassId([0; 16]), graph: &graph, folded: &folded, layout: &layout };
    let path = models.path().join("weights");
    let source = in_file(&path, 7.0);
    let want = pack(&graph, &folded, &layout, &mut |_| Ok(source.clone())).unwrap();
    let key = key_of(&source, SystemTime::now() + Duration::from_secs(10)).unwrap();
    cache.put(&key, &want).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(cache.get(&key, layout.bytes).unwrap().unwrap().bytes(), want.bytes());
    // It is too young for the cache's own clock, and so it is looked for.
    let missed = cache.pack(&wanted, &mut |_| Ok(source.clone()));
    assert!(matches!(missed, Err(PackError::Read { .. })));
}

#[test]
fn a_cache_that_cannot_be_written_or_read_only_complains() {
    let dir = TempDir::new().unwrap();
    let complaints = Arc::new(AtomicUsize::new(0));
    let count = complaints.clone();
    let complain = Arc::new(move |_| _ = count.fetch_add(1, Ordering::SeqCst));
    let cache = PackCache::open(dir.path(), Bytes(1 << 20), complain).unwrap();
    let (graph, folded) = class();
    let layout = SlotLayout::of(&folded, TARGET).unwrap();
    let wanted = Wanted { class: ClassId([0; 16]), graph: &graph, folded: &folded, layout: &layout };
    fs::remove_dir_all(dir.path()).unwrap();
    fs::write(dir.path(), "a file where the folder was").unwrap();
    let packed = cache.pack(&wanted, &mut |_| Ok(inline(7.0))).unwrap();
    assert_eq!(packed.bytes().len() as u64, layout.bytes.0);
    drop(cache);
    assert_eq!(complaints.load(Ordering::SeqCst), 2, "of reading, and of writing");
    fs::remove_file(dir.path()).unwrap();
}
