//! From a [`KernelSpec`] to machine code.
//!
//! The sources are embedded in the binary. Code is made for one architecture (`sm_90a`), never as PTX, which a driver older than the
//! compiler would refuse.

use super::call::KernelSpec;
use super::fence::{Compiled, Compiler};

/// Every file in `kernels/`.
const SOURCES: &[(&str, &str)] = &[
    ("abi.cuh", include_str!("kernels/abi.cuh")),
    ("async.cuh", include_str!("kernels/async.cuh")),
    ("attention.cuh", include_str!("kernels/attention.cuh")),
    ("cluster.cuh", include_str!("kernels/cluster.cuh")),
    ("functions.cuh", include_str!("kernels/functions.cuh")),
    ("lines.cuh", include_str!("kernels/lines.cuh")),
    ("mma.cuh", include_str!("kernels/mma.cuh")),
    ("numbers.cuh", include_str!("kernels/numbers.cuh")),
    ("points.cuh", include_str!("kernels/points.cuh")),
    ("product.cuh", include_str!("kernels/product.cuh")),
    ("product_float.cuh", include_str!("kernels/product_float.cuh")),
    ("product_shares.cuh", include_str!("kernels/product_shares.cuh")),
    ("product_staged.cuh", include_str!("kernels/product_staged.cuh")),
    ("product_sums.cuh", include_str!("kernels/product_sums.cuh")),
    ("product_window.cuh", include_str!("kernels/product_window.cuh")),
    ("recurrent.cuh", include_str!("kernels/recurrent.cuh")),
    ("recurrent_cell.cuh", include_str!("kernels/recurrent_cell.cuh")),
    ("recurrent_fragments.cuh", include_str!("kernels/recurrent_fragments.cuh")),
    ("recurrent_state.cuh", include_str!("kernels/recurrent_state.cuh")),
    ("slices.cuh", include_str!("kernels/slices.cuh")),
    ("types.cuh", include_str!("kernels/types.cuh")),
    ("vector.cuh", include_str!("kernels/vector.cuh")),
    ("window.cuh", include_str!("kernels/window.cuh")),
    ("attention.cu", include_str!("kernels/attention.cu")),
    ("attention_halves.cu", include_str!("kernels/attention_halves.cu")),
    ("convert.cu", include_str!("kernels/convert.cu")),
    ("copy.cu", include_str!("kernels/copy.cu")),
    ("cum_sum.cu", include_str!("kernels/cum_sum.cu")),
    ("depthwise.cu", include_str!("kernels/depthwise.cu")),
    ("elementwise.cu", include_str!("kernels/elementwise.cu")),
    ("fill.cu", include_str!("kernels/fill.cu")),
    ("gather.cu", include_str!("kernels/gather.cu")),
    ("group_norm.cu", include_str!("kernels/group_norm.cu")),
    ("launch_begin.cu", include_str!("kernels/launch_begin.cu")),
    ("launch_end.cu", include_str!("kernels/launch_end.cu")),
    ("lrn.cu", include_str!("kernels/lrn.cu")),
    ("matmul.cu", include_str!("kernels/matmul.cu")),
    ("pick.cu", include_str!("kernels/pick.cu")),
    ("pool.cu", include_str!("kernels/pool.cu")),
    ("pool_indices.cu", include_str!("kernels/pool_indices.cu")),
    ("product_expand.cu", include_str!("kernels/product_expand.cu")),
    ("product_fed.cu", include_str!("kernels/product_fed.cu")),
    ("product_few.cu", include_str!("kernels/product_few.cu")),
    ("product_few_float.cu", include_str!("kernels/product_few_float.cu")),
    ("product_float.cu", include_str!("kernels/product_float.cu")),
    ("product_held.cu", include_str!("kernels/product_held.cu")),
    ("product_panes.cu", include_str!("kernels/product_panes.cu")),
    ("product_stem.cu", include_str!("kernels/product_stem.cu")),
    ("product_stem_float.cu", include_str!("kernels/product_stem_float.cu")),
    ("product_tensor.cu", include_str!("kernels/product_tensor.cu")),
    ("product_walk.cu", include_str!("kernels/product_walk.cu")),
    ("product_window.cu", include_str!("kernels/product_window.cu")),
    ("recurrent_input.cu", include_str!("kernels/recurrent_input.cu")),
    ("recurrent_input_strict.cu", include_str!("kernels/recurrent_input_strict.cu")),
    ("recurrent_reset.cu", include_str!("kernels/recurrent_reset.cu")),
    ("recurrent_state.cu", include_str!("kernels/recurrent_state.cu")),
    ("recurrent_state_strict.cu", include_str!("kernels/recurrent_state_strict.cu")),
    ("reduce.cu", include_str!("kernels/reduce.cu")),
    ("resample.cu", include_str!("kernels/resample.cu")),
    ("rows.cu", include_str!("kernels/rows.cu")),
    ("scatter.cu", include_str!("kernels/scatter.cu")),
    ("top_k.cu", include_str!("kernels/top_k.cu")),
    ("transpose.cu", include_str!("kernels/transpose.cu")),
];

