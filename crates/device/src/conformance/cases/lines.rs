//! Cases of steps along one axis, and of those that go to elements by number.

use super::{Builder, Case, dense};
use tessera_core::DType;
use tessera_planner::Tensor;
use tessera_planner::op;
use tessera_planner::plan::{CumSum, Lines, Operand, Pick, Points, Resample, Scatter, StepKind, TopK};

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    // Short lines and long ones, beside each other and one inside the other; as many as there are.
    for (outer, length, inner, k) in [(3, 5, 1, 5), (2, 300, 7, 3), (1, 1100, 1, 1), (40, 9, 13, 2)] {
        let lines = Lines { outer, length, inner };
        for largest in [true, false] {
            all.push(top_k(lines, k, largest, false, DType::F32));
            all.push(top_k(lines, k, largest, largest, DType::I64));
        }
    }
    all.push(arg(Lines { outer: 4, length: 130, inner: 6 }));
    for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)] {
        let dtype = if reverse { DType::I64 } else { DType::F32 };
        all.push(cum_sum(Lines { outer: 3, length: 40, inner: 9 }, exclusive, reverse, dtype));
    }
    all.push(cum_sum(Lines { outer: 5, length: 300, inner: 1 }, false, false, DType::F32));
    for (outer, length, inner, count, taps) in [(1, 7, 24, 14, 2), (5, 9, 3, 4, 4), (3, 6, 1, 11, 1)] {
        all.push(resample(Lines { outer, length, inner }, count, taps));
    }
    for stray in [false, true] {
        all.push(pick_along(stray));
        all.push(pick_rows(12, stray));
        all.push(scatter_rows(op::Scatter::Replace, stray));
    }
    all.push(pick_rows(5, false));
    let hows = [op::Scatter::Replace, op::Scatter::Add, op::Scatter::Mul, op::Scatter::Max, op::Scatter::Min];
    all.extend(hows.map(|how| scatter_along(how, DType::F32)));
    all.extend(hows.map(|how| scatter_along(how, DType::I64)));
    all.push(scatter_rows(op::Scatter::Add, false));
    all
}

fn dims(lines: Lines) -> [usize; 3] {
    [lines.outer, lines.length, lines.inner]
}

/// Floats may become equal where they are held in halves, so their numbers are asked for integers only, which are often equal.
fn top_k(lines: Lines, k: usize, largest: bool, last: bool, dtype: DType) -> Case {
    let mut b = Builder::new();
    let x = b.input(dtype, &dims(lines));
    let made = lines.with_length(k);
    let values = b.buffer(dtype, made.elements());
    let indices = (dtype == DType::I64).then(|| b.buffer(DType::I64, made.elements()));
    let step = TopK { x, lines, k, largest, last, values: Some(values), indices };
    let shape = dims(made);
    let outputs: Vec<_> = [Some(values), indices].into_iter().flatten().map(|id| (id, &shape[..])).collect();
    let which = if largest { "largest" } else { "smallest" };
    b.case(format!("{k} {which} {dtype} of {:?}", dims(lines)), StepKind::TopK(step), &outputs)
}

fn arg(lines: Lines) -> Case {
    let mut b = Builder::new();
    let x = b.input(DType::I64, &dims(lines));
    let out = b.buffer(DType::I64, lines.outer * lines.inner);
    let step = TopK { x, lines, k: 1, largest: true, last: true, values: None, indices: Some(out) };
    b.case("place of the largest".to_owned(), StepKind::TopK(step), &[(out, &[lines.outer, lines.inner])])
}

fn cum_sum(lines: Lines, exclusive: bool, reverse: bool, dtype: DType) -> Case {
    let mut b = Builder::new();
    let x = b.input(dtype, &dims(lines));
    let out = b.buffer(dtype, lines.elements());
    let name =
        format!("running sum of {dtype} {:?}, exclusive {exclusive}, backwards {reverse}", dims(lines));
    let step = CumSum { x, lines, exclusive, reverse, out };
    b.case(name, StepKind::CumSum(step), &[(out, &dims(lines))])
}

