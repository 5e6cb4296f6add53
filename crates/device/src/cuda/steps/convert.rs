//! Ports: between the wire, where floats are f32, and the arena, where they are held as the precision says. See
//! `kernels/convert.cu`.

use super::joined;
use super::vector::widest;
use crate::cuda::abi::{LaunchParams, OperandParams};
use crate::cuda::call::{KernelCall, KernelSpec, params};
use crate::cuda::site::{Site, type_number};
use bytemuck::{Pod, Zeroable};
use tessera_core::DType;
use tessera_planner::plan::{Operand, Port};

/// Packs that a thread moves at a time: `UNROLL` of the kernel.
const UNROLL: u64 = 4;
/// Blocks per multiprocessor that keep memory busy; more would only queue.
const BLOCKS_PER_MULTIPROCESSOR: u64 = 8;

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct ConvertParams {
    launch: LaunchParams,
    x: OperandParams,
    out: OperandParams,
    elements: u64,
    per_item: u64,
}
params!(ConvertParams);

/// Moves what requests brought for an input, `[item][elements]` of the port's type, to where the plan has it; nothing where a step reads it as it was brought.
pub(crate) fn ingest(site: &Site<'_>, index: usize) -> Option<KernelCall> {
    if joined::reads_staged(site.plan, index) {
        return None;
    }
    let port = &site.plan.inputs[index];
    let rounds = matches!(port.at, Operand::Buffer(id) if site.is_factor(id));
    let (from, to) = (port.dtype, site.stored(port.at));
    let call = Move { from, x: site.staged_input(index), to, out: site.operand(port.at), rounds };
    let mut call = call.lower(site, port, false);
    if rounds {
        call.round();
    }
    Some(call)
}

/// Moves an output from where the plan has it to `[item][elements]` of the port's type.
pub(crate) fn egress(site: &Site<'_>, index: usize) -> KernelCall {
    let port = &site.plan.outputs[index];
    let (from, x) = (site.stored(port.at), site.operand(port.at));
    let call = Move { from, x, to: port.dtype, out: site.staged_output(index), rounds: false };
    call.lower(site, port, !matches!(port.at, Operand::Buffer(_)))
}

struct Move {
    from: DType,
    x: OperandParams,
    to: DType,
    out: OperandParams,
    /// Whether a product reads what is written.
    rounds: bool,
}

impl Move {
    fn lower(self, site: &Site<'_>, port: &Port, per_item: bool) -> KernelCall {
        let elements = port.dims.iter().product::<usize>() as u64;
        let items = u64::from(site.capacity.items);
        let (pieces, length) = if per_item { (items, elements) } else { (1, items * elements) };
        let a_block = UNROLL * 256 * widest(self.from.size().min(self.to.size())) as u64;
        let most = u64::from(site.multiprocessors) * BLOCKS_PER_MULTIPROCESSOR;
        let blocks = length.div_ceil(a_block).clamp(1, most.max(1)) as u32;
        let params = ConvertParams {
            launch: site.launch,
            x: self.x,
            out: self.out,
            elements,
            per_item: u64::from(per_item),
        };
        let (from, to) = as_moved(self.from, self.to, self.rounds);
        let spec =
            KernelSpec::new("convert.cu").define("FROM", type_number(from)).define("TO", type_number(to));
        KernelCall::new(spec, &params, [blocks, pieces as u32, 1], 256)
    }
}

/// Elements that stay as they are are moved as unsigned integers of their size, whatever they mean: fewer kernels. Those that a product
/// reads are rounded on their way ([`Site::is_factor`]).
pub(super) fn as_moved(from: DType, to: DType, rounds: bool) -> (DType, DType) {
    if from != to || rounds {
        return (from, to);
    }
    let bits = match from.size() {
        1 => DType::U8,
        2 => DType::U16,
        4 => DType::U32,
        _ => DType::U64,
    };
    (bits, bits)
}
