//! The tile of the matrix product: the one loop in which nearly all time goes, with its registers laid out by hand.
//!
//! ```text
//!   panel   [k][WIDTH]            one row of WIDTH columns per step of k
//!   tile    ROWS × columns sums   per k: load the panel's columns, broadcast one x per row, one multiply-add per sum register
//!   x       row r at r·stride; along k in pieces that lie where they like (the taps of a kernel)
//! ```
//! A depthwise convolution is the same walk with an x of its own for each column.
//!
//! | instructions | rows | columns | registers: sums + columns + x |
//! |---|---|---|---|
//! | AVX-512 | 14 | 32 | 28 + 2 + 1 of 32 |
//! | AVX2, FMA | 6 | 16 | 12 + 2 + 1 of 16 |
//! | others | 4 | 8 | 8 + 2 + 1 of 16, or of NEON's 32 |
//!
//! On a core that has 274 GFLOP/s in registers, a tile of 14×32 reaches 265 (Zen 5, 2026-11-25).
//!
//! A sum runs over k in order whatever the tile's shape, so a strip of rows is cut into tiles as evenly as it goes. The strip is checked
//! once, at its border; the tiles then walk pointers.

use super::lanes::{Four, Lanes, ask_for};
use super::{Isa, Rows};
use std::mem::MaybeUninit;

/// Columns of one panel: two registers of AVX-512, four of AVX2, eight of NEON; two lines of any cache.
pub(crate) const WIDTH: usize = 32;

/// Consecutive elements of every row of x.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    /// Where they begin, from the row's start.
    pub(crate) offset: usize,
    /// How many.
    pub(crate) length: usize,
}

/// What becomes of sums when no part of them is left: `clip(sum + bias[c] + residual[r, c])`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending<'a> {
    /// One per column.
    pub(crate) bias: Option<&'a [f32]>,
    /// Rows lie as those of the output.
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) clip: Option<Clip>,
}

/// Bounds of a value; a NaN stays.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Clip {
    pub(crate) low: f32,
    pub(crate) high: f32,
}

/// What rows of x are multiplied with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Factors<'a> {
    /// A matrix: a row of [`WIDTH`] for each element of the pieces, of which at most so many columns are wanted.
    Panel(&'a [f32]),
    /// Column c has an x of its own, at `offset + c` of each piece, which are one element long: a row of weights for each
    /// piece, `stride` apart.
    Channels { weights: &'a [f32], stride: usize },
}

/// `out[r, c] (+)= Σ x[r, k]·factors[k, c]` for rows at one distance, over one run of k.
#[derive(Debug)]
pub(crate) struct Strip<'a> {
    pub(crate) x: &'a [f32],
    /// Elements between rows of x.
    pub(crate) x_stride: usize,
    pub(crate) pieces: &'a [Piece],
    pub(crate) factors: Factors<'a>,
    /// Factors that will be wanted next: brought nearer meanwhile, a line at a time.
    pub(crate) next: &'a [f32],
    /// As many rows as there are of x; at most [`WIDTH`] columns of a panel.
    pub(crate) out: Rows<'a>,
    /// Whether the sums are added to what the output holds, or take its place.
    pub(crate) adds: bool,
    /// With the last run of k.
    pub(crate) ending: Option<Ending<'a>>,
}

