//! The server's engines in this process, without HTTP: zoo models, tenants with weights and SLOs of their own.
//!
//! One engine for each device that the settings name. Every tenant is on all of them, and a request goes where it is done first, as the server sends it.

use super::{Ended, Target};
use crate::zoo::{self, tenant_seed};
use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tessera_core::{DType, Policy, Precision, RequestId, SlotId, TenantId};
use tessera_device::{Device, PartitionInfo, Slot, Wake};
use tessera_planner::class;
use tessera_planner::plan::Port;
use tessera_server::backstage::Backstage;
use tessera_server::classes::{ClassEntry, Planned};
use tessera_server::engine::{EngineHandle, Incoming, NotAnswered, Predictions, Wait};
use tessera_server::events::Asked;
use tessera_server::server::StartError;
use tessera_server::settings::Sources;
use tessera_server::{Events, Settings};
use tessera_server::{devices, engine, routing};
use tokio::runtime::Runtime;

/// Requests made of each tenant.
const VARIANTS: usize = 4;

/// A tenant to be.
#[derive(Clone, Debug)]
pub struct Guest {
    /// What it is.
    pub model: Arc<zoo::Model>,
    /// Answers are wanted within this long; `None` is best effort.
    pub slo: Option<Duration>,
}

/// Engines, and what each tenant is asked.
#[derive(Debug)]
pub struct InProcess {
    stations: Vec<Station>,
    items: NonZeroU32,
    requests: AtomicU64,
    /// By tenant: some requests to choose from.
    inputs: Vec<Vec<Vec<Bytes>>>,
}

/// A device's engine, and the tenants there.
#[derive(Debug)]
struct Station {
    engine: EngineHandle,
    guests: Vec<(TenantId, Arc<Planned>)>,
}

/// What must live as long as tenants are asked.
#[derive(Debug)]
pub struct House {
    backstages: Vec<Backstage>,
    /// Every tenant's weights and class.
    kept: Vec<(Slot, Arc<ClassEntry>)>,
    events: Arc<Events>,
}

/// Makes another device of one that was opened with a wake.
pub(crate) type Wrap<'a> = dyn Fn(Arc<dyn Device>, Wake) -> Result<Arc<dyn Device>, StartError> + 'a;

impl InProcess {
    /// Loads everybody on every device that the settings name. Blocks; `heard` is told what goes on.
    pub fn open(
        runtime: &Runtime,
        settings: &Settings,
        guests: &[Guest],
        (items, seed): (NonZeroU32, u64),
        heard: &mut dyn FnMut(&str),
    ) -> Result<(Arc<InProcess>, House)> {
        InProcess::open_on(runtime, settings, guests, (items, seed), &|device, _| Ok(device), heard)
    }

