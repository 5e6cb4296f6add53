//! The paper's figures, one file each: the claim, the expected shape, what would refute it, and what measures it.
//!
//! ```text
//!   products    the paper's three matrix products, measured on a card: times of every way, beside the floor
//!   table1      what merging gains over the next best scheduler
//!   figure7     throughput against the number of tenants
//!   goodput     the highest rate with 99 of 100 requests in time, by policy
//!   reality     what the simulator says, beside what a device does
//!   isolation   what one loud and one slow tenant do to the others, by policy
//!   mixed       the same with tenants of several architectures, by class
//! ```
//! Loads run at a [`place`], an engine in this process or the simulator; pictures are drawn by [`plot`].

mod card;
pub mod figure7;
pub mod goodput;
pub mod isolation;
pub mod mixed;
pub mod place;
pub mod plot;
pub mod products;
pub mod reality;
pub mod table1;
