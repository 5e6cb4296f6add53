//! Products between intermediate values.

use super::Bench;
use super::gemm::row_times_matrix;
use super::walk::{offsets, walk};
use crate::cpu::fence::{Kernel, dispatch};
use tessera_planner::plan::{Access, StepKind};

pub(super) fn matmul(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::MatMul { batch, m, n, k, a, b, alpha, out } = kind else { return };
    let items = bench.items;
    let (reads, [out], scratch, _) = bench.open([*out]);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let (a_source, b_source) = (reads.source::<f32>(a.operand), reads.source::<f32>(b.operand));
    let rank = batch.len();
    let batches = offsets(batch, &[&a.strides[..rank], &b.strides[..rank]]);
    let per_item = batches.len() * m * n;
    for item in 0..items {
        let out = &mut out[item * per_item..(item + 1) * per_item];
        for (starts, out) in batches.iter().zip(out.chunks_exact_mut((m * n).max(1))) {
            // Both sides dense first: the copy is linear, the product is not.
            dense(a_source.at(item), a, starts[0], rank, [*m, *k], &mut scratch.a);
            dense(b_source.at(item), b, starts[1], rank, [*k, *n], &mut scratch.b);
            dispatch(Rows { a: &scratch.a, b: &scratch.b, k: *k, n: *n, alpha: *alpha, out });
        }
    }
}

/// Copies the matrix at the end of a walk.
fn dense(x: &[f32], access: &Access, start: isize, rank: usize, dims: [usize; 2], to: &mut Vec<f32>) {
    to.clear();
    let first = access.offset as isize + start;
    walk(&dims, &access.strides[rank..], first, |at| to.push(x[at]));
}

struct Rows<'a> {
    a: &'a [f32],
    b: &'a [f32],
    k: usize,
    n: usize,
    alpha: f32,
    out: &'a mut [f32],
}

impl Kernel for Rows<'_> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        for (a, out) in self.a.chunks_exact(self.k.max(1)).zip(self.out.chunks_exact_mut(self.n.max(1))) {
            row_times_matrix::<FUSED>(a, self.b, self.n, out);
            if self.alpha != 1.0 {
                out.iter_mut().for_each(|out| *out *= self.alpha);
            }
        }
    }
}