    /// As [`InProcess::open`], on what `wrap` makes of the devices.
    pub(crate) fn open_on(
        runtime: &Runtime,
        settings: &Settings,
        guests: &[Guest],
        (items, seed): (NonZeroU32, u64),
        wrap: &Wrap<'_>,
        heard: &mut dyn FnMut(&str),
    ) -> Result<(Arc<InProcess>, House)> {
        let inside = runtime.enter();
        let mut random = StdRng::seed_from_u64(seed);
        let (mut stations, mut backstages, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        let mut asked: Vec<Vec<Vec<Bytes>>> = Vec::with_capacity(guests.len());
        let events: Arc<Events> = Arc::default();
        for open in devices::all(settings)? {
            let wrapped = |wake: Wake| open(wake.clone()).and_then(|device| wrap(device, wake));
            let backstage = Backstage::beside(settings, events.clone(), wrapped)?;
            let info = backstage.means.device.info();
            heard(&format!("loading {} tenants on {} ({})", guests.len(), info.name, info.description));
            let mut here = Vec::with_capacity(guests.len());
            for (number, Guest { model, slo }) in guests.iter().enumerate() {
                let name = model.architecture.name;
                let file = class::load_bytes(model.bytes(tenant_seed(seed, number)), None)?;
                let (tenant, class, slot) = backstage
                    .add_tenant(&file, backstage.means.precision, *slo)
                    .with_context(|| format!("tenant {number}, {name}, cannot be loaded"))?;
                let bound = class.class.bind_without_free_dims();
                let bound = bound.with_context(|| format!("{name} has free dimensions beside the batch"))?;
                let plan = runtime.block_on(class.planned(&bound))?;
                if asked.len() == number {
                    let made = (0..VARIANTS).map(|_| inputs(model, &plan.plan.inputs, items, &mut random));
                    asked.push(made.collect::<Result<_>>()?);
                }
                here.push((tenant, plan));
                kept.push((slot, class));
            }
            stations.push(Station { engine: backstage.means.engine.clone(), guests: here });
            backstages.push(backstage);
        }
        drop(inside);
        let target = InProcess { stations, items, requests: AtomicU64::new(0), inputs: asked };
        Ok((Arc::new(target), House { backstages, kept, events }))
    }

    /// From the next decision on, this policy.
    pub fn play(&self, policy: Policy) {
        self.stations.iter().for_each(|station| station.engine.set_policy(policy, true));
    }

    /// How far launches since a moment were from what was predicted of them, and so many of the furthest off: of several devices the one that is further off. `None` where
    /// none had a prediction.
    pub async fn predictions(&self, since: Instant, furthest: usize) -> Option<Predictions> {
        let mut furthest_off: Option<Predictions> = None;
        for station in &self.stations {
            let here = station.engine.predictions(since, furthest).await;
            let here = here.filter(|here| here.error.launches > 0);
            furthest_off = match (furthest_off, here) {
                (Some(one), Some(other)) => Some(if other.error.p99 > one.error.p99 { other } else { one }),
                (one, other) => one.or(other),
            };
        }
        furthest_off
    }

    /// The devices, in the order in which they would be done with a request of a tenant.
    fn in_turn(&self, tenant: usize) -> Vec<&Station> {
        let finish = |station: &Station| {
            let (_, plan) = &station.guests[tenant];
            plan.pace.finish(station.engine.backlog().length(), self.items.get().into())
        };
        let finishes: Vec<Duration> = self.stations.iter().map(finish).collect();
        routing::order(&finishes).into_iter().map(|index| &self.stations[index]).collect()
    }

    /// What a tenant's request of a number brings.
    fn inputs(&self, tenant: usize, number: u64) -> Vec<Bytes> {
        let inputs = &self.inputs[tenant];
        inputs[number as usize % inputs.len()].clone()
    }

    /// The same, where the first device fetches it fastest.
    pub(crate) fn adopted(&self, tenant: usize, number: u64) -> Vec<Bytes> {
        let inputs = self.inputs(tenant, number);
        match self.stations.first() {
            Some(station) => station.engine.adopt(inputs),
            None => inputs,
        }
    }

    /// Asks the first device with inputs of [`InProcess::adopted`].
    pub(crate) async fn ask_with(&self, tenant: usize, inputs: Vec<Bytes>) -> Ended {
        match self.stations.first() {
            Some(station) => self.ask_at(station, tenant, inputs, Instant::now()).await,
            None => Ended::Refused,
        }
    }

    /// Asks one device.
    async fn ask_at(&self, station: &Station, tenant: usize, inputs: Vec<Bytes>, arrived: Instant) -> Ended {
        let (id, plan) = &station.guests[tenant];
        let request = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
        let _charge = station.engine.backlog().charge(plan.pace.share(self.items.get().into()));
        let (reply, wait) = Wait::on(&station.engine, request);
        let offered = station.engine.offer(Incoming {
            request,
            tenant: *id,
            plan: plan.key.clone(),
            items: self.items,
            batchable: plan.plan.batched,
            inputs,
            arrived,
            timeout: None,
            reply,
        });
        offered.with_neighbours().await;
        ended(wait.answer().await)
    }
}

impl House {
    /// What the devices are, in words.
    pub fn device(&self) -> String {
        let word = |backstage: &Backstage| {
            let info = backstage.means.device.info();
            format!("{} ({})", info.name, info.description)
        };
        self.backstages.iter().map(word).collect::<Vec<_>>().join(" and ")
    }

