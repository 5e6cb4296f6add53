//! Cases of steps that combine many elements, or take rows by number.

use super::{Builder, Case};
use tessera_core::DType;
use tessera_planner::Tensor;
use tessera_planner::op::Reduction;
use tessera_planner::plan::{Access, ConstantId, Operand, StepKind};

pub(super) fn cases() -> Vec<Case> {
    // A warp's rows, even and odd; a block's; and one that no thread's registers hold.
    let mut all: Vec<Case> = [8, 96, 768, 1000, 1030, 2048, 9001].map(|cols| norm(cols, true)).into();
    all.extend([8, 96, 1030, 9001].map(|cols| norm(cols, false)));
    for cols in [1, 64, 129, 1024, 1100, 8200] {
        all.extend([softmax(cols, false), softmax(cols, true)]);
    }
    for kind in [Reduction::Sum, Reduction::Mean, Reduction::Max, Reduction::LogSumExp] {
        // The mean of an image over its pixels; along rows; over a strided axis.
        all.push(reduce(kind, &[24], &[1], &[7, 7], &[168, 24]));
        all.push(reduce(kind, &[5], &[1], &[300], &[5]));
        all.push(reduce(kind, &[6, 5], &[365, 73], &[73], &[1]));
        all.push(reduce(kind, &[16, 3], &[1, 160], &[10], &[16]));
    }
    // Few outputs, whose sums must not cancel to be compared in halves.
    for kind in [Reduction::L1, Reduction::L2, Reduction::Max, Reduction::LogSumExp] {
        all.push(reduce(kind, &[2], &[1200], &[1200], &[1]));
        all.push(reduce(kind, &[], &[], &[11, 13], &[13, 1]));
    }
    let integers = [
        Reduction::Sum,
        Reduction::Mean,
        Reduction::Max,
        Reduction::Min,
        Reduction::Prod,
        Reduction::L1,
        Reduction::SumSquare,
    ];
    all.extend(integers.map(|kind| reduce_integers(kind, &[4], &[1], &[50], &[4])));
    all.extend(integers.map(|kind| reduce_integers(kind, &[3], &[33], &[33], &[1])));
    all.extend([gather(1, 50, 64), gather(3, 50, 8), gather(2, 50, 1), gather_constant(), gather_integers()]);
    all
}

fn norm(cols: usize, centred: bool) -> Case {
    let mut b = Builder::new();
    let rows = if cols > 1024 { 2 } else { 9 };
    let x = b.input(DType::F32, &[rows, cols]);
    let scale = Operand::Weight(b.plain(&[cols]));
    let bias = (centred && !cols.is_multiple_of(96)).then(|| Operand::Weight(b.plain(&[cols])));
    let out = b.buffer(DType::F32, rows * cols);
    let kind = StepKind::LayerNorm { x, rows, cols, centred, epsilon: 1e-5, scale, bias, out };
    let name = if centred { "layer" } else { "rms" };
    b.case(format!("{name} norm of {cols}"), kind, &[(out, &[rows, cols])])
}

fn softmax(cols: usize, log: bool) -> Case {
    let mut b = Builder::new();
    let rows = if cols > 1024 { 2 } else { 9 };
    let x = b.input(DType::F32, &[rows, cols]);
    let out = b.buffer(DType::F32, rows * cols);
    let kind = StepKind::Softmax { x, rows, cols, log, out };
    b.case(
        format!("softmax of {cols}{}", if log { ", logarithm" } else { "" }),
        kind,
        &[(out, &[rows, cols])],
    )
}

fn reduction(dtype: DType, kind: Reduction, walk: [&[usize]; 2], strides: [&[isize]; 2]) -> Case {
    let mut b = Builder::new();
    let [kept, reduced] = walk;
    let (dims, strides) = (walk.concat(), strides.concat());
    let reach = dims.iter().zip(&strides).map(|(dim, stride)| (dim - 1) * stride.unsigned_abs());
    let x = b.input(dtype, &[reach.sum::<usize>() + 1]);
    let count = kept.iter().product();
    let out = b.buffer(dtype, count);
    let x = Access { operand: x, offset: 0, strides: strides.clone() };
    let step = StepKind::Reduce { kind, x, kept: kept.to_vec(), reduced: reduced.to_vec(), out };
    b.case(format!("reduce {kind:?} {dtype} {kept:?} of {reduced:?}, {strides:?}"), step, &[(out, &[count])])
}

fn reduce(kind: Reduction, kept: &[usize], from: &[isize], reduced: &[usize], over: &[isize]) -> Case {
    reduction(DType::F32, kind, [kept, reduced], [from, over])
}

fn reduce_integers(
    kind: Reduction,
    kept: &[usize],
    from: &[isize],
    reduced: &[usize],
    over: &[isize],
) -> Case {
    reduction(DType::I64, kind, [kept, reduced], [from, over])
}

/// Out of a table of the item's own, several times over; some ids are astray.
fn gather(outer: usize, rows: usize, row: usize) -> Case {
    let mut b = Builder::new();
    let (ids, table) = (b.input(DType::I64, &[5]), b.input(DType::F32, &[outer, rows, row]));
    let out = b.buffer(DType::F32, outer * 5 * row);
    let kind = StepKind::Gather { table, ids, outer, rows, row, count: 5, what: "ids".to_owned(), out };
    let name = format!("gather {outer}×{rows}×{row} of the item's own");
    let mut case = b.case(name, kind, &[(out, &[outer, 5, row])]);
    case.ids = (rows as i64, true);
    case
}

/// Out of a table of the class, which is f32 in every precision.
fn gather_constant() -> Case {
    let mut b = Builder::new();
    let ids = b.input(DType::I64, &[6]);
    let values: Vec<f32> = (0..400).map(|at| at as f32 * 0.125 - 20.0).collect();
    b.constants.push(Tensor::from_elements(&[50, 8], &values));
    let table = Operand::Constant(ConstantId(0));
    let out = b.buffer(DType::F32, 48);
    let kind =
        StepKind::Gather { table, ids, outer: 1, rows: 50, row: 8, count: 6, what: "ids".to_owned(), out };
    b.case("gather from a constant".to_owned(), kind, &[(out, &[6, 8])])
}

/// Out of a table of integers.
fn gather_integers() -> Case {
    let mut b = Builder::new();
    let ids = b.input(DType::I64, &[7]);
    let values: Vec<i64> = (0..150).map(|at| at * at - 77).collect();
    b.constants.push(Tensor::from_elements(&[50, 3], &values));
    let table = Operand::Constant(ConstantId(0));
    let out = b.buffer(DType::I64, 21);
    let kind =
        StepKind::Gather { table, ids, outer: 1, rows: 50, row: 3, count: 7, what: "ids".to_owned(), out };
    b.case("gather of integers".to_owned(), kind, &[(out, &[7, 3])])
}
