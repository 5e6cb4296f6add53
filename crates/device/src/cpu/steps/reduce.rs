//! Reductions over any axes of a walk.

use super::Bench;
use super::walk::walk;
use tessera_core::DType;
use tessera_planner::op::Reduction;
use tessera_planner::plan::{K_SEGMENT, StepKind};

pub(super) fn reduce(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Reduce { kind, x, kept, reduced, out } = kind else { return };
    let items = bench.items;
    let (reads, [out], scratch, _) = bench.open([*out]);
    let (kept_strides, strides) = x.strides.split_at(kept.len());
    let per_item: usize = kept.iter().product();
    let integers = reads.dtype(x.operand) == DType::I64;
    for item in 0..items {
        let first = item * per_item;
        let mut at = first;
        if integers {
            let (out, x_item) =
                (bytemuck::cast_slice_mut::<u64, i64>(out), reads.source::<i64>(x.operand).at(item));
            walk(kept, kept_strides, x.offset as isize, |start| {
                let mut all = Vec::new();
                walk(reduced, strides, start as isize, |at| all.push(x_item[at]));
                out[at] = integer(*kind, &all);
                at += 1;
            });
        } else {
            let (out, x_item) =
                (bytemuck::cast_slice_mut::<u64, f32>(out), reads.source::<f32>(x.operand).at(item));
            let row = &mut scratch.a;
            walk(kept, kept_strides, x.offset as isize, |start| {
                row.clear();
                walk(reduced, strides, start as isize, |at| row.push(x_item[at]));
                out[at] = float(*kind, row);
                at += 1;
            });
        }
    }
}

/// First to last in runs of [`K_SEGMENT`], each from zero, added in order: the order of every sum of a plan.
fn sum(row: &[f32], value: impl Fn(f32) -> f32) -> f32 {
    row.chunks(K_SEGMENT).fold(0.0, |total, run| total + run.iter().fold(0.0, |sum, x| sum + value(*x)))
}

fn float(kind: Reduction, row: &[f32]) -> f32 {
    let largest =
        || row.iter().copied().fold(f32::NEG_INFINITY, |a, b| if b > a || b.is_nan() { b } else { a });
    match kind {
        Reduction::Sum => sum(row, |x| x),
        Reduction::Mean => sum(row, |x| x) / row.len() as f32,
        Reduction::Max => largest(),
        Reduction::Min => {
            row.iter().copied().fold(f32::INFINITY, |a, b| if b < a || b.is_nan() { b } else { a })
        }
        Reduction::Prod => row.iter().product(),
        Reduction::L1 => sum(row, f32::abs),
        Reduction::L2 => sum(row, |x| x * x).sqrt(),
        Reduction::SumSquare => sum(row, |x| x * x),
        Reduction::LogSum => sum(row, |x| x).ln(),
        Reduction::LogSumExp => {
            let largest = largest();
            // An infinite maximum is the answer itself; subtracting it would make a NaN.
            if largest.is_infinite() { largest } else { largest + sum(row, |x| (x - largest).exp()).ln() }
        }
    }
}

/// The planner makes no integer reduction that needs a root or a logarithm.
fn integer(kind: Reduction, row: &[i64]) -> i64 {
    let sum = |value: fn(i64) -> i64| row.iter().fold(0i64, |sum, x| sum.wrapping_add(value(*x)));
    match kind {
        Reduction::Max => row.iter().copied().max().unwrap_or(i64::MIN),
        Reduction::Min => row.iter().copied().min().unwrap_or(i64::MAX),
        Reduction::Prod => row.iter().fold(1i64, |product, x| product.wrapping_mul(*x)),
        Reduction::Mean => sum(|x| x).checked_div(row.len() as i64).unwrap_or(0),
        Reduction::L1 => sum(i64::wrapping_abs),
        Reduction::SumSquare => sum(|x| x.wrapping_mul(x)),
        Reduction::Sum | Reduction::L2 | Reduction::LogSum | Reduction::LogSumExp => sum(|x| x),
    }
}