    /// The first device's name, its first partition, and how numbers are held there.
    pub(crate) fn first(&self) -> Option<(String, PartitionInfo, Precision)> {
        let means = &self.backstages.first()?.means;
        let partition = means.device.partitions().into_iter().next()?;
        let info = means.device.info();
        Some((format!("{} ({})", info.name, info.description), partition, means.precision))
    }

    /// Where the weights of tenants lie on the first device, in their order.
    pub(crate) fn slots(&self) -> impl Iterator<Item = SlotId> {
        let tenants = self.kept.len() / self.backstages.len().max(1);
        self.kept.iter().take(tenants).map(|(slot, _)| slot.id())
    }

    /// How long after a moment somebody was first evicted from shared launches.
    pub(crate) async fn evicted_since(&self, since: SystemTime) -> Option<Duration> {
        self.told_since("evicted", since).await.into_iter().map(|(after, _)| after).next()
    }

    /// What was told of one kind after a moment, and how long after.
    pub(crate) async fn told_since(&self, kind: &str, since: SystemTime) -> Vec<(Duration, String)> {
        let (mut after, mut found) = (0, Vec::new());
        loop {
            let page = self.events.page(Asked { after, limit: 1000, wait: Duration::ZERO }).await;
            let of_kind = page.events.iter().filter(|told| told.news.kind == kind);
            let later = of_kind.filter_map(|told| {
                let after = told.time.duration_since(since).ok()?;
                Some((after, told.news.text.clone()))
            });
            found.extend(later);
            if page.events.is_empty() {
                return found;
            }
            after = page.next;
        }
    }

    /// Ends the engines: what they were given is answered first.
    pub fn close(self, target: Arc<InProcess>) {
        drop((self.kept, target));
        self.backstages.into_iter().for_each(Backstage::stop);
    }
}

impl Target for InProcess {
    async fn ask(&self, tenant: usize, number: u64) -> Ended {
        let arrived = Instant::now();
        let mut ended = Ended::Refused;
        for station in self.in_turn(tenant) {
            ended = self.ask_at(station, tenant, self.inputs(tenant, number), arrived).await;
            if ended != Ended::Refused {
                break;
            }
        }
        ended
    }
}

/// How a request ended that the engine answered like this.
pub(crate) fn ended(answer: engine::Answer) -> Ended {
    match answer {
        Ok(_) => Ended::Answered,
        Err(NotAnswered::Refused(_)) => Ended::Refused,
        Err(NotAnswered::Expired) => Ended::Expired,
        Err(why) => Ended::Failed(why.to_string()),
    }
}

/// The server's settings for an engine without a repository: defaults but for these, and nothing cached. Several values of one are separated by spaces.
pub(crate) fn settings(values: impl IntoIterator<Item = (&'static str, String)>) -> Result<Settings> {
    // Nothing is read from the repository; the setting has no default.
    let always = [("model_repository", ".".to_owned()), ("pack_cache", "off".to_owned())];
    let mut sources = Sources::new();
    for (key, value) in always.into_iter().chain(values) {
        let words: Vec<String> = match key {
            "device" | "behind_multiprocessors" => value.split_whitespace().map(str::to_owned).collect(),
            _ => vec![value],
        };
        sources.flag(key, words);
    }
    Ok(sources.resolve()?)
}

/// One request's inputs: ids within their tables, floats of a mean square of one.
pub(crate) fn inputs(
    model: &zoo::Model,
    ports: &[Port],
    items: NonZeroU32,
    random: &mut StdRng,
) -> Result<Vec<Bytes>> {
    let bound = 3f32.sqrt();
    let made = ports.iter().enumerate().map(|(index, port)| {
        let elements = port.dims.iter().product::<usize>() * items.get() as usize;
        match (port.dtype, model.ids_below(index)) {
            (DType::I64, Some(below)) => Ok((0..elements)
                .flat_map(|_| random.random_range(0..below).to_le_bytes())
                .collect::<Vec<u8>>()),
            (DType::F32, None) => {
                Ok((0..elements).flat_map(|_| random.random_range(-bound..bound).to_le_bytes()).collect())
            }
            (dtype, _) => {
                Err(anyhow!("input {index} is of {dtype}, which no architecture of the zoo brings"))
            }
        }
    });
    made.map(|bytes| bytes.map(Bytes::from)).collect()
}
