//! What is behind the wire: a request found its tenant, checked, offered to the engine of the device that is done with it first, and its
//! answer put together.
//!
//! ```text
//!   refused for lateness, full, or its device was lost before it ran ─▶ the next device that has the tenant
//!   unloaded, and its tenant was loaded anew                         ─▶ the new one
//!   every device that had it was lost                                ─▶ waits until it is loaded on another
//! ```

use crate::classes::{NoPlan, Planned};
use crate::engine::{Answer, EngineHandle, Incoming, NotAnswered};
use crate::events::Events;
use crate::frontend::{
    Backend, DeviceStatus, InferRequest, InferResponse, Listed, ModelInfo, TensorIn, TensorOut,
};
use crate::quotas::Pass;
use crate::registry::{Found, Registry, Residence, Served};
use crate::routing::{self, Charge};
use crate::standing::{self, Agreed};
use crate::wire::Rejection;
use bytes::{Bytes, BytesMut};
use serde_json::json;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tessera_core::RequestId;
use tessera_device::RequestError;
use tessera_planner::class::Bound;
use tessera_planner::plan::Port;
use tessera_scheduler::Refusal;
use tokio::sync::oneshot;

/// The backend of a running server.
#[derive(Debug)]
pub struct Service {
    registry: Arc<Registry>,
    queue: Queue,
    requests: AtomicU64,
    /// Set when shutdown begins: readiness goes first, so that a balancer looks elsewhere while we drain.
    stopping: AtomicBool,
}

impl Service {
    /// A service over tenants and the devices that they are on, whose queues are this large.
    pub fn new(registry: Arc<Registry>, queue: Queue) -> Service {
        Service { registry, queue, requests: AtomicU64::new(0), stopping: AtomicBool::new(false) }
    }

