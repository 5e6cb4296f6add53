//! The tile of the matrix product: the one loop in which nearly all time goes, with its registers laid out by hand.
//!
//! ```text
//!   panel   [k][WIDTH]            one row of WIDTH columns per step of k
//!   tile    ROWS × columns sums   per k: load the panel's columns, broadcast one x per row, one multiply-add per sum register
//!   x       row r at r·stride; along k in pieces that lie where they like (the taps of a kernel)
//! ```
//! | instructions | rows | columns | registers: sums + columns + broadcast |
//! |---|---|---|---|
//! | AVX-512 | 14 | 32 | 28 + 2 + 1 of 32 |
//! | AVX2, FMA | 6 | 16 | 12 + 2 + 1 of 16 |
//! | others | 4 | 8 | 8 + 2 + 1 of 16, or of NEON's 32 |
//!
//! A sum runs over k in order whatever the tile's shape, so a strip of rows is cut into tiles as evenly as it goes. The strip is checked
//! once, at its border; the tiles then walk pointers.

use super::Isa;
use super::lanes::{Four, Lanes};

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

/// `out[r, c] (+)= Σ x[r, k]·panel[k, c]` for rows at one distance, over one run of k.
#[derive(Debug)]
pub(crate) struct Strip<'a> {
    pub(crate) x: &'a [f32],
    /// Elements between rows of x.
    pub(crate) x_stride: usize,
    pub(crate) rows: usize,
    pub(crate) pieces: &'a [Piece],
    /// A row of [`WIDTH`] for each element of the pieces.
    pub(crate) panel: &'a [f32],
    /// At most [`WIDTH`].
    pub(crate) columns: usize,
    pub(crate) out: &'a mut [f32],
    /// Elements between rows of the output.
    pub(crate) out_stride: usize,
    /// Whether the sums are added to what the output holds, or take its place.
    pub(crate) adds: bool,
    /// With the last run of k.
    pub(crate) ending: Option<Ending<'a>>,
}

impl Strip<'_> {
    /// Panics when a row, the panel or the output is shorter than it must be.
    pub(crate) fn run(self) {
        let Strip { rows, columns, .. } = self;
        if rows == 0 || columns == 0 {
            return;
        }
        let reach = self.pieces.iter().map(|piece| piece.offset + piece.length).max().unwrap_or(0);
        let length: usize = self.pieces.iter().map(|piece| piece.length).sum();
        let end = |stride: usize, last: usize| (rows - 1) * stride + last;
        assert!(columns <= WIDTH && self.panel.len() >= length * WIDTH, "a panel is too short");
        assert!(self.x.len() >= end(self.x_stride, reach), "rows are too short");
        assert!(self.out.len() >= end(self.out_stride, columns), "the output is too short");
        let ending = self.ending.map(|ending| {
            let bias = ending.bias.map(|bias| &bias[..columns]);
            let residual = ending.residual.map(|residual| &residual[..end(self.out_stride, columns)]);
            Ending { bias, residual, ..ending }
        });
        let (tiles, shape) = Tiles::best();
        for first in (0..columns).step_by(shape.columns) {
            let some = shape.columns.min(columns - first);
            let table = &tiles[usize::from(some > shape.columns / 2)];
            // As even as it goes: 15 rows are 8 and 7, not 14 and 1.
            let parts = rows.div_ceil(shape.rows);
            let mut row = 0;
            for part in 0..parts {
                let count = (rows - row).div_ceil(parts - part);
                let ending = ending.map(|ending| Ending {
                    bias: ending.bias.map(|bias| &bias[first..]),
                    residual: ending.residual.map(|residual| &residual[row * self.out_stride + first..]),
                    ..ending
                });
                let tile = Tile {
                    x: self.x[row * self.x_stride..].as_ptr(),
                    x_stride: self.x_stride,
                    pieces: self.pieces,
                    panel: self.panel[first.min(self.panel.len())..].as_ptr(),
                    out: self.out[row * self.out_stride + first..].as_mut_ptr(),
                    out_stride: self.out_stride,
                    columns: some,
                    adds: self.adds,
                    ending,
                };
                // SAFETY: the instructions are `Isa::best`'s. The asserts above hold for every row and column of the strip, and the tile
                // is `count` of its rows and `some` of its columns, no more than the tile at this place of the table has.
                unsafe { table[count - 1](&tile) };
                row += count;
            }
        }
    }
}

