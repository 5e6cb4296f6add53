//! The matrix product that everything heavy runs on: rows of f32 times a matrix packed in panels.
//!
//! ```text
//!   for a block of lines       as many rows of x as stay in the second-level cache
//!     for a panel              WIDTH columns of the matrix
//!       for a run of k         K_SEGMENT of them: a part of a panel that stays in the first-level cache …
//!         for a line of rows   … while all rows pass it, tile by tile ([`Strip`])
//! ```
//! Every sum runs over k in order, in runs of [`K_SEGMENT`] from zero, the runs added in order; between runs it waits in the output. How
//! rows are grouped changes nothing in any sum, so they may be grouped as speed asks: the bitwise promise holds by construction.

use crate::cpu::fence::{Clip, Ending, Factors, Piece, Strip};
use crate::cpu::steps::activation;
use tessera_planner::op::Unary;
use tessera_planner::plan::{Activation, K_SEGMENT};

pub(crate) use crate::cpu::fence::WIDTH;

/// Elements of x that a block of lines may touch: a quarter of a small second-level cache.
const BLOCK: usize = 64 << 10;

/// Rows that a block has at least: fewer would read the panels too often.
const BLOCK_ROWS: usize = 56;

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

impl Finish<'_> {
    /// Sums as they are.
    pub(crate) const NONE: Finish<'static> =
        Finish { bias: None, residual: None, activation: Activation::Identity };

    /// What the activation is while sums are still in registers, and what is left to do once they are stored.
    pub(crate) fn split(&self) -> (Option<Clip>, Activation) {
        match self.activation {
            Activation::Clip { low, high } => (Some(Clip { low, high }), Activation::Identity),
            Activation::Unary(Unary::Relu) => {
                (Some(Clip { low: 0.0, high: f32::INFINITY }), Activation::Identity)
            }
            other => (None, other),
        }
    }
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
        let Product { x, x_stride, rows, k, panels, n, out, out_stride, out_first, finish } = self;
        let taps = Taps::new([Piece { offset: 0, length: k }]);
        // Every row a line of its own would be slow, all rows one line could not be cut into blocks.
        let block = (BLOCK / x_stride.max(1)).clamp(BLOCK_ROWS, rows.max(BLOCK_ROWS));
        for first in (0..rows).step_by(block) {
            let rows = block.min(rows - first);
            let residual = finish.residual.map(|residual| &residual[first * out_stride..]);
            let lines = Lines {
                x: &x[first * x_stride..],
                lines: 1,
                x_line: 0,
                rows,
                x_stride,
                taps: &taps,
                panels,
                n,
                out: &mut out[first * out_stride..],
                out_stride,
                out_first,
                finish: Finish { residual, ..finish },
            };
            lines.block();
        }
    }
}

/// Where the elements of a row lie along k, in runs of [`K_SEGMENT`].
#[derive(Clone, Debug)]
pub(crate) struct Taps {
    pieces: Vec<Piece>,
    /// Where each run ends in `pieces`.
    ends: Vec<usize>,
}

impl Taps {
    /// Cuts pieces of any length into runs.
    pub(crate) fn new(pieces: impl IntoIterator<Item = Piece>) -> Taps {
        let mut taps = Taps { pieces: Vec::new(), ends: Vec::new() };
        let mut left = K_SEGMENT;
        for Piece { mut offset, mut length } in pieces {
            while length > 0 {
                let some = length.min(left);
                taps.pieces.push(Piece { offset, length: some });
                (offset, length, left) = (offset + some, length - some, left - some);
                if left == 0 {
                    taps.ends.push(taps.pieces.len());
                    left = K_SEGMENT;
                }
            }
        }
        // Sums over nothing are finished too.
        if left < K_SEGMENT || taps.ends.is_empty() {
            taps.ends.push(taps.pieces.len());
        }
        taps
    }

    fn length(&self) -> usize {
        self.pieces.iter().map(|piece| piece.length).sum()
    }
}

/// As [`Product`], of lines of rows: row r of line l begins at `l·x_line + r·x_stride`, its elements along k where `taps` says. Output and
/// residual have one row after the other.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) lines: usize,
    pub(crate) x_line: usize,
    pub(crate) rows: usize,
    pub(crate) x_stride: usize,
    pub(crate) taps: &'a Taps,
    pub(crate) panels: &'a [f32],
    pub(crate) n: usize,
    pub(crate) out: &'a mut [f32],
    pub(crate) out_stride: usize,
    pub(crate) out_first: usize,
    pub(crate) finish: Finish<'a>,
}

impl Lines<'_> {
    /// All lines, in blocks.
    pub(crate) fn run(self) {
        let by_cache = BLOCK / self.x_line.max(1);
        let block = by_cache.max(BLOCK_ROWS.div_ceil(self.rows.max(1))).min(self.lines.max(1));
        let per_line = self.rows * self.out_stride;
        for first in (0..self.lines).step_by(block) {
            let residual = self.finish.residual.map(|residual| &residual[first * per_line..]);
            let lines = Lines {
                x: &self.x[first * self.x_line..],
                lines: block.min(self.lines - first),
                out: &mut self.out[first * per_line..],
                finish: Finish { residual, ..self.finish },
                ..self
            };
            lines.block();
        }
    }

    fn block(self) {
        let Lines { x, lines, x_line, rows, x_stride, taps, panels, n, out, out_stride, out_first, finish } =
            self;
        let length = taps.length();
        let (clip, after) = finish.split();
        for (number, column) in (0..n).step_by(WIDTH).enumerate() {
            let columns = WIDTH.min(n - column);
            let mut panel = &panels[number * length * WIDTH..(number + 1) * length * WIDTH];
            let mut at = number * length * WIDTH;
            let from = out_first + column;
            let mut begin = 0;
            for (run, &end) in taps.ends.iter().enumerate() {
                let pieces = &taps.pieces[begin..end];
                begin = end;
                let so_many: usize = pieces.iter().map(|piece| piece.length).sum();
                let (now, later) = panel.split_at(so_many * WIDTH);
                panel = later;
                // As much as this run again is wanted when all lines have passed: each of them asks for its share.
                at += now.len();
                let next = &panels[at..(at + now.len()).min(panels.len())];
                let share = next.len() / lines.max(1);
                let is_last = run + 1 == taps.ends.len();
                for line in 0..lines {
                    let to = line * rows * out_stride + from;
                    let ending = is_last.then(|| Ending {
                        bias: finish.bias.map(|bias| &bias[from..]),
                        residual: finish.residual.map(|residual| &residual[to..]),
                        clip,
                    });
                    let strip = Strip {
                        x: &x[line * x_line..],
                        x_stride,
                        rows,
                        pieces,
                        factors: Factors::Panel(now),
                        next: &next[line * share..(line + 1) * share],
                        columns,
                        out: &mut out[to..],
                        out_stride,
                        adds: run > 0,
                        ending,
                    };
                    strip.run();
                }
            }
        }
        if after == Activation::Identity {
            return;
        }
        if out_stride == n {
            activation::apply(after, &mut out[..lines * rows * n]);
        } else {
            for row in 0..lines * rows {
                activation::apply(after, &mut out[row * out_stride + out_first..][..n]);
            }
        }
    }
}
