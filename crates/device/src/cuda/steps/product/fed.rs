//! Tiles of `kernels/product_fed.cu`, for products of many rows in strict fp32 whose inputs come in chunks.
//!
//! ```text
//!   tiles for each multiprocessor ─▶ whole ones, or even shares of k
//!   rows of a thread              ─▶ 56 and 112 fit images' 49, 196, 784 and 3136 pixels, and take a little more for each
//! ```
//! What a block takes is worked out from what its parts took on a card. No tile changes a bit.

use super::Loader;
use super::float::{RUN, Runs};
use super::sizes::{Sizes, row_tiles};

/// Of a block.
const CREWS: usize = 2;
/// Taps of which a feeder knows whether they are inside.
const MOST_TAPS: usize = 16;
/// The most floats of a tile, and how often they wait in the workspace for the next block: those of a run, and those of all runs before.
const MOST_SUMS: usize = 128 * 64;
const HANDED: usize = 2;
/// The fewest outputs and rows of a tile.
const FEWEST: [usize; 2] = [64, 56];

/// Microseconds on an H200 (2026-11-27): until a block multiplies, for what a tile takes besides, and for handing on what a cut leaves.
const BEGINNING: f64 = 2.6;
const OF_TILE: f64 = 0.5;
const HANDING: f64 = 4.0;
/// What a crew that multiplies alone takes for a run, of what two take for one each.
const ALONE: f64 = 0.6;

/// A tile of a block, whose crews multiply runs of it in turns.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct FedTile {
    /// 64 or 128.
    pub(super) outputs: usize,
    pub(super) rows: usize,
    /// Rows of one thread, which has eight outputs.
    pub(super) of_thread: usize,
    /// Whether k is one run or several.
    pub(super) runs: Runs,
    /// Microseconds of a run, where two crews multiply one each at a time, for each.
    run: f64,
}

const TILES: &[FedTile] = &[
    FedTile::new(128, 64, Runs::One, 10.7),
    FedTile::new(128, 64, Runs::Shared, 11.1),
    FedTile::new(128, 56, Runs::One, 9.85),
    FedTile::new(128, 56, Runs::Shared, 9.8),
    FedTile::new(64, 128, Runs::One, 11.4),
    FedTile::new(64, 128, Runs::Shared, 11.6),
    FedTile::new(64, 112, Runs::One, 10.3),
    FedTile::new(64, 112, Runs::Shared, 10.2),
];

impl FedTile {
    pub(super) const OUTPUTS_OF_THREAD: usize = 8;
    /// k of a stage.
    pub(super) const DEPTH: usize = 32;
    /// Feeding threads of a crew.
    pub(super) const FEEDERS: usize = 64;

    const fn new(outputs: usize, rows: usize, runs: Runs, run: f64) -> FedTile {
        let of_thread = if rows.is_multiple_of(7) { 7 } else { 8 };
        FedTile { outputs, rows, of_thread, runs, run }
    }

    /// Every tile for sums so long of inputs that are loaded so, of so many taps.
    pub(super) fn all(sizes: &Sizes, loader: Loader, taps: usize) -> impl Iterator<Item = FedTile> {
        let runs = if sizes.k > RUN { Runs::Shared } else { Runs::One };
        let fed = sizes.k.is_multiple_of(FedTile::DEPTH)
            && sizes.k > 0
            && matches!(loader, Loader::Rows | Loader::Taps)
            && taps <= MOST_TAPS;
        let narrow = !sizes.has_pairs();
        TILES
            .iter()
            .copied()
            .filter(move |tile| fed && tile.runs == runs)
            .filter(move |tile| tile.outputs == 64 || !narrow)
            .filter(move |tile| tile.is_numbered(sizes))
    }

    /// Whether blocks can number the steps of all tiles, and twenty times the tiles, in 32 bits.
    fn is_numbered(&self, sizes: &Sizes) -> bool {
        tiles(sizes, [self.outputs, self.rows]).saturating_mul((sizes.k / FedTile::DEPTH).max(20))
            <= u32::MAX as usize
    }

    pub(super) fn threads(&self) -> usize {
        CREWS * (self.outputs * self.rows / (FedTile::OUTPUTS_OF_THREAD * self.of_thread) + FedTile::FEEDERS)
    }

