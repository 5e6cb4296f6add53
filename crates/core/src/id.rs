//! Ids. Each is a type of its own, so that a tenant cannot be passed where a class is meant.

use std::fmt;

macro_rules! counted_id {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }
    };
}

counted_id!(
    /// One *version* of one deployed tenant: the unit that has weights, a queue and a place in launches. Names
    /// and versions are the registry's business; below the server a tenant is this number, never reused.
    TenantId, "tenant-"
);
counted_id!(
    /// Who pays: shares and quotas apply to an owner, which may have several tenants.
    OwnerId, "owner-"
);
counted_id!(
    /// One request, from the wire to its answer. Unique for the life of the process.
    RequestId, "request-"
);
counted_id!(
    /// One launch of a program.
    LaunchId, "launch-"
);
counted_id!(
    /// A plan compiled for a device with room for some lanes and items.
    ProgramId, "program-"
);
counted_id!(
    /// Where one tenant's packed weights live in the slab of its class. Reused; the generation tells uses apart.
    SlotId, "slot-"
);
counted_id!(
    /// A share of a device in space: some of its cores or SMs.
    PartitionId, "partition-"
);

/// An architecture: the hash of a graph after value-free normalisation (see `planner::class`).
/// Stable across processes and machines of one Tessera version, so it may name files.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub [u8; 16]);

impl fmt::Display for ClassId {
    /// The first eight hexadecimal digits: enough to tell the classes of one server apart by eye.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClassId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClassId({self})")
    }
}

impl ClassId {
    /// All 32 hexadecimal digits, for file names and for answers that machines read.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
