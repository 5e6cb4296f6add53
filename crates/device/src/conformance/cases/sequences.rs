//! Products of intermediate values and attention.

use super::{Builder, Case, dense};
use tessera_core::DType;
use tessera_planner::Tensor;
use tessera_planner::plan::{Access, AttentionShape, StepKind};

pub(super) fn cases() -> Vec<Case> {
    let mut all = vec![matmul(false), matmul(true), matmul_over_heads(), matmul_of_one_row()];
    all.extend(attentions().iter().map(Attention::case));
    all.push(attention_over_columns());
    all
}

fn matmul(transposed: bool) -> Case {
    let mut b = Builder::new();
    let (batch, m, n, k) = (3, 5, 34, 300);
    let a = b.input(DType::F32, &[batch, m, k]);
    let right = b.input(DType::F32, &[batch, k * n]);
    let out = b.buffer(DType::F32, batch * m * n);
    let (row, column) = if transposed { (1, k as isize) } else { (n as isize, 1) };
    let right = Access { operand: right, offset: 0, strides: vec![(k * n) as isize, row, column] };
    let kind = StepKind::MatMul {
        batch: vec![batch],
        m,
        n,
        k,
        a: dense(a, &[batch, m, k]),
        b: right,
        alpha: 0.25,
        out,
    };
    b.case(format!("matmul{}", if transposed { " transposed" } else { "" }), kind, &[(out, &[batch, m, n])])
}

/// Two axes of batch, of which the right side has one; the left side's rows lie one after the other; several tiles.
fn matmul_over_heads() -> Case {
    let mut b = Builder::new();
    let (heads, m, n, k) = (2, 70, 67, 20);
    let a = b.input(DType::F32, &[2, heads, k, m]);
    let right = b.input(DType::F32, &[heads, k, n]);
    let out = b.buffer(DType::F32, 2 * heads * m * n);
    let (size, row) = ((m * k) as isize, m as isize);
    let kind = StepKind::MatMul {
        batch: vec![2, heads],
        m,
        n,
        k,
        a: Access { operand: a, offset: 0, strides: vec![2 * size, size, 1, row] },
        b: Access { operand: right, offset: 0, strides: vec![0, (k * n) as isize, n as isize, 1] },
        alpha: 1.0,
        out,
    };
    b.case("matmul over heads".to_owned(), kind, &[(out, &[2, heads, m, n])])
}

/// By a constant, which stays f32 in every precision.
fn matmul_of_one_row() -> Case {
    let mut b = Builder::new();
    let (n, k) = (3, 33);
    let a = b.input(DType::F32, &[1, k]);
    let numbers: Vec<f32> = (0..n * k).map(|number| (number as f32 * 0.7).sin()).collect();
    let right = b.constant(Tensor::from_elements(&[k, n], &numbers));
    let out = b.buffer(DType::F32, n);
    let (a, right) = (dense(a, &[1, k]), dense(right, &[k, n]));
    let kind = StepKind::MatMul { batch: vec![], m: 1, n, k, a, b: right, alpha: -2.0, out };
    b.case("matmul of one row by a constant".to_owned(), kind, &[(out, &[1, n])])
}

/// What is added to the scores.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Mask {
    None,
    /// An input `[keys]`, the same for every head and query.
    Keys,
    /// An input `[heads, queries, keys]`.
    Full,
    /// A constant: every query sees the keys up to its own, the others are −∞.
    Causal,
}

/// Heads side by side in one row per token, as a projection leaves them.
struct Attention {
    heads: usize,
    queries: usize,
    keys: usize,
    head_dim: usize,
    value_dim: usize,
    mask: Mask,
}

fn attentions() -> [Attention; 10] {
    let row = |heads, [queries, keys]: [usize; 2], [head_dim, value_dim]: [usize; 2], mask| Attention {
        heads,
        queries,
        keys,
        head_dim,
        value_dim,
        mask,
    };
    [
        row(2, [9, 9], [8, 8], Mask::None),
        row(2, [9, 9], [8, 8], Mask::Keys),
        row(3, [70, 70], [32, 32], Mask::Keys),
        row(2, [5, 131], [64, 40], Mask::Full),
        row(1, [65, 80], [64, 64], Mask::Keys),
        row(1, [4, 20], [128, 128], Mask::Full),
        row(1, [67, 67], [20, 20], Mask::Causal),
        row(2, [20, 130], [96, 128], Mask::None),
        row(1, [66, 7], [7, 3], Mask::Keys),
        row(1, [3, 20], [136, 150], Mask::None),
    ]
}

impl Attention {
    fn case(&self) -> Case {
        let &Attention { heads, queries, keys, head_dim, value_dim, mask } = self;
        let mut b = Builder::new();
        let mut operand = |rows: usize, dim: usize| {
            let operand = b.input(DType::F32, &[rows, heads * dim]);
            Access { operand, offset: 0, strides: vec![dim as isize, (heads * dim) as isize, 1] }
        };
        let (q, k, v) = (operand(queries, head_dim), operand(keys, head_dim), operand(keys, value_dim));
        let mask = match mask {
            Mask::None => None,
            Mask::Keys => {
                let operand = b.input(DType::F32, &[keys]);
                Some(Access { operand, offset: 0, strides: vec![0, 0, 1] })
            }
            Mask::Full => {
                let dims = [heads, queries, keys];
                Some(dense(b.input(DType::F32, &dims), &dims))
            }
            Mask::Causal => {
                let seen = |index: usize| index % keys <= index / keys;
                let scores: Vec<f32> =
                    (0..queries * keys).map(|i| if seen(i) { 0.0 } else { f32::NEG_INFINITY }).collect();
                let operand = b.constant(Tensor::from_elements(&[queries, keys], &scores));
                Some(Access { operand, offset: 0, strides: vec![0, keys as isize, 1] })
            }
        };
        let out = b.buffer(DType::F32, queries * heads * value_dim);
        let shape = AttentionShape { heads, queries, keys, head_dim, value_dim, scale: 0.35 };
        let out_strides = [value_dim, heads * value_dim];
        let kind = StepKind::Attention { shape, q, k, v, mask, out, out_strides };
        let name = format!(
            "attention of {queries} to {keys}, {heads} heads of {head_dim} and {value_dim}, mask {:?}",
            self.mask
        );
        b.case(name, kind, &[(out, &[queries, heads * value_dim])])
    }
}

/// q, k and v in one row per token, at places that no vector load can use, k column by column, and the result head by head.
fn attention_over_columns() -> Case {
    let mut b = Builder::new();
    let (heads, tokens, dim) = (2, 37, 16);
    let row = 2 * heads * dim + 1;
    let qv = b.input(DType::F32, &[tokens, row]);
    let k = b.input(DType::F32, &[heads, dim, tokens]);
    let part = |offset| Access { operand: qv, offset, strides: vec![dim as isize, row as isize, 1] };
    let k = Access { operand: k, offset: 0, strides: vec![(dim * tokens) as isize, 1, tokens as isize] };
    let out = b.buffer(DType::F32, heads * tokens * dim);
    let shape =
        AttentionShape { heads, queries: tokens, keys: tokens, head_dim: dim, value_dim: dim, scale: 0.25 };
    let (q, v) = (part(0), part(heads * dim + 1));
    let kind = StepKind::Attention { shape, q, k, v, mask: None, out, out_strides: [tokens * dim, dim] };
    b.case("attention over columns".to_owned(), kind, &[(out, &[heads, tokens, dim])])
}
