//! Steps whose work is sums of products: linear layers, products of intermediate values, attention.

use super::activate;
use super::memory::Memory;
use crate::plan::{Epilogue, K_SEGMENT, Operand, StepKind};

/// `Σₖ x[k]·w[k, :]` for one row: in runs of [`K_SEGMENT`], each from zero, added in order.
pub(super) fn row_times_matrix(x: impl ExactSizeIterator<Item = f32>, w: &[f32], n: usize) -> Vec<f32> {
    let mut total = vec![0.0f32; n];
    let mut run = vec![0.0f32; n];
    let last = x.len().saturating_sub(1);
    for (k, x) in x.enumerate() {
        for (sum, w) in run.iter_mut().zip(&w[k * n..][..n]) {
            *sum += x * w;
        }
        if k % K_SEGMENT == K_SEGMENT - 1 || k == last {
            for (total, run) in total.iter_mut().zip(&mut run) {
                *total += *run;
                *run = 0.0;
            }
        }
    }
    total
}

/// `Σₖ a(k)·b(k)`, in the same order.
fn dot(k: usize, a: impl Fn(usize) -> f32, b: impl Fn(usize) -> f32) -> f32 {
    let mut total = 0.0;
    for start in (0..k).step_by(K_SEGMENT) {
        let mut run = 0.0;
        for k in start..k.min(start + K_SEGMENT) {
            run += a(k) * b(k);
        }
        total += run;
    }
    total
}

/// Applies an epilogue to `sums [rows, n]`.
pub(super) fn finish(memory: &Memory<'_>, epilogue: &Epilogue, n: usize, sums: &mut [f32]) {
    if let Some(bias) = epilogue.bias {
        let bias = memory.floats(Operand::Weight(bias));
        sums.chunks_exact_mut(n).for_each(|row| row.iter_mut().zip(&bias).for_each(|(sum, b)| *sum += b));
    }
    if let Some(residual) = epilogue.residual {
        sums.iter_mut().zip(memory.floats(residual)).for_each(|(sum, r)| *sum += r);
    }
    sums.iter_mut().for_each(|sum| *sum = activate(epilogue.activation, *sum));
}

pub(super) fn gemm(memory: &mut Memory<'_>, kind: &StepKind) {
    let StepKind::Gemm { x, w, rows, k, n, epilogue, out } = kind else {
        unreachable!("called for its own kind")
    };
    let x = memory.walked::<f32>(x, &[*rows, *k]);
    let w = memory.matrix(*w);
    let mut sums = Vec::with_capacity(rows * n);
    for row in 0..*rows {
        sums.extend(row_times_matrix(x[row * k..][..*k].iter().copied(), &w, *n));
    }
    finish(memory, epilogue, *n, &mut sums);
    memory.set(*out, &sums);
}

pub(super) fn matmul(memory: &mut Memory<'_>, kind: &StepKind) {
    let StepKind::MatMul { batch, m, n, k, a, b, alpha, out } = kind else {
        unreachable!("called for its own kind")
    };
    let a = memory.walked::<f32>(a, &[batch.as_slice(), &[*m, *k]].concat());
    let b = memory.walked::<f32>(b, &[batch.as_slice(), &[*k, *n]].concat());
    let mut sums = Vec::new();
    for matrix in 0..batch.iter().product() {
        for row in 0..*m {
            let a = a[(matrix * m + row) * k..][..*k].iter().copied();
            sums.extend(
                row_times_matrix(a, &b[matrix * k * n..][..k * n], *n).into_iter().map(|sum| alpha * sum),
            );
        }
    }
    memory.set(*out, &sums);
}

pub(super) fn attention(memory: &mut Memory<'_>, kind: &StepKind) {
    let StepKind::Attention { shape, q, k, v, mask, out, out_strides } = kind else {
        unreachable!("called for its own kind")
    };
    let (queries, keys, head_dim, value_dim) = (shape.queries, shape.keys, shape.head_dim, shape.value_dim);
    let q = memory.walked::<f32>(q, &[shape.heads, queries, head_dim]);
    let k = memory.walked::<f32>(k, &[shape.heads, keys, head_dim]);
    let v = memory.walked::<f32>(v, &[shape.heads, keys, value_dim]);
    let mask = mask.as_ref().map(|mask| memory.walked::<f32>(mask, &[shape.heads, queries, keys]));
    let mut written = vec![f32::NAN; shape.heads * queries * value_dim];
    for head in 0..shape.heads {
        for query in 0..queries {
            let row = head * queries + query;
            let mut scores: Vec<f32> = (0..keys)
                .map(|key| {
                    let sum =
                        dot(head_dim, |c| q[row * head_dim + c], |c| k[(head * keys + key) * head_dim + c]);
                    shape.scale * sum + mask.as_ref().map_or(0.0, |mask| mask[row * keys + key])
                })
                .collect();
            softmax_in_place(&mut scores);
            for c in 0..value_dim {
                let sum = dot(keys, |key| scores[key], |key| v[(head * keys + key) * value_dim + c]);
                written[head * out_strides[0] + query * out_strides[1] + c] = sum;
            }
        }
    }
    memory.set(*out, &written);
}

/// `e^(x − max) / Σ e^(x − max)`.
pub(super) fn softmax_in_place(row: &mut [f32]) {
    let max = row.iter().fold(f32::NEG_INFINITY, |max, &x| if x > max || x.is_nan() { x } else { max });
    row.iter_mut().for_each(|x| *x = libm::expf(*x - max));
    let sum = super::rows::sum(row.iter().copied());
    row.iter_mut().for_each(|x| *x /= sum);
}
