//! Devices around other devices: they change some of what the inner one does, and pass all else on.
//!
//! ```text
//!   caller ─▶ outer: what it says itself ─▶ inner: everything else
//! ```
//! For tests and benches, that hold launches back, lose devices, or write down what happens. One home for passing on, since a method that
//! an outer device forgets would fall back to the trait's default: a device that lacks kernels would seem to have them all.

use crate::{
    Device, DeviceError, DeviceInfo, Finished, Launch, MemoryUse, PartitionInfo, Rates, Room, Slot, StepTime,
    StepTiming, Tuned,
};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tessera_core::{ClassId, PartitionId, Precision, ProgramId};
use tessera_planner::{PackTarget, Packed, Plan, SlotLayout};

macro_rules! around {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $answer:ty)?;)*) => {
        /// A device around [`Around::inner`]; every method but that and [`Around::compiled`] is [`Device`]'s, and is the inner device's where it is not said anew.
        #[allow(missing_docs)] // each is documented where it is defined
        pub trait Around: Send + Sync + fmt::Debug {
            /// What it is around.
            fn inner(&self) -> &dyn Device;
            /// The inner device made a program of a plan for a partition: for who is to know it again in launches.
            fn compiled(&self, program: ProgramId, plan: &Plan, partition: PartitionId) {
                let _ = (program, plan, partition);
            }
            fn compile(&self, plan: &Arc<Plan>, layout: &Arc<SlotLayout>, room: Room, partition: PartitionId) -> Result<ProgramId, DeviceError> {
                let program = self.inner().compile(plan, layout, room, partition)?;
                self.compiled(program, plan, partition);
                Ok(program)
            }
            $(fn $name(&self, $($argument: $type),*) $(-> $answer)? {
                self.inner().$name($($argument),*)
            })*
        }

        #[deny(clippy::missing_trait_methods)] // a new one is to be passed on, too
        impl<T: Around> Device for T {
            fn compile(&self, plan: &Arc<Plan>, layout: &Arc<SlotLayout>, room: Room, partition: PartitionId) -> Result<ProgramId, DeviceError> {
                Around::compile(self, plan, layout, room, partition)
            }
            $(fn $name(&self, $($argument: $type),*) $(-> $answer)? {
                Around::$name(self, $($argument),*)
            })*
        }
    };
}

around! {
    info() -> DeviceInfo;
    pack_target(precision: Precision) -> Result<PackTarget, DeviceError>;
    upload(class: ClassId, layout: &Arc<SlotLayout>, packed: Packed) -> Result<Slot, DeviceError>;
    check(plan: &Plan, layout: &SlotLayout, room: Room) -> Result<(), DeviceError>;
    tune(plan: &Plan, layout: &SlotLayout, room: Room) -> Result<Option<Tuned>, DeviceError>;
    discard(program: ProgramId);
    partitions() -> Vec<PartitionInfo>;
    layouts() -> Vec<Vec<PartitionId>>;
    overlap() -> bool;
    can_reopen() -> bool;
    reopen(partition: PartitionId) -> Result<(), DeviceError>;
    adopt(input: bytes::Bytes) -> bytes::Bytes;
    submit(launch: Launch) -> Result<(), DeviceError>;
    poll() -> Vec<Finished>;
    due() -> Option<Duration>;
    time_steps(timing: StepTiming);
    memory() -> MemoryUse;
    profile(launch: &Launch, rounds: NonZeroUsize) -> Result<Vec<StepTime>, DeviceError>;
    rates() -> Option<Rates>;
    peak(precision: Precision) -> Option<Rates>;
    failure() -> Option<String>;
}
