//! Steps that normalise or reduce.

use super::matrix::softmax_in_place;
use super::memory::Memory;
use crate::op::Reduction;
use crate::plan::{K_SEGMENT, Operand, StepKind};
use tessera_core::DType;

/// First to last, in runs of [`K_SEGMENT`], each from zero, added in order.
pub(super) fn sum(elements: impl Iterator<Item = f32>) -> f32 {
    let (mut total, mut run) = (0.0, 0.0);
    for (at, x) in elements.enumerate() {
        run += x;
        if at % K_SEGMENT == K_SEGMENT - 1 {
            total += run;
            run = 0.0;
        }
    }
    total + run
}

pub(super) fn layer_norm(memory: &mut Memory<'_>, kind: &StepKind) {
    let StepKind::LayerNorm { x, rows, cols, centred, epsilon, scale, bias, out } = kind else {
        unreachable!("called for its own kind")
    };
    let x = memory.floats(*x);
    let scale = memory.floats(*scale);
    let bias = bias.map_or_else(|| vec![0.0; *cols], |bias: Operand| memory.floats(bias));
    let mut written = Vec::with_capacity(rows * cols);
    for row in 0..*rows {
        let row = &x[row * cols..][..*cols];
        let mean = if *centred { sum(row.iter().copied()) / *cols as f32 } else { 0.0 };
        let variance = sum(row.iter().map(|x| (x - mean) * (x - mean))) / *cols as f32;
        let deviation = (variance + epsilon).sqrt();
        written.extend((0..*cols).map(|c| (row[c] - mean) / deviation * scale[c] + bias[c]));
    }
    memory.set(*out, &written);
}

pub(super) fn softmax(memory: &mut Memory<'_>, kind: &StepKind) {
    let StepKind::Softmax { x, rows, cols, log, out } = kind else { unreachable!("called for its own kind") };
    let mut x = memory.floats(*x);
    for row in 0..*rows {
        let row = &mut x[row * cols..][..*cols];
        if *log {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total = libm::logf(sum(row.iter().map(|x| libm::expf(x - max))));
            row.iter_mut().for_each(|x| *x = *x - max - total);
        } else {
            softmax_in_place(row);
        }
    }
    memory.set(*out, &x);
}

pub(super) fn reduce(memory: &mut Memory<'_>, kind: &StepKind) {
    let StepKind::Reduce { kind, x, kept, reduced, out } = kind else {
        unreachable!("called for its own kind")
    };
    let dims = [kept.as_slice(), reduced].concat();
    let length: usize = reduced.iter().product();
    let count: usize = kept.iter().product();
    if memory.dtype(x.operand) == DType::I64 {
        let x = memory.walked::<i64>(x, &dims);
        let written: Vec<i64> = (0..count).map(|at| integers(*kind, &x[at * length..][..length])).collect();
        memory.set(*out, &written);
    } else {
        let x = memory.walked::<f32>(x, &dims);
        let written: Vec<f32> = (0..count).map(|at| floats(*kind, &x[at * length..][..length])).collect();
        memory.set(*out, &written);
    }
}

fn floats(kind: Reduction, x: &[f32]) -> f32 {
    let all = x.iter().copied();
    let larger = |a: f32, b: f32| if b > a || b.is_nan() { b } else { a };
    let smaller = |a: f32, b: f32| if b < a || b.is_nan() { b } else { a };
    match kind {
        Reduction::Sum => sum(all),
        Reduction::Mean => sum(all) / x.len() as f32,
        Reduction::Max => all.fold(f32::NEG_INFINITY, larger),
        Reduction::Min => all.fold(f32::INFINITY, smaller),
        Reduction::Prod => all.product(),
        Reduction::L1 => sum(all.map(f32::abs)),
        Reduction::L2 => sum(all.map(|x| x * x)).sqrt(),
        Reduction::SumSquare => sum(all.map(|x| x * x)),
        Reduction::LogSum => libm::logf(sum(all)),
        Reduction::LogSumExp => {
            let max = x.iter().copied().fold(f32::NEG_INFINITY, larger);
            // An infinite maximum is the answer itself; subtracting it would make a NaN.
            if max.is_infinite() { max } else { max + libm::logf(sum(all.map(|x| libm::expf(x - max)))) }
        }
    }
}

fn integers(kind: Reduction, x: &[i64]) -> i64 {
    let total = || x.iter().fold(0i64, |total, &x| total.wrapping_add(x));
    match kind {
        Reduction::Sum => total(),
        Reduction::Mean => total().checked_div(x.len() as i64).unwrap_or(0),
        Reduction::Max => x.iter().copied().max().unwrap_or(i64::MIN),
        Reduction::Min => x.iter().copied().min().unwrap_or(i64::MAX),
        Reduction::Prod => x.iter().fold(1i64, |product, &x| product.wrapping_mul(x)),
        Reduction::L1 => x.iter().fold(0i64, |total, &x| total.wrapping_add(x.wrapping_abs())),
        Reduction::SumSquare => x.iter().fold(0i64, |total, &x| total.wrapping_add(x.wrapping_mul(x))),
        Reduction::L2 | Reduction::LogSum | Reduction::LogSumExp => {
            panic!("a verified plan has no {kind:?} of integers")
        }
    }
}
