//! The table of a launch: what its kernels find out at run time.
//!
//! ```text
//!   counts | where to tell what | port addresses | slot of each lane | first item of each lane | lane of each item        one contiguous copy
//! ```
//! It is the only thing that differs between two launches of one graph.

use super::abi::{Ends, LaunchParams};
use crate::Room;

/// Bytes of the counts.
const COUNTS: usize = 16;

/// Where the parts of a program's table lie; the same for all of its capacities.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TableLayout {
    ports: usize,
    weights: usize,
    first: usize,
    lane_of: usize,
    /// Bytes of the whole.
    pub(crate) bytes: usize,
}

/// One launch's lanes as the table tells them.
#[derive(Debug)]
pub(crate) struct LaneRow {
    /// The address of its slot.
    pub(crate) weights: u64,
    /// Items of all its requests.
    pub(crate) items: u32,
}

impl TableLayout {
    /// For so many lanes and items, and ports (inputs and outputs).
    pub(crate) fn new(room: Room, ports: usize) -> TableLayout {
        // Eight-byte parts come first, so every part is aligned.
        let at_ports = COUNTS + size_of::<Ends>();
        let weights = at_ports + 8 * ports;
        let first = weights + 8 * room.lanes as usize;
        let lane_of = first + 4 * (room.lanes as usize + 1);
        let bytes = (lane_of + 4 * room.items as usize).next_multiple_of(16);
        TableLayout { ports: at_ports, weights, first, lane_of, bytes }
    }

    /// What kernels are told of a table at `address`.
    pub(crate) fn params(&self, address: u64, errors: u64) -> LaunchParams {
        LaunchParams {
            counts: address,
            weights: address + self.weights as u64,
            first: address + self.first as u64,
            lane_of: address + self.lane_of as u64,
            errors,
            began: 0,
        }
    }

    /// Where a table at `address` holds the addresses of the ports' bytes on the wire's side, a `u64` each.
    pub(crate) fn ports(&self, address: u64) -> u64 {
        address + self.ports as u64
    }

    /// Writes the table. `into` has [`TableLayout::bytes`] bytes. Kernels tell when they began where `ends` has a place for it.
    pub(crate) fn write(&self, lanes: &[LaneRow], ports: &[u64], ends: &Ends, into: &mut [u8]) {
        let items: u32 = lanes.iter().map(|lane| lane.items).sum();
        let same = lanes.first().map_or(0, |lane| lane.items);
        let uniform = if lanes.iter().all(|lane| lane.items == same) { same } else { 0 };
        let mut put = |at: usize, bytes: &[u8]| into[at..at + bytes.len()].copy_from_slice(bytes);
        let told = u32::from(ends.began != 0);
        for (index, count) in [lanes.len() as u32, items, uniform, told].into_iter().enumerate() {
            put(4 * index, &count.to_le_bytes());
        }
        put(COUNTS, bytemuck::bytes_of(ends));
        for (index, port) in ports.iter().enumerate() {
            put(self.ports + 8 * index, &port.to_le_bytes());
        }
        let mut first = 0u32;
        for (index, lane) in lanes.iter().enumerate() {
            put(self.weights + 8 * index, &lane.weights.to_le_bytes());
            put(self.first + 4 * index, &first.to_le_bytes());
            for item in first..first + lane.items {
                put(self.lane_of + 4 * item as usize, &(index as u32).to_le_bytes());
            }
            first += lane.items;
        }
        put(self.first + 4 * lanes.len(), &first.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(table: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(table[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn a_table_names_every_lane_and_item() {
        let layout = TableLayout::new(Room { lanes: 4, items: 8 }, 2);
        let mut table = vec![0xff; layout.bytes];
        let lanes = [LaneRow { weights: 1 << 40, items: 2 }, LaneRow { weights: 7, items: 3 }];
        let ends = Ends { signal: 21, errors: 22, began: 23 };
        layout.write(&lanes, &[11, 12], &ends, &mut table);
        assert_eq!([0, 4, 8, 12].map(|at| word(&table, at)), [2, 5, 0, 1]);
        assert_eq!([0, 4, 8].map(|at| word(&table, layout.first + at)), [0, 2, 5]);
        let lane_of: Vec<u32> = (0..5).map(|item| word(&table, layout.lane_of + 4 * item)).collect();
        assert_eq!(lane_of, [0, 0, 1, 1, 1]);
        assert_eq!(table[layout.weights + 5], 1, "1 << 40, little-endian");
        assert_eq!(word(&table, layout.ports + 8), 12);
        assert_eq!([16, 24, 32].map(|at| word(&table, at)), [21, 22, 23]);
    }

    #[test]
    fn a_table_is_whole_chunks_with_every_word_aligned() {
        for (lanes, items, ports) in (1..6).flat_map(|n| [(1, n, 0), (n, n, 1), (n, 3 * n, 2), (n, 7, 3)]) {
            let layout = TableLayout::new(Room { lanes, items }, ports);
            assert!(
                layout.bytes.is_multiple_of(16),
                "launch_begin.cu fetches sixteen bytes at a time: {layout:?}"
            );
            assert!(layout.ports.is_multiple_of(8) && layout.weights.is_multiple_of(8), "{layout:?}");
            assert!(layout.first.is_multiple_of(4) && layout.lane_of.is_multiple_of(4), "{layout:?}");
            assert!(layout.lane_of + 4 * items as usize <= layout.bytes, "{layout:?}");
        }
    }

    #[test]
    fn lanes_of_equal_items_are_said_to_be_uniform() {
        let layout = TableLayout::new(Room { lanes: 3, items: 3 }, 0);
        let mut table = vec![0; layout.bytes];
        let lane = |weights| LaneRow { weights, items: 1 };
        layout.write(&[lane(1), lane(2), lane(3)], &[], &Ends::default(), &mut table);
        assert_eq!([0, 4, 8, 12].map(|at| word(&table, at)), [3, 3, 1, 0]);
    }
}