/// What kernels are compiled for. The matrix instructions that they use exist on nothing else.
pub(crate) const ARCHITECTURE: &str = "sm_90a";

/// The compiler's options for a specialisation, all of which can change the code.
fn options(spec: &KernelSpec) -> Vec<String> {
    let fixed = [
        format!("--gpu-architecture={ARCHITECTURE}"),
        "--std=c++17".to_owned(),
        // Registers, shared memory and spills, in the log.
        "--ptxas-options=-v".to_owned(),
        "-lineinfo".to_owned(),
    ];
    let defines = spec.defines.iter().map(|(name, value)| format!("-D{name}={value}"));
    fixed.into_iter().chain(defines).collect()
}

/// The names and texts of all sources.
pub(crate) fn sources() -> impl Iterator<Item = String> {
    SOURCES.iter().flat_map(|(name, text)| [(*name).to_owned(), (*text).to_owned()])
}

/// What can change a specialisation's code beside [`sources`], all of which count, as any may include any: which one it is, what is generated, the options.
pub(crate) fn identity(spec: &KernelSpec) -> impl Iterator<Item = String> {
    let own = [spec.source.to_owned(), spec.generated.to_string()];
    own.into_iter().chain(options(spec))
}

/// Compiles a specialisation. The error is the compiler's log.
pub(crate) fn compile(compiler: &Compiler, spec: &KernelSpec) -> Result<Compiled, String> {
    let source = SOURCES.iter().find(|(name, _)| *name == spec.source);
    let (name, text) = source.ok_or_else(|| format!("there is no kernel source {}", spec.source))?;
    let headers: Vec<(&str, &str)> = SOURCES
        .iter()
        .filter(|(name, _)| name.ends_with(".cuh"))
        .copied()
        .chain([("generated.cuh", &*spec.generated)])
        .collect();
    compiler.compile(name, text, &headers, &options(spec))
}

#[cfg(test)]
mod tests {
    //! Every specialisation that the suite's cases lead to, compiled where there is no GPU.

    use super::*;
    use crate::Room;
    use crate::conformance::{ROOM, TENANTS, cases};
    use crate::cuda::call::KernelCall;
    use crate::cuda::site::Site;
    use crate::cuda::{frame, steps, target};
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;
    use tessera_core::{DType, Precision};
    use tessera_planner::Plan;
    use tessera_planner::pack::WeightId;
    use tessera_planner::plan::{Access, BufferId, Epilogue, Operand, Step, StepKind};

    /// In rows, taps, runs and elements; of one run of k and of several, in fp32; over windows.
    const EVERY_TILE: [&str; 14] = [
        "gemm 17×64×128",
        "gemm 9×264×20",
        "gemm 16×776×456",
        "gemm 1×2001×66 with residual",
        "gemm 9×1990×330",
        "conv 8→40 3×3 stride 2 dilation 1 groups 1",
        "gemm 70×544×200 with residual",
        "gemm 230×544×200",
        "gemm 300×72×248 with residual",
        "conv 48→72 3×3 stride 1 dilation 1 groups 1",
        "conv 256→24 3×3 stride 2 dilation 1 groups 1",
        "conv 450→6 3×3 stride 1 dilation 1 groups 2",
        "conv 64→16 3×3 stride 1 dilation 1 groups 1",
        "stem 3→64 7×7 of 6×224",
    ];

    /// What those lack of strict tiles with feeders, which are compiled alone: one run in rows with a residual; in taps, one and several, with residuals and without.
    const EVERY_FED_TILE: [&str; 5] = [
        "gemm 17×64×128 with residual",
        "conv 32→66 2×2 stride 1 dilation 1 groups 1",
        "conv 64→72 3×3 stride 1 dilation 1 groups 1",
        "conv 64→72 3×3 stride 1 dilation 1 groups 1 without residual",
        "conv 64→256 2×2 stride 1 dilation 1 groups 1 without residual",
    ];