/// Some rows and columns of a strip. Row r of x, with every piece in it, is there for each row of the tile, as are `columns` elements
/// of each row of the output and the residual, and of the bias, and a whole register row of the panel for each element of the pieces.
struct Tile<'a> {
    x: *const f32,
    x_stride: usize,
    pieces: &'a [Piece],
    panel: *const f32,
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
    /// The tiles of this processor: of one register per row, then of two, each by rows; and the largest.
    fn best() -> ([&'static [Run]; 2], Shape) {
        match Isa::best() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => ([&avx512::ONE, &avx512::TWO], Shape { rows: 14, columns: 32 }),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => ([&avx2::ONE, &avx2::TWO], Shape { rows: 6, columns: 16 }),
            Isa::Baseline => ([&baseline::ONE, &baseline::TWO], Shape { rows: 4, columns: 8 }),
        }
    }
}

/// The tiles of one set of instructions.
macro_rules! tiles {
    ($module:ident, $lanes:ty, $most:literal, [$($rows:literal)*] $(, #[$features:meta])?) => {
        mod $module {
            use super::{Run, Tile, run};

            pub(super) static ONE: [Run; $most] = [$(tile::<$rows, 1>),*];
            pub(super) static TWO: [Run; $most] = [$(tile::<$rows, 2>),*];

            /// # Safety
            /// As for [`run`], and the processor has the instructions.
            $(#[$features])?
            unsafe fn tile<const ROWS: usize, const REGISTERS: usize>(tile: &Tile<'_>) {
                // SAFETY: the caller's.
                unsafe { run::<$lanes, ROWS, REGISTERS>(tile) };
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
tiles!(avx512, std::arch::x86_64::__m512, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2,fma")]);
#[cfg(target_arch = "x86_64")]
tiles!(avx2, std::arch::x86_64::__m256, 6, [1 2 3 4 5 6], #[target_feature(enable = "avx2,fma")]);
tiles!(baseline, super::Four, 4, [1 2 3 4]);

/// # Safety
/// The instructions of `V` are there; the tile has at least `ROWS` rows, and at most `REGISTERS·V::COUNT` columns.
#[inline(always)]
unsafe fn run<V: Lanes, const ROWS: usize, const REGISTERS: usize>(tile: &Tile<'_>) {
    // SAFETY, of the whole: pointers stay in the rows that the tile says are there, and partial loads and stores in its columns.
    unsafe {
        let mut sums = [[V::splat(0.0); REGISTERS]; ROWS];
        let mut panel = tile.panel;
        for piece in tile.pieces {
            let mut x = tile.x.add(piece.offset);
            for _ in 0..piece.length {
                let mut columns = [V::splat(0.0); REGISTERS];
                for register in 0..REGISTERS {
                    columns[register] = V::load(panel.add(register * V::COUNT));
                }
                for row in 0..ROWS {
                    let value = V::splat(*x.add(row * tile.x_stride));
                    for register in 0..REGISTERS {
                        sums[row][register] = value.multiply_add(columns[register], sums[row][register]);
                    }
                }
                panel = panel.add(WIDTH);
                x = x.add(1);
            }
        }
        for register in 0..REGISTERS {
            let first = register * V::COUNT;
            let count = tile.columns.saturating_sub(first).min(V::COUNT);
            for row in 0..ROWS {
                let at = row * tile.out_stride + first;
                let whole = count == V::COUNT;
                let load = |from: *const f32| if whole { V::load(from) } else { V::load_some(from, count) };
                let mut sum = sums[row][register];
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
                if whole {
                    sum.store(tile.out.add(at));
                } else {
                    sum.store_some(tile.out.add(at), count);
                }
            }
        }
    }
}
