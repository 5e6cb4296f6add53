//! What the engine counts, read off its metrics.

use super::stage::Stage;
use crate::page::sample;
use crate::thread_time;
use std::time::Duration;

/// Totals since the engine's start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub(super) launches: f64,
    pub(super) lanes: f64,
    pub(super) items: f64,
    pub(super) device_s: f64,
    /// Time that the engine's thread was on a core, where the system says.
    pub(super) engine: Option<Duration>,
}

impl Counted {
    pub(super) fn now(stage: &Stage) -> Counted {
        let page = stage.counted();
        let total = |name| sample(&page, name).unwrap_or(0.0);
        Counted {
            launches: total("tessera_launch_lanes_count"),
            lanes: total("tessera_launch_lanes_sum"),
            items: total("tessera_launch_items_sum"),
            device_s: total("tessera_launch_duration_seconds_sum"),
            engine: thread_time::of("engine"),
        }
    }
}
