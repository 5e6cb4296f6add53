//! The bytes of a slot.
//!
//! ```text
//!   map   │ · · · │ ████ 2 MiB ████ │ ████ 2 MiB ████ │ ██ 4 KiB pages ██ │ · · ·      dots are addresses without memory
//!                 ╰ bytes ───────────────────────────────────────────────╯
//! ```
//! The system brings memory when it is first written, a page at a time, and of small pages that costs more than all else: of the 180 ms of
//! processor time that a ResNet-152 (240 MB) took to be read and packed, 140 went into 59,000 of them (2026-11-26). So a large slot asks for
//! huge pages. Only whole ones inside the slot are asked for: it takes no more memory than it has bytes.

use super::ALIGNMENT;
use memmap2::MmapMut;
use std::fmt;
use std::ops::Range;

/// A huge page, where the processor's small ones have 4 KiB. Elsewhere asking is in vain.
const HUGE: usize = 2 << 20;
/// What is shorter has too few whole huge pages in it.
const LARGE: usize = 2 * HUGE;

/// The packed weights of one tenant version: exactly [`super::SlotLayout::bytes`] bytes, the first of them at a multiple of
/// [`ALIGNMENT`] in memory, so that a device may compute with them where they are.
pub struct Packed {
    room: Room,
    /// Where the bytes lie in it. Moving the room does not move what it points to.
    bytes: Range<usize>,
}

/// Memory with room to begin where it should.
enum Room {
    Heap(Vec<u8>),
    /// Of its own, given back as soon as it is dropped.
    Map(MmapMut),
}

impl Packed {
    /// Zeros. They come from the system, which gives memory when it is first written: nothing is touched here.
    pub fn zeroed(len: usize) -> Packed {
        Packed::mapped(len).unwrap_or_else(|| {
            let room = vec![0; len + ALIGNMENT - 1];
            let start = room.as_ptr().addr().wrapping_neg() % ALIGNMENT;
            Packed { room: Room::Heap(room), bytes: start..start + len }
        })
    }

    /// As a map of its own, if it is large and the system allows it.
    fn mapped(len: usize) -> Option<Packed> {
        let room = len.checked_add(HUGE).filter(|_| len >= LARGE)?;
        let map = MmapMut::map_anon(room).ok()?;
        let start = map.as_ptr().addr().wrapping_neg() % HUGE;
        // A system without huge pages gives small ones.
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(memmap2::Advice::HugePage, start, len / HUGE * HUGE);
        Some(Packed { room: Room::Map(map), bytes: start..start + len })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.room {
            Room::Heap(room) => &room[self.bytes.clone()],
            Room::Map(map) => &map[self.bytes.clone()],
        }
    }

    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.room {
            Room::Heap(room) => &mut room[self.bytes.clone()],
            Room::Map(map) => &mut map[self.bytes.clone()],
        }
    }
}

impl Clone for Packed {
    fn clone(&self) -> Packed {
        Packed::from(self.bytes())
    }
}

impl From<&[u8]> for Packed {
    fn from(bytes: &[u8]) -> Packed {
        let mut packed = Packed::zeroed(bytes.len());
        packed.bytes_mut().copy_from_slice(bytes);
        packed
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packed({} bytes)", self.bytes().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_begin_where_vectors_are_read_from() {
        for len in [0, 1, 127, 128, 4096, 1 << 20, LARGE, LARGE + 12_345] {
            let packed = Packed::zeroed(len);
            for packed in [&packed, &packed.clone()] {
                assert_eq!(packed.bytes().len(), len);
                assert_eq!(packed.bytes().as_ptr().addr() % ALIGNMENT, 0);
                assert!(packed.bytes().iter().all(|&byte| byte == 0));
            }
        }
    }
}