    /// Of a crew, as many as there is room for. (256×256×256 of 32 lanes in four 25.4 µs, in three 25.9: H200.)
    pub(super) fn stages(&self) -> usize {
        if self.runs == Runs::One { 4 } else { 3 }
    }

    /// Dynamic shared memory: each crew's stages, and for each the sums of a tile's runs that are over.
    pub(super) fn shared_bytes(&self) -> usize {
        // A thread reads eight places, and has rows in them all or in all but one.
        let places = self.rows / self.of_thread * 8 + 4;
        let stages = self.stages() * FedTile::DEPTH * (self.outputs + places);
        let sums = if self.runs == Runs::One { 0 } else { self.outputs * self.rows };
        CREWS * 4 * (stages + sums)
    }

    /// Whether blocks hand sums on.
    pub(super) fn hands(&self) -> bool {
        self.runs != Runs::One
    }

    /// Whether so many tiles are cut, so that all multiprocessors have even shares: the kernel's own rule.
    fn cuts(&self, tiles: usize, multiprocessors: usize) -> bool {
        let most = tiles.div_ceil(multiprocessors);
        self.hands() && tiles > multiprocessors && tiles * 20 < most * multiprocessors * 19
    }

    /// What the busiest multiprocessor takes, in microseconds, launching left out.
    pub(super) fn takes(&self, sizes: &Sizes) -> f64 {
        let (tiles, units) = (sizes.blocks(self.outputs, self.rows), sizes.multiprocessors.max(1) as usize);
        let runs = sizes.k as f64 / RUN as f64;
        if !self.cuts(tiles, units) {
            // The last of an odd number of tiles has no other beside it.
            let most = tiles.div_ceil(units);
            let alone = if self.hands() { 0.0 } else { (most % 2) as f64 * (2.0 * ALONE - 1.0) };
            return BEGINNING + most as f64 * OF_TILE + (most as f64 + alone) * self.run * runs;
        }
        let share = tiles as f64 / units as f64;
        // Tiles of seven rows to a thread are cut between runs.
        let of_block = if self.of_thread == 7 { (share * runs).ceil() } else { share * runs };
        BEGINNING + HANDING + share * OF_TILE + of_block * self.run
    }

    /// Of the workspace of any such tile.
    pub(super) fn workspace_bytes(sizes: &Sizes) -> u64 {
        let units = sizes.multiprocessors as usize;
        if sizes.k <= RUN || tiles(sizes, FEWEST) <= units {
            0
        } else {
            (units * HANDED * MOST_SUMS * size_of::<f32>()) as u64
        }
    }
}

/// Tiles of so many outputs and rows in the worst launch.
fn tiles(sizes: &Sizes, [outputs, rows]: [usize; 2]) -> usize {
    sizes.groups * row_tiles(sizes.room, sizes.rows, rows) * sizes.outputs.div_ceil(outputs)
}

#[cfg(test)]
mod tests {
    use super::super::float::FloatTile;
    use super::super::sizes::SHARED_BYTES;
    use super::super::sizes::tests::sizes;
    use super::*;
    use crate::conformance::{ROOM, cases};
    use crate::cuda::site::WORDS;

    /// What tile a product has, if it is one of these that takes least.
    fn best(sizes: &Sizes) -> Option<[usize; 2]> {
        let by_time = |a: &FedTile, b: &FedTile| a.takes(sizes).total_cmp(&b.takes(sizes));
        let fed = FedTile::all(sizes, Loader::Rows, 1).min_by(by_time)?;
        let others = FloatTile::all(sizes, Loader::Rows).map(|tile| tile.takes(sizes));
        (fed.takes(sizes) < others.fold(f64::INFINITY, f64::min)).then_some([fed.outputs, fed.rows])
    }

