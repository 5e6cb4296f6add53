//! How many bytes a step must move: the other half of its roofline, beside its operations.
//!
//! ```text
//!   inputs, outputs ─ per item     weights ─ per lane     constants ─ per launch         each once, however often a kernel looks again
//! ```

use crate::Plan;
use crate::pack::SlotLayout;
use crate::plan::{BufferId, Operand, Step};
use tessera_core::Bytes;

/// Bytes that a step reads and writes at least, each once: what is left where everything that could stay on chip does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Inputs and outputs, for every item.
    pub per_item: Bytes,
    /// Weights, for every lane.
    pub per_lane: Bytes,
    /// Constants.
    pub per_launch: Bytes,
}

impl Traffic {
    /// Bytes of a launch of so many lanes with so many items in all.
    pub fn of_launch(self, lanes: u32, items: u32) -> f64 {
        self.per_item.0 as f64 * f64::from(items)
            + self.per_lane.0 as f64 * f64::from(lanes)
            + self.per_launch.0 as f64
    }
}

impl std::iter::Sum for Traffic {
    fn sum<I: Iterator<Item = Traffic>>(all: I) -> Traffic {
        let add = |sum: Traffic, one: Traffic| Traffic {
            per_item: sum.per_item + one.per_item,
            per_lane: sum.per_lane + one.per_lane,
            per_launch: sum.per_launch + one.per_launch,
        };
        all.fold(Traffic::default(), add)
    }
}

impl Plan {
    /// What a step cannot do without moving: its inputs and outputs once for every item, its weights once for every lane.
    pub fn traffic(&self, layout: &SlotLayout, step: &Step) -> Traffic {
        let (mut traffic, precision) = (Traffic::default(), self.key.precision);
        let of_buffer = |id: BufferId| precision.stored(self.buffer(id).dtype).size() as u64;
        for (read, _) in step.kind.reads() {
            let elements = read.distinct_elements(layout) as u64;
            match read.operand() {
                Operand::Buffer(id) => traffic.per_item += Bytes(elements * of_buffer(id)),
                Operand::Weight(id) => {
                    traffic.per_lane += Bytes(elements * layout.tensors[id.0 as usize].dtype.size() as u64);
                }
                Operand::Constant(id) => {
                    traffic.per_launch +=
                        Bytes(elements * self.constants[id.0 as usize].dtype().size() as u64);
                }
            }
        }
        for write in step.kind.writes() {
            traffic.per_item += Bytes(write.elements() as u64 * of_buffer(write.buffer));
        }
        traffic
    }
}