    /// From now on not ready. Requests are still answered: they are those that came before the sockets closed.
    pub fn begin_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
        self.registry.fleet().events().close();
    }

    fn find(&self, model: &str, version: Option<u64>) -> Result<Arc<Served>, Rejection> {
        let not_ready = |why: String| Rejection::NotReady { model: model.to_owned(), why };
        match self.registry.find(model, version) {
            Found::Ready(served) => Ok(served),
            Found::Loading => Err(not_ready("it is loading".to_owned())),
            Found::Failed(why) => Err(not_ready(why)),
            Found::Unknown => Err(match (version, self.registry.ready_versions(model)) {
                (Some(version), served) if !served.is_empty() => Rejection::UnknownVersion {
                    model: model.to_owned(),
                    version: version.to_string(),
                    served,
                },
                _ => Rejection::UnknownModel { model: model.to_owned() },
            }),
        }
    }

    async fn run(
        &self,
        served: &Served,
        request: &InferRequest,
        arrived: Instant,
        pass: &mut Option<Pass>,
    ) -> Result<(InferResponse, u64), Miss> {
        let wanted = wanted(served, request)?;
        let inputs = in_order(served, &request.inputs)?;
        let shapes: Vec<&[u64]> = inputs.iter().map(|input| input.shape.as_slice()).collect();
        let bound =
            served.class.bind(&shapes).map_err(|error| {
                Rejection::Invalid(error.for_inputs(
                    &served.info.inputs.iter().map(|input| input.name.as_str()).collect::<Vec<_>>(),
                ))
            })?;
        if pass.is_none() {
            let items = u32::try_from(bound.items).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX);
            *pass = Some(served.stake.enter(items).map_err(|refusal| over_quota(served, &refusal))?);
        }
        let allowed = request.timeout.or(served.slo).unwrap_or_default();
        let mut missed: Option<Miss> = None;
        let mut answered = None;
        for residence in in_turn(served, &bound) {
            // Held until the answer is there, so that its programs are too.
            let planned = residence.class.planned(&bound).await;
            let miss = match planned {
                Err(error) => unplanned(&served.info.name, residence, &error),
                Ok(planned) => {
                    self.queue.can_hold(&planned, &bound, &inputs).map_err(Rejection::Invalid)?;
                    let at = (served, residence);
                    match self.offer(at, &planned, &bound, &inputs, arrived, request.timeout).await {
                        Ok(parts) => {
                            answered = Some((planned, parts));
                            break;
                        }
                        Err(why) => self.miss(&served.info.name, allowed, why),
                    }
                }
            };
            if miss.next == Next::Never {
                return Err(miss);
            }
            // Of several refusals the first counts: it came from the device that was to be done first.
            missed = missed.filter(|first| first.next == Next::Device).or(Some(miss));
        }
        let Some((planned, parts)) = answered else {
            let nowhere = || {
                Miss::from(Rejection::NotReady {
                    model: served.info.name.clone(),
                    why: "it is on no device".to_owned(),
                })
            };
            return Err(missed.unwrap_or_else(nowhere));
        };
        let output = |output: usize| {
            let port = &planned.plan.outputs[output];
            let data = joined(parts.iter().map(|part| part[output].clone()));
            TensorOut {
                name: served.info.outputs[output].name.clone(),
                dtype: port.dtype,
                shape: shape_of(port, data.len()),
                data,
            }
        };
        let outputs = match wanted {
            None => (0..served.info.outputs.len()).map(output).collect(),
            Some(wanted) => wanted.into_iter().map(output).collect(),
        };
        let response =
            InferResponse { model: served.info.name.clone(), version: served.info.version, outputs };
        Ok((response, bound.items))
    }

    /// Offers a request in parts that fit a launch, and waits for all of them.
    async fn offer(
        &self,
        (served, residence): (&Served, &Residence),
        planned: &Planned,
        bound: &Bound,
        inputs: &[&TensorIn],
        arrived: Instant,
        timeout: Option<Duration>,
    ) -> Result<Vec<Vec<Bytes>>, NotAnswered> {
        let items = if planned.plan.batched { bound.items } else { 1 };
        let most = u64::from(planned.most_items.get());
        let (mut waits, mut offered) = (Vec::new(), None);
        let mut first = 0;
        while first < items {
            let count = (items - first).min(most);
            let cut = |(input, port): (&&TensorIn, &Port)| {
                let per_item = port.bytes_per_item();
                input.data.slice(first as usize * per_item..(first + count) as usize * per_item)
            };
            let (reply, answer) = oneshot::channel();
            let request = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
            let charge = residence.engine.backlog().charge(planned.pace.share(count));
            let handed_in = residence.engine.offer(Incoming {
                request,
                tenant: served.tenant,
                plan: planned.key.clone(),
                items: u32::try_from(count)
                    .ok()
                    .and_then(NonZeroU32::new)
                    .expect("between 1 and a launch's items"),
                batchable: planned.plan.batched,
                inputs: inputs.iter().zip(&planned.plan.inputs).map(cut).collect(),
                arrived,
                timeout,
                reply,
            });
            offered.get_or_insert(handed_in);
            waits.push(Wait { engine: &residence.engine, request, answer, over: false, _charge: charge });
            first += count;
        }
        if let Some(offered) = offered {
            offered.with_neighbours().await;
        }
        let mut parts = Vec::with_capacity(waits.len());
        for wait in waits {
            parts.push(wait.answer().await?);
        }
        Ok(parts)
    }

    /// What comes of a request that a device did not answer: what its caller hears, and what else may be tried.
    fn miss(&self, model: &str, allowed: Duration, why: NotAnswered) -> Miss {
        let (soon, model) = (Duration::from_secs(1), model.to_owned());
        let unloaded =
            |model| Rejection::Cancelled(format!("'{model}' was unloaded while the request waited"));
        let (rejection, next) = match why {
            NotAnswered::Refused(Refusal::QueueFull { queued, limit, .. }) => {
                let (queued, limit) = (queued.into(), limit.get().into());
                (Rejection::QueueFull { queue: model, queued, limit, retry_after: soon }, Next::Device)
            }
            NotAnswered::Refused(Refusal::TooLate { predicted, allowed }) => {
                (Rejection::TooLate { model, predicted, allowed, retry_after: soon }, Next::Device)
            }
            NotAnswered::Refused(refusal @ (Refusal::QueueBytesFull { .. } | Refusal::OverShare { .. })) => {
                (Rejection::Overloaded { model, why: refusal.to_string(), retry_after: soon }, Next::Device)
            }
            NotAnswered::Refused(Refusal::UnknownTenant(_)) | NotAnswered::Unloaded => {
                (unloaded(model), Next::Replaced)
            }
            NotAnswered::Refused(
                refusal @ (Refusal::KnownRequest(_)
                | Refusal::TooManyItems { .. }
                // Quotas are counted before, for all devices.
                | Refusal::OverRate { .. }
                | Refusal::OverConcurrency { .. }),
            ) => (Rejection::Internal(refusal.to_string()), Next::Never),
            NotAnswered::Expired => (Rejection::Expired { model, allowed }, Next::Never),
            // An engine that is gone says so, too.
            NotAnswered::Stopping if !self.stopping.load(Ordering::Acquire) => {
                (Rejection::ShuttingDown, Next::Moved)
            }
            NotAnswered::Stopping => (Rejection::ShuttingDown, Next::Never),
            NotAnswered::Failed(error @ RequestError::IdOutOfRange { .. }) => {
                (Rejection::Invalid(format!("model '{model}': {error}")), Next::Never)
            }
            NotAnswered::DeviceLost(why) => (Rejection::Internal(why), Next::Moved),
            NotAnswered::Failed(RequestError::DeviceFailed(why)) | NotAnswered::Lost(why) => {
                (Rejection::Internal(why), Next::Never)
            }
            gone @ NotAnswered::PlanGone => (Rejection::Internal(gone.to_string()), Next::Never),
        };
        Miss { rejection, next }
    }

    /// The tenant again, once it is on other devices than before. `None` when it will not be, or not in time.
    async fn moved(
        &self,
        request: &InferRequest,
        before: &Arc<Served>,
        arrived: Instant,
    ) -> Option<Arc<Served>> {
        let until = arrived + request.timeout.or(before.slo).unwrap_or(MOVING).min(MOVING);
        loop {
            if self.registry.fleet().running() == 0 {
                return None;
            }
            match self.registry.find(&request.model, request.version) {
                Found::Ready(served) if !Arc::ptr_eq(&served, before) => return Some(served),
                Found::Ready(_) | Found::Loading => {}
                Found::Failed(_) | Found::Unknown => return None,
            }
            if Instant::now() >= until {
                return None;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// How much one tenant may have waiting on a device.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// Requests, or parts of them.
    pub requests: NonZeroU32,
    /// Bytes of their inputs.
    pub bytes: tessera_core::Bytes,
}

impl Queue {
    /// Says why not, if a request would not fit into an empty queue: all its parts are handed in at once, so to try again would never help.
    fn can_hold(self, planned: &Planned, bound: &Bound, inputs: &[&TensorIn]) -> Result<(), String> {
        let most = u64::from(planned.most_items.get());
        let parts = if planned.plan.batched { bound.items.div_ceil(most) } else { 1 };
        let requests = u64::from(self.requests.get());
        if parts > requests {
            return Err(format!(
                "a batch of {} goes in {parts} launches of {most} at most, and {requests} of a tenant may wait; \
                 send at most {} at once, or raise `queue_requests` or `max_items`",
                bound.items,
                most * requests
            ));
        }
        let bytes = tessera_core::Bytes(inputs.iter().map(|input| input.data.len() as u64).sum());
        if bytes > self.bytes {
            return Err(format!(
                "the request brings {bytes}, and {} of a tenant may wait; send less at once, or raise `queue_bytes`",
                self.bytes
            ));
        }
        Ok(())
    }
}

/// How long a request that says nothing else waits for its tenant to be loaded on another device, and how often it looks.
const MOVING: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);

/// A request that was not answered.
#[derive(Debug)]
struct Miss {
    /// What its caller hears, unless it is answered after all.
    rejection: Rejection,
    next: Next,
}

/// What else may be tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// Nothing.
    Never,
    /// Another device that has the tenant.
    Device,
    /// The tenant that took its place, if there is one.
    Replaced,
    /// The tenant, once it is on another device.
    Moved,
}

