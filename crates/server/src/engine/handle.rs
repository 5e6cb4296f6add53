//! The way to the engine: what is asked of it, and what comes back.

use crate::events::Who;
use crate::mailbox::Mailbox;
use crate::metrics::QueueGauge;
use crate::monitor::{Monitor, Watch};
use crate::routing::{Backlog, Pace};
use crate::standing::Standing;
use bytes::Bytes;
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use tessera_core::{PartitionId, PlanKey, Policy, ProgramId, RequestId, TenantId};
use tessera_device::{Device, RequestError, Slot, StepTiming};
use tessera_scheduler::{Foretold, PlanWork, PredictionError, Refusal, Terms};
use tokio::sync::oneshot;

/// Why a request has no outputs.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum NotAnswered {
    /// It was not let in.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Its deadline passed while it waited.
    #[error("the request waited longer than its deadline allows")]
    Expired,
    /// Its tenant went away while it waited.
    #[error("the tenant was unloaded while the request waited")]
    Unloaded,
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Stopping,
    /// It failed, and others in its launch did not.
    #[error(transparent)]
    Failed(#[from] RequestError),
    /// Nobody held the plan until the answer: a fault of ours.
    #[error("the plan is not loaded any more")]
    PlanGone,
    /// The device was lost before the request ran: it may as well run on another.
    #[error("the device was lost before the request ran: {0}")]
    DeviceLost(String),
    /// The launch could not be made, or its engine is gone: a fault of ours.
    #[error("the launch failed: {0}")]
    Lost(String),
}

/// The outputs of one request, in the order of its class.
pub type Answer = Result<Vec<Bytes>, NotAnswered>;

/// A request with its payload, on its way in.
#[derive(Debug)]
pub struct Incoming {
    /// Unique among all requests.
    pub request: RequestId,
    /// Whose weights.
    pub tenant: TenantId,
    /// Which plan; its programs must have been announced.
    pub plan: PlanKey,
    /// Items.
    pub items: NonZeroU32,
    /// Whether it may share a lane.
    pub batchable: bool,
    /// One per input of the class: all its items' bytes.
    pub inputs: Vec<Bytes>,
    /// When it arrived at the wire.
    pub arrived: Instant,
    /// How long it may take from arrival, if the request says so itself.
    pub timeout: Option<Duration>,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Answer>,
}

/// The programs of a plan, one per partition. No two makings of a plan share them.
pub type Programs = Vec<(PartitionId, ProgramId)>;

/// What the engine has of a tenant beside its terms.
#[derive(Clone, Debug)]
pub struct Home {
    /// Its weights.
    pub slot: Slot,
    /// Where its waiting requests are counted.
    pub queue: QueueGauge,
    /// Its names, for events.
    pub who: Arc<Who>,
    /// The plan of all its requests, where there is but one: its SLO is judged by it before its first request.
    pub plan: Option<PlanKey>,
    /// Where it is said how it fares.
    pub standing: Arc<Standing>,
}

impl Home {
    /// Of a tenant of whose plans nothing is known and nothing was said.
    pub fn new(slot: Slot, queue: QueueGauge, who: Arc<Who>) -> Home {
        Home { slot, queue, who, plan: None, standing: Arc::default() }
    }
}

/// A plan whose launches are to be measured.
#[derive(Debug)]
pub struct Measuring {
    /// Which; its programs must have been announced.
    pub plan: PlanKey,
    /// The weights of all lanes.
    pub slot: Slot,
    /// One item's inputs, for every lane.
    pub inputs: Vec<Bytes>,
    /// Lanes of the largest launch that its programs have room for.
    pub most_lanes: NonZeroU32,
    /// No launch is begun that may end later than this.
    pub limit: Duration,
    /// Dropped when it is over, for whoever waits at the other end.
    pub done: std::sync::mpsc::Sender<()>,
}

/// How far launches were from what was predicted of them, since a moment.
#[derive(Clone, PartialEq, Debug)]
pub struct Predictions {
    /// Of all of them.
    pub error: PredictionError,
    /// Those that were furthest off, worst first.
    pub furthest: Vec<FarOff>,
}

/// A launch that was far from its prediction.
#[derive(Clone, PartialEq, Debug)]
pub struct FarOff {
    /// How long after the moment that was asked for it was over.
    pub after: Duration,
    /// What it ran, where that plan is still there.
    pub plan: Option<PlanKey>,
    /// What was predicted, and how it ran.
    pub launch: Foretold,
}

#[derive(Debug)]
pub(super) enum Command {
    Offer(Incoming),
    Cancel(RequestId),
    TenantAdded { tenant: TenantId, terms: Terms, home: Home },
    TenantRemoved(TenantId),
    PlanReady { work: PlanWork, programs: Programs, pace: Arc<Pace>, watch: Arc<Watch> },
    Measure(Measuring),
    PlanDropped { plan: PlanKey, programs: Programs },
    Policy { policy: Policy, tenant_batching: bool },
    Predictions { since: Instant, furthest: usize, reply: oneshot::Sender<Predictions> },
    Wake,
    Stop,
}

/// The way to the engine. Cheap to clone; calls return at once.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    pub(super) commands: Arc<Mailbox<Command>>,
    pub(super) backlog: Backlog,
    pub(super) device: Arc<OnceLock<Weak<dyn Device>>>,
    pub(super) monitor: Arc<Monitor>,
}

