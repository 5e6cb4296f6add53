//! From a plan's steps to kernel calls: for each kind of [`StepKind`] which kernels, how they are specialised, how many blocks.
//!
//! Pure: addresses come in with the [`Site`], and nothing here talks to a driver. A step without a kernel is refused by
//! [`calls`] with the reason, and its class is served by another device, with the step's name in the log.

mod activation;
mod attention;
mod channels;
mod convert;
mod copy;
mod depthwise;
mod elementwise;
mod fill;
mod functions;
mod gather;
mod joined;
mod lines;
mod matmul;
mod norm;
mod points;
mod pool;
mod pool_indices;
mod product;
mod recurrent;
mod reduce;
mod vector;
mod window;

pub(crate) use convert::{egress, ingest};
pub(crate) use joined::is_joined;

use super::abi::MAX_AXES;
use super::call::KernelCall;
use super::site::Site;
use crate::Room;
use std::iter::once;
use tessera_planner::Plan;
use tessera_planner::plan::StepKind;

/// The kernels of the plan's step `index`: those of [`calls`], or in their place one of those that compute it alike, where a tuner found it faster.
pub(crate) fn chosen(site: &Site<'_>, index: usize, place: usize) -> Result<Vec<KernelCall>, String> {
    let other = if place > 0 { alike(site, index)?.into_iter().nth(place) } else { None };
    other.map_or_else(|| calls(site, index), |call| Ok(vec![call]))
}

/// Bytes that the plan's step `index` needs beside its buffers while it runs, for launches of up to `capacity` on so many multiprocessors.
pub(crate) fn workspace_bytes(plan: &Plan, index: usize, capacity: Room, multiprocessors: u32) -> u64 {
    match &plan.steps[index].kind {
        StepKind::Recurrent { shape, cell, .. } => recurrent::workspace_bytes(shape, cell.kind, capacity),
        StepKind::Gemm { .. } | StepKind::Conv { .. } => {
            product::workspace_bytes(plan, index, capacity, multiprocessors)
        }
        _ => 0,
    }
}

/// The kernels of the plan's step `index`, in order; none where another step's does it. The error says what there is no kernel for.
pub(crate) fn calls(site: &Site<'_>, index: usize) -> Result<Vec<KernelCall>, String> {
    lower(site, index).map(|calls| for_readers(site, index, calls))
}

/// The kernels of a step, with the rounding that those who read its results need.
fn for_readers(site: &Site<'_>, index: usize, mut calls: Vec<KernelCall>) -> Vec<KernelCall> {
    let done = once(index).chain(joined::joined(site.plan, index).pool);
    let mut written = done.flat_map(|step| site.plan.steps[step].kind.writes());
    if written.any(|write| site.is_factor(write.buffer)) {
        calls.iter_mut().for_each(KernelCall::round);
    }
    calls
}

fn lower(site: &Site<'_>, index: usize) -> Result<Vec<KernelCall>, String> {
    let step = &site.plan.steps[index];
    if joined::is_done(site.plan, index) {
        return Ok(Vec::new());
    }
    match &step.kind {
        StepKind::Copy { .. } => copy::calls(site, &step.kind),
        StepKind::Fill { .. } => fill::calls(site, &step.kind),
        StepKind::Elementwise { .. } => elementwise::calls(site, &step.kind),
        StepKind::Gather { .. } => gather::calls(site, index),
        StepKind::Reduce { .. } => reduce::calls(site, &step.kind),
        StepKind::LayerNorm { .. } | StepKind::Softmax { .. } => norm::calls(site, &step.kind),
        StepKind::Pool { .. } => pool::calls(site, &step.kind),
        StepKind::PoolIndices { .. } => pool_indices::calls(site, &step.kind),
        StepKind::GroupNorm { .. } => channels::group_norm(site, &step.kind),
        StepKind::Lrn { .. } => channels::lrn(site, &step.kind),
        StepKind::Depthwise { .. } => depthwise::calls(site, &step.kind),
        StepKind::Gemm { .. } | StepKind::Conv { .. } => product::calls(site, index),
        StepKind::MatMul { .. } => matmul::calls(site, &step.kind),
        StepKind::Attention { .. } => attention::calls(site, &step.kind),
        StepKind::TopK(step) => lines::top_k(site, step),
        StepKind::CumSum(step) => lines::cum_sum(site, step),
        StepKind::Resample(step) => lines::resample(site, step),
        StepKind::Pick(step) => points::pick(site, index, step),
        StepKind::Scatter(step) => points::scatter(site, index, step),
        StepKind::Recurrent { .. } => recurrent::calls(site, &step.kind),
    }
}

