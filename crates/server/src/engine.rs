//! The engine: the one thread that joins the scheduler and the device.
//!
//! ```text
//!   handlers ─offer, cancel─▶┐                 ┌─ decide ─▶ submit ─▶ device
//!   loaders  ─tenant, plan ─▶┤ one queue, one  │                        │ wake
//!   device   ─wake─────────▶ ┘ thread          └─ finished ◀── poll ◀───┘ ─▶ answers
//! ```
//! The scheduler knows ids and sizes; payloads wait here until their launch. Every request that comes in is answered
//! once, with its outputs or with the reason why not, unless its caller went. Nothing on this thread blocks but the wait for the next event, and
//! nothing slow runs here: planning, packing and uploading belong to the loaders.

mod flight;
mod handle;
mod measuring;
mod over;
mod thread;
mod wait;

pub use self::handle::{
    Answer, EngineHandle, FarOff, Home, Incoming, Measuring, NotAnswered, Offered, Predictions, Programs,
};
pub use self::thread::Running;
pub use self::wait::Wait;

use self::flight::{InFlight, Reply};
use self::handle::{Command, answer};
use self::measuring::Measurement;
use self::over::over;
use crate::events::{Events, News, by_name};
use crate::mailbox::Mailbox;
use crate::metrics::{Metrics, Queued};
use crate::monitor::{Done, Monitor, Watch};
use crate::routing::{Backlog, Pace};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use tessera_core::{IdMap, LaunchId, Moment, PartitionId, PlanKey, Policy, ProgramId, RequestId, TenantId};
use tessera_device::Device;
use tessera_scheduler::{Cancelled, Config, Decision, Offer, Scheduler};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// The engine's queue. Made before the device, which is opened with [`Inbox::wake`].
#[derive(Debug, Default)]
pub struct Inbox {
    commands: Arc<Mailbox<Command>>,
    backlog: Backlog,
    /// Not held: the engine owns it, and what it wakes.
    device: Arc<OnceLock<Weak<dyn Device>>>,
    monitor: Arc<Monitor>,
}

impl Inbox {
    /// What the device calls when a launch is over.
    pub fn wake(&self) -> tessera_device::Wake {
        let handle = self.handle();
        Arc::new(move || handle.send(Command::Wake))
    }

    /// The way in.
    pub fn handle(&self) -> EngineHandle {
        let Inbox { commands, backlog, device, monitor } = self;
        let (commands, backlog) = (commands.clone(), backlog.clone());
        EngineHandle { commands, backlog, device: device.clone(), monitor: monitor.clone() }
    }

    /// Starts the thread. Answers of a launch are handed out by a task of `runtime`; what happens is told, and counted, in `events`.
    pub fn start(
        self,
        config: Config,
        device: Arc<dyn Device>,
        events: Arc<Events>,
        runtime: Handle,
    ) -> std::io::Result<Running> {
        let handle = self.handle();
        self.device.get_or_init(|| Arc::downgrade(&device));
        self.monitor.cut(&config.layouts);
        let engine = Engine {
            commands: self.commands,
            name: device.info().name,
            device,
            metrics: events.metrics().clone(),
            monitor: self.monitor,
            events,
            runtime,
            started: Instant::now(),
            policy: config.policy,
            scheduler: Scheduler::new(config),
            tenants: IdMap::default(),
            plans: BTreeMap::new(),
            waiting: IdMap::default(),
            in_flight: IdMap::default(),
            measurements: VecDeque::new(),
            reported: None,
            news: false,
            stopping: false,
        };
        Running::start(handle, move || engine.run())
    }
}

struct Engine {
    commands: Arc<Mailbox<Command>>,
    device: Arc<dyn Device>,
    /// Its name.
    name: String,
    metrics: Arc<Metrics>,
    monitor: Arc<Monitor>,
    events: Arc<Events>,
    runtime: Handle,
    started: Instant,
    policy: Policy,
    scheduler: Scheduler,
    tenants: IdMap<TenantId, Guest>,
    plans: BTreeMap<PlanKey, LoadedPlan>,
    /// Let in, not launched.
    waiting: IdMap<RequestId, Waiting>,
    in_flight: IdMap<LaunchId, InFlight>,
    /// Profiles that were asked for; the first is under way.
    measurements: VecDeque<Measurement>,
    /// When the metrics last heard from the scheduler.
    reported: Option<Moment>,
    /// Whether something changed since that they should hear.
    news: bool,
    stopping: bool,
}

/// How often the metrics hear how wrong predictions were: sorting the last errors is not for every launch.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// A tenant, and what was last said of it.
struct Guest {
    home: Home,
    /// When its SLO was last judged, and whether it could be met.
    judged: Option<(Moment, bool)>,
}

