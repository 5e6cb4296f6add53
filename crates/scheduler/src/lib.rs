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

// What comes in and what goes out, in words.
mod config;
mod event;
mod launch;
mod layout;
mod offer;

// Who is let in: what was promised, and what an owner may ask for.
mod admission;
mod promises;
mod quota;
mod timeline;

// What waits, in every order in which it is asked for.
mod chain;
mod flows;
mod heap;
mod loose;
mod ordered;
mod plans;
mod queues;
mod read_ahead;
mod slab;
mod waiting;

// What a launch takes, and who pays for it.
mod bills;
mod cost;
mod fairness;
mod profile;
mod segments;
mod way;

// What runs next, and who rides along.
mod baselines;
mod decide;
mod ended;
mod express;
mod fill;
mod forming;

// How the device is cut, and who or what on it is slow.
mod recycle;
mod space;
mod stragglers;

// All of it, and virtual time for it.
mod scheduler;
pub mod sim;

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
