//! Tenants loaded, their inputs at hand, an engine that answers.

use super::steps::{self, Peak, StepReport};
use super::{Open, Options};
use crate::load::inputs;
use crate::zoo::tenant_seed;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tessera_core::{LaunchId, Policy, RequestId, TenantId};
use tessera_device::{DeviceError, DeviceInfo, Lane, LaneRequest, Launch, MemoryUse, Room, Slot, StepTiming};
use tessera_planner::class;
use tessera_server::Settings;
use tessera_server::backstage::Backstage;
use tessera_server::classes::{ClassEntry, Planned};
use tessera_server::engine::{EngineHandle, Incoming, NotAnswered, Wait};
use tessera_server::runtime;
use tokio::runtime::{Builder, Runtime};

/// Launches of which each step's median is taken.
const PROFILE_ROUNDS: NonZeroUsize = NonZeroUsize::new(50).expect("50 is not zero");

/// How long a device may take to give back what nobody holds any more.
const UNLOADING: Duration = Duration::from_secs(5);

/// One request, to be sent as often as one likes.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) tenant: TenantId,
    /// The tenant's place among the bench's, which decides its weights. Ids come as loading ends.
    pub(super) number: usize,
    pub(super) inputs: Vec<Bytes>,
}

/// What a bench runs on.
#[derive(Debug)]
pub(super) struct Stage {
    /// One worker: a single thread asks and hears, beside the engine's own.
    pub(super) runtime: Runtime,
    backstage: Backstage,
    pub(super) desk: Arc<Desk>,
    /// Per tenant, one for each of its requests on their way.
    pub(super) requests: Vec<Vec<Request>>,
    pub(super) device: DeviceInfo,
    pub(super) plan: Arc<Planned>,
    /// Every tenant's weights.
    slots: Vec<Slot>,
    /// While it lives its plans do.
    class: Arc<ClassEntry>,
    pub(super) loading: Duration,
}

/// Where requests are handed in.
#[derive(Debug)]
pub(super) struct Desk {
    engine: EngineHandle,
    plan: Arc<Planned>,
    items: NonZeroU32,
    requests: AtomicU64,
}

impl Desk {
    /// Items that each request brings.
    pub(super) fn items(&self) -> u64 {
        self.items.get().into()
    }

    /// Hands a request in and waits for its answer.
    pub(super) async fn ask(&self, request: &Request) -> Result<Vec<Bytes>, NotAnswered> {
        let number = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
        let (reply, wait) = Wait::on(&self.engine, number);
        let offered = self.engine.offer(Incoming {
            request: number,
            tenant: request.tenant,
            plan: self.plan.key.clone(),
            items: self.items,
            batchable: true,
            inputs: request.inputs.clone(),
            arrived: Instant::now(),
            timeout: None,
            reply,
        });
        // As the server does: tenants that are answered together ask together.
        offered.with_neighbours().await;
        wait.answer().await
    }
}

impl Stage {
    pub(super) fn set(
        options: &Options,
        settings: &Settings,
        open: Open<'_>,
        heard: &mut dyn FnMut(&str),
    ) -> Result<Stage> {
        let runtime = runtime::build(1, Builder::new_multi_thread().thread_name("asker"))?;
        let inside = runtime.enter();
        let backstage = Backstage::start(settings, |wake| open(settings, wake))?;
        let device = backstage.means.device.info();
        heard(&format!(
            "loading {} tenants of {} on {} ({})",
            options.tenants, options.model.architecture.name, device.name, device.description
        ));
        let started = Instant::now();
        let loaded = load_all(options, &backstage, &runtime)?;
        let class = loaded.first().context("there is at least one tenant")?.1.clone();
        let (tenants, slots): (Vec<TenantId>, Vec<Slot>) =
            loaded.into_iter().map(|(tenant, _, slot)| (tenant, slot)).unzip();
        drop(inside);
        let bound = class
            .class
            .bind_without_free_dims()
            .context("the zoo's models have no free dimension but the batch")?;
        let plan = runtime.block_on(class.planned(&bound))?;
        if !plan.plan.batched {
            bail!(
                "items of {} are not independent, so its tenants cannot share launches",
                options.model.architecture.name
            );
        }
        if let Some(tuned) = &plan.tuned {
            heard(&tuned.to_string());
            tuned.remarks.iter().for_each(|remark| heard(remark));
        }
        let items = NonZeroU32::new(options.items).context("a request has an item")?;
        let mut random = StdRng::seed_from_u64(options.seed);
        let mut requests = Vec::with_capacity(tenants.len());
        for (number, tenant) in tenants.into_iter().enumerate() {
            // As an asker in the process would have them that asks again: the clock is for launches, as it is with peers whose inputs lie on the card.
            let adopted = |inputs| backstage.means.engine.adopt(inputs);
            let mut inputs = || inputs(&options.model, &plan.plan.inputs, items, &mut random).map(adopted);
            let of_tenant = (0..options.in_flight)
                .map(|_| Ok(Request { tenant, number, inputs: inputs()? }))
                .collect::<Result<_>>()?;
            requests.push(of_tenant);
        }
        let desk = Desk {
            engine: backstage.means.engine.clone(),
            plan: plan.clone(),
            items,
            requests: AtomicU64::new(0),
        };
        let loading = started.elapsed();
        Ok(Stage { runtime, backstage, desk: Arc::new(desk), requests, device, plan, slots, class, loading })
    }

