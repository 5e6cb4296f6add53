//! Steps along one axis of a dense value: elements in order, running sums, lines made longer or shorter.
//!
//! Neighbours in memory are neighbours inside the axis, so where there are several of them the loops run over those innermost.

use super::numbers::of_number;
use super::{Bench, Reads};
use bytemuck::Pod;
use tessera_planner::interpret::Number;
use tessera_planner::plan::{CumSum, Lines, Operand, Resample, TopK};

pub(super) fn top_k(bench: &mut Bench<'_>, step: &TopK) {
    let dtype = super::dtype(bench.plan, step.x);
    of_number!(dtype, top_k_of(bench, step));
}

fn top_k_of<T: Number + Pod>(bench: &mut Bench<'_>, step: &TopK) {
    let items = bench.items;
    let made = step.lines.with_length(step.k);
    let put = |reads: Reads<'_>, mut values: Option<&mut [T]>, mut indices: Option<&mut [i64]>| {
        let x = reads.source::<T>(step.x);
        let mut order = Vec::with_capacity(step.lines.length);
        for item in 0..items {
            let (x, first) = (x.at(item), item * made.elements());
            for (o, i) in pairs(step.lines) {
                let place = |at: usize| (o * step.lines.length + at) * step.lines.inner + i;
                first_k(&mut order, step, |at| x[place(at)]);
                for (rank, &at) in order.iter().enumerate() {
                    let to = first + (o * step.k + rank) * step.lines.inner + i;
                    if let Some(values) = &mut values {
                        values[to] = x[place(at)];
                    }
                    if let Some(indices) = &mut indices {
                        indices[to] = at as i64;
                    }
                }
            }
        }
    };
    match (step.values, step.indices) {
        (Some(values), Some(indices)) => {
            let (reads, [values, indices], ..) = bench.open([values, indices]);
            put(reads, Some(bytemuck::cast_slice_mut(values)), Some(bytemuck::cast_slice_mut(indices)));
        }
        (Some(values), None) => {
            let (reads, [values], ..) = bench.open([values]);
            put(reads, Some(bytemuck::cast_slice_mut(values)), None);
        }
        (None, Some(indices)) => {
            let (reads, [indices], ..) = bench.open([indices]);
            put(reads, None, Some(bytemuck::cast_slice_mut(indices)));
        }
        (None, None) => {}
    }
}

/// The numbers of the first `k` elements of a line, in order.
fn first_k<T: Number>(order: &mut Vec<usize>, step: &TopK, x: impl Fn(usize) -> T) {
    order.clear();
    let before = |a: usize, b: usize| {
        let (p, q) = (x(a), x(b));
        p.comes_before(q, step.largest)
            || !q.comes_before(p, step.largest) && (if step.last { a > b } else { a < b })
    };
    if step.k == 1 {
        let best = (1..step.lines.length).fold(0, |best, at| if before(at, best) { at } else { best });
        order.push(best);
        return;
    }
    let compare = |a: &usize, b: &usize| before(*b, *a).cmp(&before(*a, *b));
    order.extend(0..step.lines.length);
    if step.k < step.lines.length {
        order.select_nth_unstable_by(step.k - 1, compare);
        order.truncate(step.k);
    }
    order.sort_unstable_by(compare);
}

/// The lines' places outside and inside their axis.
fn pairs(lines: Lines) -> impl Iterator<Item = (usize, usize)> {
    (0..lines.outer).flat_map(move |o| (0..lines.inner).map(move |i| (o, i)))
}

pub(super) fn cum_sum(bench: &mut Bench<'_>, step: &CumSum) {
    let dtype = super::dtype(bench.plan, step.x);
    of_number!(dtype, cum_sum_of(bench, step));
}

fn cum_sum_of<T: Number + Pod>(bench: &mut Bench<'_>, step: &CumSum) {
    let items = bench.items;
    let (reads, [out], ..) = bench.open([step.out]);
    let out: &mut [T] = bytemuck::cast_slice_mut(out);
    let x = reads.source::<T>(step.x);
    let Lines { outer, length, inner } = step.lines;
    let mut sums = vec![T::ZERO; inner];
    for item in 0..items {
        let x = x.at(item);
        for o in 0..outer {
            sums.fill(T::ZERO);
            for at in 0..length {
                let at = if step.reverse { length - 1 - at } else { at };
                let from = (o * length + at) * inner;
                let to = item * step.lines.elements() + from;
                let row = sums.iter_mut().zip(&x[from..from + inner]).zip(&mut out[to..to + inner]);
                for ((sum, &x), out) in row {
                    let with = sum.add(x);
                    *out = if step.exclusive { *sum } else { with };
                    *sum = with;
                }
            }
        }
    }
}

pub(super) fn resample(bench: &mut Bench<'_>, step: &Resample) {
    let items = bench.items;
    let (reads, [out], ..) = bench.open([step.out]);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let x = reads.source::<f32>(step.x);
    let at = reads.source::<i32>(Operand::Constant(step.at)).whole();
    let weights = reads.source::<f32>(Operand::Constant(step.weights)).whole();
    let Lines { outer, length, inner } = step.lines;
    for item in 0..items {
        let x = x.at(item);
        for line in 0..outer {
            let x = &x[line * length * inner..][..length * inner];
            let out = &mut out[(item * outer + line) * step.count * inner..][..step.count * inner];
            for (position, out) in out.chunks_exact_mut(inner).enumerate() {
                let taps = position * step.taps..(position + 1) * step.taps;
                out.fill(0.0);
                for (&at, &weight) in at[taps.clone()].iter().zip(&weights[taps]) {
                    let from = &x[at as usize * inner..][..inner];
                    out.iter_mut().zip(from).for_each(|(out, x)| *out += weight * x);
                }
            }
        }
    }
}
