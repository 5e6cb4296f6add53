//! What `decide` says: launch this now, or wait until then, or wait for something to happen.

use std::num::NonZeroU32;
use std::time::Duration;
use tessera_core::{LaunchId, Moment, PartitionId, PlanKey, RequestId, TenantId};

/// What to do now. Call `decide` again after every `Launch` until it says otherwise.
#[derive(Clone, PartialEq, Debug)]
pub enum Decision {
    /// Run this now. Its requests have left their queues; `finished` must follow, or `not_run`.
    Launch(LaunchPlan),
    /// Nothing to launch now. Unless an offer or a `finished` comes first, call `expire` and `decide` at this
    /// moment: a request stops waiting for company then, or its deadline passes.
    SleepUntil(Moment),
    /// Nothing to launch until something is offered or finished.
    Idle,
}

/// One launch: one plan, one partition, some lanes.
#[derive(Clone, PartialEq, Debug)]
pub struct LaunchPlan {
    /// Names the launch in `finished`.
    pub id: LaunchId,
    /// What all its lanes run.
    pub plan: PlanKey,
    /// Where.
    pub partition: PartitionId,
    /// Who takes part, at least one lane.
    pub lanes: Vec<LanePlan>,
    /// How long it will take, where that can be predicted.
    pub predicted: Option<Duration>,
    /// Whether it goes before what runs on its partition, at the end of a segment (`express`).
    pub urgent: bool,
}

impl LaunchPlan {
    /// Items of all lanes.
    pub fn items(&self) -> u32 {
        self.lanes.iter().map(|lane| lane.items).sum()
    }

    /// Every request it carries, lane by lane.
    pub fn requests(&self) -> impl Iterator<Item = RequestId> {
        self.lanes.iter().flat_map(|lane| lane.requests.iter().map(|(request, _)| *request))
    }
}

/// How a launch ended, as its device tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Over<'a> {
    /// Since it was handed over.
    pub took: Duration,
    /// On the device, urgent launches that went between its segments included. Zero where the device does not tell.
    pub computed: Duration,
    /// What each lane took, in their order; empty where the device does not tell.
    pub lanes: &'a [Duration],
    /// The longest that an urgent launch may have had to wait for it. `None` of a device that does not yield.
    pub longest_segment: Option<Duration>,
}

/// What a launch that is over took, beside what it was predicted to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timed {
    /// By the measure that costs are learnt in: from when those before it on its partition were over, as far as known without its way there and back
    /// or what urgent launches took between its segments.
    pub took: Duration,
    /// What was predicted, where that could be.
    pub predicted: Option<Duration>,
    /// How long urgent launches went between its segments, which is no part of what it took.
    pub stood_back: Duration,
}

/// One tenant's place in a launch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LanePlan {
    /// Whose weights the lane reads.
    pub tenant: TenantId,
    /// The requests it carries with their items, in the order of their items in the lane.
    pub requests: Vec<(RequestId, NonZeroU32)>,
    /// Items of all its requests.
    pub items: u32,
}