struct LoadedPlan {
    programs: Programs,
    pace: Arc<Pace>,
    watch: Arc<Watch>,
    /// Requests queued and launches in flight that need the programs.
    users: usize,
    dropped: bool,
}

impl LoadedPlan {
    /// Its program for a partition.
    fn program(&self, partition: PartitionId) -> Option<ProgramId> {
        self.programs.iter().find(|(of, _)| *of == partition).map(|(_, program)| *program)
    }
}

struct Waiting {
    plan: PlanKey,
    items: NonZeroU32,
    inputs: Vec<Bytes>,
    arrived: Instant,
    reply: oneshot::Sender<Answer>,
    _queued: Option<Queued>,
}

impl Engine {
    fn run(mut self) {
        let mut commands = Vec::new();
        loop {
            // Before anything is launched, so that what has not run yet may run elsewhere; and after, so that nobody waits for a launch that
            // will not end.
            if let Some(why) = self.device.failure() {
                return self.abandon(&why);
            }
            let wait = self.advance();
            if let Some(why) = self.device.failure() {
                return self.abandon(&why);
            }
            if self.stopping && self.waiting.is_empty() && self.in_flight.is_empty() {
                return;
            }
            // All that has come is taken before deciding: requests that arrive together leave together.
            self.commands.take(wait, &mut commands);
            commands.drain(..).for_each(|command| self.take(command));
        }
    }

    /// Answers what is over, launches what can be, and says how long nothing will change by itself.
    fn advance(&mut self) -> Option<Duration> {
        for finished in self.device.poll() {
            self.finish(finished);
        }
        let now = self.now();
        for request in self.scheduler.expire(now) {
            self.refuse(request, NotAnswered::Expired);
        }
        self.reopen();
        let until = loop {
            match self.scheduler.decide(self.now()) {
                Decision::Launch(launch) => self.launch(launch),
                Decision::SleepUntil(moment) => break Some(moment),
                Decision::Idle => break None,
            }
        };
        if !self.stopping {
            self.measure();
        }
        self.tell_events();
        let next = until.into_iter().chain(self.scheduler.next_event()).chain(self.report()).min();
        let next = next.map(|moment| moment.since(self.now()));
        next.into_iter().chain(self.device.due()).min()
    }

    /// Has partitions opened anew that were found slow, now that nothing runs there.
    fn reopen(&mut self) {
        while let Some(partition) = self.scheduler.to_reopen(self.now()) {
            let opened = self.device.reopen(partition);
            if let Err(error) = &opened {
                tracing::error!(%error, "a slow partition serves as it is");
            }
            self.scheduler.reopened(self.now(), partition, opened.is_ok());
        }
    }

    /// Passes on what the scheduler decided that whoever runs the server should hear of.
    fn tell_events(&mut self) {
        let now = self.now();
        let (events, lost) = self.scheduler.take_events(now);
        for event in events {
            let guest = event.what.tenant().and_then(|tenant| self.tenants.get(&tenant));
            let who = guest.map(|guest| guest.home.who.clone());
            self.events.tell_of(now.since(event.at), News::decided(Some(&self.name), &event.what, who));
        }
        if lost > 0 {
            self.events.tell(News::untold(Some(&self.name), lost));
        }
    }

    /// Tells of something that happened to the device.
    fn tell(&self, kind: &'static str, text: String, numbers: Value) {
        let numbers = by_name(numbers);
        self.events.tell(News { kind, device: Some(self.name.clone()), who: None, text, numbers });
    }

