//! The matrix product that everything heavy runs on: rows of f32 times a matrix packed in panels.
//!
//! ```text
//!   panel   [k][WIDTH]         one row of WIDTH columns per step of k
//!   tile    ROWS × WIDTH sums in registers; per k: load WIDTH weights, broadcast ROWS inputs, ROWS·WIDTH multiply-adds
//! ```
//! Every sum runs over k in order, in runs of [`K_SEGMENT`] from zero, the runs added in order. How many rows a tile has changes
//! nothing in any sum, so rows may be grouped as speed asks: the bitwise promise holds by construction.

use crate::cpu::fence::{Kernel, dispatch, multiply_add};
use crate::cpu::steps::activation;
use tessera_planner::plan::{Activation, K_SEGMENT};

/// Columns of one panel: two AVX-512 registers, four of AVX2, eight of NEON.
pub(crate) const WIDTH: usize = 32;

/// What is done to finished sums: `activation(sum + bias[c] + residual[r, c])`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finish<'a> {
    /// One per column.
    pub(crate) bias: Option<&'a [f32]>,
    /// As the output, row by row.
    pub(crate) residual: Option<&'a [f32]>,
    /// Last.
    pub(crate) activation: Activation,
}

/// `out[r, first + c] = finish(Σ x[r, k]·w[k, c])` for all rows.
#[derive(Debug)]
pub(crate) struct Product<'a> {
    /// Row r begins at `r·x_stride` and has `k` elements.
    pub(crate) x: &'a [f32],
    pub(crate) x_stride: usize,
    pub(crate) rows: usize,
    pub(crate) k: usize,
    /// Panels of `k × WIDTH`.
    pub(crate) panels: &'a [f32],
    /// Columns, the last panel's zeros left out.
    pub(crate) n: usize,
    /// Row r begins at `r·out_stride + out_first`; the residual lies likewise.
    pub(crate) out: &'a mut [f32],
    pub(crate) out_stride: usize,
    pub(crate) out_first: usize,
    pub(crate) finish: Finish<'a>,
}

impl Product<'_> {
    pub(crate) fn run(self) {
        dispatch(self);
    }
}

impl Kernel for Product<'_> {
    /// Panel by panel: one panel stays in the first-level cache while all rows pass it.
    #[inline(always)]
    fn run<const FUSED: bool>(mut self) {
        let panels = self.panels;
        for (number, panel) in panels.chunks_exact((self.k * WIDTH).max(1)).enumerate() {
            let mut row = 0;
            while row + 8 <= self.rows {
                self.rows_of::<FUSED, 8>(row, number, panel);
                row += 8;
            }
            while row + 2 <= self.rows {
                self.rows_of::<FUSED, 2>(row, number, panel);
                row += 2;
            }
            if row < self.rows {
                self.rows_of::<FUSED, 1>(row, number, panel);
            }
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn rows_of<const FUSED: bool, const ROWS: usize>(&mut self, row: usize, number: usize, panel: &[f32]) {
        let x: [&[f32]; ROWS] =
            std::array::from_fn(|r| &self.x[(row + r) * self.x_stride..(row + r) * self.x_stride + self.k]);
        let sums = tile::<FUSED, ROWS>(&x, panel);
        let column = number * WIDTH;
        let columns = WIDTH.min(self.n - column);
        for (r, sums) in sums.iter().enumerate() {
            let at = (row + r) * self.out_stride + self.out_first + column;
            let out = &mut self.out[at..at + columns];
            out.copy_from_slice(&sums[..columns]);
            if let Some(bias) = self.finish.bias {
                let bias = &bias[self.out_first + column..][..columns];
                out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
            }
            if let Some(residual) = self.finish.residual {
                out.iter_mut().zip(&residual[at..at + columns]).for_each(|(out, residual)| *out += residual);
            }
            activation::apply(self.finish.activation, out);
        }
    }
}

/// `ROWS × WIDTH` sums over all of k.
#[inline(always)]
fn tile<const FUSED: bool, const ROWS: usize>(x: &[&[f32]; ROWS], panel: &[f32]) -> [[f32; WIDTH]; ROWS] {
    let mut total = [[0.0f32; WIDTH]; ROWS];
    for (segment, weights) in panel.chunks(K_SEGMENT * WIDTH).enumerate() {
        let first = segment * K_SEGMENT;
        let length = weights.len() / WIDTH;
        let x: [&[f32]; ROWS] = std::array::from_fn(|r| &x[r][first..first + length]);
        let mut sums = [[0.0f32; WIDTH]; ROWS];
        for k in 0..length {
            let weights: &[f32; WIDTH] =
                weights[k * WIDTH..(k + 1) * WIDTH].try_into().expect("a row of a panel is WIDTH long");
            for r in 0..ROWS {
                let value = x[r][k];
                for c in 0..WIDTH {
                    sums[r][c] = multiply_add::<FUSED>(value, weights[c], sums[r][c]);
                }
            }
        }
        if segment == 0 {
            total = sums;
        } else {
            for r in 0..ROWS {
                for c in 0..WIDTH {
                    total[r][c] += sums[r][c];
                }
            }
        }
    }
    total
}

/// `out[c] = Σ x[k]·m[k·stride + c]`, every sum in the order of a plan: one row times a matrix that no panel is packed for.
#[inline(always)]
pub(crate) fn row_times_matrix<const FUSED: bool>(x: &[f32], matrix: &[f32], stride: usize, out: &mut [f32]) {
    for (block, out) in out.chunks_mut(WIDTH).enumerate() {
        for (segment, x) in x.chunks(K_SEGMENT).enumerate() {
            let mut sums = [0.0f32; WIDTH];
            for (k, value) in x.iter().enumerate() {
                let row = &matrix[(segment * K_SEGMENT + k) * stride + block * WIDTH..];
                for (sum, weight) in sums[..out.len()].iter_mut().zip(row) {
                    *sum = multiply_add::<FUSED>(*value, *weight, *sum);
                }
            }
            if segment == 0 {
                out.copy_from_slice(&sums[..out.len()]);
            } else {
                out.iter_mut().zip(&sums).for_each(|(out, sum)| *out += sum);
            }
        }
    }
}
