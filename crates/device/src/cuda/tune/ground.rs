//! A product by itself, in memory of its own: the same step for the same lanes as in its program, and nothing beside it.
//!
//! ```text
//!   tables    [set] of all lanes                     each launch of a run has the next set of weights, which no cache holds
//!   words     which kernels leave zero, and the workspace of the one that runs
//!   arenas    [2][x | residual | out]                in turn, as a program's steps leave what they computed to the next one; one, of what no cache holds
//!             [16][x | residual | out]               where x is an input of the plan, which was brought long before: so many as no cache holds
//!   slots     [set][lane][weights of the step]
//!   sweep     written between runs, so that all of the above leaves the cache
//! ```
//! Where inputs are decides between tiles: of 256 outputs and rows, k of 256, 20 lanes, bf16, blocks of 128×104 take 5 % less time than the rule's 64×104 with inputs in
//! the cache, and 6 % more with inputs in memory (H100, 2026-11-27).
//!
//! Addresses follow from sizes alone: lowered for a base of 0, a product's kernels are the same bytes in every process.

use crate::Room;
use crate::cuda::abi::{Ends, ItemError};
use crate::cuda::call::KernelCall;
use crate::cuda::program::ALIGNMENT;
use crate::cuda::site::{Site, words_bytes};
use crate::cuda::steps;
use crate::cuda::table::{LaneRow, TableLayout};
use std::ops::Range;
use tessera_core::Bytes;
use tessera_planner::plan::{BufferId, Operand, StepKind};
use tessera_planner::{Plan, SlotLayout, WeightId};

/// Most launches of one run, and sets of weights.
pub(super) const MOST_LAUNCHES: usize = 16;
/// Bytes of weights that a run reads at most before it begins anew: more than three times the largest second-level cache of these cards.
const COVER: usize = 192 << 20;
/// What is written between runs: twice such a cache.
const SWEEP: usize = 128 << 20;
/// Where buffers begin, as the planner has it.
const BUFFER: usize = 64;
/// Where packed tensors begin in a slot, as the planner has it.
const TENSOR: usize = 128;

/// Where one product lies.
#[derive(Debug)]
pub(super) struct Ground {
    /// Of one step.
    plan: Plan,
    layout: SlotLayout,
    capacity: Room,
    multiprocessors: u32,
    table: TableLayout,
    sets: usize,
    arenas: usize,
}

impl Ground {
    /// For a step of a plan at a capacity; `None` for steps that are no products, for those that read constants, and where a kernel does several steps.
    pub(super) fn new(
        plan: &Plan,
        layout: &SlotLayout,
        step: usize,
        capacity: Room,
        multiprocessors: u32,
    ) -> Option<Ground> {
        let (buffers, weights) = touched(&plan.steps[step].kind).filter(|_| !steps::is_joined(plan, step))?;
        let is_input = |&id: &BufferId| plan.inputs.iter().any(|port| port.at == Operand::Buffer(id));
        let from_outside = buffers.iter().any(is_input);
        let mut plan = Plan {
            key: plan.key.clone(),
            batched: plan.batched,
            inputs: Vec::new(),
            outputs: Vec::new(),
            steps: vec![plan.steps[step].clone()],
            buffers: plan.buffers.clone(),
            arena_per_item: Bytes(0),
            constants: Vec::new(),
            segments: std::iter::once(0..1).collect(),
        };
        let mut end = 0;
        for buffer in buffers {
            let buffer = &mut plan.buffers[buffer.0 as usize];
            buffer.offset = end;
            end +=
                (buffer.elements * plan.key.precision.stored(buffer.dtype).size()).next_multiple_of(BUFFER);
        }
        plan.arena_per_item = Bytes(end as u64);
        let mut layout = layout.clone();
        let mut end = 0;
        for weight in weights {
            let tensor = &mut layout.tensors[weight.0 as usize];
            tensor.offset = end;
            end += tensor.bytes().next_multiple_of(TENSOR);
        }
        layout.bytes = Bytes(end as u64);
        let of_set = capacity.lanes as usize * end;
        let sets = COVER.div_ceil(of_set.max(1)).clamp(1, MOST_LAUNCHES);
        let table = TableLayout::new(capacity, 0);
        let arena = capacity.items as usize * plan.arena_per_item.0 as usize;
        let arenas = match COVER / arena.max(1) {
            0 | 1 => 1,
            covering if from_outside => covering.min(MOST_LAUNCHES),
            _ => 2,
        };
        Some(Ground { plan, layout, capacity, multiprocessors, table, sets, arenas })
    }

