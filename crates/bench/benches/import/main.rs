//! What it costs to take a tenant in: time and peak memory, from its file to its slot, beside reading the file.
//!
//! ```text
//!   cat       the file read through a small buffer, as `cat FILE > /dev/null` does
//!   first     the first tenant of its class: import, plan, pack, upload
//!   second    another tenant of the class: import, pack, upload
//!   fill      as first, with a pack cache that has to write them
//!   restart   a process that finds the tenant's weights in the pack cache
//! ```
//! Each row is a process of its own, so that peaks are its own; files are read once before, so that the disk is not what is measured. Best of
//! so many runs, as others on the machine only ever add. They add little to the time of processors, and nothing to pages, which stand beside it:
//! how often the system had to bring memory (with huge pages, 2 MiB at a time).
//!
//! `cargo bench -p tessera-bench --bench import -- [ARCH…]`

use anyhow::{Context, Result, bail};
use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tessera_bench::zoo::{Sizes, find, write_tenants};
use tessera_core::{Bytes, PartitionId, PlanKey, Precision};
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};
use tessera_device::{Device, Room, Slot};
use tessera_planner::class::{self, Model};
use tessera_planner::graph::ParamId;
use tessera_planner::infer::DimValue;
use tessera_planner::pack_cache::{PackCache, Wanted};
use tessera_planner::{SlotLayout, pack, plan};

const ARCHITECTURES: [&str; 3] = ["resnet-152", "mobilenet-v2", "bert-base"];
const RUNS: usize = 7;
/// Asks a process of this program for one measurement: what, the folder, the architecture.
const MEASURE: &str = "TESSERA_IMPORT_MEASURE";

fn main() -> Result<()> {
    if let Ok(what) = env::var(MEASURE) {
        let mut words = what.splitn(3, ' ').map(str::to_owned);
        let mut word = || words.next().context("three words");
        return measure(&word()?, &word()?, Path::new(&word()?));
    }
    // cargo passes a flag of its own.
    let asked: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let names: Vec<&str> = match asked.is_empty() {
        true => ARCHITECTURES.to_vec(),
        false => asked.iter().map(String::as_str).collect(),
    };
    println!(
        "{:<14} {:>9} {:<8} {:>9} {:>9} {:>8} {:>9} {:>9} {:>9}",
        "", "file MB", "", "best ms", "median", "× cat", "cpu ms", "pages", "peak MB"
    );
    for name in names {
        architecture(name)?;
    }
    Ok(())
}

