//! The bytes of a slot.

use super::ALIGNMENT;
use std::fmt;

/// The packed weights of one tenant version: exactly [`super::SlotLayout::bytes`] bytes, the first of them at a multiple of
/// [`ALIGNMENT`] in memory, so that a device may compute with them where they are.
pub struct Packed {
    /// The bytes, with room to begin at a multiple of the alignment. Moving the vector does not move what it points to.
    room: Vec<u8>,
    start: usize,
}

impl Packed {
    /// Zeros.
    pub fn zeroed(len: usize) -> Packed {
        // Zeros come from the system, which gives memory when it is first written: nothing is touched here.
        let room = vec![0; len + ALIGNMENT - 1];
        let start = room.as_ptr().addr().wrapping_neg() % ALIGNMENT;
        let mut packed = Packed { room, start };
        packed.room.truncate(start + len);
        packed
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.room[self.start..]
    }

    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..]
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
        for len in [0, 1, 127, 128, 4096, 1 << 20] {
            let packed = Packed::zeroed(len);
            for packed in [&packed, &packed.clone()] {
                assert_eq!(packed.bytes().len(), len);
                assert_eq!(packed.bytes().as_ptr().addr() % ALIGNMENT, 0);
            }
        }
    }
}