impl Strip<'_> {
    /// Panics when a row, the panel or the output is shorter than it must be.
    pub(crate) fn run(self) {
        self.run_with(Isa::best());
    }

    /// With a set of instructions that the processor has.
    fn run_with(mut self, isa: Isa) {
        let (rows, columns, out_stride) = (self.out.count(), self.out.columns(), self.out.stride());
        let out = self.out.as_mut_ptr();
        if rows == 0 || columns == 0 {
            return;
        }
        let end = |stride: usize, last: usize| (rows - 1) * stride + last;
        let length: usize = self.pieces.iter().map(|piece| piece.length).sum();
        let reach = self.pieces.iter().map(|piece| piece.offset + piece.length).max().unwrap_or(0);
        let (weights, weights_stride, reach) = match self.factors {
            Factors::Panel(panel) => {
                assert!(columns <= WIDTH && panel.len() >= length * WIDTH, "a panel is too short");
                (panel, WIDTH, reach)
            }
            Factors::Channels { weights, stride } => {
                assert!(self.pieces.iter().all(|piece| piece.length == 1), "a tap is one element");
                let last = length.saturating_sub(1) * stride + columns;
                assert!(weights.len() >= last, "weights are too short");
                (weights, stride, reach + columns - 1)
            }
        };
        let own = matches!(self.factors, Factors::Channels { .. });
        assert!(self.x.len() >= end(self.x_stride, reach), "rows are too short");
        let ending = self.ending.map(|ending| {
            let bias = ending.bias.map(|bias| &bias[..columns]);
            let residual = ending.residual.map(|residual| &residual[..end(out_stride, columns)]);
            Ending { bias, residual, ..ending }
        });
        let (tiles, shape) = Tiles::of(isa);
        for first in (0..columns).step_by(shape.columns) {
            let some = shape.columns.min(columns - first);
            let table = &tiles[usize::from(own)][usize::from(some > shape.columns / 2)];
            // As even as it goes: 15 rows are 8 and 7, not 14 and 1.
            let parts = rows.div_ceil(shape.rows);
            let share = self.next.len() / parts;
            let mut row = 0;
            for part in 0..parts {
                let count = (rows - row).div_ceil(parts - part);
                let ending = ending.map(|ending| Ending {
                    bias: ending.bias.map(|bias| &bias[first..]),
                    residual: ending.residual.map(|residual| &residual[row * out_stride + first..]),
                    ..ending
                });
                let tile = Tile {
                    x: self.x[row * self.x_stride + if own { first } else { 0 }..].as_ptr(),
                    x_stride: self.x_stride,
                    pieces: self.pieces,
                    weights: weights[first.min(weights.len())..].as_ptr(),
                    weights_stride,
                    next: self.next[part * share..].as_ptr(),
                    next_step: share / length.max(1),
                    out: out.wrapping_add(row * out_stride + first),
                    out_stride,
                    columns: some,
                    adds: self.adds,
                    ending,
                };
                // SAFETY: the processor has the instructions. The asserts above hold for every row and column of the strip, which
                // has the output to itself, and the tile is `count` of its rows and `some` of its columns, no more than the tile at this
                // place of the table has.
                unsafe { table[count - 1](&tile) };
                row += count;
            }
        }
    }
}

/// Some rows and columns of a strip. Row r of x, with every piece in it, is there for each row of the tile, as are `columns` elements
/// of each row of the output and the residual, and of the bias. For each element of the pieces there is a row of weights: whole
/// registers of a panel; `columns` of channels, whose x has as many.
struct Tile<'a> {
    x: *const f32,
    x_stride: usize,
    pieces: &'a [Piece],
    weights: *const f32,
    weights_stride: usize,
    /// What to ask for, and how much further per element of the pieces.
    next: *const f32,
    next_step: usize,
    out: *mut f32,
    out_stride: usize,
    columns: usize,
    adds: bool,
    ending: Option<Ending<'a>>,
}

/// A tile of a fixed number of rows and registers.
type Run = unsafe fn(&Tile<'_>);

/// The largest tile of a set of instructions.
#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    columns: usize,
}

struct Tiles;