    /// Loads one tenant more, with weights of its own, and takes it away again.
    pub(super) fn load_another(&self, options: &Options, number: usize) -> Result<()> {
        let (tenant, ..) = load(options, &self.backstage, number)?;
        self.backstage.means.engine.tenant_removed(tenant);
        Ok(())
    }

    /// What is held on the device.
    pub(super) fn memory(&self) -> MemoryUse {
        self.backstage.means.device.memory()
    }

    /// Takes every tenant and plan away. What is left on the device then, when nothing is in flight any more.
    pub(super) fn unload_all(self) -> Result<MemoryUse> {
        let Stage { runtime, backstage, desk, plan, slots, class, requests, .. } = self;
        for requests in &requests {
            backstage.means.engine.tenant_removed(requests[0].tenant);
        }
        drop((desk, plan, slots, class, requests));
        let device = backstage.means.device.clone();
        // Programs are given back by threads of their own, soon.
        let given_up = Instant::now() + UNLOADING;
        while device.memory() != MemoryUse::default() && Instant::now() < given_up {
            std::thread::sleep(Duration::from_millis(10));
        }
        let left = device.memory();
        backstage.stop();
        drop(runtime);
        Ok(left)
    }

    /// From the next decision on, this policy. Requests of one tenant share its lane under `exclusive` only.
    pub(super) fn play(&self, policy: Policy) {
        self.backstage.means.engine.set_policy(policy, policy == Policy::Exclusive);
    }

    /// The requests that are always on their way under a policy: each tenant's, or as many of one tenant.
    pub(super) fn cast(&self, policy: Policy) -> Vec<Request> {
        self.cast_of(policy, self.requests.len(), usize::MAX)
    }

    /// The same of the first `tenants`, with at most `in_flight` requests each.
    pub(super) fn cast_of(&self, policy: Policy, tenants: usize, in_flight: usize) -> Vec<Request> {
        let who = |tenant: usize| if policy == Policy::Exclusive { 0 } else { tenant };
        let of = |tenant: usize| self.requests[who(tenant)].iter().take(in_flight).cloned();
        (0..tenants.min(self.requests.len())).flat_map(of).collect()
    }

    /// What each step of a launch of all tenants takes, alone on the device. The inner error is the device's that does not measure steps.
    pub(super) fn steps(&self) -> Result<Result<Vec<StepReport>, DeviceError>> {
        let device = &self.backstage.means.device;
        let partition = device.partitions()[0].id;
        let (tenants, per_request) = (self.slots.len(), self.desk.items.get());
        let (tenants, items) = (tenants as u32, tenants as u32 * per_request);
        let room = Room { lanes: tenants, items };
        let program = device.compile(&self.plan.plan, &self.class.layout, room, partition)?;
        let lane = |(slot, requests): (&Slot, &Vec<Request>)| {
            let inputs = requests[0].inputs.clone();
            Lane { slot: slot.clone(), requests: vec![LaneRequest { items: per_request, inputs }] }
        };
        let lanes = self.slots.iter().zip(&self.requests).map(lane).collect();
        let launch = Launch { id: LaunchId(u64::MAX), program, lanes, urgent: false };
        let times = device.profile(&launch, PROFILE_ROUNDS);
        device.discard(program);
        let known = || Peak::of(&self.device.description, self.plan.plan.key.precision);
        let peak = device.rates().map(Peak::measured).or_else(known);
        let report = |times: Vec<_>| {
            steps::report(&self.plan.plan, &self.class.layout, (tenants, items), &times, peak)
        };
        Ok(times.map(report))
    }

    /// From now on launches are watched so closely.
    pub(super) fn watch(&self, timing: StepTiming) {
        self.backstage.means.engine.watch(timing);
    }

    /// What the engine has counted so far.
    pub(super) fn counted(&self) -> String {
        self.backstage.means.metrics.encode()
    }

    /// Ends it: what is in flight is answered first.
    pub(super) fn clear(self) {
        let Stage { runtime, backstage, desk, plan, slots, class, .. } = self;
        drop((desk, plan, slots, class));
        backstage.stop();
        drop(runtime);
    }
}

type Loaded = (TenantId, Arc<ClassEntry>, Slot);

/// Loads every tenant, by as many threads as there are cores.
fn load_all(options: &Options, backstage: &Backstage, runtime: &Runtime) -> Result<Vec<Loaded>> {
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(options.tenants);
    let work = || {
        let _inside = runtime.enter();
        let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        let mine = numbers.take_while(|&number| number < options.tenants);
        mine.map(|number| load(options, backstage, number).map(|loaded| (number, loaded))).collect()
    };
    let done: Vec<Result<Vec<(usize, Loaded)>>> = thread::scope(|scope| {
        let threads: Vec<_> =
            (1..threads).filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
        let own = work();
        let others = threads.into_iter().map(|thread| thread.join().expect("loading does not panic"));
        std::iter::once(own).chain(others).collect()
    });
    let mut loaded = done.into_iter().collect::<Result<Vec<_>>>()?.concat();
    loaded.sort_by_key(|(number, _)| *number);
    Ok(loaded.into_iter().map(|(_, loaded)| loaded).collect())
}

fn load(options: &Options, backstage: &Backstage, number: usize) -> Result<Loaded> {
    let model = class::load_bytes(options.model.bytes(tenant_seed(options.seed, number)), None)?;
    let loaded = backstage.add_tenant(&model, options.precision, None);
    loaded.with_context(|| format!("tenant {number} cannot be loaded"))
}
