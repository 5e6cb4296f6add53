//! What a choice of tile depends on, and what all choices share.
//!
//! ```text
//!   rows of a lane ─▶ width of the tile     the least waste: 49 ▸ 56, 196 ▸ 2·104, 784 ▸ 7·112, 3136 ▸ 28·112, 1 ▸ 8
//!   outputs, lanes ─▶ height                128 outputs halve the reading of inputs; 64 make twice the blocks
//!   blocks per SM  ─▶ stages                a block alone on its multiprocessor takes all the shared memory
//! ```
//! A tile changes when an element is computed and by which block, never how: the sums run over k in one order by one instruction whatever the
//! tile. So the room of a launch may be asked here, without a doubt about bits.
//!
//! Figures beside the tables are from a study of ResNet-50's layers on an H200 (bf16, 32 lanes); what is not from there says so.

use crate::Room;

/// Bytes of shared memory that the blocks of one multiprocessor share.
pub(super) const SHARED_BYTES: usize = 227 * 1024;
/// Of a block, beside its stages: barriers, biases, tables, what aligning loses, and what the driver keeps.
pub(super) const BESIDE_STAGES: usize = 3584;
/// The narrowest tile for more rows than one tile holds.
const WIDE: usize = 56;

/// What a choice depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sizes {
    /// Rows of one item.
    pub(super) rows: usize,
    /// Outputs of one group.
    pub(super) outputs: usize,
    pub(super) groups: usize,
    /// Length of the sums.
    pub(super) k: usize,
    pub(super) room: Room,
    pub(super) multiprocessors: u32,
}

impl Sizes {
    /// Rows of a lane that a tile should fit. Small items are taken together as a full launch brings them; large ones fill tiles alone, and a lane
    /// mostly carries one.
    pub(super) fn lane_rows(&self) -> usize {
        let items = (self.room.items / self.room.lanes.max(1)).max(1) as usize;
        if self.rows <= 16 { self.rows * items } else { self.rows }
    }

    /// Blocks of a full launch.
    pub(super) fn blocks(&self, tile_outputs: usize, tile_rows: usize) -> usize {
        let tiles = self.lane_rows().div_ceil(tile_rows) * self.outputs.div_ceil(tile_outputs);
        self.room.lanes as usize * self.groups * tiles
    }

    /// Whether two panels of 64 outputs to a tile waste little.
    pub(super) fn has_pairs(&self) -> bool {
        let panels = self.outputs.div_ceil(64);
        panels.is_multiple_of(2) || panels > 5
    }
}

/// The width that wastes least: the smallest that holds all rows; of several tiles, which are [`WIDE`], those that pad least, the wider first as they
/// read the weights fewer times.
pub(super) fn width(widths: &[usize], rows: usize) -> usize {
    let padded = |&width: &usize| (rows.next_multiple_of(width), std::cmp::Reverse(width));
    let holding = widths.iter().copied().find(|&width| width >= rows);
    let several = || widths.iter().copied().filter(|&width| width >= WIDE).min_by_key(padded);
    holding.or_else(several).expect("a table has wide tiles")
}

/// As many stages as there is room for, of few numbers so that few kernels are compiled.
pub(super) fn stages(room: usize, stage: usize) -> Option<usize> {
    [8, 6, 4, 3].into_iter().find(|stages| stages * stage <= room)
}

/// Tiles of rows in the worst launch of a room: every lane may end with a tile that is not full. No more than that: a block that finds no tile still takes its turn on
/// a multiprocessor, and the next kernel begins behind it (256 outputs, 128 rows, k of 1152, 32 lanes, bf16, 252 blocks of 64×128 or the 128 that there are: 13.05 for
/// 12.29 µs; H100, 2026-11-27).
pub(super) fn row_tiles(room: Room, rows: usize, tile_rows: usize) -> usize {
    let (lanes, items) = (room.lanes as usize, room.items as usize);
    // What divides an item's rows and a tile divides the rows of a lane, and so what its last tile lacks.
    let lacking = tile_rows - common_divisor(rows, tile_rows);
    let of_lanes = (items * rows + lanes * lacking) / tile_rows;
    // Items have no more tiles together than each by itself.
    of_lanes.min(items * rows.div_ceil(tile_rows))
}

/// The greatest.
fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Lanes of one item on an H200.
    pub(in crate::cuda::steps::product) fn sizes(rows: usize, outputs: usize, k: usize, lanes: u32) -> Sizes {
        let room = Room { lanes, items: lanes };
        Sizes { rows, outputs, groups: 1, k, room, multiprocessors: 132 }
    }

    #[test]
    fn a_room_of_lanes_has_tiles_for_every_split_of_its_items() {
        for (rows, tile) in [(1, 8), (49, 56), (196, 104), (5, 1), (128, 64), (784, 112), (12, 8), (8, 12)] {
            let of_lane = |items: u32| (items as usize * rows).div_ceil(tile);
            for items in 3..20 {
                let splits = (0..=items).flat_map(|a| (0..=items - a).map(move |b| [a, b, items - a - b]));
                let worst = splits.map(|lanes| lanes.map(of_lane).iter().sum::<usize>()).max().unwrap();
                let tiles = row_tiles(Room { lanes: 3, items }, rows, tile);
                assert!(
                    worst <= tiles,
                    "{items} items of {rows} rows in tiles of {tile}: {worst}, not {tiles}"
                );
            }
        }
    }

    #[test]
    fn no_tile_is_launched_in_vain_where_each_lane_has_one_item_or_items_fill_tiles() {
        for (rows, tile) in [(49, 56), (196, 104), (128, 128), (128, 64), (784, 112)] {
            assert_eq!(row_tiles(Room { lanes: 32, items: 32 }, rows, tile), 32 * rows.div_ceil(tile));
        }
        assert_eq!(row_tiles(Room { lanes: 5, items: 40 }, 128, 64), 80);
    }
}
