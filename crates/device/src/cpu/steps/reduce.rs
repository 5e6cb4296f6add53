//! Reductions over any axes of a walk.
//!
//! Where what is kept lies side by side, as channels do under a global mean, sums of neighbours run in vectors, each in its own order.

use super::Bench;
use super::walk::walk;
use crate::cpu::fence::{Kernel, dispatch};
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
            if let Some(&side_by_side) = kept.last().filter(|&&length| length >= SIDE_BY_SIDE)
                && kept_strides.last() == Some(&1)
                && is_sum(*kind)
            {
                let (outer, strides_outer) = (&kept[..kept.len() - 1], &kept_strides[..kept.len() - 1]);
                let mut places = Vec::new();
                let mut rows = out[first..first + per_item].chunks_exact_mut(side_by_side);
                walk(outer, strides_outer, x.offset as isize, |start| {
                    places.clear();
                    walk(reduced, strides, start as isize, |at| places.push(at));
                    if let Some(out) = rows.next() {
                        sums(*kind, x_item, &places, out);
                    }
                });
                continue;
            }
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

/// Kept elements side by side that are worth a vector.
const SIDE_BY_SIDE: usize = 16;

/// Whether a reduction is a sum, but for what is done to its terms and to the whole.
fn is_sum(kind: Reduction) -> bool {
    use Reduction::{L1, L2, Mean, Sum, SumSquare};
    matches!(kind, Sum | Mean | L1 | L2 | SumSquare)
}

/// For each of `out` the sum of the elements as far from `places` as it is from its beginning, in the order of [`sum`].
fn sums(kind: Reduction, x: &[f32], places: &[usize], out: &mut [f32]) {
    let count = places.len() as f32;
    match kind {
        Reduction::L1 => dispatch(Sums { x, places, value: f32::abs, out }),
        Reduction::L2 | Reduction::SumSquare => dispatch(Sums { x, places, value: |x| x * x, out }),
        _ => dispatch(Sums { x, places, value: |x| x, out }),
    }
    match kind {
        Reduction::Mean => out.iter_mut().for_each(|out| *out /= count),
        Reduction::L2 => out.iter_mut().for_each(|out| *out = out.sqrt()),
        _ => {}
    }
}

struct Sums<'a, V> {
    x: &'a [f32],
    places: &'a [usize],
    value: V,
    out: &'a mut [f32],
}

impl<V: Fn(f32) -> f32> Kernel for Sums<'_, V> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        /// Sums at a time: four registers of the widest vectors.
        const BLOCK: usize = 64;
        let Sums { x, places, value, out } = self;
        for (number, out) in out.chunks_mut(BLOCK).enumerate() {
            let first = number * BLOCK;
            let mut total = [0.0f32; BLOCK];
            for run in places.chunks(K_SEGMENT) {
                let mut sums = [0.0f32; BLOCK];
                if out.len() == BLOCK {
                    for at in run {
                        let x = &x[at + first..][..BLOCK];
                        sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += value(*x));
                    }
                } else {
                    for at in run {
                        let x = &x[at + first..][..out.len()];
                        sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += value(*x));
                    }
                }
                total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
            }
            out.copy_from_slice(&total[..out.len()]);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_side_by_side_have_the_bits_of_single_ones() {
        let x: Vec<f32> = (0..700 * 100).map(|at| ((at * 37 % 1009) as f32 - 500.0) * 0.013).collect();
        let places: Vec<usize> = (0..700).map(|row| row * 100 + 3).collect();
        for kind in [Reduction::Sum, Reduction::Mean, Reduction::L1, Reduction::L2, Reduction::SumSquare] {
            assert!(is_sum(kind));
            for width in [16, 64, 97] {
                let mut out = vec![0.0; width];
                sums(kind, &x, &places, &mut out);
                let row = |at: usize| places.iter().map(|place| x[place + at]).collect::<Vec<f32>>();
                let want: Vec<f32> = (0..width).map(|at| float(kind, &row(at))).collect();
                assert_eq!(out, want, "{kind:?} of {width}");
            }
        }
    }
}
