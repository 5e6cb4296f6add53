//! Walks over operands, and the steps that only move elements.

use super::Bench;
use bytemuck::Pod;
use tessera_planner::plan::{Access, StepKind};

/// Calls `visit` with the offset of every element of a walk, in row-major order.
#[inline(always)]
pub(super) fn walk(dims: &[usize], strides: &[isize], first: isize, mut visit: impl FnMut(usize)) {
    let Some((&length, outer)) = dims.split_last() else { return visit(first as usize) };
    let step = strides[outer.len()];
    each(outer, strides, first, &mut |mut at| {
        for _ in 0..length {
            visit(at as usize);
            at += step;
        }
    });
}

/// Calls `visit` with the offset of every combination of indices.
fn each(dims: &[usize], strides: &[isize], at: isize, visit: &mut impl FnMut(isize)) {
    match dims.split_first() {
        None => visit(at),
        Some((&length, inner)) => {
            (0..length).for_each(|i| each(inner, &strides[1..], at + i as isize * strides[0], visit));
        }
    }
}

/// For every combination of indices of `dims`, its offset under each of two sets of strides.
pub(super) fn offsets(dims: &[usize], strides: &[&[isize]; 2]) -> Vec<[isize; 2]> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    each(dims, strides[0], 0, &mut |at| first.push(at));
    each(dims, strides[1], 0, &mut |at| second.push(at));
    first.into_iter().zip(second).map(|(a, b)| [a, b]).collect()
}

/// Rows of fewer elements are short.
const SHORT: usize = 16;

pub(super) fn copy(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Copy { dims, x, out, out_offset, out_strides } = kind else { return };
    let mut dims = dims.clone();
    let mut x = x.clone();
    let mut out_strides: Vec<isize> = out_strides.iter().map(|&stride| stride as isize).collect();
    // Elements may move in any order. Short rows cost more than steps between elements do: then the longest dimension goes last.
    if dims.last().is_some_and(|&last| last < SHORT)
        && let Some(longest) = (0..dims.len()).max_by_key(|&dim| dims[dim])
    {
        let last = dims.len() - 1;
        dims.swap(longest, last);
        x.strides.swap(longest, last);
        out_strides.swap(longest, last);
    }
    let moves = Moves { dims: &dims, x: &x, out: *out, out_offset: *out_offset, out_strides: &out_strides };
    match bench.plan.buffer(*out).dtype.size() {
        1 => moves.run::<u8>(bench),
        2 => moves.run::<u16>(bench),
        4 => moves.run::<u32>(bench),
        _ => moves.run::<u64>(bench),
    }
}

struct Moves<'a> {
    dims: &'a [usize],
    x: &'a Access,
    out: tessera_planner::plan::BufferId,
    out_offset: usize,
    out_strides: &'a [isize],
}

impl Moves<'_> {
    fn run<T: Pod>(&self, bench: &mut Bench<'_>) {
        let (items, per_item) = (bench.items, bench.plan.buffer(self.out).elements);
        let (reads, [out], ..) = bench.open([self.out]);
        let out: &mut [T] = &mut bytemuck::cast_slice_mut(out)[..items * per_item];
        let source = reads.source::<T>(self.x.operand);
        let (length, outer) =
            self.dims.split_last().map_or((1, self.dims), |(length, outer)| (*length, outer));
        let step = |strides: &[isize]| strides.get(outer.len()).copied().unwrap_or(1);
        let (x_step, out_step) = (step(&self.x.strides), step(self.out_strides));
        let rows = offsets(outer, &[&self.x.strides, self.out_strides]);
        for item in 0..items {
            let x = source.at(item);
            let out = &mut out[item * per_item..(item + 1) * per_item];
            for [from, to] in &rows {
                let (from, to) = (self.x.offset as isize + from, self.out_offset + *to as usize);
                if x_step == 1 && out_step == 1 {
                    out[to..to + length].copy_from_slice(&x[from as usize..from as usize + length]);
                } else {
                    for i in 0..length {
                        out[to + i * out_step as usize] = x[(from + i as isize * x_step) as usize];
                    }
                }
            }
        }
    }
}

pub(super) fn fill(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Fill { value, out } = kind else { return };
    let (_, [out], ..) = bench.open([*out]);
    let out: &mut [u8] = bytemuck::cast_slice_mut(out);
    out.chunks_exact_mut(value.bytes().len()).for_each(|element| element.copy_from_slice(value.bytes()));
}
