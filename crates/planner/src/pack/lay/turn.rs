//! Columns into rows, by tiles that stay in a core's cache.
//!
//! ```text
//!   columns, one a line of k elements            panels, a row of them beside each other
//!     a a a a …  ┐                                 a b c d
//!     b b b b …  ├ a quad, gathered into a tile ─▶ a b c d  written row by row
//!     c c c c …  │                                 a b c d
//!     d d d d …  ┘                                 …
//! ```

use super::{ELEMENT, put, times};
use std::ops::Range;

/// Lines that are turned at a time, and elements of each.
pub(super) const MOST_LINES: usize = 32;
const TILE: usize = 16;
/// Lines that are gathered at once: as many singles as the smallest vector of any processor holds.
const QUAD: usize = 4;

/// The rows that columns are turned into.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) inputs: usize,
    pub(super) taps: usize,
    pub(super) width: usize,
}

/// Columns, each times its scale, into rows: a tile is gathered line by line, which reads each line of the cache once, and written row by row.
pub(super) fn turned<const SIZE: usize>(
    from: &[[u8; ELEMENT]],
    scale: Option<&[f32]>,
    rows: Rows,
    to: &mut [[u8; SIZE]],
    stored: &impl Fn(&[u8; ELEMENT]) -> [u8; SIZE],
) {
    let Rows { inputs, taps, width } = rows;
    let k = inputs * taps;
    let lines = from.len() / k;
    let mut tile = [[[0; ELEMENT]; MOST_LINES]; TILE];
    let (mut row, mut tap) = (0, 0);
    for start in (0..k).step_by(TILE) {
        let end = k.min(start + TILE);
        for (columns, quad) in (0..lines).step_by(QUAD).zip(from.chunks(QUAD * k)) {
            let columns = columns..lines.min(columns + QUAD);
            let scale = scale.map(|scale| &scale[columns.clone()]);
            gather(quad, scale, k, start..end, &mut tile, columns.start);
        }
        for tile in &tile[..end - start] {
            put(&tile[..lines], &mut to[row * width..], stored);
            // Elements come tap by tap for each input, and lie input by input for each tap.
            (row, tap) = (row + inputs, tap + 1);
            if tap == taps {
                (row, tap) = (row + 1 - k, 0);
            }
        }
    }
}

/// The elements `range` of a quad of lines, or of what is left of one, into the rows of a tile from `column` on.
fn gather(
    quad: &[[u8; ELEMENT]],
    scale: Option<&[f32]>,
    k: usize,
    range: Range<usize>,
    tile: &mut [[[u8; ELEMENT]; MOST_LINES]; TILE],
    column: usize,
) {
    let part = |line: usize| quad.get(line * k..)?.get(range.clone())?.first_chunk();
    let ([Some(a), Some(b), Some(c), Some(d)], None | Some(&[_, _, _, _])) = ([0, 1, 2, 3].map(part), scale)
    else {
        for (number, line) in quad.chunks_exact(k).enumerate() {
            for (row, &element) in tile.iter_mut().zip(&line[range.clone()]) {
                row[column + number] = scale.map_or(element, |scale| times(element, scale[number]));
            }
        }
        return;
    };
    match scale {
        Some(&[e, f, g, h]) => {
            together([a, b, c, d], tile, column, |[a, b, c, d]| {
                [times(a, e), times(b, f), times(c, g), times(d, h)]
            });
        }
        _ => together([a, b, c, d], tile, column, |four| four),
    }
}

/// Four whole lines of a tile, in a loop that compilers make vectors of.
fn together(
    [a, b, c, d]: [&[[u8; ELEMENT]; TILE]; QUAD],
    tile: &mut [[[u8; ELEMENT]; MOST_LINES]; TILE],
    column: usize,
    scaled: impl Fn([[u8; ELEMENT]; QUAD]) -> [[u8; ELEMENT]; QUAD],
) {
    for at in 0..TILE {
        tile[at][column..][..QUAD].copy_from_slice(&scaled([a[at], b[at], c[at], d[at]]));
    }
}
