//! Products between intermediate values: one side is packed as weights are, then it is a product like any other.

use super::Bench;
use super::gemm::{Finish, Product};
use super::panels::Matrix;
use super::walk::offsets;
use tessera_planner::plan::StepKind;

pub(super) fn matmul(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::MatMul { batch, m, n, k, a, b, alpha, out } = kind else { return };
    let (items, m, n, k) = (bench.items, *m, *n, *k);
    let (reads, [out], scratch, _) = bench.open([*out]);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let (a_source, b_source) = (reads.source::<f32>(a.operand), reads.source::<f32>(b.operand));
    let rank = batch.len();
    let batches = offsets(batch, &[&a.strides[..rank], &b.strides[..rank]]);
    let per_item = batches.len() * m * n;
    for item in 0..items {
        let out = &mut out[item * per_item..(item + 1) * per_item];
        let mut packed = None;
        for ([a_start, b_start], out) in batches.iter().zip(out.chunks_exact_mut((m * n).max(1))) {
            // Batches often share a side.
            if packed != Some(b_start) {
                scratch.b.clear();
                let strides = [b.strides[rank], b.strides[rank + 1]];
                let first = b.offset as isize + b_start;
                Matrix { x: b_source.at(item), first, strides }.pack(k, n, &mut scratch.b);
                packed = Some(b_start);
            }
            let strides = [a.strides[rank], a.strides[rank + 1]];
            let first = a.offset as isize + a_start;
            let (x, x_stride) = Matrix { x: a_source.at(item), first, strides }.rows(m, k, &mut scratch.a);
            let panels = &scratch.b;
            let product = Product {
                x,
                x_stride,
                rows: m,
                k,
                panels,
                n,
                out: &mut *out,
                out_stride: n,
                out_first: 0,
                finish: Finish::NONE,
            };
            product.run();
            if *alpha != 1.0 {
                out.iter_mut().for_each(|out| *out *= alpha);
            }
        }
    }
}
