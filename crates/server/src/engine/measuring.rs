//! Launches that measure: the engine's part of profiles.
//!
//! ```text
//!   loader ─ Measure ─▶ one after the other, each while nobody else is served ─▶ costs ─▶ verdicts of the tenants that are there
//! ```
//! When, how large and how often is the scheduler's to say ([`Profile`]). Here a launch is made and heard of, and no metric, monitor or statistic counts it: those
//! tell of what tenants asked for.

use super::Engine;
use super::handle::Measuring;
use super::over;
use std::num::NonZeroU32;
use std::time::Instant;
use tessera_core::{LaunchId, Moment, PartitionId, PlanKey, TenantId};
use tessera_device::{Finished, Lane, LaneRequest, Launch};
use tessera_scheduler::{Measure, Over, Profile};

/// A profile that was asked for.
pub(super) struct Measurement {
    asked: Measuring,
    profile: Profile,
    /// Its launch, and when it was handed over.
    running: Option<(LaunchId, Instant)>,
}

impl Engine {
    /// Takes a profile in. Whoever asked hears by the end of its channel.
    pub(super) fn take_measurement(&mut self, now: Moment, asked: Measuring) {
        if self.scheduler.is_measured(&asked.plan) {
            return;
        }
        let profile = Profile::new(asked.plan.clone(), asked.most_lanes, now + asked.limit);
        self.measurements.push_back(Measurement { asked, profile, running: None });
    }

    /// Goes on with what is to be measured, where the device has nothing else to do.
    pub(super) fn measure(&mut self) {
        let now = self.now();
        while let Some(first) = self.measurements.front_mut().filter(|first| first.running.is_none()) {
            match self.scheduler.measure(now, &mut first.profile) {
                Measure::Busy => return,
                Measure::Done => self.end_measurement(),
                Measure::Launch { id, partition, lanes } => self.launch_measuring(id, partition, lanes),
            }
        }
    }

    fn launch_measuring(&mut self, id: LaunchId, partition: PartitionId, lanes: NonZeroU32) {
        let Some(first) = self.measurements.front_mut() else { return };
        let Measuring { plan, slot, inputs, .. } = &first.asked;
        let lane =
            Lane { slot: slot.clone(), requests: vec![LaneRequest { items: 1, inputs: inputs.clone() }] };
        let lanes = vec![lane; lanes.get() as usize];
        let Some(loaded) = self.plans.get_mut(plan) else { return self.give_up(id, "its plan is gone") };
        let Some(program) = loaded.program(partition) else {
            return self.give_up(id, "it has no program there");
        };
        match self.device.submit(Launch { id, program, lanes, urgent: false }) {
            Ok(()) => {
                loaded.users += 1;
                first.running = Some((id, Instant::now()));
            }
            Err(error) => self.give_up(id, &error.to_string()),
        }
    }

    /// Whether the launch was one that measures: then it was taken in.
    pub(super) fn has_measured(&mut self, finished: &Finished) -> bool {
        let at = Instant::now();
        let now = self.moment(at);
        let Some(first) = self.measurements.front_mut() else { return false };
        let Some((_, submitted)) = first.running.take_if(|(id, _)| *id == finished.id) else { return false };
        let took = at.saturating_duration_since(submitted);
        self.scheduler.measured(now, finished.id, over(finished, took), &mut first.profile);
        let plan = first.asked.plan.clone();
        self.release(&plan);
        true
    }

    /// A launch that measures could not be made: its plan serves without a profile.
    fn give_up(&mut self, id: LaunchId, why: &str) {
        let Some(mut first) = self.measurements.pop_front() else { return };
        self.scheduler.measured(self.now(), id, Over::default(), &mut first.profile);
        tracing::warn!(plan = %first.asked.plan, why, "launches of an architecture could not be measured");
    }

    /// All that could be measured was: who has the plan is judged by it.
    fn end_measurement(&mut self) {
        let Some(Measurement { asked: Measuring { plan, .. }, .. }) = self.measurements.pop_front() else {
            return;
        };
        if let Some(loaded) = self.plans.get(&plan) {
            self.tell_pace(&plan, &loaded.pace);
        }
        self.judge_all(&plan);
    }

    fn judge_all(&mut self, plan: &PlanKey) {
        let of_plan = |(tenant, guest): (&TenantId, &super::Guest)| {
            (guest.home.plan.as_ref() == Some(plan)).then_some(*tenant)
        };
        let tenants: Vec<TenantId> = self.tenants.iter().filter_map(of_plan).collect();
        let now = self.now();
        tenants.into_iter().for_each(|tenant| self.judge(now, tenant, plan));
    }
}
