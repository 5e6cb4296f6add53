//! Where the values of one program lie on the device: what lowering needs to know of addresses.
//!
//! ```text
//!   arena      [buffer][item of the launch][item shape…]      arena + capacity·buffer.offset + item·bytes of an item
//!   slots      [lane's slot][packed tensor]                    the table of the launch names the slots
//!   constants  the same for every lane
//!   workspace  of the step that runs, after the arena's buffers
//!   words      of the program, which steps leave zero
//! ```

use super::abi::{LaunchParams, MAX_AXES, OperandParams, WalkParams};
use super::call::KernelSpec;
use crate::Room;
use bytemuck::Zeroable;
use tessera_core::{DType, Precision};
use tessera_planner::plan::{Access, BufferId, Operand, Port, Step, StepKind};
use tessera_planner::{Plan, SlotLayout};

/// Multiprocessors of an H100, and of an H200.
const WHOLE_CARD: u32 = 132;

/// Words by which blocks tell each other of what they left in the workspace, for each multiprocessor: one of each warp of a crew of `product_fed.cu`.
pub(crate) const WORDS: usize = 4;

/// Bytes of [`Site::words`].
pub(crate) fn words_bytes(multiprocessors: u32) -> usize {
    multiprocessors as usize * WORDS * size_of::<u32>()
}

/// Addresses of one program at one capacity.
#[derive(Clone, Debug)]
pub(crate) struct Site<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) layout: &'a SlotLayout,
    /// Lanes and items that this program's grids are made for.
    pub(crate) capacity: Room,
    /// Multiprocessors of the partition.
    pub(crate) multiprocessors: u32,
    /// The table of the launch.
    pub(crate) launch: LaunchParams,
    /// Where the buffers start.
    pub(crate) arena: u64,
    /// Where each constant is.
    pub(crate) constants: &'a [u64],
    /// Memory for the step that runs, as much as [`super::steps::workspace_bytes`] asked for.
    pub(crate) workspace: u64,
    /// Words that are zero between kernels, [`WORDS`] for each multiprocessor, of this program alone.
    pub(crate) words: u64,
    /// Where the table holds the addresses of ports, inputs first: [`super::table::TableLayout::ports`].
    pub(crate) ports: u64,
}

impl<'a> Site<'a> {
    /// A program that will not run, to see which kernels it would have: no addresses in particular, on all of a card. `constants` has
    /// a number, whichever, for each of the plan's.
    pub(crate) fn nowhere(
        plan: &'a Plan,
        layout: &'a SlotLayout,
        capacity: Room,
        constants: &'a [u64],
    ) -> Site<'a> {
        Site {
            plan,
            layout,
            capacity,
            multiprocessors: WHOLE_CARD,
            launch: LaunchParams::zeroed(),
            arena: 0,
            constants,
            workspace: 0,
            words: 0,
            ports: 0,
        }
    }

    /// How this program's floats are held and multiplied.
    pub(crate) fn precision(&self) -> Precision {
        self.plan.key.precision
    }

    /// The type in which an operand's elements lie on the device.
    pub(crate) fn stored(&self, operand: Operand) -> DType {
        match operand {
            Operand::Buffer(id) => self.precision().stored(self.plan.buffer(id).dtype),
            Operand::Weight(id) => self.layout.tensors[id.0 as usize].dtype,
            Operand::Constant(id) => self.plan.constants[id.0 as usize].dtype(),
        }
    }

    /// Whether a matrix unit reads a buffer as it lies, and would cut from its floats what it has no bits for: then whoever writes
    /// the buffer rounds (`to_buffer` in `types.cuh`). Halves are rounded anyway, and a recurrent layer rounds what it reads.
    pub(crate) fn is_factor(&self, id: BufferId) -> bool {
        let reads = |step: &Step| match &step.kind {
            StepKind::Gemm { x, .. } => x.operand == Operand::Buffer(id),
            StepKind::Conv { x, .. } => *x == Operand::Buffer(id),
            _ => false,
        };
        self.precision() == Precision::Tf32 && self.plan.steps.iter().any(reads)
    }

    /// Bytes of one item of a buffer.
    pub(crate) fn item_bytes(&self, id: BufferId) -> u64 {
        let buffer = self.plan.buffer(id);
        (buffer.elements * self.precision().stored(buffer.dtype).size()) as u64
    }

    /// Where item 0 of a buffer is.
    pub(crate) fn address(&self, id: BufferId) -> u64 {
        self.arena + u64::from(self.capacity.items) * self.plan.buffer(id).offset as u64
    }

    /// An operand as kernels find it.
    pub(crate) fn operand(&self, operand: Operand) -> OperandParams {
        match operand {
            Operand::Buffer(id) => {
                OperandParams { base: self.address(id), item_bytes: self.item_bytes(id), kind: 0, unused: 0 }
            }
            Operand::Constant(id) => {
                OperandParams { base: self.constants[id.0 as usize], item_bytes: 0, kind: 1, unused: 0 }
            }
            Operand::Weight(id) => {
                let base = self.layout.tensors[id.0 as usize].offset as u64;
                OperandParams { base, item_bytes: 0, kind: 2, unused: 0 }
            }
        }
    }

    /// A buffer as kernels find it.
    pub(crate) fn buffer(&self, id: BufferId) -> OperandParams {
        self.operand(Operand::Buffer(id))
    }

    /// An input as it was staged, `[item][elements]` of the port's type.
    pub(crate) fn staged_input(&self, index: usize) -> OperandParams {
        self.wire(index, &self.plan.inputs[index])
    }

    /// Where an output is staged, likewise.
    pub(crate) fn staged_output(&self, index: usize) -> OperandParams {
        self.wire(self.plan.inputs.len() + index, &self.plan.outputs[index])
    }

    fn wire(&self, number: usize, port: &Port) -> OperandParams {
        let base = self.ports + (number * size_of::<u64>()) as u64;
        OperandParams { base, item_bytes: port.bytes_per_item() as u64, kind: 3, unused: 0 }
    }

    /// A walk as kernels take it. At most [`MAX_AXES`] axes, which the caller has made sure of.
    pub(crate) fn walk(&self, access: &Access) -> WalkParams {
        let mut strides = [0; MAX_AXES];
        strides.iter_mut().zip(&access.strides).for_each(|(to, &from)| *to = from as i64);
        WalkParams { operand: self.operand(access.operand), offset: access.offset as i64, strides }
    }

    /// A specialisation that knows how the plan's floats are held: `REAL`, see `types.cuh`.
    pub(crate) fn spec(&self, source: &'static str) -> KernelSpec {
        KernelSpec::new(source).define("REAL", type_number(self.precision().stored(DType::F32)))
    }
}

/// How `types.cuh` numbers element types.
pub(crate) fn type_number(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::BF16 => 1,
        DType::F16 => 2,
        DType::Bool => 3,
        DType::U8 => 4,
        DType::I8 => 5,
        DType::I32 => 6,
        DType::I64 => 7,
        DType::U16 => 8,
        DType::I16 => 9,
        DType::U32 => 10,
        DType::U64 => 11,
        DType::F64 => 12,
    }
}