    /// A case's plan with a product behind it for each of its floats.
    fn read_by_products(plan: &Plan) -> Plan {
        let mut read = plan.clone();
        for (number, buffer) in
            plan.buffers.iter().enumerate().filter(|(_, buffer)| buffer.dtype == DType::F32)
        {
            let x =
                Access { operand: Operand::Buffer(BufferId(number as u32)), offset: 0, strides: vec![1, 1] };
            let (rows, k, n) = (1, buffer.elements, 1);
            let (w, out, epilogue) = (WeightId(0), BufferId(0), Epilogue::default());
            let kind = StepKind::Gemm { x, w, rows, k, n, epilogue, out };
            read.steps.push(Step { name: "reader".to_owned(), kind, flops: 0 });
        }
        read
    }

    #[test]
    fn what_a_product_reads_in_tf32_is_rounded_by_whoever_writes_it() {
        let rounds = |call: &KernelCall| call.spec.defines.iter().any(|(name, _)| *name == "FACTOR");
        for (case, precision) in
            cases().iter().flat_map(|case| Precision::ALL.map(|precision| (case, precision)))
        {
            let mut plan = Plan::clone(&case.plan_in(precision));
            plan.steps.truncate(1);
            let (layout, constants) = (case.layout(target(precision)), vec![0; plan.constants.len()]);
            let read = read_by_products(&plan);
            let capacity = Room { lanes: 1, items: 1 };
            let [alone, before] =
                [&plan, &read].map(|plan| Site::nowhere(plan, &layout, capacity, &constants));
            let Ok(mut calls) = steps::calls(&before, 0) else { continue };
            calls.extend(steps::alike(&before, 0).unwrap());
            let writes = plan.steps[0].kind.writes();
            let floats = writes.iter().any(|write| plan.buffer(write.buffer).dtype == DType::F32);
            let expected = floats && precision == Precision::Tf32;
            assert!(calls.iter().all(|call| rounds(call) == expected), "{} in {precision}", case.name);
            assert!(!steps::calls(&alone, 0).unwrap().iter().any(rounds), "{} in {precision}", case.name);
            for (number, port) in plan.inputs.iter().enumerate() {
                let expected = port.dtype == DType::F32 && precision == Precision::Tf32;
                let brought = steps::ingest(&before, number);
                let rounded = brought.is_some_and(|call| rounds(&call));
                assert_eq!(rounded, expected, "an input of {} in {precision}", case.name);
            }
        }
    }

    /// Bytes by which memory grows on a card.
    const PIECE: u64 = 2 << 20;

    #[test]
    fn every_kernel_that_shares_memory_has_a_case_for_the_sanitizer() {
        let script = include_str!("../../../../scripts/sanitize");
        let mut run: BTreeSet<&str> = BTreeSet::new();
        for line in script.lines().filter_map(|line| line.strip_prefix("kernel ")) {
            let fields: Vec<&str> = line.splitn(3, ' ').collect();
            let [source, precision, name] = fields[..] else {
                panic!("{line}: a kernel, a precision, a case")
            };
            let name = name.trim_matches('\'');
            let case = cases().into_iter().find(|case| case.name == name).expect(name);
            let precision = precision.parse().expect(line);
            let (plan, layout) = (case.plan_in(precision), case.layout(target(precision)));
            let constants = vec![0; plan.constants.len()];
            let site = Site::nowhere(&plan, &layout, ROOM, &constants);
            let mut calls = (0..plan.steps.len()).flat_map(|step| steps::calls(&site, step).expect(name));
            assert!(calls.any(|call| call.spec.source == source), "{line}: it is not run");
            assert!(
                layout.bytes.0 <= PIECE / TENANTS as u64,
                "{line}: memcheck takes the seams of its slab for ends"
            );
            run.insert(source);
        }
        let shares = |(name, text): &&(&str, &str)| name.ends_with(".cu") && text.contains("__shared__");
        let left_out: Vec<&str> =
            SOURCES.iter().filter(shares).map(|(name, _)| *name).filter(|name| !run.contains(name)).collect();
        assert!(left_out.is_empty(), "scripts/sanitize has no case for {left_out:?}");
    }

