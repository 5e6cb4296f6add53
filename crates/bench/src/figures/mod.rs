//! The paper's figures, one file each: the claim, the expected shape, what would refute it, and what measures it.
//!
//! ```text
//!   products    the paper's three matrix products, measured on a card: times of every way, beside the floor
//!   table1      what merging gains over the next best scheduler
//!   figure1     latency of one inference, network by network
//!   figure2     latency and share of the peak against the batch size
//!   figure3     latency against the number of replicas, by way of sharing
//!   figure4     the fastest tenant beside the slowest
//!   figure5     how many models fit, by way of sharing
//!   figure7     throughput against the number of tenants
//!   goodput     the highest rate with 99 of 100 requests in time, by policy
//!   reality     what the simulator says, beside what a device does
//!   isolation   what one loud and one slow tenant do to the others, by policy
//!   mixed       the same with tenants of several architectures, by class
//!   warmup      what the cache of programs misses from a cold start on
//!   monitoring  what watching launches costs
//! ```
//! [`table`] has all of them, each with its claim; [`all`] goes through it and makes one page. A bench is asked in the words of [`ask`] and answers in those of
//! [`made`]. Loads run at a [`place`], an engine in this process or the simulator; pictures are drawn by [`plot`].

pub mod all;
pub mod ask;
mod card;
pub mod figure1;
pub mod figure2;
pub mod figure3;
pub mod figure4;
pub mod figure5;
pub mod figure7;
mod foresight;
pub mod goodput;
pub mod isolation;
mod machine;
pub mod made;
pub mod mixed;
pub mod monitoring;
mod page;
pub mod place;
pub mod plot;
pub mod products;
pub mod reality;
mod standing;
mod still;
pub mod table;
pub mod table1;
pub mod warmup;
mod ways;
