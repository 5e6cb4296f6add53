//! One tenant's place in one launch.

use crate::SlotId;

/// Lane *r* of a launch: it reads the weights in `slot` and carries `items` items. Two lanes may name one slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LaneSpec {
    /// Where the lane's weights are, in the slab of the launch's class.
    pub slot: SlotId,
    /// Which tenancy of the slot is meant: a slot that was freed and filled again has another generation.
    pub generation: u64,
    /// Items carried, at least one.
    pub items: u32,
}
