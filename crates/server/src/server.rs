//! A running server: everything put together, in the order in which it comes up and goes down.
//!
//! ```text
//!   up:    settings ─▶ devices ─▶ engines ─▶ registry ─▶ sockets          answers at once; ready when the repository is loaded
//!   down:  not ready ─▶ sockets drained ─▶ loading ends ─▶ engines drained ─▶ devices
//! ```

use crate::backstage::Backstage;
use crate::devices::{self, Open};
use crate::engine::Running;
use crate::events::Events;
use crate::fleet::Fleet;
use crate::metrics::Metrics;
use crate::registry::{Registry, Watch};
use crate::serve::{self, BindError, Listeners};
use crate::service::{Queue, Service};
use crate::settings::Settings;
use crate::spare::Spare;
use std::future::Future;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tessera_device::DeviceError;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A card that was named cannot be used, where another device could.
    #[error("{0}; name `cpu`, or `auto` for a card where one can be used")]
    NoCard(DeviceError),
    /// A port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The repository is not there. One that vanishes later does no harm.
    #[error("the model repository {0} is not a folder; create it, or set `model_repository`")]
    NoRepository(PathBuf),
    /// It is there, and closed to us.
    #[error(
        "the model repository {folder} cannot be read: {why}; allow this user to read it, or set `model_repository`"
    )]
    ClosedRepository {
        /// The folder.
        folder: PathBuf,
        /// The system's words.
        why: std::io::Error,
    },
    /// Two devices that are, or may be, one.
    #[error("{0}")]
    Overlap(String),
    /// More than one device where one is wanted.
    #[error("{0} devices were named, and this runs on one; name one, `cpu:0-3` for some cores")]
    ManyDevices(usize),
    /// Every tenant is to be on more devices than there are.
    #[error(
        "`replicas` is {asked}, and the devices that are named are {devices}; name more with `device`, or set `replicas` to `all`"
    )]
    FewDevices {
        /// What was asked for.
        asked: NonZeroU32,
        /// How many devices were named.
        devices: usize,
    },
    /// Threads.
    #[error("a thread cannot be started: {0}; raise `ulimit -u`, or how many threads its container may have")]
    Thread(#[from] std::io::Error),
}

/// A server that answers.
#[derive(Debug)]
pub struct Server {
    listeners: Listeners,
    service: Arc<Service>,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    fleet: Arc<Fleet>,
    settings: Settings,
    engines: Vec<Running>,
    watch: Watch,
}

impl Server {
    /// Opens the devices, starts loading, binds the sockets. Needs a tokio runtime.
    pub async fn start(settings: Settings) -> Result<Server, StartError> {
        let opened = settings.clone();
        Server::start_on(settings, devices::all(&opened)?).await
    }

    /// As [`Server::start`], on devices of the caller's own. Where it errors, the engines that were started end by themselves.
    pub async fn start_on(settings: Settings, devices: Vec<Open<'_>>) -> Result<Server, StartError> {
        if !settings.model_repository.is_dir() {
            return Err(StartError::NoRepository(settings.model_repository));
        }
        if let Err(why) = std::fs::read_dir(&settings.model_repository) {
            return Err(StartError::ClosedRepository { folder: settings.model_repository, why });
        }
        if let Some(asked) = settings.replicas.beyond(devices.len()) {
            return Err(StartError::FewDevices { asked, devices: devices.len() });
        }
        let folder = |cache: &Option<PathBuf>| match cache {
            Some(folder) => folder.display().to_string(),
            None => "nowhere".to_owned(),
        };
        let (packed, kernels) = (folder(&settings.pack_cache), folder(&settings.kernel_cache));
        tracing::info!(packed_weights = packed, kernels, "folders of the caches");
        let metrics = Arc::new(Metrics::default());
        let events = Arc::new(Events::new(metrics.clone()));
        let (mut means, mut engines) = (Vec::new(), Vec::new());
        for open in devices {
            let (of_device, engine) = Backstage::beside(&settings, events.clone(), open)?.into_parts();
            means.push(of_device);
            engines.push(engine);
        }
        let fleet = Arc::new(Fleet::new(means, Spare::beside(&settings, events.clone())));
        let registry = Registry::new(&settings, fleet.clone());
        let listeners = Listeners::bind(&settings).await?;
        let watch = registry.watch(settings.poll_interval, loaders(settings.loader_threads))?;
        let service = Arc::new(Service::new(
            registry.clone(),
            Queue { requests: settings.queue_requests, bytes: settings.queue_bytes },
        ));
        Ok(Server { listeners, service, registry, metrics, fleet, settings, engines, watch })
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

    /// Answers until `stop` or until the last device is lost, then drains. `hurry` ends that before `shutdown_grace_s` does: it is waited for once it drains.
    pub async fn run(
        self,
        stop: impl Future<Output = ()> + Send,
        hurry: impl Future<Output = ()> + Send,
    ) -> Ended {
        let Server { listeners, service, registry, metrics, fleet, settings, engines, watch } = self;
        let gauges = tokio::spawn(keep_gauges(registry.clone(), metrics.clone()));
        let stopping = service.clone();
        let running = fleet.clone();
        let told = async move {
            tokio::select! {
                () = stop => tracing::info!("stopping: answering what is in flight; a second signal cuts it off"),
                () = gone(&running) => tracing::error!("stopping: nothing can be answered any more"),
            }
            stopping.begin_stopping();
        };
        let cut = serve::serve(listeners, service, metrics, &settings, told, hurry).await;
        gauges.abort();
        // Joining threads waits; the runtime's own threads must not.
        let joined = tokio::task::spawn_blocking(move || {
            watch.stop();
            // All of them are told before any is waited for.
            fleet.stations().iter().for_each(|station| station.means.engine.stop());
            engines.into_iter().for_each(Running::stop);
            fleet.spare().stop();
            // While one device answered, nobody went without.
            let lost: Option<Vec<String>> =
                fleet.stations().iter().map(|station| station.means.device.failure()).collect();
            let lost = lost.and_then(|mut reasons| reasons.pop());
            drop((registry, fleet));
            lost
        });
        let lost =
            joined.await.unwrap_or_else(|panic| Some(format!("the engine could not be stopped: {panic}")));
        tracing::info!(cut, "stopped");
        Ended { cut, lost }
    }
}

/// How a server ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Connections that had to be cut because they took longer than `shutdown_grace_s`.
    pub cut: usize,
    /// Why the last device was lost, if it was: then requests went unanswered, and a supervisor should start the server anew.
    pub lost: Option<String>,
}

/// Completes when every engine has ended by itself.
async fn gone(fleet: &Fleet) {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    while fleet.running() > 0 {
        tick.tick().await;
    }
}

fn loaders(threads: NonZeroU32) -> NonZeroUsize {
    NonZeroUsize::try_from(threads).unwrap_or(NonZeroUsize::MIN)
}

/// Figures that are read off rather than counted, and news that is told when nothing else happens.
async fn keep_gauges(registry: Arc<Registry>, metrics: Arc<Metrics>) {
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    loop {
        tick.tick().await;
        registry.door().tell();
        for station in registry.fleet().open() {
            let (name, memory) = (&station.name, station.means.device.memory());
            metrics.device_up(name, station.runs());
            metrics.device_memory(name, "weights", memory.weights);
            metrics.device_memory(name, "weights_free", memory.weights_free);
            metrics.device_memory(name, "arenas", memory.arenas);
            metrics.device_memory(name, "pinned", memory.pinned);
        }
    }
}
