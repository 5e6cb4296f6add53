//! What a launch has to do: how large it is, and what of that follows from its plan.

use std::num::NonZeroU32;
use tessera_core::Bytes;

/// What one launch of a plan has to do, as the planner counts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PlanWork {
    /// Floating point operations for one item.
    pub flops_per_item: u64,
    /// Activations read and written for one item.
    pub bytes_per_item: Bytes,
    /// Weights read once by every lane.
    pub weight_bytes: Bytes,
}

impl PlanWork {
    /// Floating point operations of a launch of this size.
    pub fn flops(&self, size: Size) -> f64 {
        self.flops_per_item as f64 * f64::from(size.items)
    }

    /// Bytes that a launch of this size reads and writes at least.
    pub fn bytes(&self, size: Size) -> f64 {
        self.weight_bytes.0 as f64 * f64::from(size.lanes)
            + self.bytes_per_item.0 as f64 * f64::from(size.items)
    }
}

/// Lanes and items of a launch, all that its cost depends on besides its plan.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Size {
    /// Lanes, at least one.
    pub lanes: u32,
    /// Items of all lanes.
    pub items: u32,
}

/// One item.
pub(crate) const ONE: Size = Size { lanes: 1, items: 1 };

impl Size {
    /// One lane with `items` items.
    pub fn one_lane(items: NonZeroU32) -> Size {
        Size { lanes: 1, items: items.get() }
    }
}
