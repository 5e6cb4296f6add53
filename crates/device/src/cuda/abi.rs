//! What the host and the kernels agree on: the twin of `kernels/abi.cuh`.
//!
//! Parameters of a kernel are one `#[repr(C)]` struct without padding, passed by value; its size is a constant of the kernel's
//! compilation (`PARAMS_BYTES`), where it is asserted again.

use bytemuck::{Pod, Zeroable};

/// Axes that a walk may have, once neighbours that lie together are joined.
pub(crate) const MAX_AXES: usize = 8;

/// Where a launch's table lies: the first member of every kernel's parameters. Addresses on the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct LaunchParams {
    /// `u32[4]`: lanes, items, items of every lane when all carry the same number (else 0), whether kernels tell when they began.
    pub(crate) counts: u64,
    /// `u64[lanes]`: the address of each lane's slot.
    pub(crate) weights: u64,
    /// `u32[lanes + 1]`: the first item of each lane, then the number of items.
    pub(crate) first: u64,
    /// `u32[items]`: the lane of each item.
    pub(crate) lane_of: u64,
    /// `ItemError[items]`: zeroed before the first kernel.
    pub(crate) errors: u64,
    /// `u64`, of this kernel alone: when all before it had ended, in nanoseconds of the card's clock. Zero until the call is put in its place.
    pub(crate) began: u64,
}

/// What a launch tells the host: zero until it is so, then the card's time in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Signal {
    /// The first kernel began.
    pub(crate) began: u64,
    /// The last kernel ended, and everything it wrote can be seen by the host.
    pub(crate) ended: u64,
    /// Outputs that are copied to the host are there. Not a time: any number but zero.
    pub(crate) copied: u64,
}

/// Where a launch has to tell what: behind the counts in its table. Addresses for the card.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Ends {
    /// Of a [`Signal`] on the host.
    pub(crate) signal: u64,
    /// `ItemError[items]`.
    pub(crate) errors: u64,
    /// `u64[kernels]`: when each began; 0 where kernels do not tell.
    pub(crate) began: u64,
}

/// The first failure of an item; all zero when there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct ItemError {
    /// Index of the step in the plan, plus one.
    pub(crate) step: u32,
    /// Of the id among the ids of the item.
    pub(crate) position: u32,
    /// The id.
    pub(crate) id: i64,
}

/// Where an operand's elements lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct OperandParams {
    /// The address of item 0; of a weight, its offset in the slot; of the wire, the place in the table that holds the address.
    pub(crate) base: u64,
    /// Bytes between items; 0 for constants and weights.
    pub(crate) item_bytes: u64,
    /// 0 buffer, 1 constant, 2 weight, 3 wire.
    pub(crate) kind: u32,
    pub(crate) unused: u32,
}

/// How a step walks an operand; strides beyond the walk's axes are 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct WalkParams {
    pub(crate) operand: OperandParams,
    /// Elements before the first one.
    pub(crate) offset: i64,
    /// Elements between neighbours.
    pub(crate) strides: [i64; MAX_AXES],
}

const _: () = assert!(size_of::<LaunchParams>() == 48);
const _: () = assert!(size_of::<Signal>() == 24);
const _: () = assert!(size_of::<Ends>() == 24);
const _: () = assert!(size_of::<ItemError>() == 16);
const _: () = assert!(size_of::<OperandParams>() == 24);
const _: () = assert!(size_of::<WalkParams>() == 96);