fn resample(lines: Lines, count: usize, taps: usize) -> Case {
    let mut b = Builder::new();
    let x = b.input(DType::F32, &dims(lines));
    let table = 0..count * taps;
    let at: Vec<i32> = table.clone().map(|tap| (tap * 5 % lines.length) as i32).collect();
    let weights: Vec<f32> = table.map(|tap| 0.3 + (tap % 7) as f32 * 0.1).collect();
    let (Operand::Constant(at), Operand::Constant(weights)) = (
        b.constant(Tensor::from_elements(&[count, taps], &at)),
        b.constant(Tensor::from_elements(&[count, taps], &weights)),
    ) else {
        unreachable!("constants are constants")
    };
    let made = lines.with_length(count);
    let out = b.buffer(DType::F32, made.elements());
    let step = Resample { x, lines, count, taps, at, weights, out };
    let name = format!("resample {:?} to {count} by {taps}", dims(lines));
    b.case(name, StepKind::Resample(step), &[(out, &dims(made))])
}

/// Along the middle axis of `[6, 50, 4]`, for fewer indices than there are outside and inside.
fn along() -> Points {
    Points { dims: vec![5, 9, 3], strides: vec![200, 0, 1], sizes: vec![50], along: vec![4], row: 1 }
}

fn pick_along(stray: bool) -> Case {
    let mut b = Builder::new();
    let (x, ids) = (b.input(DType::F32, &[6, 50, 4]), b.input(DType::I64, &[5, 9, 3]));
    let out = b.buffer(DType::F32, 135);
    let step = Pick { x, points: along(), ids, what: "ids".to_owned(), out };
    let name = format!("pick along an axis{}", if stray { " with strays" } else { "" });
    let mut case = b.case(name, StepKind::Pick(step), &[(out, &[5, 9, 3])]);
    case.ids = (50, stray);
    case
}

/// Rows that two numbers name, in each of three tables of a weight.
fn pick_rows(row: usize, stray: bool) -> Case {
    let mut b = Builder::new();
    let ids = b.input(DType::I64, &[3, 4, 2]);
    let x = Operand::Weight(b.plain(&[3, 50, 50, row]));
    let out = b.buffer(DType::F32, 12 * row);
    let points = Points {
        dims: vec![3, 4],
        strides: vec![2500 * row, 0],
        sizes: vec![50, 50],
        along: vec![50 * row, row],
        row,
    };
    let step = Pick { x, points, ids, what: "ids".to_owned(), out };
    let name = format!("pick rows of {row}{}", if stray { " with strays" } else { "" });
    let mut case = b.case(name, StepKind::Pick(step), &[(out, &[3, 4, row])]);
    case.ids = (50, stray);
    case
}

fn copied(x: Operand, dims: &[usize], out: tessera_planner::plan::BufferId) -> StepKind {
    let x = dense(x, dims);
    let out_strides = x.strides.iter().map(|stride| stride.unsigned_abs()).collect();
    StepKind::Copy { dims: dims.to_vec(), x, out, out_offset: 0, out_strides }
}

/// Nine updates along an axis of fifty: some of them meet.
fn scatter_along(how: op::Scatter, dtype: DType) -> Case {
    let mut b = Builder::new();
    let x = b.input(dtype, &[6, 50, 4]);
    let (ids, updates) = (b.input(DType::I64, &[5, 9, 3]), b.input(dtype, &[5, 9, 3]));
    let out = b.buffer(dtype, 1200);
    let step = Scatter { points: along(), ids, what: "ids".to_owned(), updates, how, out };
    let kinds = vec![copied(x, &[6, 50, 4], out), StepKind::Scatter(step)];
    b.case_of(format!("scatter of {dtype} along an axis, {how:?}"), kinds, &[(out, &[6, 50, 4])])
}

/// Rows that one number names.
fn scatter_rows(how: op::Scatter, stray: bool) -> Case {
    let mut b = Builder::new();
    let x = b.input(DType::F32, &[50, 40]);
    let (ids, updates) = (b.input(DType::I64, &[30, 1]), b.input(DType::F32, &[30, 40]));
    let out = b.buffer(DType::F32, 2000);
    let points = Points { dims: vec![30], strides: vec![0], sizes: vec![50], along: vec![40], row: 40 };
    let step = Scatter { points, ids, what: "ids".to_owned(), updates, how, out };
    let kinds = vec![copied(x, &[50, 40], out), StepKind::Scatter(step)];
    let name = format!("scatter rows, {how:?}{}", if stray { ", with strays" } else { "" });
    let mut case = b.case_of(name, kinds, &[(out, &[50, 40])]);
    case.ids = (50, stray);
    case
}
