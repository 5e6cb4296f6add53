//! The server's engine in this process, without HTTP: zoo models, tenants with weights and SLOs of their own.

use super::{Ended, Target};
use crate::zoo::{self, tenant_seed};
use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tessera_core::{DType, Policy, RequestId, TenantId};
use tessera_device::Slot;
use tessera_planner::class;
use tessera_planner::plan::Port;
use tessera_server::Settings;
use tessera_server::backstage::Backstage;
use tessera_server::classes::{ClassEntry, Planned};
use tessera_server::engine::{EngineHandle, Incoming, NotAnswered};
use tessera_server::settings::Sources;
use tessera_server::{devices, engine};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

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

/// An engine, and what each tenant is asked.
#[derive(Debug)]
pub struct InProcess {
    engine: EngineHandle,
    items: NonZeroU32,
    requests: AtomicU64,
    guests: Vec<Loaded>,
}

/// One tenant, in its place.
#[derive(Debug)]
struct Loaded {
    tenant: TenantId,
    plan: Arc<Planned>,
    inputs: Vec<Vec<Bytes>>,
}

/// What must live as long as tenants are asked.
#[derive(Debug)]
pub struct House {
    backstage: Backstage,
    /// Every tenant's weights and class.
    kept: Vec<(Slot, Arc<ClassEntry>)>,
}

impl InProcess {
    /// Loads everybody on the device that the settings name. Blocks; `heard` is told what goes on.
    pub fn open(
        runtime: &Runtime,
        settings: &Settings,
        guests: &[Guest],
        (items, seed): (NonZeroU32, u64),
        heard: &mut dyn FnMut(&str),
    ) -> Result<(Arc<InProcess>, House)> {
        let inside = runtime.enter();
        let backstage = Backstage::start(settings, |wake| devices::open(settings, wake))?;
        let info = backstage.means.device.info();
        heard(&format!("loading {} tenants on {} ({})", guests.len(), info.name, info.description));
        let mut random = StdRng::seed_from_u64(seed);
        let (mut loaded, mut kept) = (Vec::with_capacity(guests.len()), Vec::with_capacity(guests.len()));
        for (number, Guest { model, slo }) in guests.iter().enumerate() {
            let name = model.architecture.name;
            let file = class::load_bytes(model.bytes(tenant_seed(seed, number)), None)?;
            let (tenant, class, slot) = backstage
                .add_tenant(&file, backstage.means.precision, *slo)
                .with_context(|| format!("tenant {number}, {name}, cannot be loaded"))?;
            let bound = class.class.bind_without_free_dims();
            let bound = bound.with_context(|| format!("{name} has free dimensions beside the batch"))?;
            let plan = runtime.block_on(class.planned(&bound))?;
            let made = (0..VARIANTS).map(|_| inputs(model, &plan.plan.inputs, items, &mut random));
            loaded.push(Loaded { tenant, inputs: made.collect::<Result<_>>()?, plan });
            kept.push((slot, class));
        }
        drop(inside);
        let engine = backstage.means.engine.clone();
        let target = InProcess { engine, items, requests: AtomicU64::new(0), guests: loaded };
        Ok((Arc::new(target), House { backstage, kept }))
    }

    /// From the next decision on, this policy.
    pub fn play(&self, policy: Policy) {
        self.engine.set_policy(policy, true);
    }
}

impl House {
    /// What the device is, in words.
    pub fn device(&self) -> String {
        let info = self.backstage.means.device.info();
        format!("{} ({})", info.name, info.description)
    }

    /// Ends the engine: what it was given is answered first.
    pub fn close(self, target: Arc<InProcess>) {
        drop((self.kept, target));
        self.backstage.stop();
    }
}

/// A request that nobody waits for any more is called off.
struct Wait<'a> {
    engine: &'a EngineHandle,
    request: RequestId,
    over: bool,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.engine.cancel(self.request);
        }
    }
}

impl Target for InProcess {
    async fn ask(&self, tenant: usize, number: u64) -> Ended {
        let guest = &self.guests[tenant];
        let request = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        let offered = self.engine.offer(Incoming {
            request,
            tenant: guest.tenant,
            plan: guest.plan.key.clone(),
            items: self.items,
            batchable: guest.plan.plan.batched,
            inputs: guest.inputs[number as usize % guest.inputs.len()].clone(),
            arrived: Instant::now(),
            timeout: None,
            reply,
        });
        let mut wait = Wait { engine: &self.engine, request, over: false };
        offered.with_neighbours().await;
        let answer = answer.await;
        wait.over = true;
        answer.map_or_else(|_| Ended::Failed("the engine has stopped".to_owned()), ended)
    }
}

fn ended(answer: engine::Answer) -> Ended {
    match answer {
        Ok(_) => Ended::Answered,
        Err(NotAnswered::Refused(_)) => Ended::Refused,
        Err(NotAnswered::Expired) => Ended::Expired,
        Err(why) => Ended::Failed(why.to_string()),
    }
}

/// The server's settings for an engine without a repository: defaults but for these, and nothing cached.
pub(crate) fn settings(values: impl IntoIterator<Item = (&'static str, String)>) -> Result<Settings> {
    // Nothing is read from the repository; the setting has no default.
    let always = [("model_repository", ".".to_owned()), ("pack_cache", "off".to_owned())];
    let mut sources = Sources::new();
    for (key, value) in always.into_iter().chain(values) {
        sources.flag(key, [value]);
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
