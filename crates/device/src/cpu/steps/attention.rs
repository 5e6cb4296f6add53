//! Fused attention: scores, softmax and mixture of some queries of one head at a time, so that no score matrix is ever stored whole.
//!
//! ```text
//!   kᵀ, v ─ packed as weights are ─┐
//!   some queries ─▶ q·kᵀ ─▶ scale, mask, softmax ─▶ ·v ─▶ out
//! ```

use super::gemm::{Finish, Product, WIDTH};
use super::norm::softmax_row;
use super::panels::{Matrix, aligned};
use super::{Bench, Scratch};
use crate::cpu::crew::Crew;
use crate::cpu::fence::{Kernel, Rows, dispatch};
use tessera_planner::plan::{Access, AttentionShape, StepKind};

/// Scores that are held at once, of about so many elements: they stay in the second-level cache.
const SCORES: usize = 64 << 10;

/// Queries at once, at least.
const QUERIES: usize = 56;

pub(super) fn attention(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Attention { shape, q, k, v, mask, out, out_strides } = kind else { return };
    let (items, crew) = (bench.items, bench.crew);
    let AttentionShape { heads, queries, keys, head_dim, value_dim, .. } = *shape;
    let per_item = heads * queries * value_dim;
    let (reads, [out], scratch, _) = bench.open([*out]);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let sources = [q, k, v].map(|access| reads.source::<f32>(access.operand));
    let mask_source = mask.as_ref().map(|mask| (mask, reads.source::<f32>(mask.operand)));
    let crew = crew.for_work(heads * queries * keys * (head_dim + value_dim));
    for item in 0..items {
        let out = &mut out[item * per_item..(item + 1) * per_item];
        let head = |head: usize, first: usize, out: Rows<'_>, scratch: &mut Scratch| {
            let one = Head {
                shape,
                q: matrix(q, head, sources[0].at(item)).below(first),
                k: matrix(k, head, sources[1].at(item)),
                v: matrix(v, head, sources[2].at(item)),
                mask: mask_source.map(|(mask, source)| matrix(mask, head, source.at(item)).below(first)),
                out,
            };
            one.run(scratch);
        };
        let [along_heads, along_queries] = *out_strides;
        let mut parts = Vec::new();
        if along_heads == value_dim && along_queries >= heads * value_dim {
            let mut rest = Rows::new(out, along_queries, queries, heads * value_dim);
            for head in 0..heads {
                let (now, later) = rest.split_columns(value_dim);
                parts.push((head, now));
                rest = later;
            }
        } else if along_heads >= queries * along_queries {
            let all = out.chunks_mut(along_heads.max(1)).take(heads);
            parts.extend(all.map(|out| Rows::new(out, along_queries, queries, value_dim)).enumerate());
        } else {
            // No planner lays heads otherwise, but a plan may.
            for number in 0..heads {
                let out = &mut out[number * along_heads..];
                head(number, 0, Rows::new(out, along_queries, queries, value_dim), scratch);
            }
            continue;
        }
        // Few heads are shared out by their queries, too.
        let cuts = crew.parts().div_ceil(heads.max(1)).min(queries.max(1));
        let share = queries.div_ceil(cuts).max(1);
        let parts = parts.into_iter().flat_map(|(head, out)| {
            let chunks = out.chunks(share).into_iter().enumerate();
            chunks.map(move |(number, out)| (head, number * share, out))
        });
        crew.each(scratch, parts, |(number, first, out), scratch| head(number, first, out, scratch));
    }
}

/// A head's matrix in an operand.
fn matrix<'a>(access: &Access, head: usize, x: &'a [f32]) -> Matrix<'a> {
    let first = access.offset as isize + head as isize * access.strides[0];
    Matrix { x, first, strides: [access.strides[1], access.strides[2]] }
}

struct Head<'a> {
    shape: &'a AttentionShape,
    q: Matrix<'a>,
    k: Matrix<'a>,
    v: Matrix<'a>,
    mask: Option<Matrix<'a>>,
    /// One row for each query.
    out: Rows<'a>,
}

impl Head<'_> {
    fn run(self, scratch: &mut Scratch) {
        let Head { shape, q, k, v, mask, mut out } = self;
        let AttentionShape { keys, head_dim, value_dim, .. } = *shape;
        let queries = out.count();
        let Scratch { a: query_rows, b: packed, c: scores } = scratch;
        let [along_keys, along_dim] = k.strides;
        let panels = |k: usize, n: usize| n.div_ceil(WIDTH) * WIDTH * k;
        let start = aligned(packed, panels(head_dim, keys) + panels(keys, value_dim));
        Matrix { strides: [along_dim, along_keys], ..k }.pack(head_dim, keys, packed);
        let split = packed.len();
        v.pack(keys, value_dim, packed);
        let (keys_packed, values_packed) = packed[start..].split_at(split - start);
        let some = (SCORES / keys.max(1)).max(QUERIES).min(queries.max(1));
        scores.clear();
        scores.resize(some * keys, 0.0);
        for first in (0..queries).step_by(some) {
            let rows = some.min(queries - first);
            let (x, x_stride) = q.below(first).rows(rows, head_dim, query_rows);
            let scored = Product {
                x,
                x_stride,
                k: head_dim,
                panels: keys_packed,
                out: Rows::new(scores, keys, rows, keys),
                finish: Finish::NONE,
            };
            scored.run(Crew::ALONE);
            let mask = mask.map(|mask| mask.below(first));
            dispatch(Weigh { scores: &mut scores[..rows * keys], keys, scale: shape.scale, mask });
            let mixed = Product {
                x: scores,
                x_stride: keys,
                k: keys,
                panels: values_packed,
                out: out.part(first, rows, 0, value_dim),
                finish: Finish::NONE,
            };
            mixed.run(Crew::ALONE);
        }
    }
}

/// Scores to weights, row by row.
struct Weigh<'a> {
    scores: &'a mut [f32],
    keys: usize,
    scale: f32,
    mask: Option<Matrix<'a>>,
}

impl Kernel for Weigh<'_> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        for (i, row) in self.scores.chunks_exact_mut(self.keys.max(1)).enumerate() {
            row.iter_mut().for_each(|score| *score *= self.scale);
            if let Some(mask) = self.mask {
                let first = mask.below(i).first;
                let [_, along] = mask.strides;
                for (j, score) in row.iter_mut().enumerate() {
                    *score += mask.x[(first + j as isize * along) as usize];
                }
            }
            softmax_row::<FUSED>(row, false);
        }
    }
}