    #[test]
    fn every_tile_is_covered_by_whole_warps_and_fits_its_multiprocessor() {
        for tile in TILES {
            let multiply = tile.threads() / CREWS - FedTile::FEEDERS;
            assert_eq!(multiply, 32 * WORDS, "{tile:?}: a word of each warp");
            assert_eq!(
                multiply * tile.of_thread * FedTile::OUTPUTS_OF_THREAD,
                tile.outputs * tile.rows,
                "{tile:?}"
            );
            assert!(
                tile.shared_bytes() + 4096 <= SHARED_BYTES,
                "{tile:?}: beside barriers and what crews are told"
            );
            assert!(tile.outputs * tile.rows <= MOST_SUMS, "{tile:?}");
            assert!(tile.outputs >= FEWEST[0] && tile.rows >= FEWEST[1], "{tile:?}");
        }
    }

    #[test]
    fn products_of_many_rows_have_them_where_a_sweep_found_them_fastest() {
        for lanes in [32, 64, 96, 120] {
            assert_eq!(best(&sizes(128, 256, 1152, lanes)), Some([128, 64]), "{lanes} lanes");
            assert_eq!(best(&sizes(256, 256, 256, lanes)), Some([128, 64]), "{lanes} lanes");
        }
        assert_eq!(best(&sizes(128, 256, 1152, 20)), Some([128, 56]));
        assert_eq!(best(&sizes(256, 256, 256, 20)), None);
        for lanes in [1, 4, 10, 16] {
            assert_eq!(best(&sizes(128, 256, 1152, lanes)), None, "{lanes} lanes");
            assert_eq!(best(&sizes(256, 256, 256, lanes)), None, "{lanes} lanes");
        }
        // Convolutions of ResNet-50.
        assert_eq!(best(&sizes(49, 512, 4608, 32)), Some([128, 56]));
        assert_eq!(best(&sizes(784, 128, 1152, 32)), Some([128, 56]));
        assert_eq!(best(&sizes(3136, 64, 576, 32)), Some([64, 112]));
        assert_eq!(best(&sizes(3136, 256, 64, 32)), Some([128, 64]));
    }

    #[test]
    fn the_suite_has_a_product_whose_tiles_are_cut() {
        assert!(cases().iter().any(|case| case.name == "gemm 230×544×200"));
        let sizes = Sizes { room: ROOM, ..sizes(230, 200, 544, 1) };
        let tile = TILES[1];
        assert_eq!(best(&sizes), Some([tile.outputs, tile.rows]));
        // Of launches of all lanes, the first of which carry more.
        for items in [1, 2, 7] {
            let of_lane = |lane: usize| {
                if lane == 0 {
                    items + 1
                } else if lane < 4 {
                    items
                } else {
                    1
                }
            };
            let tiles = (0..16).map(|lane| (of_lane(lane) * sizes.rows).div_ceil(tile.rows) * 2).sum();
            assert!(tile.cuts(tiles, 132), "{tiles} tiles");
        }
    }

    #[test]
    fn even_shares_of_cut_tiles_take_less_than_whole_ones() {
        let [cut, whole] = [120, 132].map(|lanes| TILES[1].takes(&sizes(128, 256, 1152, lanes)));
        assert!(cut < whole * 0.95, "{cut} and {whole}");
    }

    #[test]
    fn steps_beyond_32_bits_are_not_fed() {
        let tiles = |lanes| FedTile::all(&sizes(1 << 18, 1 << 14, 1 << 16, lanes), Loader::Rows, 1).count();
        assert_eq!([1, 128].map(tiles), [4, 0]);
    }

    #[test]
    fn inputs_that_come_in_pieces_and_kernels_of_many_taps_are_not_fed() {
        let sizes = sizes(128, 256, 1152, 32);
        let tiles = |loader, taps| FedTile::all(&sizes, loader, taps).count();
        assert!(tiles(Loader::Rows, 1) > 0 && tiles(Loader::Taps, 9) > 0);
        assert_eq!((tiles(Loader::Taps, 25), tiles(Loader::Runs, 1), tiles(Loader::Elements, 1)), (0, 0, 0));
    }

    #[test]
    fn a_workspace_is_there_where_tiles_may_be_cut() {
        let bytes = |k, lanes| FedTile::workspace_bytes(&sizes(128, 256, k, lanes));
        assert_eq!((bytes(256, 120), bytes(1152, 1)), (0, 0));
        assert_eq!(bytes(1152, 120), 132 * 64 * 1024);
    }
}
