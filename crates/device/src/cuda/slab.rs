//! Slabs: the weights of a class, one slot per tenant version.
//!
//! ```text
//!   slab of a class   [slot 0][slot 1][slot 2] …        address = slab + slot · bytes of a slot
//! ```
//! A slab grows without moving, so a slot keeps its address for life and graphs may run meanwhile. A slot is free again when its last lease
//! is dropped: the tenant's own, or that of the last launch that reads it. A slab without a slot in use goes back to the card.

use super::fence::{Context, CudaError, Memory, Stream};
use crate::Slot;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use tessera_core::{Bytes, ClassId, Precision, SlotId};

/// Whose slots: a class's weights lie differently in each precision.
pub(crate) type SlabKey = (ClassId, Precision);

/// Every slab of a device.
#[derive(Debug)]
pub(crate) struct Slabs {
    context: Arc<Context>,
    /// Uploads go beside everything else.
    stream: Stream,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    slabs: HashMap<SlabKey, Slab>,
    generations: u64,
}

#[derive(Debug)]
struct Slab {
    memory: Memory,
    slot_bytes: usize,
    /// Per slot, the generation that has it.
    taken: Vec<Option<u64>>,
}

/// Gives a slot back when dropped.
struct Lease {
    slabs: Arc<Slabs>,
    key: SlabKey,
    index: usize,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.slabs.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slab) = state.slabs.get_mut(&self.key) {
            slab.taken[self.index] = None;
            if slab.taken.iter().all(Option::is_none) {
                state.slabs.remove(&self.key);
            }
        }
    }
}

impl Slabs {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Slabs, CudaError> {
        Ok(Slabs { context: context.clone(), stream: Stream::new(context)?, state: Mutex::default() })
    }

    /// Bytes of slots in use, and of slots that nobody uses now.
    pub(crate) fn memory(&self) -> (Bytes, Bytes) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut used, mut backed) = (0, 0);
        for slab in state.slabs.values() {
            used += (slab.taken.iter().flatten().count() * slab.slot_bytes) as u64;
            backed += slab.memory.bytes() as u64;
        }
        (Bytes(used), Bytes(backed.saturating_sub(used)))
    }

    /// Copies weights into the first free slot of their slab. `room` says whether so many more bytes may be taken.
    pub(crate) fn upload(
        self: &Arc<Self>,
        key: SlabKey,
        weights: &[u8],
        room: impl FnOnce(usize) -> Result<(), super::Refused>,
    ) -> Result<Slot, super::Refused> {
        let (address, lease, generation) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let State { slabs, generations } = &mut *state;
            let slab = match slabs.entry(key) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    // As many addresses as the card has bytes: a slab can never want more.
                    let memory = Memory::reserve(&self.context, self.context.total_bytes as usize)?;
                    entry.insert(Slab { memory, slot_bytes: weights.len(), taken: Vec::new() })
                }
            };
            let index = slab.taken.iter().position(Option::is_none).unwrap_or(slab.taken.len());
            let end = (index + 1) * slab.slot_bytes;
            let grown = room(slab.memory.growth_to(end)).and_then(|()| Ok(slab.memory.grow_to(end)?));
            if let Err(refused) = grown {
                if slab.taken.iter().all(Option::is_none) {
                    slabs.remove(&key);
                }
                return Err(refused);
            }
            *generations += 1;
            slab.taken.resize(slab.taken.len().max(index + 1), None);
            slab.taken[index] = Some(*generations);
            let address = slab.memory.address() + (index * slab.slot_bytes) as u64;
            (address, Lease { slabs: self.clone(), key, index }, *generations)
        };
        // Outside the lock: the slot is ours alone until it is handed out. On an error the lease gives it back.
        self.stream.upload(weights, address)?;
        Ok(Slot::new(SlotId(lease.index as u64), generation, Arc::new(lease)))
    }

    /// Where each slot's weights are; the error is a slot that is not this slab's, or has been given to another since.
    pub(crate) fn addresses<'a>(
        &self,
        key: SlabKey,
        slots: impl Iterator<Item = &'a Slot>,
    ) -> Result<Vec<u64>, &'a Slot> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let slab = state.slabs.get(&key);
        slots.map(|slot| slab.and_then(|slab| slab.address(slot)).ok_or(slot)).collect()
    }
}

impl Slab {
    fn address(&self, slot: &Slot) -> Option<u64> {
        let index = usize::try_from(slot.id().0).ok()?;
        let generation = self.taken.get(index).copied().flatten()?;
        (generation == slot.generation()).then(|| self.memory.address() + (index * self.slot_bytes) as u64)
    }
}
