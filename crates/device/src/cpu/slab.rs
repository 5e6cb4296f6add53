//! Slots: where packed weights live, one per tenant version.
//!
//! A slot is an allocation of its own, shared by its tenant and the launches that read it; on a CPU nothing is gained by one
//! range per class. The generation counts the uses of the process, so no two tenancies share one.

use crate::{DeviceError, Slot};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tessera_core::{Bytes, ClassId, SlotId};
use tessera_planner::{Packed, SlotLayout};

/// The weights of one tenant version.
#[derive(Debug)]
pub(crate) struct Weights {
    packed: Packed,
    ledger: Arc<Ledger>,
    place: (ClassId, SlotId),
}

impl Weights {
    /// All numbers of the slot. They lie as the device's own do.
    pub(crate) fn values(&self) -> &[f32] {
        bytemuck::cast_slice(self.packed.bytes())
    }
}

impl Drop for Weights {
    fn drop(&mut self) {
        self.ledger.weights.fetch_sub(self.packed.bytes().len() as u64, Ordering::AcqRel);
        self.ledger.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.place);
    }
}

/// The generation that has each slot now, and its weights.
type Taken = BTreeMap<(ClassId, SlotId), (u64, Weak<Weights>)>;

/// Every slot of a device, and what they take.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    weights: AtomicU64,
    pub(crate) arenas: AtomicU64,
    generations: AtomicU64,
    /// Slots in use, and the use that has each now.
    taken: Mutex<Taken>,
}

impl Ledger {
    /// Bytes of all slots.
    pub(crate) fn weights(&self) -> Bytes {
        Bytes(self.weights.load(Ordering::Acquire))
    }

    /// Takes packed weights into the first free slot of their class.
    pub(crate) fn upload(
        self: &Arc<Self>,
        device: &str,
        class: ClassId,
        layout: &SlotLayout,
        packed: Packed,
        limit: Option<Bytes>,
    ) -> Result<Slot, DeviceError> {
        let need = layout.bytes;
        if packed.bytes().len() as u64 != need.0 {
            let why = format!(
                "the packed weights have {} bytes, their layout asks for {}",
                packed.bytes().len(),
                need.0
            );
            return Err(DeviceError::CannotOpen { device: device.to_owned(), why });
        }
        let before = Bytes(self.weights.fetch_add(need.0, Ordering::AcqRel));
        if let Some(limit) = limit
            && before + need > limit
        {
            self.weights.fetch_sub(need.0, Ordering::AcqRel);
            let (what, free) = (format!("a slot of class {class}"), limit.saturating_sub(before));
            return Err(DeviceError::OutOfMemory { what, need, free, device: device.to_owned() });
        }
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let free = |number: &u64| !taken.contains_key(&(class, SlotId(*number)));
        let id = SlotId((0..).find(free).expect("fewer slots than numbers"));
        let weights = Arc::new(Weights { packed, ledger: self.clone(), place: (class, id) });
        taken.insert((class, id), (generation, Arc::downgrade(&weights)));
        Ok(Slot::new(id, generation, weights))
    }

    /// The weights behind a slot of a class; `None` when the slot is not this device's, or of another class.
    pub(crate) fn weights_of(&self, class: ClassId, slot: &Slot) -> Option<Arc<Weights>> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (generation, weights) = taken.get(&(class, slot.id()))?;
        (*generation == slot.generation()).then(|| weights.upgrade()).flatten()
    }
}