impl From<Rejection> for Miss {
    fn from(rejection: Rejection) -> Miss {
        Miss { rejection, next: Next::Never }
    }
}

/// The devices that have a tenant, in the order in which they would be done with a request. A plan that a device has not made yet costs nothing
/// by prediction, so every device is tried.
fn in_turn<'a>(served: &'a Served, bound: &Bound) -> Vec<&'a Residence> {
    if let [only] = served.residences.as_slice() {
        return vec![only];
    }
    let finish = |residence: &Arc<Residence>| {
        let backlog = residence.engine.backlog().length();
        residence
            .class
            .planned_before(bound)
            .map_or(backlog, |planned| planned.pace.finish(backlog, bound.items))
    };
    let finishes: Vec<Duration> = served.residences.iter().map(finish).collect();
    routing::order(&finishes).into_iter().map(|index| &*served.residences[index]).collect()
}

impl Backend for Service {
    fn live(&self) -> bool {
        self.registry.fleet().running() > 0 || self.stopping.load(Ordering::Acquire)
    }

    fn ready(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::Acquire) {
            return Err("the server is shutting down".to_owned());
        }
        if self.registry.fleet().running() == 0 {
            return Err("the engine has stopped; restart the server".to_owned());
        }
        if !self.registry.settled() {
            let (ready, loading, _) = self.registry.counts();
            return Err(format!("loading: {ready} tenants are ready, {loading} are on their way"));
        }
        Ok(())
    }

    fn model(&self, name: &str, version: Option<u64>) -> Result<Arc<ModelInfo>, Rejection> {
        let served = self.find(name, version)?;
        let versions = self.registry.ready_versions(name);
        let placements = self.registry.placements(&served);
        Ok(Arc::new(ModelInfo { versions, placements, ..(*served.info).clone() }))
    }

    fn model_ready(&self, name: &str, version: Option<u64>) -> Result<bool, Rejection> {
        match self.find(name, version) {
            Ok(_) => Ok(!self.stopping.load(Ordering::Acquire)),
            Err(Rejection::NotReady { .. }) => Ok(false),
            Err(unknown) => Err(unknown),
        }
    }

    fn devices(&self) -> Vec<DeviceStatus> {
        self.registry.fleet().status()
    }

    fn statistics(&self, name: &str, version: Option<u64>) -> Result<Vec<serde_json::Value>, Rejection> {
        let versions = match version {
            Some(version) => vec![self.find(name, Some(version))?],
            None => {
                // For its error, where there is none.
                self.find(name, None)?;
                let versions = self.registry.ready_versions(name);
                versions.into_iter().filter_map(|version| self.find(name, Some(version)).ok()).collect()
            }
        };
        let fleet = self.registry.fleet();
        let shown = |served: Arc<Served>| {
            let residences = served.residences.iter();
            let standings: Vec<_> = residences
                .map(|residence| (fleet.station(residence.station()).name.as_str(), &*residence.standing))
                .collect();
            let agreed = Agreed { slo: served.slo, percentile: served.percentile };
            standing::statistics((name, served.info.version), &served.tally, agreed, &standings)
        };
        Ok(versions.into_iter().map(shown).collect())
    }

    fn steps(&self, name: &str, version: Option<u64>) -> Result<serde_json::Value, Rejection> {
        let served = self.find(name, version)?;
        let (at, fleet) = (Instant::now(), self.registry.fleet());
        let seen = served.residences.iter().flat_map(|residence| {
            let station = fleet.station(residence.station());
            let (class, precision) = (residence.class.class.id, residence.class.precision);
            residence.engine.monitor().steps_of(at, &station.name, class, precision)
        });
        let plans: Vec<serde_json::Value> = seen.collect();
        Ok(json!({ "name": name, "version": served.info.version.to_string(), "plans": plans }))
    }

    fn index(&self) -> Vec<Listed> {
        self.registry.index()
    }

    fn events(&self) -> &Events {
        self.registry.fleet().events()
    }

    async fn infer(&self, request: InferRequest) -> Result<InferResponse, Rejection> {
        let arrived = Instant::now();
        let mut served = self.find(&request.model, request.version)?;
        // Held until the answer is there, or its caller is gone; a request that is tried again has been let in before.
        let mut pass = None;
        loop {
            let Miss { rejection, next } = match self.run(&served, &request, arrived, &mut pass).await {
                Ok((response, items)) => {
                    served.tally.answered(items, arrived.elapsed());
                    return Ok(response);
                }
                Err(miss) => miss,
            };
            let again = match next {
                Next::Never | Next::Device => None,
                // Unloaded while it waited. If that was to make place for the same tenant's new weights, they answer in its stead.
                Next::Replaced => {
                    let found = self.find(&request.model, request.version).ok();
                    found.filter(|found| found.tenant != served.tenant)
                }
                Next::Moved => self.moved(&request, &served, arrived).await,
            };
            let Some(again) = again else {
                served.tally.failed(arrived.elapsed());
                return Err(rejection);
            };
            served = again;
        }
    }
}

