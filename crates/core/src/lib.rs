//! The words every other crate speaks, as types and nothing else.
//!
//! Ids that cannot be mixed up ([`id`]) and maps by them ([`id_map`]), memory and moments with their units ([`units`]), element types
//! ([`dtype`]), what names a plan ([`plan_key`]), one tenant's place in a launch ([`lane`]) and who runs when
//! ([`policy`]). No behaviour lives here: a rule belongs to the crate that owns the decision.

pub mod dtype;
pub mod id;
pub mod id_map;
pub mod lane;
pub mod plan_key;
pub mod policy;
pub mod units;

pub use dtype::DType;
pub use id::{ClassId, LaunchId, OwnerId, PartitionId, ProgramId, RequestId, SlotId, TenantId};
pub use id_map::IdMap;
pub use lane::LaneSpec;
pub use plan_key::{PlanKey, Precision};
pub use policy::Policy;
pub use units::{Bytes, Moment};
