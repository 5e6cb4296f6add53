//! Fused attention: scores, softmax and mixture of one query at a time, so that no score matrix is ever stored.

use super::gemm::row_times_matrix;
use super::norm::softmax_row;
use super::walk::walk;
use super::{Bench, Scratch};
use crate::cpu::fence::{Kernel, dispatch};
use tessera_planner::plan::{Access, AttentionShape, StepKind};

pub(super) fn attention(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Attention { shape, q, k, v, mask, out, out_strides } = kind else { return };
    let items = bench.items;
    let per_item = shape.heads * shape.queries * shape.value_dim;
    let (reads, [out], scratch, _) = bench.open([*out]);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let sources = [q, k, v].map(|access| reads.source::<f32>(access.operand));
    let mask_source = mask.as_ref().map(|mask| (mask, reads.source::<f32>(mask.operand)));
    for item in 0..items {
        let out = &mut out[item * per_item..(item + 1) * per_item];
        for head in 0..shape.heads {
            let one = Head {
                shape,
                head,
                q: (q, sources[0].at(item)),
                k: (k, sources[1].at(item)),
                v: (v, sources[2].at(item)),
                mask: mask_source.map(|(mask, source)| (mask, source.at(item))),
                out,
                out_strides: *out_strides,
                scratch,
            };
            dispatch(one);
        }
    }
}

struct Head<'a> {
    shape: &'a AttentionShape,
    head: usize,
    q: (&'a Access, &'a [f32]),
    k: (&'a Access, &'a [f32]),
    v: (&'a Access, &'a [f32]),
    mask: Option<(&'a Access, &'a [f32])>,
    out: &'a mut [f32],
    out_strides: [usize; 2],
    scratch: &'a mut Scratch,
}

/// Where a head's matrix begins in an operand.
fn start(access: &Access, head: usize) -> isize {
    access.offset as isize + head as isize * access.strides[0]
}

impl Kernel for Head<'_> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Head { shape, head, q, k, v, mask, out, out_strides, scratch } = self;
        let (keys, dim) = (shape.keys, shape.head_dim);
        // Keys column by column: scores of neighbouring keys are then computed side by side.
        let (columns, values, row) = (&mut scratch.a, &mut scratch.b, &mut scratch.c);
        columns.clear();
        walk(&[dim, keys], &[k.0.strides[2], k.0.strides[1]], start(k.0, head), |at| columns.push(k.1[at]));
        values.clear();
        walk(&[keys, shape.value_dim], &v.0.strides[1..], start(v.0, head), |at| values.push(v.1[at]));
        row.clear();
        row.resize(dim + keys, 0.0);
        let (query, scores) = row.split_at_mut(dim);
        for i in 0..shape.queries {
            let first = start(q.0, head) + i as isize * q.0.strides[1];
            for (c, value) in query.iter_mut().enumerate() {
                *value = q.1[(first + c as isize * q.0.strides[2]) as usize];
            }
            row_times_matrix::<FUSED>(query, columns, keys, scores);
            scores.iter_mut().for_each(|score| *score *= shape.scale);
            if let Some((access, mask)) = mask {
                let first = start(access, head) + i as isize * access.strides[1];
                for (j, score) in scores.iter_mut().enumerate() {
                    *score += mask[(first + j as isize * access.strides[2]) as usize];
                }
            }
            softmax_row(scores, false);
            let at = head * out_strides[0] + i * out_strides[1];
            row_times_matrix::<FUSED>(scores, values, shape.value_dim, &mut out[at..at + shape.value_dim]);
        }
    }
}
