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
use std::sync::Arc;

/// A huge page, where the processor's small ones have 4 KiB. Elsewhere asking is in vain.
const HUGE: usize = 2 << 20;
/// What is shorter has too few whole huge pages in it.
const LARGE: usize = 2 * HUGE;

/// The packed weights of one tenant version: exactly [`super::SlotLayout::bytes`] bytes, the first of them at a multiple of
/// [`ALIGNMENT`] in memory, so that a device may compute with them where they are. A clone is the same memory.
#[derive(Clone)]
pub struct Packed {
    room: Arc<Room>,
    /// Where the bytes lie in it.
    bytes: Range<usize>,
}

/// A slot's bytes that are still being written: zeros to begin with.
pub struct Blank {
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

impl Blank {
    /// Zeros. They come from the system, which gives memory when it is first written: nothing is touched here.
    pub fn zeroed(len: usize) -> Blank {
        Blank::mapped(len).unwrap_or_else(|| {
            let room = vec![0; len + ALIGNMENT - 1];
            let start = room.as_ptr().addr().wrapping_neg() % ALIGNMENT;
            Blank { room: Room::Heap(room), bytes: start..start + len }
        })
    }

    /// As a map of its own, on pages that nothing else is on, if it is large and the system allows it.
    pub fn mapped(len: usize) -> Option<Blank> {
        let room = len.checked_add(HUGE).filter(|_| len >= LARGE)?;
        let map = MmapMut::map_anon(room).ok()?;
        let start = map.as_ptr().addr().wrapping_neg() % HUGE;
        // A system without huge pages gives small ones.
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(memmap2::Advice::HugePage, start, len / HUGE * HUGE);
        Some(Blank { room: Room::Map(map), bytes: start..start + len })
    }

    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let room = match &mut self.room {
            Room::Heap(room) => room.as_mut_slice(),
            Room::Map(map) => map,
        };
        &mut room[self.bytes.clone()]
    }

    /// All is written.
    pub fn done(self) -> Packed {
        Packed { room: Arc::new(self.room), bytes: self.bytes }
    }
}

impl Packed {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        let room = match &*self.room {
            Room::Heap(room) => room.as_slice(),
            Room::Map(map) => map,
        };
        &room[self.bytes.clone()]
    }
}

impl From<&[u8]> for Packed {
    fn from(bytes: &[u8]) -> Packed {
        let mut blank = Blank::zeroed(bytes.len());
        blank.bytes_mut().copy_from_slice(bytes);
        blank.done()
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packed({} bytes)", self.bytes.len())
    }
}

impl fmt::Debug for Blank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blank({} bytes)", self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_begin_where_vectors_are_read_from() {
        for len in [0, 1, 127, 128, 4096, 1 << 20, LARGE, LARGE + 12_345] {
            let packed = Blank::zeroed(len).done();
            for packed in [&packed, &packed.clone(), &Packed::from(packed.bytes())] {
                assert_eq!(packed.bytes().len(), len);
                assert_eq!(packed.bytes().as_ptr().addr() % ALIGNMENT, 0);
                assert!(packed.bytes().iter().all(|&byte| byte == 0));
            }
        }
    }

    #[test]
    fn a_clone_is_the_same_memory() {
        let packed = Packed::from(&[1, 2, 3][..]);
        assert_eq!(packed.clone().bytes().as_ptr(), packed.bytes().as_ptr());
    }
}