impl Tiles {
    /// The tiles of a set of instructions, for a panel and for channels: of one register per row, then of two, each by rows; and the largest.
    fn of(isa: Isa) -> ([[&'static [Run]; 2]; 2], Shape) {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => (avx512::TILES, Shape { rows: 14, columns: 32 }),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => (avx2::TILES, Shape { rows: 6, columns: 16 }),
            Isa::Baseline => (baseline::TILES, Shape { rows: 4, columns: 8 }),
        }
    }
}

/// The tiles of one set of instructions.
macro_rules! tiles {
    ($module:ident, $lanes:ty, $most:literal, [$($rows:literal)*] $(, #[$features:meta])?) => {
        mod $module {
            use super::{MaybeUninit, Run, Tile};

            type Runs = [Run; $most];
            static PANEL: [Runs; 2] = [[$(tile::<$rows, 1, false>),*], [$(tile::<$rows, 2, false>),*]];
            static CHANNELS: [Runs; 2] = [[$(tile::<$rows, 1, true>),*], [$(tile::<$rows, 2, true>),*]];
            pub(super) static TILES: [[&[Run]; 2]; 2] = [[&PANEL[0], &PANEL[1]], [&CHANNELS[0], &CHANNELS[1]]];

            /// # Safety
            /// As for [`super::multiply`], and the processor has the instructions.
            $(#[$features])?
            unsafe fn tile<const ROWS: usize, const REGISTERS: usize, const OWN: bool>(tile: &Tile<'_>) {
                let mut done = MaybeUninit::uninit();
                // SAFETY: the caller's.
                unsafe {
                    super::multiply::<$lanes, ROWS, REGISTERS, OWN>(tile, &mut done);
                    end(tile, done.as_ptr().cast(), ROWS, REGISTERS);
                }
            }

            /// # Safety
            /// As for [`super::end`], and the processor has the instructions.
            $(#[$features])?
            unsafe fn end(tile: &Tile<'_>, done: *const $lanes, rows: usize, registers: usize) {
                // SAFETY: the caller's.
                unsafe { super::end(tile, done, rows, registers) };
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
tiles!(avx512, std::arch::x86_64::__m512, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2,fma")]);
#[cfg(target_arch = "x86_64")]
tiles!(avx2, std::arch::x86_64::__m256, 6, [1 2 3 4 5 6], #[target_feature(enable = "avx2,fma")]);
tiles!(baseline, super::Four, 4, [1 2 3 4]);

/// `OWN` says whether every column has an x of its own.
///
/// # Safety
/// The instructions of `V` are there; the tile has at least `ROWS` rows, and at most `REGISTERS·V::COUNT` columns.
#[inline(always)]
unsafe fn multiply<V: Lanes, const ROWS: usize, const REGISTERS: usize, const OWN: bool>(
    tile: &Tile<'_>,
    done: &mut MaybeUninit<[[V; REGISTERS]; ROWS]>,
) {
    // SAFETY: pointers stay in the rows of x and of weights that the tile says are there, and in `done`.
    unsafe {
        let mut sums = [[V::splat(0.0); REGISTERS]; ROWS];
        let mut weights = tile.weights;
        let stride = if OWN { tile.weights_stride } else { WIDTH };
        let mut next = tile.next;
        let load = |from: *const f32, register: usize| {
            let from = from.add(register * V::COUNT);
            let count = tile.columns - register * V::COUNT;
            if OWN { V::load_some(from, count.min(V::COUNT)) } else { V::load(from) }
        };
        for piece in tile.pieces {
            let mut x = tile.x.add(piece.offset);
            for _ in 0..piece.length {
                let mut columns = [V::splat(0.0); REGISTERS];
                for (register, columns) in columns.iter_mut().enumerate() {
                    *columns = load(weights, register);
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x = x.add(row * tile.x_stride);
                    let shared = if OWN { V::splat(0.0) } else { V::splat(*x) };
                    for (register, (sum, columns)) in sums.iter_mut().zip(&columns).enumerate() {
                        let x = if OWN { load(x, register) } else { shared };
                        *sum = x.multiply_add(*columns, *sum);
                    }
                }
                if !OWN {
                    ask_for(next);
                    next = next.wrapping_add(tile.next_step);
                }
                weights = weights.add(stride);
                x = x.add(1);
            }
        }
        // Sums leave their registers once, through memory that nothing else names: indexed any other way, they would never be in any.
        let done: *mut V = done.as_mut_ptr().cast();
        for (row, sums) in sums.iter().enumerate() {
            for (register, sum) in sums.iter().enumerate() {
                done.add(row * REGISTERS + register).write(*sum);
            }
        }
    }
}

/// Brings sums to the output.
///
/// # Safety
/// As for [`multiply`]; `done` holds the sums of `rows` rows of `registers` registers.
#[inline(always)]
unsafe fn end<V: Lanes>(tile: &Tile<'_>, mut done: *const V, rows: usize, registers: usize) {
    for row in 0..rows {
        for register in 0..registers {
            let first = register * V::COUNT;
            let at = row * tile.out_stride + first;
            let count = tile.columns.saturating_sub(first).min(V::COUNT);
            let is_whole = count == V::COUNT;
            // SAFETY: the caller's: `count` elements are there from each of these places, and no more are touched.
            unsafe {
                let load =
                    |from: *const f32| if is_whole { V::load(from) } else { V::load_some(from, count) };
                let mut sum = done.read();
                done = done.add(1);
                if tile.adds {
                    sum = load(tile.out.add(at)).add(sum);
                }
                if let Some(ending) = &tile.ending {
                    if let Some(bias) = ending.bias {
                        sum = sum.add(load(bias.as_ptr().add(first)));
                    }
                    if let Some(residual) = ending.residual {
                        sum = sum.add(load(residual.as_ptr().add(at)));
                    }
                    if let Some(clip) = ending.clip {
                        sum = sum.at_least(V::splat(clip.low)).at_most(V::splat(clip.high));
                    }
                }
                if is_whole {
                    sum.store(tile.out.add(at));
                } else {
                    sum.store_some(tile.out.add(at), count);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    fn numbers(random: &mut StdRng, count: usize) -> Vec<f32> {
        (0..count).map(|_| random.random_range(-1.0f32..1.0)).collect()
    }

    /// The strip's text, in plain loops: sums over k in order, `fused` or not.
    fn definition(strip: &Strip<'_>, mut out: Vec<f32>, fused: bool) -> Vec<f32> {
        for row in 0..strip.out.count() {
            for column in 0..strip.out.columns() {
                let (mut sum, mut k) = (0.0f32, 0);
                for piece in strip.pieces {
                    for element in 0..piece.length {
                        let at = row * strip.x_stride + piece.offset + element;
                        let (x, w) = match strip.factors {
                            Factors::Panel(panel) => (strip.x[at], panel[k * WIDTH + column]),
                            Factors::Channels { weights, stride } => {
                                (strip.x[at + column], weights[k * stride + column])
                            }
                        };
                        sum = if fused { x.mul_add(w, sum) } else { x * w + sum };
                        k += 1;
                    }
                }
                let at = row * strip.out.stride() + column;
                if strip.adds {
                    sum += out[at];
                }
                if let Some(Ending { bias, residual, clip }) = strip.ending {
                    sum += bias.map_or(0.0, |bias| bias[column]);
                    sum += residual.map_or(0.0, |residual| residual[at]);
                    sum = clip.map_or(sum, |clip| sum.clamp(clip.low, clip.high));
                }
                out[at] = sum;
            }
        }
        out
    }

    /// To the bit, and nothing beside the strip is written: `out` is wider than the strip, and compared whole.
    #[test]
    fn every_set_of_instructions_that_is_here_does_what_the_strip_says() {
        let mut random = StdRng::seed_from_u64(7);
        for isa in Isa::available() {
            let fused = isa != Isa::Baseline || super::super::BASELINE_FUSES;
            for case in 0..600 {
                let (rows, columns) = (random.random_range(1..33), random.random_range(1..=WIDTH));
                let own = case % 2 == 1;
                let pieces: Vec<Piece> = (0..random.random_range(1..5))
                    .map(|_| Piece {
                        offset: random.random_range(0..9),
                        length: if own { 1 } else { random.random_range(1..20) },
                    })
                    .collect();
                let k: usize = pieces.iter().map(|piece| piece.length).sum();
                let (x_stride, out_stride) =
                    (random.random_range(1..70), columns + random.random_range(0..5));
                let x = numbers(&mut random, rows * x_stride + 64);
                let stride = columns + random.random_range(0..3);
                let weights = numbers(&mut random, k * WIDTH.max(stride));
                let factors = if own {
                    Factors::Channels { weights: &weights, stride }
                } else {
                    Factors::Panel(&weights)
                };
                let (bias, residual) =
                    (numbers(&mut random, columns), numbers(&mut random, rows * out_stride));
                let ending = (case % 3 > 0).then(|| Ending {
                    bias: (case % 5 > 0).then_some(&bias[..]),
                    residual: (case % 7 > 3).then_some(&residual[..]),
                    clip: (case % 4 > 1).then_some(Clip { low: -0.5, high: 0.75 }),
                });
                let mut out = numbers(&mut random, rows * out_stride);
                let before = out.clone();
                let strip = Strip {
                    x: &x,
                    x_stride,
                    pieces: &pieces,
                    factors,
                    next: &weights,
                    out: Rows::new(&mut out, out_stride, rows, columns),
                    adds: case % 2 == 0,
                    ending,
                };
                let expected = definition(&strip, before, fused);
                strip.run_with(isa);
                assert_eq!(out, expected, "{isa:?}, {rows} rows, {columns} columns, {pieces:?}, case {case}");
            }
        }
    }
}
