//! The matrix product that everything heavy runs on: rows of f32 times a matrix packed in panels.
//!
//! ```text
//!   for a block of lines       as many rows of x as stay in the second-level cache
//!     for a panel              WIDTH columns of the matrix
//!       for a run of k         K_SEGMENT of them: a part of a panel that stays in the first-level cache …
//!         for a line of rows   … while all rows pass it, tile by tile ([`Strip`])
//! ```
//! Every sum runs over k in order, in runs of [`K_SEGMENT`] from zero, the runs added in order; between runs it waits in the output. How
//! rows and columns are grouped changes nothing in any sum, so they may be grouped as speed asks, and different cores may compute them: the
//! bitwise promise holds by construction.

use crate::cpu::crew::Crew;
use crate::cpu::fence::{Clip, Ending, Factors, Piece, Rows, Strip};
use crate::cpu::steps::{Scratch, activation};
use tessera_planner::op::Unary;
use tessera_planner::plan::{Access, Activation, K_SEGMENT};

pub(crate) use crate::cpu::fence::WIDTH;

/// Elements of x that a block of lines may touch: a quarter of a small second-level cache.
const BLOCK: usize = 64 << 10;

/// Rows that a block has at least: fewer would read the panels too often.
const BLOCK_ROWS: usize = 56;

/// How many of `lines` lines, `x_line` elements apart and of so many rows each, are a block: all blocks about as large. At least one.
pub(crate) fn lines_at_once(x_line: usize, rows: usize, lines: usize) -> usize {
    let most = (BLOCK / x_line.max(1)).max(BLOCK_ROWS.div_ceil(rows.max(1)));
    lines.div_ceil(lines.div_ceil(most).max(1)).max(1)
}

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

impl<'a> Finish<'a> {
    /// Sums as they are.
    pub(crate) const NONE: Finish<'static> =
        Finish { bias: None, residual: None, activation: Activation::Identity };

    /// For the outputs `elements` further on and from column `column` on.
    pub(crate) fn from(self, elements: usize, column: usize) -> Finish<'a> {
        Finish {
            bias: self.bias.map(|bias| &bias[column..]),
            residual: self.residual.map(|residual| &residual[elements + column..]),
            ..self
        }
    }

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

/// Elements between the rows of a walk, which the plan lets lie one behind the other alone.
pub(crate) fn between_rows(x: &Access) -> usize {
    usize::try_from(x.strides[0]).expect("a plan's rows are walked from the first to the last")
}

/// `out[r, c] = finish(Σ x[r, k]·w[k, c])` for all rows and columns of the output.
#[derive(Debug)]
pub(crate) struct Product<'a> {
    /// Row r begins at `r·x_stride` and has `k` elements.
    pub(crate) x: &'a [f32],
    pub(crate) x_stride: usize,
    pub(crate) k: usize,
    /// Panels of `k × WIDTH`, the last one with zeros beyond the last column.
    pub(crate) panels: &'a [f32],
    pub(crate) out: Rows<'a>,
    pub(crate) finish: Finish<'a>,
}

impl Product<'_> {
    pub(crate) fn run(self, crew: Crew<'_>) {
        let Product { x, x_stride, k, panels, out, finish } = self;
        let crew = crew.for_work(out.count() * k * out.columns());
        let taps = Taps::new([Piece { offset: 0, length: k }]);
        let lines = Lines { x, lines: 1, x_line: 0, x_stride, taps: &taps, panels, out, finish };
        if crew.is_alone() {
            return lines.run();
        }
        // By rows while every core has the weights at hand, by columns when they are more than what they are multiplied with.
        let by_columns = lines.out.columns() > lines.out.count();
        let parts = if by_columns { lines.cut_columns(crew.parts()) } else { lines.cut_rows(crew.parts()) };
        crew.each(&mut Scratch::default(), parts.into_iter(), |lines, _| lines.run());
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

    /// Elements of a row.
    pub(crate) fn length(&self) -> usize {
        self.pieces.iter().map(|piece| piece.length).sum()
    }
}

