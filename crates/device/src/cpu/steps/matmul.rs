//! Products between intermediate values: one side is packed as weights are, then it is a product like any other.

use super::gemm::{Finish, Product, WIDTH};
use super::panels::{Matrix, aligned};
use super::walk::offsets;
use super::{Bench, Scratch};
use crate::cpu::crew::Crew;
use crate::cpu::fence::Rows;
use tessera_planner::plan::StepKind;

pub(super) fn matmul(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::MatMul { batch, m, n, k, a, b, alpha, out } = kind else { return };
    let (items, crew, m, n, k) = (bench.items, bench.crew, *m, *n, *k);
    let (reads, [out], scratch, _) = bench.open([*out]);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let (a_source, b_source) = (reads.source::<f32>(a.operand), reads.source::<f32>(b.operand));
    let rank = batch.len();
    let batches = offsets(batch, &[&a.strides[..rank], &b.strides[..rank]]);
    let size = (m * n).max(1);
    // Some batches of an item, one after the other: they often share a side.
    let some =
        |item: usize, batches: &[[isize; 2]], out: &mut [f32], scratch: &mut Scratch, crew: Crew<'_>| {
            let Scratch { a: rows, b: panels, .. } = scratch;
            let (mut packed, mut start) = (None, 0);
            for ([a_start, b_start], out) in batches.iter().zip(out.chunks_exact_mut(size)) {
                if packed != Some(b_start) {
                    start = aligned(panels, n.div_ceil(WIDTH) * WIDTH * k);
                    let strides = [b.strides[rank], b.strides[rank + 1]];
                    let first = b.offset as isize + b_start;
                    Matrix { x: b_source.at(item), first, strides }.pack(k, n, panels);
                    packed = Some(b_start);
                }
                let strides = [a.strides[rank], a.strides[rank + 1]];
                let first = a.offset as isize + a_start;
                let (x, x_stride) = Matrix { x: a_source.at(item), first, strides }.rows(m, k, rows);
                let rows = Rows::new(out, n, m, n);
                let panels = &panels[start..];
                Product { x, x_stride, k, panels, out: rows, finish: Finish::NONE }.run(crew);
                if *alpha != 1.0 {
                    out.iter_mut().for_each(|out| *out *= alpha);
                }
            }
        };
    let shared = crew.for_work(batches.len() * m * n * k);
    for item in 0..items {
        let out = &mut out[item * batches.len() * m * n..][..batches.len() * m * n];
        // Batches for all cores, or all cores for each batch.
        if shared.is_alone() || batches.len() < shared.parts() {
            some(item, &batches, out, scratch, crew);
        } else {
            let share = shared.share(batches.len());
            let parts = batches.chunks(share).zip(out.chunks_mut(share * size));
            shared.each(scratch, parts, |(batches, out), scratch| {
                some(item, batches, out, scratch, Crew::ALONE);
            });
        }
    }
}
