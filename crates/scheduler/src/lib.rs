//! Who is let in and what is launched next, as a pure function of state and time.
//!
//! ```text
//!   offer ─▶ admission ─▶ queues ─┐            ┌▶ Launch     the caller runs it and says `finished`
//!   cancel, tenant_removed ───────┴▶ decide ───┼▶ SleepUntil
//!   finished ─▶ costs, fairness, stragglers    └▶ Idle
//! ```
//! No clock, no threads, no payloads, no device: ids and sizes come in with the time they came, decisions go out. The same calls give
//! the same decisions, so a day of traffic replays in seconds and every rule below is tested in virtual time.
//!
//! Every request that is let in ends in exactly one of four ways: in a [`LaunchPlan`], cancelled, expired, or returned by
//! [`Scheduler::tenant_removed`]. How much an owner may offer at all is a rule beside it, for all schedulers of a server together: [`Quotas`].

mod admission;
mod baselines;
mod bills;
mod chain;
mod config;
mod cost;
mod decide;
mod ended;
mod event;
mod express;
mod fairness;
mod fill;
mod flows;
mod forming;
mod heap;
mod launch;
mod layout;
mod loose;
mod offer;
mod ordered;
mod plans;
mod profile;
mod promises;
mod queues;
mod quota;
mod read_ahead;
mod recycle;
mod scheduler;
mod segments;
pub mod sim;
mod slab;
mod space;
mod stragglers;
mod timeline;
mod waiting;
mod way;

pub use config::Config;
pub use cost::{CostSettings, CostTable, Foretold, PlanWork, PredictionError, Size};
pub use event::{Event, Happened};
pub use launch::{Decision, LanePlan, LaunchPlan, Over, Timed};
pub use layout::{Layout, Partition};
pub use offer::{Admitted, Cancelled, Offer, Refusal, Terms, Verdict};
pub use profile::{Measure, Profile};
pub use quota::{Counted, Knock, Quota, Quotas, Rate};
pub use recycle::RecycleSettings;
pub use scheduler::Scheduler;
pub use stragglers::{Pace, Standing, StragglerSettings};