    /// Bytes of the whole.
    pub(super) fn bytes(&self) -> usize {
        self.numbers().end + SWEEP
    }

    /// Where the numbers lie: arenas and slots.
    pub(super) fn numbers(&self) -> Range<usize> {
        self.arena(0)..self.slots() + self.sets * self.capacity.lanes as usize * self.layout.bytes.0 as usize
    }

    /// What is written between runs.
    pub(super) fn sweep(&self) -> Range<usize> {
        self.numbers().end..self.bytes()
    }

    /// The tables of all sets, from the base on, and up to the workspace what is zero.
    pub(super) fn tables(&self, base: u64) -> Vec<u8> {
        let Room { lanes, items } = self.capacity;
        let mut bytes = vec![0; self.workspace()];
        for (set, table) in bytes.chunks_exact_mut(self.table_bytes()).take(self.sets).enumerate() {
            let row = |lane: u32| {
                let slot = set * lanes as usize + lane as usize;
                let weights = base + (self.slots() + slot * self.layout.bytes.0 as usize) as u64;
                LaneRow { weights, items: items / lanes + u32::from(lane < items % lanes) }
            };
            let rows: Vec<LaneRow> = (0..lanes).map(row).collect();
            self.table.write(&rows, &[], &Ends::default(), &mut table[..self.table.bytes]);
        }
        bytes
    }

    /// The kernels that compute launch number `launch` of a run alike, at a base. The error is that of lowering.
    pub(super) fn calls(&self, base: u64, launch: usize) -> Result<Vec<KernelCall>, String> {
        let at = |offset: usize| base + offset as u64;
        let table = at(launch % self.sets * self.table_bytes());
        let site = Site {
            plan: &self.plan,
            layout: &self.layout,
            capacity: self.capacity,
            multiprocessors: self.multiprocessors,
            launch: self.table.params(table, at(self.errors())),
            arena: at(self.arena(launch % self.arenas)),
            constants: &[],
            workspace: at(self.workspace()),
            words: at(self.words()),
            ports: 0,
        };
        steps::alike(&site, 0)
    }

    /// Where the first launch of a run leaves its results.
    pub(super) fn results(&self) -> Range<usize> {
        let (StepKind::Gemm { out, .. } | StepKind::Conv { out, .. }) = &self.plan.steps[0].kind else {
            return 0..0;
        };
        let buffer = self.plan.buffer(*out);
        let item = buffer.elements * self.plan.key.precision.stored(buffer.dtype).size();
        let items = self.capacity.items as usize;
        let start = self.arena(0) + items * buffer.offset;
        start..start + items * item
    }

    fn table_bytes(&self) -> usize {
        self.table.bytes.next_multiple_of(ALIGNMENT)
    }

    fn errors(&self) -> usize {
        self.sets * self.table_bytes()
    }

    fn words(&self) -> usize {
        (self.errors() + self.capacity.items as usize * size_of::<ItemError>()).next_multiple_of(ALIGNMENT)
    }

    fn workspace(&self) -> usize {
        (self.words() + words_bytes(self.multiprocessors)).next_multiple_of(ALIGNMENT)
    }

    fn arena(&self, which: usize) -> usize {
        let workspace = steps::workspace_bytes(&self.plan, 0, self.capacity, self.multiprocessors) as usize;
        let each = self.capacity.items as usize * self.plan.arena_per_item.0 as usize;
        (self.workspace() + workspace).next_multiple_of(ALIGNMENT) + which * each.next_multiple_of(ALIGNMENT)
    }

    fn slots(&self) -> usize {
        self.arena(self.arenas)
    }
}