/// A part in the engine's hands. Dropped before its answer came, it is cancelled.
struct Wait<'a> {
    engine: &'a EngineHandle,
    request: RequestId,
    answer: oneshot::Receiver<Answer>,
    over: bool,
    _charge: Charge,
}

impl Wait<'_> {
    async fn answer(mut self) -> Answer {
        let answer = (&mut self.answer).await;
        self.over = true;
        answer.unwrap_or_else(|_| Err(NotAnswered::Lost("the engine has stopped".to_owned())))
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.engine.cancel(self.request);
        }
    }
}

/// The indices of the outputs that the request wants; `None` are all, when it names none.
fn wanted(served: &Served, request: &InferRequest) -> Result<Option<Vec<usize>>, Rejection> {
    let outputs = &served.info.outputs;
    if request.outputs.is_empty() {
        return Ok(None);
    }
    let find = |name: &String| {
        outputs.iter().position(|output| output.name == *name).ok_or_else(|| {
            let known: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
            Rejection::Invalid(format!(
                "unexpected inference output '{name}' for model '{}'; it has {}",
                served.info.name,
                known.join(", ")
            ))
        })
    };
    request.outputs.iter().map(find).collect::<Result<_, _>>().map(Some)
}

/// The request's inputs in the model's order, all there and of the right type.
fn in_order<'a>(served: &Served, given: &'a [TensorIn]) -> Result<Vec<&'a TensorIn>, Rejection> {
    let info = &served.info;
    let known = || info.inputs.iter().map(|input| input.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(extra) = given.iter().find(|input| info.inputs.iter().all(|want| want.name != input.name)) {
        let (name, model) = (&extra.name, &info.name);
        return Err(Rejection::Invalid(format!(
            "unexpected inference input '{name}' for model '{model}'; it takes {}",
            known()
        )));
    }
    let mut ordered = Vec::with_capacity(info.inputs.len());
    for want in &info.inputs {
        let Some(input) = given.iter().find(|input| input.name == want.name) else {
            let text = format!(
                "model '{}' expects {} inputs ({}); '{}' is missing",
                info.name,
                info.inputs.len(),
                known(),
                want.name
            );
            return Err(Rejection::Invalid(text));
        };
        if input.dtype != want.dtype {
            return Err(Rejection::Invalid(format!(
                "input '{}' of model '{}' is {}, but {} was sent",
                want.name,
                info.name,
                want.dtype.protocol_name(),
                input.dtype.protocol_name()
            )));
        }
        ordered.push(input);
    }
    Ok(ordered)
}