/// The kernels that each compute a linear layer or a convolution, all to the same bits, first that of [`calls`]; none for other steps.
pub(crate) fn alike(site: &Site<'_>, index: usize) -> Result<Vec<KernelCall>, String> {
    match &site.plan.steps[index].kind {
        StepKind::Gemm { .. } | StepKind::Conv { .. } => {
            product::alike(site, index).map(|calls| for_readers(site, index, calls))
        }
        _ => Ok(Vec::new()),
    }
}

/// Blocks of `threads` that cover `count`, at least one.
fn blocks(count: u32, threads: u32) -> u32 {
    count.div_ceil(threads).max(1)
}

/// The dimensions of a walk with neighbours joined where every operand lets them: `[a, b]` with `stride(a) = b·stride(b)` is `[a·b]`.
/// Fewer axes are fewer divisions a kernel makes, and most walks end as one.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Dims {
    dims: Vec<usize>,
    /// Per operand, per axis.
    strides: Vec<Vec<isize>>,
}

impl Dims {
    /// Joins the axes of a walk of several operands. Errors when more than [`MAX_AXES`] are left, or the elements are too many to number
    /// in 32 bits.
    fn joined(dims: &[usize], operands: &[&[isize]]) -> Result<Dims, String> {
        if dims.iter().try_fold(1u32, |product, &dim| product.checked_mul(u32::try_from(dim).ok()?)).is_none()
        {
            return Err(format!("{dims:?} are more elements of one item than 32 bits can number"));
        }
        let mut joined = Dims { dims: Vec::new(), strides: vec![Vec::new(); operands.len()] };
        for (axis, &dim) in dims.iter().enumerate().filter(|(_, dim)| **dim != 1) {
            let follows = |strides: &Vec<isize>, operand: &[isize]| {
                strides.last().is_some_and(|&before| before == operand[axis] * dim as isize)
            };
            let join =
                joined.strides.iter().zip(operands).all(|(strides, operand)| follows(strides, operand));
            match joined.dims.last_mut() {
                Some(before) if join => *before *= dim,
                _ => joined.dims.push(dim),
            }
            for (strides, operand) in joined.strides.iter_mut().zip(operands) {
                if join {
                    strides.pop();
                }
                strides.push(operand[axis]);
            }
        }
        match joined.dims.len() {
            axes if axes <= MAX_AXES => Ok(joined),
            axes => Err(format!("it walks {axes} axes, and kernels walk {MAX_AXES}")),
        }
    }

    fn elements(&self) -> u32 {
        self.dims.iter().product::<usize>() as u32
    }

    fn padded_dims(&self) -> [u32; MAX_AXES] {
        let mut padded = [1; MAX_AXES];
        padded.iter_mut().zip(&self.dims).for_each(|(to, &from)| *to = from as u32);
        padded
    }

    fn padded_strides(&self, operand: usize) -> [i64; MAX_AXES] {
        let mut padded = [0; MAX_AXES];
        padded.iter_mut().zip(&self.strides[operand]).for_each(|(to, &from)| *to = from as i64);
        padded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_that_lie_together_are_one() {
        let dense = Dims::joined(&[2, 3, 4], &[&[12, 4, 1]]).unwrap();
        assert_eq!((dense.dims, dense.strides), (vec![24], vec![vec![1]]));
        let broadcast = Dims::joined(&[2, 3, 4], &[&[12, 4, 1], &[0, 4, 1]]).unwrap();
        assert_eq!((broadcast.dims, broadcast.strides), (vec![2, 12], vec![vec![12, 1], vec![0, 1]]));
        let transposed = Dims::joined(&[3, 1, 2], &[&[1, 9, 3]]).unwrap();
        assert_eq!((transposed.dims, transposed.strides), (vec![3, 2], vec![vec![1, 3]]));
        assert_eq!(Dims::joined(&[1, 1], &[&[5, 5]]).unwrap().dims, Vec::<usize>::new());
    }

    #[test]
    fn a_walk_of_too_many_axes_or_elements_is_refused() {
        let strides: Vec<isize> = vec![7; 9];
        assert!(Dims::joined(&[2; 9], &[&strides]).is_err());
        assert!(Dims::joined(&[1 << 20, 1 << 20], &[&[1 << 20, 1]]).is_err());
    }
}