/// As [`Product`], of lines of rows: row r of line l begins at `l·x_line + r·x_stride`, its elements along k where `taps` says. The output has
/// all lines' rows.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) lines: usize,
    pub(crate) x_line: usize,
    pub(crate) x_stride: usize,
    pub(crate) taps: &'a Taps,
    pub(crate) panels: &'a [f32],
    pub(crate) out: Rows<'a>,
    pub(crate) finish: Finish<'a>,
}

impl<'a> Lines<'a> {
    /// Rows of one line.
    fn rows(&self) -> usize {
        self.out.count() / self.lines.max(1)
    }

    /// Some columns each, whole panels of them.
    pub(crate) fn cut_columns(mut self, most: usize) -> Vec<Lines<'a>> {
        let share = self.out.columns().div_ceil(WIDTH).div_ceil(most).max(1) * WIDTH;
        let panel = self.taps.length() * WIDTH;
        let mut parts = Vec::new();
        while self.out.columns() > share {
            let (out, rest) = self.out.split_columns(share);
            let (panels, later) = self.panels.split_at(share / WIDTH * panel);
            parts.push(Lines { out, panels, ..self });
            self = Lines { out: rest, panels: later, finish: self.finish.from(0, share), ..self };
        }
        parts.push(self);
        parts
    }

    /// Some rows of the only line each.
    fn cut_rows(mut self, most: usize) -> Vec<Lines<'a>> {
        let share = self.out.count().div_ceil(most).max(1);
        let mut parts = Vec::new();
        while self.out.count() > share {
            let (out, rest) = self.out.split_rows(share);
            let finish = self.finish.from(share * rest.stride(), 0);
            parts.push(Lines { out, ..self });
            self = Lines { x: &self.x[share * self.x_stride..], out: rest, finish, ..self };
        }
        parts.push(self);
        parts
    }

    /// All lines, in blocks that stay in the second-level cache: of some lines, or of some rows of the only one.
    pub(crate) fn run(mut self) {
        let (rows, columns, stride) = (self.rows(), self.out.columns(), self.out.stride());
        if self.lines == 1 {
            // Every row a line of its own would be slow, all rows one line could not be cut into blocks.
            let block = (BLOCK / self.x_stride.max(1)).clamp(BLOCK_ROWS, rows.max(BLOCK_ROWS));
            for first in (0..rows).step_by(block) {
                let some = block.min(rows - first);
                let lines = Lines {
                    x: &self.x[first * self.x_stride..],
                    out: self.out.part(first, some, 0, columns),
                    finish: self.finish.from(first * stride, 0),
                    ..self
                };
                lines.block();
            }
            return;
        }
        let block = lines_at_once(self.x_line, rows, self.lines);
        for first in (0..self.lines).step_by(block) {
            let some = block.min(self.lines - first);
            let lines = Lines {
                x: &self.x[first * self.x_line..],
                lines: some,
                out: self.out.part(first * rows, some * rows, 0, columns),
                finish: self.finish.from(first * rows * stride, 0),
                ..self
            };
            lines.block();
        }
    }

    fn block(self) {
        let rows = self.rows();
        let Lines { x, lines, x_line, x_stride, taps, panels, mut out, finish } = self;
        let (length, n) = (taps.length(), out.columns());
        let (clip, after) = finish.split();
        for (number, column) in (0..n).step_by(WIDTH).enumerate() {
            let columns = WIDTH.min(n - column);
            let mut panel = &panels[number * length * WIDTH..(number + 1) * length * WIDTH];
            let mut at = number * length * WIDTH;
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
                    let of_line = finish.from(line * rows * out.stride(), column);
                    let Finish { bias, residual, .. } = of_line;
                    let strip = Strip {
                        x: &x[line * x_line..],
                        x_stride,
                        pieces,
                        factors: Factors::Panel(now),
                        next: &next[line * share..(line + 1) * share],
                        out: out.part(line * rows, rows, column, columns),
                        adds: run > 0,
                        ending: is_last.then_some(Ending { bias, residual, clip }),
                    };
                    strip.run();
                }
            }
        }
        if after == Activation::Identity {
            return;
        }
        if let Some(all) = out.whole() {
            return activation::apply(after, all);
        }
        (0..out.count()).for_each(|row| activation::apply(after, out.row(row)));
    }
}
