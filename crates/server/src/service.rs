//! What is behind the wire: a request found its tenant, checked, offered to the engine of the device that is done with it first, and its
//! answer put together.
//!
//! ```text
//!   refused for lateness, full, or its device was lost before it ran ─▶ the next device that has the tenant
//!   unloaded, and its tenant was loaded anew                         ─▶ the new one
//!   every device that had it was lost                                ─▶ waits until it is loaded on another
//! ```

mod miss;
mod parts;
mod ports;

pub(crate) use self::parts::Queue;

use self::miss::{Miss, Next};
use crate::classes::Planned;
use crate::events::Events;
use crate::frontend::{Backend, DeviceStatus, InferRequest, InferResponse, Listed, ModelInfo, TensorIn};
use crate::quotas::Pass;
use crate::registry::{Counts, Found, Registry, Residence, Served};
use crate::routing;
use crate::standing::{self, Agreed, Fate};
use crate::wire::Rejection;
use bytes::Bytes;
use serde_json::json;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tessera_planner::class::Bound;

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

    /// Checks a request against its model, counts it against its owner's quota unless it has its pass, and has it answered; with its items.
    async fn run(
        &self,
        served: &Served,
        request: &InferRequest,
        arrived: Instant,
        pass: &mut Option<Pass>,
    ) -> Result<(InferResponse, u64), Miss> {
        let wanted = ports::wanted(served, request)?;
        let inputs = ports::in_order(served, &request.inputs)?;
        let bound = ports::bound(served, &inputs)?;
        if pass.is_none() {
            let items = u32::try_from(bound.items).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX);
            *pass = Some(served.stake.enter(items).map_err(|refusal| miss::over_quota(served, &refusal))?);
        }
        let (planned, parts) = self.somewhere(served, &bound, &inputs, arrived, request.timeout).await?;
        Ok((ports::response(served, &planned.plan, &parts, wanted), bound.items))
    }

    /// Offers a request to the devices that have its tenant, in turn, until one answers. The plan that it was answered by is kept until its answer is there, so that
    /// its programs are too.
    async fn somewhere(
        &self,
        served: &Served,
        bound: &Bound,
        inputs: &[&TensorIn],
        arrived: Instant,
        timeout: Option<Duration>,
    ) -> Result<(Arc<Planned>, Vec<Vec<Bytes>>), Miss> {
        let model = &served.info.name;
        let allowed = timeout.or(served.slo).unwrap_or_default();
        let mut missed: Option<Miss> = None;
        for residence in in_turn(served, bound) {
            let miss = match residence.class.planned(bound).await {
                Err(error) => miss::unplanned(model, residence, &error),
                Ok(planned) => {
                    self.queue.can_hold(&planned, bound, inputs).map_err(Rejection::Invalid)?;
                    match self.offer((served, residence), &planned, bound, inputs, arrived, timeout).await {
                        Ok(parts) => return Ok((planned, parts)),
                        Err(why) => self.miss(model, allowed, why),
                    }
                }
            };
            if miss.next == Next::Never {
                return Err(miss);
            }
            // Of several refusals the first counts: it came from the device that was to be done first.
            missed = missed.filter(|first| first.next == Next::Device).or(Some(miss));
        }
        let nowhere = || Rejection::NotReady { model: model.clone(), why: "it is on no device".to_owned() };
        Err(missed.unwrap_or_else(|| nowhere().into()))
    }

    /// Counts what became of the deadline of a request.
    fn attained(&self, served: &Served, fate: Fate) {
        served.tally.attained(fate);
        self.registry.fleet().metrics().deadline(&served.who.tenant, fate);
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

/// How long a request that says nothing else waits for its tenant to be loaded on another device, and how often it looks.
const MOVING: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);

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
            let Counts { ready, loading, .. } = self.registry.counts();
            return Err(format!(
                "loading: {ready} versions of tenants are ready, {loading} are on their way"
            ));
        }
        Ok(())
    }

    fn model(&self, name: &str, version: Option<u64>) -> Result<Arc<ModelInfo>, Rejection> {
        let served = self.find(name, version)?;
        let versions = self.registry.ready_versions(name);
        let placements = self.registry.placements(&served);
        Ok(Arc::new(ModelInfo { versions, placements, ..(*served.info).clone() }))
    }

    fn model_ready(&self, name: &str, version: Option<u64>) -> Result<(), Rejection> {
        self.find(name, version)?;
        if self.stopping.load(Ordering::Acquire) { Err(Rejection::ShuttingDown) } else { Ok(()) }
    }

    fn devices(&self) -> Vec<DeviceStatus> {
        self.registry.fleet().status()
    }

    fn statistics_of_all(&self) -> Vec<serde_json::Value> {
        let mut names: Vec<String> = self.registry.index().into_iter().map(|listed| listed.name).collect();
        names.dedup();
        // Who has none that answers is left out, also who was unloaded a moment ago.
        names.iter().filter_map(|name| self.statistics(name, None).ok()).flatten().collect()
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
            let Miss { rejection, next, fate } = match self.run(&served, &request, arrived, &mut pass).await {
                Ok((response, items)) => {
                    let took = arrived.elapsed();
                    served.tally.answered(items, took);
                    if let Some(allowed) = request.timeout.or(served.slo) {
                        let fate = if took <= allowed { Fate::InTime } else { Fate::Late };
                        self.attained(&served, fate);
                    }
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
                fate.into_iter().for_each(|fate| self.attained(&served, fate));
                return Err(rejection);
            };
            served = again;
        }
    }
}
