//! Maps by id.
//!
//! Ids are numbers that we count ourselves: nobody outside can choose ones that collide, so their maps need none of the protection of
//! the standard hasher, which costs more than all the rest of a look-up.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys are ids, or tuples of them. Not for keys that a caller has a say in.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Spreads counted numbers over 64 bits: one multiplication for each, its two halves folded.
#[derive(Clone, Copy, Default, Debug)]
pub struct IdHasher(u64);

/// An odd number without a pattern: 2⁶⁴ over the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for IdHasher {
    fn write_u64(&mut self, number: u64) {
        // Moved on by a constant, as zero times anything is zero.
        let product = u128::from((self.0 ^ number).wrapping_add(SPREAD)) * u128::from(SPREAD);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RequestId, TenantId};
    use std::collections::HashSet;
    use std::hash::{BuildHasher, Hash};

    fn hash(key: impl Hash) -> u64 {
        BuildHasherDefault::<IdHasher>::default().hash_one(key)
    }

    #[test]
    fn ids_counted_in_any_step_spread_over_the_low_bits_and_the_high() {
        for step in [1, 2, 16, 1 << 20, 1 << 32] {
            let hashes: Vec<u64> = (0..1024).map(|number| hash(RequestId(number * step))).collect();
            let low: HashSet<u64> = hashes.iter().map(|hash| hash % 1024).collect();
            let high: HashSet<u64> = hashes.iter().map(|hash| hash >> 54).collect();
            // As many as balls thrown at random hit of 1024 boxes, 647, less some.
            assert!(low.len() > 550 && high.len() > 550, "step {step}: {} and {}", low.len(), high.len());
        }
    }

    #[test]
    fn every_part_of_a_tuple_counts() {
        let pairs = (0..64).flat_map(|tenant| (0..64).map(move |plan: u32| (TenantId(tenant), plan)));
        assert_eq!(pairs.map(hash).collect::<HashSet<u64>>().len(), 64 * 64);
    }

    #[test]
    fn a_map_by_id_finds_what_was_put_in() {
        let mut map = IdMap::default();
        map.extend((0..100).map(|number| (RequestId(number), number)));
        assert!((0..100).all(|number| map[&RequestId(number)] == number));
    }
}