/// The buffers and the weights of a product, each once.
fn touched(kind: &StepKind) -> Option<(Vec<BufferId>, Vec<WeightId>)> {
    let (x, w, epilogue, out) = match kind {
        StepKind::Gemm { x, w, epilogue, out, .. } => (x.operand, w, epilogue, out),
        StepKind::Conv { x, w, epilogue, out, .. } => (*x, w, epilogue, out),
        _ => return None,
    };
    let (mut buffers, mut weights) = (vec![*out], vec![*w]);
    weights.extend(epilogue.bias);
    for operand in [Some(x), epilogue.residual].into_iter().flatten() {
        match operand {
            Operand::Buffer(id) => buffers.push(id),
            Operand::Weight(id) => weights.push(id),
            Operand::Constant(_) => return None,
        }
    }
    buffers.sort_unstable();
    buffers.dedup();
    weights.sort_unstable();
    weights.dedup();
    Some((buffers, weights))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::cases;
    use crate::cuda::target;
    use tessera_core::Precision;

    /// Calls `check` with every product of the suite, its plan and layout.
    fn each(room: Room, mut check: impl FnMut(&str, &Plan, &SlotLayout, Ground)) {
        let mut products = 0;
        for case in cases() {
            for precision in [Precision::Fp32, Precision::Tf32, Precision::Bf16] {
                let (plan, layout) = (case.plan_in(precision), case.layout(target(precision)));
                if let Some(ground) = Ground::new(&plan, &layout, 0, room, 132) {
                    products += 1;
                    check(&case.name, &plan, &layout, ground);
                }
            }
        }
        assert!(products > 100, "{products} products");
    }

    #[test]
    fn a_product_has_by_itself_the_kernels_that_it_has_in_its_program() {
        let room = Room { lanes: 5, items: 16 };
        each(room, |name, plan, layout, ground| {
            let constants = vec![0; plan.constants.len()];
            let site = Site { arena: 1 << 30, ..Site::nowhere(plan, layout, room, &constants) };
            let bare = |calls: Vec<KernelCall>| -> Vec<_> {
                calls.into_iter().map(|call| (call.spec, call.grid, call.shared_bytes)).collect()
            };
            let in_program = steps::alike(&site, 0).unwrap();
            assert_eq!(in_program[0], steps::calls(&site, 0).unwrap()[0], "{name}: the rule's is the first");
            assert_eq!(bare(ground.calls(1 << 32, 3).unwrap()), bare(in_program), "{name}");
        });
    }

    #[test]
    fn only_inputs_of_the_plan_come_from_memory() {
        let case = cases().into_iter().find(|case| case.name.starts_with("gemm ")).expect("a linear layer");
        let mut plan = Plan::clone(&case.plan_in(Precision::Bf16));
        let layout = case.layout(target(Precision::Bf16));
        let arenas = |plan: &Plan| {
            Ground::new(plan, &layout, 0, Room { lanes: 5, items: 16 }, 132).map(|ground| ground.arenas)
        };
        assert_eq!(arenas(&plan), Some(MOST_LAUNCHES));
        plan.inputs.clear();
        assert_eq!(arenas(&plan), Some(2), "another step left it there");
    }

    #[test]
    fn tables_name_slots_of_every_set_within_the_numbers() {
        let room = Room { lanes: 3, items: 7 };
        each(room, |name, _, layout, ground| {
            let base = 1 << 33;
            let tables = ground.tables(base);
            assert_eq!(tables.len(), ground.workspace());
            let numbers = ground.numbers();
            let mut slots = Vec::new();
            for table in tables.chunks_exact(ground.table_bytes()).take(ground.sets) {
                let weights = ground.table.params(0, 0).weights as usize;
                let word = |at: usize| u64::from_le_bytes(table[at..at + 8].try_into().unwrap());
                slots.extend((0..3).map(|lane| (word(weights + 8 * lane) - base) as usize));
            }
            let bytes = ground.layout.bytes.0 as usize;
            assert!(bytes <= layout.bytes.0 as usize && bytes > 0, "{name}");
            assert!(slots.windows(2).all(|pair| pair[0] + bytes == pair[1]), "{name}: {slots:?}");
            assert!(slots[0] >= ground.arena(ground.arenas) && slots[slots.len() - 1] + bytes == numbers.end);
            let results = ground.results();
            assert!(results.start >= numbers.start && results.end <= ground.arena(1) && !results.is_empty());
            assert!(ground.sweep().start == numbers.end && ground.sweep().end == ground.bytes());
        });
    }
}