    /// The specialisations of every case in every precision, each with who asks for it; and the cases that no kernel serves.
    fn specs() -> (BTreeMap<KernelSpec, String>, Vec<String>) {
        let (mut specs, mut unserved) = (BTreeMap::new(), Vec::new());
        let known = |name: &&str| cases().iter().any(|case| case.name == **name);
        let mut named = EVERY_TILE.iter().chain(&EVERY_FED_TILE);
        assert_eq!(named.find(|name| !known(name)), None, "a case has another name now");
        specs.extend(frame::calls().map(|call| (call.spec, "every launch".to_owned())));
        let rooms = Precision::ALL.map(|precision| (precision, ROOM));
        // Strict products take their widest tiles when lanes are many.
        let rooms = rooms.into_iter().chain([(Precision::Fp32, Room { lanes: 1024, items: 1024 })]);
        for (precision, capacity) in rooms {
            let plans = cases().into_iter().flat_map(|case| {
                let plan = case.plan_in(precision);
                let read = (precision == Precision::Tf32).then(|| Arc::new(read_by_products(&plan)));
                let own = plan.steps.len();
                [Some(plan), read].into_iter().flatten().map(move |plan| (case.clone(), plan, own))
            });
            for (case, plan, own) in plans {
                let layout = case.layout(target(precision));
                let constants = vec![0; plan.constants.len()];
                let site = Site::nowhere(&plan, &layout, capacity, &constants);
                let inputs = (0..plan.inputs.len()).filter_map(|port| steps::ingest(&site, port));
                let outputs = (0..plan.outputs.len()).map(|port| steps::egress(&site, port));
                inputs.chain(outputs).for_each(|call| {
                    specs.entry(call.spec).or_insert_with(|| format!("ports {precision}"));
                });
                // Every tile, of products that load in each way.
                let name = case.name.as_str();
                let (every, fed) = (EVERY_TILE.contains(&name), EVERY_FED_TILE.contains(&name));
                let tiles = (every || fed && precision == Precision::Fp32).then(|| steps::alike(&site, 0));
                let mut tiles = tiles.and_then(Result::ok).unwrap_or_default();
                tiles.retain(|call| every || call.spec.source == "product_fed.cu");
                tiles.into_iter().for_each(|call| {
                    specs.entry(call.spec).or_insert_with(|| format!("{} {precision}", case.name));
                });
                for step in 0..own {
                    match steps::calls(&site, step) {
                        Ok(calls) => calls.into_iter().for_each(|call| {
                            specs.entry(call.spec).or_insert_with(|| format!("{} {precision}", case.name));
                        }),
                        Err(why) => {
                            unserved.push(format!("{} has no kernel in {precision}: {why}", case.name));
                        }
                    }
                }
            }
        }
        (specs, unserved)
    }

    #[test]
    fn every_strict_tile_with_feeders_is_among_the_kernels_of_the_suite() {
        let value = |spec: &KernelSpec, name: &str| -> Option<String> {
            spec.defines.iter().find(|(define, _)| *define == name).map(|(_, value)| value.clone())
        };
        let of_tile = |spec| ["BM", "BN", "LONG", "LOADER", "RESIDUAL"].map(|name| value(&spec, name));
        let (specs, _) = specs();
        let fed = specs.into_keys().filter(|spec| spec.source == "product_fed.cu");
        assert_eq!(fed.map(of_tile).collect::<BTreeSet<_>>().len(), 4 * 2 * 2 * 2);
    }

    #[test]
    fn every_kernel_of_the_suite_compiles_without_spills() {
        let compiler = match Compiler::find() {
            Ok(compiler) => compiler,
            Err(why) if std::env::var_os("TESSERA_REQUIRE_NVRTC").is_none() => {
                return eprintln!("skipped: {why}");
            }
            Err(why) => panic!("{why}"),
        };
        let (specs, mut faults) = specs();
        for (spec, asked_by) in specs {
            match compile(&compiler, &spec) {
                Err(log) => faults.push(format!("{asked_by}: {log}")),
                Ok(Compiled { log, .. }) => {
                    let report = Report::read(&log);
                    println!("{:>4} registers  {:<18} {asked_by}", report.registers, spec.source);
                    // The assembler's words for a matrix product that waits for each of its instructions.
                    if log.contains("are serialized") {
                        faults.push(format!("{asked_by}: products are serialised: {spec:?}"));
                    }
                    if report.spilled > 0 || report.stack > 0 {
                        let Report { spilled, stack, .. } = report;
                        faults.push(format!("{asked_by}: {spilled} B spilled, {stack} B of stack: {spec:?}"));
                    }
                }
            }
        }
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    /// What the assembler says of the entry.
    #[derive(Debug)]
    struct Report {
        registers: u32,
        stack: u32,
        spilled: u32,
    }

    impl Report {
        fn read(log: &str) -> Report {
            let before = |mark: &str| -> u32 {
                log.match_indices(mark)
                    .filter_map(|(at, _)| log[..at].split_whitespace().last()?.parse::<u32>().ok())
                    .sum()
            };
            Report {
                registers: before("registers"),
                stack: before("bytes stack frame"),
                spilled: before("bytes spill stores") + before("bytes spill loads"),
            }
        }
    }
}