impl EngineHandle {
    /// Hands a request in. Its answer comes through its `reply`, also when the engine is gone. The engine need not look at
    /// it before the [`Offered`] is dropped. Its inputs are adopted first.
    pub fn offer(&self, mut incoming: Incoming) -> Offered<'_> {
        incoming.inputs = self.adopt(incoming.inputs);
        let waiting = match self.commands.put(Command::Offer(incoming)) {
            Ok(waiting) => waiting,
            Err(Command::Offer(incoming)) => {
                answer(incoming.reply, Err(NotAnswered::Stopping));
                0
            }
            Err(_) => 0,
        };
        Offered { commands: &self.commands, waiting }
    }

    /// Takes inputs to where the device's launches fetch them fastest, see [`Device::adopt`]: for who asks with the same inputs again and again, or has
    /// time before it asks. Whoever offers need not.
    pub fn adopt(&self, inputs: Vec<Bytes>) -> Vec<Bytes> {
        match self.device.get().and_then(Weak::upgrade) {
            Some(device) => inputs.into_iter().map(|input| device.adopt(input)).collect(),
            None => inputs,
        }
    }

    /// Nobody waits for this answer any more.
    pub fn cancel(&self, request: RequestId) {
        self.send(Command::Cancel(request));
    }

    /// From now on requests for `tenant` are let in.
    pub fn tenant_added(&self, tenant: TenantId, terms: Terms, home: Home) {
        self.send(Command::TenantAdded { tenant, terms, home });
    }

    /// From now on they are not; those that wait are told so, those in flight are answered.
    pub fn tenant_removed(&self, tenant: TenantId) {
        self.send(Command::TenantRemoved(tenant));
    }

    /// A plan and its programs. Must come before its first request. What it costs here is kept up to date in the answer.
    pub fn plan_ready(&self, work: PlanWork, programs: Programs, watch: Watch) -> Arc<Pace> {
        let pace = Arc::<Pace>::default();
        self.send(Command::PlanReady { work, programs, pace: pace.clone(), watch: Arc::new(watch) });
        pace
    }

    /// Measures what launches of a plan take, as far as the device is idle; see [`tessera_scheduler::Profile`].
    pub fn measure(&self, measuring: Measuring) {
        self.send(Command::Measure(measuring));
    }

    /// What was promised here and is not answered yet, as those who ask count it.
    pub fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// What is seen of launches here.
    pub fn monitor(&self) -> &Arc<Monitor> {
        &self.monitor
    }

    /// From now on launches are watched so closely, or not at all.
    pub fn watch(&self, timing: StepTiming) {
        self.monitor.watch(timing != StepTiming::Off);
        if let Some(device) = self.device.get().and_then(Weak::upgrade) {
            device.time_steps(timing);
        }
    }

    /// This making of the plan is not wanted any more; its programs are discarded once nothing queued or running needs them. Says
    /// nothing about a later making, which another thread may have announced already.
    pub fn plan_dropped(&self, plan: PlanKey, programs: Programs) {
        self.send(Command::PlanDropped { plan, programs });
    }

    /// From now on launches are made under this policy, those of requests that wait already included.
    pub fn set_policy(&self, policy: Policy, tenant_batching: bool) {
        self.send(Command::Policy { policy, tenant_batching });
    }

    /// How far launches were from what was predicted of them that were over at a moment or later, and so many of those that were furthest off, worst first. `None` where
    /// the engine is gone.
    pub async fn predictions(&self, since: Instant, furthest: usize) -> Option<Predictions> {
        let (reply, told) = oneshot::channel();
        self.send(Command::Predictions { since, furthest, reply });
        told.await.ok()
    }

    /// Whether the thread runs. Before its start it counts as running: what is sent then waits.
    pub fn is_running(&self) -> bool {
        !self.commands.is_closed()
    }

    /// Answers everything that was let in, refuses everything new, and ends the thread.
    pub fn stop(&self) {
        self.send(Command::Stop);
    }

    pub(super) fn send(&self, command: Command) {
        // An engine that is gone has answered everybody; there is nobody left to tell.
        let _ = self.commands.put(command);
        self.commands.ring();
    }
}

/// A request was handed in. Dropped, it has the engine look.
///
/// Waking the engine for each request would cost a small one as much as all the rest of its way, and the engine would launch it alone while
/// its neighbours are still being read. So whoever finds the queue empty waits until the runtime reads no more requests off the
/// sockets, and then wakes the engine for all of them; the others need not.
#[derive(Debug)]
#[must_use = "the engine looks when this is dropped"]
pub struct Offered<'a> {
    commands: &'a Mailbox<Command>,
    /// Commands that waited when it was handed in, itself included.
    waiting: usize,
}

/// How many rounds of the runtime a request lets go by for its neighbours at most. One takes some tens of microseconds when the
/// runtime is busy, and less than one when it is not.
const MOST_ROUNDS: usize = 6;

/// After so many rounds without a neighbour there are none. In each round a task that yielded runs before those whose sockets were found
/// ready meanwhile, so one round without is no sign yet.
const QUIET_ROUNDS: usize = 2;

impl Offered<'_> {
    /// Lets the requests of neighbours be handed in, too, while there are any.
    pub async fn with_neighbours(self) {
        if self.waiting != 1 {
            return;
        }
        let (mut waiting, mut quiet) = (self.waiting, 0);
        for _ in 0..MOST_ROUNDS {
            tokio::task::yield_now().await;
            let now = self.commands.len();
            quiet = if now > waiting { 0 } else { quiet + 1 };
            if quiet == QUIET_ROUNDS {
                return;
            }
            waiting = now;
        }
    }
}

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        if self.waiting == 1 {
            self.commands.ring();
        }
    }
}

/// Sends an answer to whoever still waits for it: a client that hung up has dropped the other end.
pub(super) fn answer(reply: oneshot::Sender<Answer>, answer: Answer) {
    let _ = reply.send(answer);
}
