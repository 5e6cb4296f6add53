//! A launch on its way: payloads put into its lanes, handed to the device, its answers handed out.
//!
//! ```text
//!   LaunchPlan: ids, sizes ─▶ lanes with slots and payloads ─submit─▶ InFlight ─▶ Finished ─▶ what it teaches (`over`)
//!                                                   └ refused by the device: all aboard hear why    └▶ answers
//! ```

use super::handle::answer;
use super::{Answer, Engine, NotAnswered};
use crate::monitor::Done;
use std::time::Instant;
use tessera_core::{PartitionId, PlanKey, TenantId};
use tessera_device::{Finished, Lane, LaneRequest, Launch};
use tessera_scheduler::{LaunchPlan, Size};
use tokio::sync::oneshot;

/// A launch that the device has.
pub(super) struct InFlight {
    pub(super) plan: PlanKey,
    pub(super) partition: PartitionId,
    pub(super) size: Size,
    pub(super) submitted: Instant,
    /// Per lane.
    pub(super) tenants: Vec<TenantId>,
    /// Per lane, per request, as launched.
    pub(super) replies: Vec<Vec<Reply>>,
}

/// A request in flight: when it arrived, and where its answer goes.
pub(super) struct Reply {
    pub(super) arrived: Instant,
    pub(super) to: oneshot::Sender<Answer>,
}

impl Engine {
    /// Makes a launch that the scheduler decided on.
    pub(super) fn launch(&mut self, launch: LaunchPlan) {
        let LaunchPlan { id, plan, partition, lanes, urgent, .. } = launch;
        let mut device_lanes = Vec::with_capacity(lanes.len());
        let mut replies = Vec::with_capacity(lanes.len());
        for lane in &lanes {
            let mut lane_replies = Vec::with_capacity(lane.requests.len());
            let mut requests = Vec::with_capacity(lane.requests.len());
            for (request, _) in &lane.requests {
                let waiting = self
                    .waiting
                    .remove(request)
                    .expect("an admitted request waits here until it is launched");
                requests.push(LaneRequest { items: waiting.items.get(), inputs: waiting.inputs });
                lane_replies.push(Reply { arrived: waiting.arrived, to: waiting.reply });
            }
            let guest = self.tenants.get(&lane.tenant).expect("requests leave the queue with their tenant");
            device_lanes.push(Lane { slot: guest.home.slot.clone(), requests });
            replies.push(lane_replies);
        }
        let items = lanes.iter().map(|lane| lane.items).sum();
        let loaded = self.plans.get_mut(&plan).expect("a plan in use is loaded");
        loaded.users -= replies.iter().map(Vec::len).sum::<usize>();
        let program = loaded.program(partition);
        let submitted = match program {
            Some(program) => self
                .device
                .submit(Launch { id, program, lanes: device_lanes, urgent })
                .map_err(|error| error.to_string()),
            None => Err(format!("{plan} has no program on {partition}")),
        };
        match submitted {
            Ok(()) => {
                loaded.users += 1;
                self.metrics.launched(&self.name, self.policy, lanes.len() as u32, items);
                if urgent {
                    self.metrics.interrupted(&self.name);
                }
                let tenants: Vec<TenantId> = lanes.iter().map(|lane| lane.tenant).collect();
                let guests = tenants.iter().filter_map(|tenant| self.tenants.get(tenant));
                guests.for_each(|guest| guest.home.standing.launched());
                let (size, submitted) = (Size { lanes: lanes.len() as u32, items }, Instant::now());
                self.monitor.began(submitted, partition);
                self.in_flight.insert(id, InFlight { plan, partition, size, submitted, tenants, replies });
            }
            Err(why) => {
                tracing::error!(launch = %id, %plan, why, "a launch was refused by the device");
                let not_run = match self.device.failure() {
                    Some(_) => NotAnswered::DeviceLost(why),
                    None => NotAnswered::Lost(why),
                };
                self.scheduler.not_run(self.now(), id);
                for reply in replies.into_iter().flatten() {
                    answer(reply.to, Err(not_run.clone()));
                }
                self.discard_if_unused(&plan);
            }
        }
    }

    /// Takes in that a launch is over.
    pub(super) fn finish(&mut self, finished: Finished) {
        if self.has_measured(&finished) {
            return;
        }
        let Some(launch) = self.in_flight.remove(&finished.id) else {
            tracing::error!(launch = %finished.id, "the device finished a launch that nobody made");
            return;
        };
        let at = Instant::now();
        if finished.is_lost() {
            self.scheduler.not_run(self.moment(at), finished.id);
            self.monitor.ended(at, launch.partition, Done::default());
        } else {
            self.learn(at, &launch, &finished);
        }
        let answers =
            finished.answers.into_iter().flatten().map(|outputs| outputs.map_err(NotAnswered::from));
        let replies = launch.replies.into_iter().flatten().map(|reply| reply.to);
        self.hand_out(replies.zip(answers).collect());
        self.release(&launch.plan);
    }

    /// Answers the requests of a launch from inside the runtime: from this thread each answer could wake a worker, which may well stop
    /// us to run, and sleep again before the next.
    fn hand_out(&self, answers: Vec<(oneshot::Sender<Answer>, Answer)>) {
        self.runtime
            .spawn(async move { answers.into_iter().for_each(|(reply, outputs)| answer(reply, outputs)) });
    }
}
