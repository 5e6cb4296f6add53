//! What a launch teaches that is over, and who is told: the scheduler, the monitor, its tenants' standing, the metrics.

use super::{Engine, FarOff, InFlight, Predictions, REPORT_EVERY, Reply};
use crate::events::News;
use crate::metrics::Told;
use crate::monitor::Launched;
use crate::routing::Pace;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};
use tessera_core::{Moment, PlanKey, TenantId};
use tessera_device::Finished;
use tessera_scheduler::{Foretold, Over, Size, Standing};

/// How a launch ended that was handed over so long ago. Of one that was lost no time says anything.
pub(super) fn over(finished: &Finished, took: Duration) -> Over<'_> {
    if finished.is_lost() {
        return Over::default();
    }
    let Finished { took: computed, ref lanes, longest_segment, .. } = *finished;
    Over { took, computed, lanes, longest_segment }
}

impl Engine {
    /// Takes in what a launch took that ran.
    pub(super) fn learn(&mut self, at: Instant, launch: &InFlight, finished: &Finished) {
        let (now, took) = (self.moment(at), at.saturating_duration_since(launch.submitted));
        let timed = self.scheduler.finished_by_lane(now, finished.id, over(finished, took));
        let timed = timed.expect("the scheduler made the launch");
        let computed = finished.took.saturating_sub(timed.stood_back);
        if let Some(loaded) = self.plans.get(&launch.plan) {
            loaded.pace.measured(computed, launch.size.items);
            let done = loaded.watch.work(launch.size);
            self.monitor.ended(at, launch.partition, done);
            if self.monitor.is_on() {
                loaded.watch.launched(Launched {
                    at,
                    size: launch.size,
                    timed,
                    computed,
                    part: self.monitor.part(launch.partition),
                    steps: finished.steps.as_deref(),
                });
            }
            self.metrics.worked(&self.name, done.flops, done.bytes);
            self.tell_pace(&launch.plan, &loaded.pace);
        }
        let now = self.now();
        for (&tenant, replies) in launch.tenants.iter().zip(&launch.replies) {
            self.note_times(at, tenant, replies, computed);
            self.judge(now, tenant, &launch.plan);
        }
        self.metrics.launch_finished(computed);
        self.metrics.stood_back(&self.name, timed.stood_back);
        self.news = true;
    }

    /// Publishes what a launch of one item takes, for those who choose between devices.
    pub(super) fn tell_pace(&self, plan: &PlanKey, pace: &Pace) {
        if let Some(alone) = self.scheduler.predicted(plan, Size::one_lane(NonZeroU32::MIN)) {
            pace.predicted(alone);
        }
    }

    /// Notes where the time of a tenant's requests went, which are over now and whose launch computed for so long.
    fn note_times(&self, at: Instant, tenant: TenantId, requests: &[Reply], computed: Duration) {
        if let Some(guest) = self.tenants.get(&tenant).filter(|_| self.monitor.is_on()) {
            let queue = |reply: &Reply| at.saturating_duration_since(reply.arrived).saturating_sub(computed);
            guest.home.standing.took(at, requests.iter().map(|request| (queue(request), computed)));
        }
    }

    /// Says whether a tenant's SLO can be met, as soon as that is known and then once in a while; a change is news.
    pub(super) fn judge(&mut self, now: Moment, tenant: TenantId, plan: &PlanKey) {
        let Some(guest) = self.tenants.get_mut(&tenant) else { return };
        if guest.judged.is_some_and(|(last, _)| now.since(last) < REPORT_EVERY) {
            return;
        }
        let Some(verdict) = self.scheduler.verdict(tenant, plan) else { return };
        let (can, before) = (verdict.can_be_met(), guest.judged.map(|(_, can)| can));
        guest.judged = Some((now, can));
        guest.home.standing.judged(verdict);
        if before != Some(can) {
            self.metrics.can_be_met(&guest.home.who.tenant, can);
            let (device, who) = (Some(self.name.clone()), Some(guest.home.who.clone()));
            self.events.tell(News::judged(device, who, &verdict));
        }
    }

    /// How far predictions were off since a moment.
    pub(super) fn predictions(&self, since: Instant, furthest: usize) -> Predictions {
        let since = self.moment(since);
        let (error, furthest) = self.scheduler.predictions_since(since, furthest);
        let far_off = |(plan, launch): (_, Foretold)| FarOff { after: launch.at.since(since), plan, launch };
        Predictions { error, furthest: furthest.into_iter().map(far_off).collect() }
    }

    /// Tells the metrics what changed, once in a while, and says when that is due if it is not yet: nothing else may happen until then.
    pub(super) fn report(&mut self) -> Option<Moment> {
        if !self.news {
            return None;
        }
        let now = self.now();
        let due = self.reported.map_or(now, |last| last + REPORT_EVERY);
        if now < due {
            return Some(due);
        }
        (self.reported, self.news) = (Some(now), false);
        let error = self.scheduler.prediction_error();
        self.monitor.predicted(error);
        if error.launches > 0 {
            self.metrics.prediction_error(&self.name, error.median, error.p99);
        }
        let paces = self.tenants.iter().map(|(tenant, guest)| {
            let pace = self.scheduler.pace(*tenant);
            let apart = pace.standing == Standing::Apart;
            (guest.home.who.tenant.as_str(), Told { ratio: pace.ratio, apart })
        });
        self.metrics.paced(&self.name, paces);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_core::LaunchId;
    use tessera_device::RequestError;

    #[test]
    fn a_launch_that_was_lost_tells_no_time_though_it_took_some() {
        let took = Duration::from_millis(3);
        let finished = |answer| Finished {
            id: LaunchId(0),
            answers: vec![vec![answer]],
            took,
            lanes: vec![took],
            longest_segment: Some(took),
            steps: None,
        };
        assert_eq!(over(&finished(Ok(Vec::new())), took).took, took);
        let lost = finished(Err(RequestError::DeviceFailed("lost on purpose, in a test".into())));
        assert_eq!(over(&lost, took), Over::default());
    }
}
