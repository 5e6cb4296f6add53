//! Fills: see `kernels/fill.cu`.

use super::convert::as_moved;
use super::vector::widest;
use crate::cuda::abi::{LaunchParams, OperandParams};
use crate::cuda::call::{KernelCall, KernelSpec, params};
use crate::cuda::site::{Site, type_number};
use bytemuck::{Pod, Zeroable};
use tessera_planner::plan::StepKind;

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct FillParams {
    launch: LaunchParams,
    out: OperandParams,
    elements: u64,
    value: u64,
}
params!(FillParams);

/// Packs that a thread writes.
const PACKS: u64 = 4;

pub(super) fn calls(site: &Site<'_>, kind: &StepKind) -> Result<Vec<KernelCall>, String> {
    let StepKind::Fill { value, out } = kind else { unreachable!("called for its own kind") };
    let buffer = site.plan.buffer(*out);
    let stored = site.precision().stored(buffer.dtype);
    // Floats are rounded by the kernel where their buffer holds less of them; the bits of everything else are what is written.
    let written =
        if stored == buffer.dtype { as_moved(stored, stored, site.is_factor(*out)).0 } else { stored };
    let mut bits = [0; 8];
    let bytes = value.bytes();
    bits.get_mut(..bytes.len())
        .ok_or_else(|| format!("it fills with an element of {} bytes", bytes.len()))?
        .copy_from_slice(bytes);
    let params = FillParams {
        launch: site.launch,
        out: site.buffer(*out),
        elements: buffer.elements as u64,
        value: u64::from_le_bytes(bits),
    };
    let a_block = PACKS * 256 * widest(stored.size()) as u64;
    let count = u64::from(site.capacity.items) * params.elements;
    let blocks = count.div_ceil(a_block).clamp(1, 1 << 16) as u32;
    let spec = KernelSpec::new("fill.cu").define("TYPE", type_number(written));
    Ok(vec![KernelCall::new(spec, &params, [blocks, 1, 1], 256)])
}