/// The parts of one output, end to end; items lie one after the other.
fn joined(mut parts: impl ExactSizeIterator<Item = Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.next().unwrap_or_default();
    }
    let mut whole = BytesMut::new();
    parts.for_each(|part| whole.extend_from_slice(&part));
    whole.freeze()
}

/// The shape of an output of so many bytes: the items are on its first axis.
fn shape_of(port: &Port, bytes: usize) -> Vec<u64> {
    let mut shape: Vec<u64> = port.dims.iter().map(|&dim| dim as u64).collect();
    let items = bytes.checked_div(port.bytes_per_item()).unwrap_or(1);
    if let Some(rows) = shape.first_mut() {
        *rows *= items as u64;
    }
    shape
}

/// What comes of a request for which a device has no plan: what it is for the model itself it is everywhere.
fn unplanned(model: &str, residence: &Residence, error: &NoPlan) -> Miss {
    let next = match error {
        NoPlan::Unplannable { .. } => Next::Never,
        NoPlan::Device(_) | NoPlan::NotNow { .. } | NoPlan::Interrupted if residence.engine.is_running() => {
            Next::Device
        }
        NoPlan::Device(_) | NoPlan::NotNow { .. } | NoPlan::Interrupted => Next::Moved,
    };
    Miss { rejection: no_plan(model, error), next }
}

fn no_plan(model: &str, error: &NoPlan) -> Rejection {
    match error {
        NoPlan::Unplannable { .. } => Rejection::Invalid(format!("model '{model}': {error}")),
        NoPlan::Device(_) | NoPlan::NotNow { .. } | NoPlan::Interrupted => {
            Rejection::NotReady { model: model.to_owned(), why: error.to_string() }
        }
    }
}

/// What the caller hears when its owner's quota is used up.
fn over_quota(served: &Served, refusal: &Refusal) -> Rejection {
    let retry_after = match refusal {
        Refusal::OverRate { retry, .. } => *retry,
        _ => Some(Duration::from_secs(1)),
    };
    let (model, owner) = (served.who.tenant.clone(), served.who.owner.clone());
    Rejection::OverQuota { model, owner, why: refusal.to_string(), retry_after }
}
