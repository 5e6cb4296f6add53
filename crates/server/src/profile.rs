//! What launches of an architecture take, measured when its first tenant is loaded and before that tenant serves.
//!
//! ```text
//!   loader ─ plan, the tenant's slot, made-up inputs ─▶ engine: launches on an idle device ─▶ costs of the plan ─▶ verdict at load, first promises
//!     └── waits, and no longer than the limit
//! ```
//! One measurement at a time: the device's own rates are measured by the same rule, as both would take the other's cores for slowness.

use crate::classes::Planned;
use crate::engine::{EngineHandle, Measuring};
use bytes::Bytes;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tessera_core::DType;
use tessera_device::{Room, Slot};
use tessera_planner::plan::Port;

/// Measures architectures on one device. Clones take turns.
#[derive(Clone, Debug)]
pub struct Profiler {
    limit: Option<Duration>,
    turn: Arc<Mutex<()>>,
}

impl Profiler {
    /// Takes at most so long for each architecture; with no limit it measures none.
    pub fn new(limit: Option<Duration>) -> Profiler {
        Profiler { limit, turn: Arc::default() }
    }

    /// While this is held nobody else measures.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the engine measure a plan with a tenant's weights, unless it knows what the plan takes. Waits for it, no longer than the limit.
    pub fn measure(&self, engine: &EngineHandle, planned: &Planned, slot: Slot, room: Room) {
        let Some(limit) = self.limit else { return };
        let _turn = self.turn();
        let (done, ends) = std::sync::mpsc::channel();
        engine.measure(Measuring {
            plan: planned.key.clone(),
            slot,
            inputs: engine.adopt(planned.plan.inputs.iter().map(made_up).collect()),
            most_lanes: NonZeroU32::new(room.lanes.min(room.items)).unwrap_or(NonZeroU32::MIN),
            limit,
            done,
        });
        // Nothing is ever sent: it ends when it is measured, when it could not be, or with the engine. One that lasts longer goes on by itself.
        let _ = ends.recv_timeout(limit);
    }
}

/// One item of an input: numbers from -1 to 1, since a card draws less power and runs faster on zeros, and zeros where numbers are not fractions, as a table has a row 0.
fn made_up(port: &Port) -> Bytes {
    let mut state = 0x9e37_79b9_u32;
    let mut next = move || {
        // Marsaglia's xorshift: 32 bits of it are plenty for noise.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f64::from(state) / f64::from(u32::MAX) * 2.0 - 1.0
    };
    let elements = port.dims.iter().product::<usize>();
    let mut bytes = Vec::with_capacity(port.bytes_per_item());
    for _ in 0..elements {
        match port.dtype {
            DType::F16 => bytes.extend(half::f16::from_f64(next()).to_le_bytes()),
            DType::BF16 => bytes.extend(half::bf16::from_f64(next()).to_le_bytes()),
            DType::F32 => bytes.extend((next() as f32).to_le_bytes()),
            DType::F64 => bytes.extend(next().to_le_bytes()),
            whole => bytes.resize(bytes.len() + whole.size(), 0),
        }
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_planner::plan::{BufferId, Operand};

    #[test]
    fn fractions_are_made_up_and_whole_numbers_are_zero() {
        let port = |dtype| Port { dtype, dims: vec![3, 5], at: Operand::Buffer(BufferId(0)) };
        let floats = made_up(&port(DType::F32));
        let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
        assert!(floats.chunks(4).map(value).all(|value| value.abs() <= 1.0 && value != 0.0));
        for dtype in DType::ALL {
            let port = port(dtype);
            let made = made_up(&port);
            assert_eq!(made.len(), port.bytes_per_item(), "{dtype}");
            assert_eq!(
                made.iter().all(|byte| *byte == 0),
                !matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
            );
        }
    }
}