    fn take(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Offer(incoming) => self.offer(now, incoming),
            Command::Cancel(request) => {
                // One in flight runs on and its answer finds nobody; one unknown was answered already.
                if self.scheduler.cancel(now, request) == Cancelled::Queued
                    && let Some(waiting) = self.waiting.remove(&request)
                {
                    self.release(&waiting.plan);
                }
            }
            Command::TenantAdded { tenant, terms, home } => {
                let plan = home.plan.clone();
                let guest = Guest { home, judged: None };
                self.tenants.insert(tenant, guest);
                self.scheduler.tenant_added(now, tenant, terms);
                if let Some(plan) = plan {
                    self.judge(now, tenant, &plan);
                }
            }
            Command::TenantRemoved(tenant) => {
                // While its name is known.
                self.tell_events();
                self.tenants.remove(&tenant);
                self.news = true;
                for request in self.scheduler.tenant_removed(now, tenant) {
                    self.refuse(request, NotAnswered::Unloaded);
                }
            }
            Command::PlanReady { work, programs, pace, watch } => {
                let plan = watch.key.clone();
                self.scheduler.plan_known(&plan, work);
                let watch = self.monitor.plan_ready(watch);
                let loaded = LoadedPlan { programs, pace, watch, users: 0, dropped: false };
                self.tell_pace(&plan, &loaded.pace);
                let earlier = self.plans.insert(plan.clone(), loaded);
                if let Some(earlier) = earlier {
                    // Dropped and asked for again before the last user was done: the users go on with the new programs.
                    self.plans.get_mut(&plan).expect("inserted above").users = earlier.users;
                    self.discard(&earlier);
                }
            }
            Command::PlanDropped { plan, programs } => {
                if let Some(loaded) = self.plans.get_mut(&plan)
                    && loaded.programs == programs
                {
                    loaded.dropped = true;
                    self.discard_if_unused(&plan);
                }
            }
            Command::Measure(measuring) => self.take_measurement(now, measuring),
            Command::Policy { policy, tenant_batching } => {
                self.policy = policy;
                self.scheduler.set_policy(policy, tenant_batching);
            }
            Command::Predictions { since, furthest, reply } => {
                // Who asked may have gone.
                let _ = reply.send(self.predictions(since, furthest));
            }
            Command::Wake => {}
            Command::Stop => self.stopping = true,
        }
    }

    fn offer(&mut self, now: Moment, incoming: Incoming) {
        let Incoming { request, tenant, plan, items, batchable, inputs, arrived, timeout, reply } = incoming;
        if self.stopping {
            return answer(reply, Err(NotAnswered::Stopping));
        }
        let deadline = timeout.map(|timeout| self.moment(arrived) + timeout);
        let Some(loaded) = self.plans.get_mut(&plan).filter(|loaded| !loaded.dropped) else {
            return answer(reply, Err(NotAnswered::PlanGone));
        };
        let bytes = tessera_core::Bytes(inputs.iter().map(|input| input.len() as u64).sum());
        let offer = Offer { request, tenant, plan: plan.clone(), items, bytes, deadline, batchable };
        match self.scheduler.offer(now, &offer) {
            Ok(_) => {
                loaded.users += 1;
                let queued = self.tenants.get(&tenant).map(|guest| guest.home.queue.enter());
                self.waiting
                    .insert(request, Waiting { plan, items, inputs, arrived, reply, _queued: queued });
            }
            Err(refusal) => answer(reply, Err(refusal.into())),
        }
    }

    /// The device is lost: everybody who waits hears why, and whether it may try elsewhere, and the engine ends. The server takes its tenants
    /// to other devices; when there is none, it ends, too.
    fn abandon(&mut self, why: &str) {
        self.metrics.paced(&self.name, std::iter::empty());
        let (waiting, running) = (self.waiting.len(), self.in_flight.len());
        let text = format!("the device is lost: {why}");
        self.tell("device_lost", text, json!({ "requests_waiting": waiting, "launches_running": running }));
        // What was in flight when it failed is answered by the device itself.
        for finished in self.device.poll() {
            self.finish(finished);
        }
        let not_run = |reply| answer(reply, Err(NotAnswered::DeviceLost(why.to_owned())));
        self.waiting.drain().for_each(|(_, waiting)| not_run(waiting.reply));
        let at = Instant::now();
        for (_, launch) in self.in_flight.drain() {
            self.monitor.ended(at, launch.partition, Done::default());
            let lost = |reply: Reply| answer(reply.to, Err(NotAnswered::Lost(why.to_owned())));
            launch.replies.into_iter().flatten().for_each(lost);
        }
        for command in self.commands.close() {
            if let Command::Offer(incoming) = command {
                not_run(incoming.reply);
            }
        }
    }

    fn refuse(&mut self, request: RequestId, why: NotAnswered) {
        if let Some(waiting) = self.waiting.remove(&request) {
            answer(waiting.reply, Err(why));
            self.release(&waiting.plan);
        }
    }

    fn release(&mut self, plan: &PlanKey) {
        if let Some(loaded) = self.plans.get_mut(plan) {
            loaded.users -= 1;
        }
        self.discard_if_unused(plan);
    }

    fn discard_if_unused(&mut self, plan: &PlanKey) {
        if self.plans.get(plan).is_some_and(|loaded| loaded.dropped && loaded.users == 0)
            && let Some(loaded) = self.plans.remove(plan)
        {
            // Now that nobody uses it: a plan in use is not forgotten.
            self.scheduler.plan_dropped(plan);
            self.monitor.plan_dropped(plan);
            self.discard(&loaded);
        }
    }

    fn discard(&self, loaded: &LoadedPlan) {
        loaded.programs.iter().for_each(|(_, program)| self.device.discard(*program));
    }

    fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    fn moment(&self, at: Instant) -> Moment {
        Moment::at(at.saturating_duration_since(self.started))
    }
}
