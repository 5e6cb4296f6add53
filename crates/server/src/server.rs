//! A running server: everything put together, in the order in which it comes up and goes down.
//!
//! ```text
//!   up:    settings ─▶ device ─▶ engine ─▶ registry ─▶ sockets          answers at once; ready when the repository is loaded
//!   down:  not ready ─▶ sockets drained ─▶ loading ends ─▶ engine drained ─▶ device
//! ```

use crate::classes::{Classes, Workshop};
use crate::engine::{EngineHandle, Inbox};
use crate::metrics::Metrics;
use crate::registry::{Means, Registry, Watch};
use crate::serve::{self, BindError, Listeners};
use crate::service::Service;
use crate::settings::{DeviceWord, Settings};
use std::future::Future;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tessera_core::Precision;
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};
use tessera_device::{Device, DeviceError, Room};
use tessera_planner::pack_cache::PackCache;
use tessera_scheduler::Config;
use tokio::runtime::Handle;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The repository is not there. One that vanishes later does no harm.
    #[error("the model repository {0} is not a folder; create it, or set `model_repository`")]
    NoRepository(PathBuf),
    /// More than one device.
    #[error("{0} devices were named, and this version serves from one; name one, `cpu:0-3` for some cores")]
    ManyDevices(usize),
    /// Threads.
    #[error("a thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// A server that answers.
#[derive(Debug)]
pub struct Server {
    listeners: Listeners,
    service: Arc<Service>,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    device: Arc<dyn Device>,
    settings: Settings,
    engine: (EngineHandle, JoinHandle<()>),
    watch: Watch,
}

impl Server {
    /// Opens the device, starts loading, binds the sockets. Needs a tokio runtime.
    pub async fn start(settings: Settings) -> Result<Server, StartError> {
        if !settings.model_repository.is_dir() {
            return Err(StartError::NoRepository(settings.model_repository));
        }
        let inbox = Inbox::default();
        let engine = inbox.handle();
        let device = open(&settings.devices, inbox.wake())?;
        let info = device.info();
        tracing::info!(device = info.name, what = info.description, policy = %settings.policy, "device opened");
        let metrics = Arc::new(Metrics::default());
        let partitions = device.partitions().iter().map(|partition| partition.id).collect();
        let config = Config {
            tenant_batching: settings.tenant_batching,
            max_lanes: settings.max_lanes,
            max_items: settings.max_items,
            queue_requests: settings.queue_requests,
            queue_bytes: settings.queue_bytes,
            max_wait: settings.max_wait,
            ..Config::new(settings.policy, partitions)
        };
        let thread = inbox.start(config, device.clone(), metrics.clone())?;
        let workshop = Workshop {
            device: device.clone(),
            engine: engine.clone(),
            room: Room { lanes: settings.max_lanes.get(), items: settings.max_items.get() },
            plans_per_class: settings.max_plans,
            runtime: Handle::current(),
        };
        let cache = settings.pack_cache.as_ref().and_then(|folder| {
            let opened = PackCache::open(folder, settings.pack_cache_budget);
            opened.inspect_err(|why| tracing::warn!(%why, "serving without a pack cache")).ok()
        });
        let means = Means {
            device: device.clone(),
            engine: engine.clone(),
            classes: Classes::new(workshop),
            cache,
            precision: Precision::Fp32,
            metrics: metrics.clone(),
        };
        let registry = Registry::new(settings.model_repository.clone(), means);
        let listeners = Listeners::bind(&settings).await?;
        let watch = registry.watch(settings.poll_interval, loaders(settings.loader_threads))?;
        let service = Arc::new(Service::new(registry.clone(), engine.clone()));
        Ok(Server {
            listeners,
            service,
            registry,
            metrics,
            device,
            settings,
            engine: (engine, thread),
            watch,
        })
    }

    /// Where the protocol is spoken.
    pub fn http_address(&self) -> SocketAddr {
        self.listeners.http_address
    }

    /// Where `/metrics` is.
    pub fn metrics_address(&self) -> SocketAddr {
        self.listeners.metrics_address
    }

    /// The lines that say where we are.
    pub fn announcement(&self) -> String {
        self.listeners.announcement()
    }

    /// What is behind the sockets.
    pub fn service(&self) -> Arc<Service> {
        self.service.clone()
    }

    /// Answers until `stop`, then drains. Returns how many connections had to be cut.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) -> usize {
        let Server { listeners, service, registry, metrics, device, settings, engine, watch } = self;
        let gauges = tokio::spawn(keep_gauges(device.clone(), metrics.clone()));
        let stopping = service.clone();
        let told = async move {
            stop.await;
            tracing::info!("stopping: answering what is in flight");
            stopping.begin_stopping();
        };
        let cut = serve::serve(listeners, service, metrics, &settings, told).await;
        gauges.abort();
        // Joining threads waits; the runtime's own threads must not.
        let joined = tokio::task::spawn_blocking(move || {
            watch.stop();
            let (handle, thread) = engine;
            handle.stop();
            let _ = thread.join();
            drop((registry, device));
        });
        let _ = joined.await;
        tracing::info!(cut, "stopped");
        cut
    }
}

fn loaders(threads: NonZeroU32) -> NonZeroUsize {
    NonZeroUsize::try_from(threads).unwrap_or(NonZeroUsize::MIN)
}

/// Figures that are read off rather than counted.
async fn keep_gauges(device: Arc<dyn Device>, metrics: Arc<Metrics>) {
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    let name = device.info().name;
    loop {
        tick.tick().await;
        let memory = device.memory();
        metrics.device_memory(&name, "weights", memory.weights);
        metrics.device_memory(&name, "weights_free", memory.weights_free);
        metrics.device_memory(&name, "arenas", memory.arenas);
    }
}

/// Opens the device that the settings name.
fn open(devices: &[DeviceWord], wake: tessera_device::Wake) -> Result<Arc<dyn Device>, StartError> {
    let cores = match devices {
        [] | [DeviceWord::Auto] => Cores::All,
        [DeviceWord::Cpu(cores)] if cores.is_empty() => Cores::All,
        [DeviceWord::Cpu(cores)] => Cores::These(cores.iter().map(|&core| core as usize).collect()),
        many => return Err(StartError::ManyDevices(many.len())),
    };
    let options = CpuOptions { cores, partitions: NonZeroUsize::MIN, memory_limit: None };
    Ok(Arc::new(CpuDevice::open(&options, wake)?))
}
