//! What can be set about scheduling, with defaults that suit one device and a few dozen tenants.

use crate::cost::{CostSettings, CostTable};
use crate::layout::{Layout, Partition};
use crate::recycle::RecycleSettings;
use crate::stragglers::StragglerSettings;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tessera_core::{Bytes, PartitionId, Policy};

/// How the scheduler behaves. Build it with [`Config::new`] and change fields.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who runs when.
    pub policy: Policy,
    /// Whether one lane may carry several requests of its tenant. Off, every request is a lane of its own; a
    /// tenant may then have several lanes in one `space-time` launch, and one request a launch elsewhere.
    pub tenant_batching: bool,
    /// Most lanes in one launch. Only `space-time` makes launches of more than one.
    pub max_lanes: NonZeroU32,
    /// Most items in one launch, all lanes together. A request of more is refused: split it before.
    pub max_items: NonZeroU32,
    /// Most requests one tenant may have queued. Those in flight do not count.
    pub queue_requests: NonZeroU32,
    /// Most bytes one tenant's queued requests may hold, as told in their offers.
    pub queue_bytes: Bytes,
    /// The ways of cutting the device into partitions that can run launches, never empty. `space-time` computes one launch on each partition of the
    /// layout in force, and moves between layouts; the other policies keep to the first layout, in which `time` and `exclusive` use the first
    /// partition only and `space` spreads its launches over all of them.
    pub layouts: Vec<Layout>,
    /// Whether every partition has the whole device, as streams of a card have: then `space-time` uses as many of them as there are classes asked for.
    pub overlap: bool,
    /// Launches that a partition may hold at once, of which one computes: more than one lets the copies of the next overlap the kernels of this
    /// one. What is handed over cannot be overtaken, so it is handed over late: when its lanes are all taken, or `lead` before its turn, which launches correct (`way`).
    pub ahead: NonZeroU32,
    /// How long before its turn a launch must be handed over for its inputs to be there in time, until launches have told. Zero for a device that does
    /// nothing beside computing: what lies around its launches counts as their cost.
    pub lead: Duration,
    /// Whether what would be late behind a launch that runs may go between its segments, on a device that yields (`express`). Only `space-time` does.
    pub interrupts: bool,
    /// Most launches at once under `space`, all partitions together.
    pub max_concurrent: NonZeroU32,
    /// The longest a request waits on an idle device for company. Zero, the default, never waits: while the
    /// device is busy launches fill by themselves, and an idle device gains nothing by waiting.
    pub max_wait: Duration,
    /// How long a best-effort request gives way to those with deadlines. When one has waited longer the device is
    /// overloaded, and shares of device time come before slack (see `decide`).
    pub patience: Duration,
    /// How long before its due a promised answer is planned to be there: for the way back, and for what costs do not know.
    pub margin: Duration,
    /// Part of its allowed time, from 0 to 1, that a promise to an owner ahead of its share leaves unused, so that others find room.
    pub reserve: f64,
    /// How far ahead of its share an owner gets, in its own device time, before the whole reserve is kept from it.
    pub burst: Duration,
    /// How long a layout is in force at least, and how often others are looked at (`space`).
    pub dwell: Duration,
    /// How much more of all requests must be in time, by prediction, for the layout to be changed: from 0 to 1.
    pub gain: f64,
    /// After this long without a measurement of its plan, one request too slow by prediction is let in to
    /// measure it again: a cost that was learnt on a bad day must not shut a tenant out for ever.
    pub probe_after: Duration,
    /// When a tenant is too slow to share launches.
    pub stragglers: StragglerSettings,
    /// When a partition is too slow, and whether the device opens it anew.
    pub recycling: RecycleSettings,
    /// How costs are learnt.
    pub cost: CostSettings,
    /// Costs that are given rather than learnt: a profile, or the simulator's own. Where it has no answer the
    /// learnt cost counts.
    pub given_costs: Option<Arc<dyn CostTable>>,
}

impl Config {
    /// The defaults, for `policy` on `partitions` of one size: one layout, in force for ever.
    pub fn new(policy: Policy, partitions: Vec<PartitionId>) -> Config {
        let layout = partitions.into_iter().map(|id| Partition::new(id, NonZeroU32::MIN)).collect();
        let count = |n: u32| NonZeroU32::new(n).expect("a default is not zero");
        Config {
            policy,
            tenant_batching: true,
            max_lanes: count(32),
            max_items: count(64),
            queue_requests: count(256),
            queue_bytes: Bytes::mib(64),
            layouts: vec![layout],
            overlap: false,
            ahead: count(1),
            lead: Duration::ZERO,
            interrupts: true,
            max_concurrent: count(64),
            max_wait: Duration::ZERO,
            patience: Duration::from_millis(100),
            margin: Duration::ZERO,
            reserve: 0.2,
            burst: Duration::from_millis(20),
            dwell: Duration::from_secs(1),
            gain: 0.03,
            probe_after: Duration::from_secs(1),
            stragglers: StragglerSettings::default(),
            recycling: RecycleSettings::default(),
            cost: CostSettings::default(),
            given_costs: None,
        }
    }
}

impl Default for Config {
    /// `space-time` on one partition, the whole device.
    fn default() -> Config {
        Config::new(Policy::default(), vec![PartitionId(0)])
    }
}
