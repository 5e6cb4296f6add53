//! What each step of a plan means, as plain loops: one lane, one item, no cleverness.
//!
//! ```text
//!   inputs ─▶ arena ─ step ─ step ─ … ─▶ outputs        the arena is laid out as the plan says, so a plan that lets two
//!                                                       live buffers overlap gives wrong answers here as on a device
//! ```
//! This is the definition that devices are tested against, step by step and plan by plan; [`crate::reference`] is the
//! definition of the graph that a plan is made from. Sums over K run as [`crate::plan::K_SEGMENT`] says.

mod channels;
mod element;
mod lines;
mod matrix;
mod memory;
mod moves;
mod number;
mod recurrent;
mod rows;
mod window;

pub use element::unary;
pub use number::Number;

use crate::pack::{Packed, SlotLayout};
use crate::plan::{Activation, Plan, StepKind};
use memory::Memory;

/// Why one request fails while others in its launch do not.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestError {
    /// A number that came with the request names no row.
    #[error("`{what}` holds {id}, which is outside {}..{rows}", -(*rows as i64))]
    IdOutOfRange {
        /// The input that the number came from.
        what: String,
        /// The number.
        id: i64,
        /// How many rows there are.
        rows: usize,
    },
    /// The wrong number of inputs, or an input of the wrong size.
    #[error("input {input} holds {got} bytes, the plan asks for {want}")]
    InputSize {
        /// Which one.
        input: usize,
        /// Bytes that one item needs.
        want: usize,
        /// Bytes that were given.
        got: usize,
    },
}

/// Runs a plan for one item: every input's bytes in, every output's bytes out. The plan must have been verified ([`crate::verify`]): one that
/// reads outside its operands panics. It must hold floats as f32 (fp32, tf32): one of halves leaves its buffers less room than numbers take here.
pub fn run(
    plan: &Plan,
    layout: &SlotLayout,
    weights: &Packed,
    inputs: &[&[u8]],
) -> Result<Vec<Vec<u8>>, RequestError> {
    let mut memory = Memory::new(plan, layout, weights.bytes());
    for (index, port) in plan.inputs.iter().enumerate() {
        let bytes = inputs.get(index).copied().unwrap_or_default();
        if bytes.len() != port.bytes_per_item() {
            let (want, got) = (port.bytes_per_item(), bytes.len());
            return Err(RequestError::InputSize { input: index, want, got });
        }
        memory.put(port.at, bytes);
    }
    for step in &plan.steps {
        run_step(&mut memory, &step.kind)?;
    }
    Ok(plan.outputs.iter().map(|port| memory.bytes(port.at)[..port.bytes_per_item()].to_vec()).collect())
}

/// One step, on the arena as earlier steps left it.
fn run_step(memory: &mut Memory<'_>, kind: &StepKind) -> Result<(), RequestError> {
    match kind {
        StepKind::Gemm { .. } => matrix::gemm(memory, kind),
        StepKind::MatMul { .. } => matrix::matmul(memory, kind),
        StepKind::Attention { .. } => matrix::attention(memory, kind),
        StepKind::Recurrent { .. } => recurrent::recurrent(memory, kind),
        StepKind::Conv { .. } => window::conv(memory, kind),
        StepKind::Depthwise { .. } => window::depthwise(memory, kind),
        StepKind::Pool { .. } => window::pool(memory, kind),
        StepKind::PoolIndices { .. } => window::pool_indices(memory, kind),
        StepKind::GroupNorm { .. } => channels::group_norm(memory, kind),
        StepKind::Lrn { .. } => channels::lrn(memory, kind),
        StepKind::LayerNorm { .. } => rows::layer_norm(memory, kind),
        StepKind::Softmax { .. } => rows::softmax(memory, kind),
        StepKind::Reduce { .. } => rows::reduce(memory, kind),
        StepKind::Gather { .. } => return moves::gather(memory, kind),
        StepKind::Elementwise { .. } => element::chain(memory, kind),
        StepKind::Copy { .. } => moves::copy(memory, kind),
        StepKind::Fill { .. } => moves::fill(memory, kind),
        StepKind::TopK(step) => lines::top_k(memory, step),
        StepKind::CumSum(step) => lines::cum_sum(memory, step),
        StepKind::Resample(step) => lines::resample(memory, step),
        StepKind::Pick(step) => return lines::pick(memory, step),
        StepKind::Scatter(step) => return lines::scatter(memory, step),
    }
    Ok(())
}

/// The end of an epilogue, for one element.
pub(crate) fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Identity => x,
        // Written so that NaN stays NaN, which `clamp` would do too but for its panic when low > high.
        Activation::Clip { low, high } => {
            let above = if x < low { low } else { x };
            if above > high { high } else { above }
        }
        Activation::Unary(function) => unary(function, x),
    }
}
