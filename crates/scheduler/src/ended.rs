//! What follows when a launch is over.
//!
//! ```text
//!   finished ─▶ its partition has room ─▶ who slowed it (`stragglers`, `recycle`) ─▶ what it cost (`cost`, `way`) ─▶ who pays for it (`bills`)
//!   not_run ──▶ its partition has room
//! ```
//! A launch is timed from when those before it on its partition were over, as far as that is known: the time that it waited behind them counts for them.

use crate::bills::Bills;
use crate::cost::{Company, Measured};
use crate::launch::{Over, Timed};
use crate::scheduler::{InFlight, Scheduler};
use std::time::Duration;
use tessera_core::{LaunchId, Moment};

/// A launch that is over.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) launch: InFlight,
    /// For how long its partition was taken, urgent ones between its segments apart.
    pub(crate) took: Duration,
    /// What it computed, those apart.
    pub(crate) computed: Duration,
    /// What it cost by itself, on a device that tells and copies beside its kernels.
    pub(crate) cost: Option<Duration>,
}

impl Scheduler {
    /// A launch that was decided on has not run: its device would not take it, or was lost with it. Makes room on its partition; nothing is learnt or charged.
    pub fn not_run(&mut self, now: Moment, launch: LaunchId) {
        self.queues.tidy(&self.owners);
        let Some(launch_over) = self.in_flight.remove(&launch) else { return };
        self.make_room(now, launch, &launch_over, Duration::ZERO);
        let mut bills = Bills::default();
        for ticket in launch_over.requests {
            let request = self.queues.ended(ticket).expect("a request is known until its launch is over");
            bills.add(&request, Duration::ZERO);
        }
        self.charge(launch_over.plan, bills);
    }

    /// A launch is over, however its requests fared: `took` since it was handed over, `computed` on the device. Makes room on its partition, learns from it,
    /// charges the owners in it by items. The time that it waited behind others counts for them, not for it.
    pub fn finished(&mut self, now: Moment, launch: LaunchId, took: Duration, computed: Duration) {
        self.finished_by_lane(now, launch, Over { took, computed, ..Over::default() });
    }

    /// The same of a launch whose lanes were measured, in their order: owners are charged by what their lanes took, and a tenant that is slow beside its neighbours
    /// for long is set apart (`stragglers`). Says what the launch took by the measure that predictions have; `None` of one that does not run.
    pub fn finished_by_lane(&mut self, now: Moment, launch: LaunchId, over: Over<'_>) -> Option<Timed> {
        self.queues.tidy(&self.owners);
        let Ended { launch, took, computed, cost } = self.ended(now, launch, over)?;
        let lanes = over.lanes;
        let ordinary = self.judge(now, &launch, computed, lanes);
        let work: Duration = lanes.iter().sum();
        let measured = lanes.len() == launch.lanes.len() && !work.is_zero();
        let alone = if computed.is_zero() { took } else { computed };
        self.watch_partition(now, &launch, alone);
        let whole = Measured {
            at: now,
            units: self.units(launch.line),
            company: Company::of(launch.beside),
            others: self.space.lines().others(self.space.lines().layout_of(launch.line)),
            took: cost.unwrap_or(took).mul_f64(ordinary),
            predicted: launch.predicted,
            first: launch.alone,
        };
        // What an urgent one waited for is not its cost, and is not told apart where it does not tell what it computed.
        if launch.interrupts.is_none() || !computed.is_zero() {
            self.plans.costs.learn(launch.plan, launch.size, whole);
        }
        let weight = self.space.lines().weight(launch.line);
        let lane_of = launch.lanes.iter().enumerate();
        let lane_of = lane_of.flat_map(|(number, lane)| std::iter::repeat_n(number, lane.requests));
        let mut bills = Bills::default();
        for (ticket, lane) in launch.requests.into_iter().zip(lane_of) {
            let ended = self.queues.ended(ticket).expect("a request is known until its launch is over");
            if ended.due.moment().is_some_and(|due| due < now) {
                self.note_late(&ended);
            }
            let items = ended.rider.items;
            let part = if measured {
                let of_lane = f64::from(items.get()) / f64::from(launch.lanes[lane].items.max(1));
                took.mul_f64(lanes[lane].as_secs_f64() / work.as_secs_f64() * of_lane)
            } else {
                took * items.get() / launch.size.items.max(1)
            };
            bills.add(&ended, part.mul_f64(weight));
        }
        self.charge(launch.plan, bills);
        let took = cost.map_or(took, |computed| computed + self.plans.costs.pause(launch.plan));
        Some(Timed { took, predicted: launch.predicted, stood_back: launch.stood_back })
    }

    /// A launch is not in flight any more, and the next on its partition begins.
    pub(crate) fn ended(&mut self, now: Moment, id: LaunchId, over: Over<'_>) -> Option<Ended> {
        let launch = self.in_flight.remove(&id)?;
        let stood_back = launch.stood_back;
        let took = over.took.saturating_sub(stood_back);
        let computed = over.computed.saturating_sub(stood_back);
        let cost = self.learn_way(now, &launch, took, computed);
        if let Some(longest) = over.longest_segment {
            let units = self.units(launch.line);
            self.plans.segments.learn(launch.plan, launch.size, units, longest);
        }
        // Two launches of a partition may be heard of at once: then the second seems to have begun just now.
        let took = launch.begun.map_or(took, |begun| took.min(now.since(begun).saturating_sub(stood_back)));
        let took = cost.filter(|_| launch.interrupts.is_some()).unwrap_or(took.max(computed));
        self.make_room(now, id, &launch, computed);
        Some(Ended { took, launch, computed, cost })
    }

    /// A launch is off its partition: the next one begins, or what it went before goes on.
    fn make_room(&mut self, now: Moment, id: LaunchId, launch: &InFlight, computed: Duration) {
        let line = launch.line;
        match launch.interrupts {
            None => self.running[line].retain(|other| *other != id),
            Some(interrupted) => {
                self.urgent[line].retain(|other| *other != id);
                self.goes_on(now, launch, interrupted, computed);
            }
        }
        let way = self.way();
        if let Some(next) = self.urgent[line].front().and_then(|next| self.in_flight.get_mut(next)) {
            next.begun = next.begun.or(Some(now));
        }
        let urgent = self.urgent_left(now, line);
        if let Some(next) = self.running[line].front().and_then(|next| self.in_flight.get_mut(next)) {
            let begins = now.max(next.handed + way) + urgent;
            next.begun = Some(next.begun.map_or(begins, |begun| begun.min(begins)));
        }
    }

    /// Learns what lay around a launch of a device that copies beside its kernels, and says what it cost by itself; `None` where the device does not, or does
    /// not tell: then its cost is all that its partition was taken for.
    fn learn_way(
        &mut self,
        now: Moment,
        launch: &InFlight,
        took: Duration,
        computed: Duration,
    ) -> Option<Duration> {
        if computed.is_zero() {
            return None;
        }
        if launch.interrupts.is_some() {
            // Besides computing it mostly waited for the end of a segment: what others take besides stands for its own.
            return Some(computed + self.around.known().unwrap_or_default());
        }
        if self.config.lead.is_zero() {
            if launch.alone && launch.stood_back.is_zero() {
                self.around.note(took.saturating_sub(computed));
            }
            return None;
        }
        let over = launch.begun.map(|begun| now.since(begun).saturating_sub(launch.stood_back));
        if launch.alone {
            self.way.note(took.saturating_sub(computed));
        } else if let Some(over) = over {
            self.plans.costs.between(launch.plan, over, computed);
        }
        Some(computed)
    }
}