fn architecture(name: &str) -> Result<()> {
    let folder = env::temp_dir().join(format!("tessera-import-{}", std::process::id()));
    let model = find(name)?.model(&Sizes::default())?;
    write_tenants(&model, 2, 1, &folder, &mut |_| {})?;
    // A file that was just written is not kept in the cache.
    std::thread::sleep(Duration::from_millis(2500));
    let mut cat = 0.0;
    for what in ["cat", "first", "second", "fill", "restart"] {
        let runs = if what == "fill" { 1 } else { RUNS }; // only the first of them has to
        let rows: Result<Vec<[f64; 4]>> = (0..runs).map(|_| ask(what, name, &folder)).collect();
        let rows = rows?;
        let sorted = |column: usize| {
            let mut values: Vec<f64> = rows.iter().map(|row| row[column]).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let [times, processor, pages, peaks] = [0, 1, 2, 3].map(sorted);
        let (best, median) = (times[0], times[runs / 2]);
        if what == "cat" {
            cat = best;
        }
        let size = model.file_bytes() as f64 / 1e6;
        println!(
            "{name:<14} {size:>9.1} {what:<8} {best:>9.1} {median:>9.1} {:>8.2} {:>9.0} {:>9.0} {:>9.1}",
            best / cat,
            processor[runs / 2],
            pages[runs / 2],
            peaks[runs - 1]
        );
    }
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// Milliseconds, those of processors, pages, and the peak of memory in megabytes.
fn ask(what: &str, name: &str, folder: &Path) -> Result<[f64; 4]> {
    let asked = format!("{what} {name} {}", folder.display());
    let output = Command::new(env::current_exe()?).env(MEASURE, asked).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match <[f64; 4]>::try_from(numbers) {
        Ok(row) if output.status.success() => Ok(row),
        _ => bail!("{what} of {name}: {}{}", text, String::from_utf8_lossy(&output.stderr)),
    }
}

fn measure(what: &str, name: &str, folder: &Path) -> Result<()> {
    let file = |number: usize| -> PathBuf { folder.join(format!("{name}-{number}.onnx")) };
    let options = CpuOptions { cores: Cores::All, partitions: None, memory_limit: None };
    let device = CpuDevice::open(&options, Arc::new(|| {}))?;
    let complain = Arc::new(|error| eprintln!("{error}"));
    let cache = PackCache::open(folder.join("cache"), Bytes(10 << 30), complain)?;
    let intake = Intake { device: &device, cache };
    let (took, kept) = match what {
        "cat" => (timed(|| cat(&file(1)))?.0, Vec::new()),
        "first" => timed(|| intake.take_in(&file(0), true, false))?,
        "second" => {
            let first = intake.take_in(&file(0), true, false)?;
            reset_peak();
            let (took, second) = timed(|| intake.take_in(&file(1), false, false))?;
            (took, vec![first, second].into_iter().flatten().collect())
        }
        // A restart plans, and finds its weights.
        "fill" | "restart" => timed(|| intake.take_in(&file(1), true, true))?,
        other => bail!("no measurement is called {other}"),
    };
    let Took { elapsed, processor_ms, pages } = took;
    println!("{:.3} {processor_ms:.0} {pages} {:.1}", elapsed.as_secs_f64() * 1e3, peak_mb());
    // The cache ends with its entry written, which is no part of the load.
    drop((kept, intake));
    Ok(())
}

/// What some work took.
struct Took {
    elapsed: Duration,
    /// Of all threads, in ticks of 10 ms.
    processor_ms: f64,
    pages: f64,
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(Took, T)> {
    let ([processor_ms, pages], start) = (used(), Instant::now());
    let made = work()?;
    let (elapsed, [processor_after, pages_after]) = (start.elapsed(), used());
    Ok((Took { elapsed, processor_ms: processor_after - processor_ms, pages: pages_after - pages }, made))
}

/// Milliseconds of processors, and pages that the system brought, since this process began; zeros where the system does not say.
fn used() -> [f64; 2] {
    /// Per second; the same on every Linux.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // A name may have spaces, and ends in a bracket. The numbers after it: state is the first, minor faults the eighth.
    let numbers = stat.rsplit_once(')').map_or("", |(_, numbers)| numbers);
    let numbers: Vec<f64> = numbers.split_whitespace().map(|word| word.parse().unwrap_or_default()).collect();
    let at = |index: usize| numbers.get(index).copied().unwrap_or_default();
    [(at(11) + at(12)) * 1e3 / TICKS, at(7) + at(9)]
}

fn cat(file: &Path) -> Result<()> {
    let (mut file, mut buffer) = (File::open(file)?, vec![0; 128 << 10]);
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

/// What a server does with a new tenant.
struct Intake<'a> {
    device: &'a CpuDevice,
    cache: PackCache,
}

impl Intake<'_> {
    fn take_in(&self, file: &Path, planned: bool, cached: bool) -> Result<Vec<Slot>> {
        let model = class::load(file)?;
        let class = &model.class;
        let target = self.device.pack_target(Precision::Fp32)?;
        let layout = Arc::new(SlotLayout::of(class.folded(), target)?);
        let mut source = |id: ParamId| Ok(model.weights[id.0 as usize].clone());
        let packed = if cached {
            let wanted =
                Wanted { class: class.id, graph: &class.graph, folded: class.folded(), layout: &layout };
            self.cache.pack(&wanted, &mut source)?
        } else {
            pack::pack(&class.graph, class.folded(), &layout, &mut source)?
        };
        let slot = self.device.upload(class.id, &layout, packed)?;
        if planned {
            self.plan(&model, &layout)?;
        }
        Ok(vec![slot])
    }

    fn plan(&self, model: &Model, layout: &Arc<SlotLayout>) -> Result<()> {
        let class = &model.class;
        // Sequences of 32 tokens, and any number of items.
        let shapes: Vec<Vec<u64>> = class
            .input_shapes()
            .map(|(_, dims)| {
                dims.iter()
                    .enumerate()
                    .map(|(axis, &dim)| match dim {
                        -1 if axis == 0 => 1,
                        -1 => 32,
                        dim => dim as u64,
                    })
                    .collect()
            })
            .collect();
        let bound = class.bind(&shapes.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        let value = |(index, &size): (usize, &u64)| match bound.item_dim {
            Some(item) if item == index => DimValue::Items,
            _ => DimValue::Fixed(size),
        };
        let dims: Vec<DimValue> = bound.dims.iter().enumerate().map(value).collect();
        let key = PlanKey { class: class.id, dims: bound.batched_dims().into(), precision: Precision::Fp32 };
        let plan = Arc::new(plan(key, class.folded(), layout, &dims)?);
        self.device.compile(&plan, layout, Room { lanes: 8, items: 8 }, PartitionId(0))?;
        Ok(())
    }
}

/// Begins a new peak, where the system allows it.
fn reset_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The most memory that this process had at a time, in megabytes; 0 where the system does not say.
fn peak_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() * 1024.0 / 1e6
}
