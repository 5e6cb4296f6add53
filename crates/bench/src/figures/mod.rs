//! The paper's figures, one file each: the claim, the expected shape, what would refute it, and what measures it.
//!
//! ```text
//!   products    the paper's three matrix products, measured on a card: times of every way, beside the floor
//!   table1      what merging gains over the next best scheduler
//!   figure7     throughput against the number of tenants
//! ```

mod card;
pub mod figure7;
pub mod products;
pub mod table1;
