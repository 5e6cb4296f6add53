//! Who is served: the repository watched, tenants loaded beside the traffic, swapped in and out whole.
//!
//! ```text
//!   folder ─read─▶ Catalog ─compare─▶ jobs ─▶ loader threads ─▶ Served ─▶ lookup table ─▶ requests
//!                     ▲ every poll             import, pack, upload        (read lock, no waiting)
//! ```
//! One manager thread decides what to load and is the only writer of the table. A version that changes on disk is loaded
//! anew under a new [`TenantId`] while the old one serves; if that fails the old one stays. A version that is gone from the
//! folder is unloaded, and what it has in flight is answered. A folder that cannot be read changes nothing.

use crate::catalog::{self, Catalog, Listing, Source, TenantFile};
use crate::classes::{ClassEntry, Classes};
use crate::engine::{EngineHandle, Home};
use crate::fleet::{Fleet, Place, Settled};
use crate::frontend::ModelInfo;
use crate::loader::{self, LoadError, Loaded};
use crate::metrics::Metrics;
use crate::placement::Replicas;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tessera_core::{OwnerId, Precision, TenantId};
use tessera_device::Device;
use tessera_planner::class::{Class, Model};
use tessera_planner::pack_cache::PackCache;
use tessera_scheduler::Terms;

/// One version of a tenant that answers requests.
#[derive(Debug)]
pub struct Served {
    /// Its number below the server.
    pub tenant: TenantId,
    /// Names and shapes for metadata and for checking requests.
    pub info: Arc<ModelInfo>,
    /// Its architecture.
    pub class: Arc<Class>,
    /// Where its weights are; never empty.
    pub residences: Vec<Arc<Residence>>,
    /// On how many devices it is to be.
    replicas: Replicas,
    /// What its answers are due in, unless a request says otherwise.
    pub slo: Option<Duration>,
    /// The model, for tenants that bring weights only; holds no weights.
    model: Arc<Model>,
}

/// A tenant on one device.
#[derive(Debug)]
pub struct Residence {
    /// An index into [`Fleet::stations`].
    station: usize,
    /// The way to the device.
    pub engine: EngineHandle,
    /// The plans of its architecture there.
    pub class: Arc<ClassEntry>,
    _place: Place,
}

impl Served {
    /// The same, on fewer devices.
    fn on(&self, residences: Vec<Arc<Residence>>) -> Served {
        let Served { tenant, slo, replicas, .. } = *self;
        let (info, class, model) = (self.info.clone(), self.class.clone(), self.model.clone());
        Served { tenant, info, class, residences, replicas, slo, model }
    }

    /// Has every device forget it; what waits is told so.
    fn remove(&self) {
        self.residences.iter().for_each(|residence| residence.engine.tenant_removed(self.tenant));
    }
}

/// Where a version stands.
#[derive(Clone, Debug)]
enum Version {
    /// On its way, for the first time.
    Loading,
    /// Answers. While a newer file loads, the older one stays here.
    Ready(Arc<Served>),
    /// Could not be loaded; tried again when its files change.
    Failed(String),
}

/// What a look-up found.
#[derive(Clone, Debug)]
pub enum Found {
    /// It answers.
    Ready(Arc<Served>),
    /// It will.
    Loading,
    /// It will not, until its files change.
    Failed(String),
    /// There is no such tenant, or no such version of it.
    Unknown,
}

/// The table that requests are looked up in.
#[derive(Debug, Default)]
struct Table {
    tenants: HashMap<String, BTreeMap<u64, Version>>,
    /// Tenants of the folder that have no version to show for it.
    problems: BTreeMap<String, String>,
}

/// What loading onto one device needs.
#[derive(Debug)]
pub struct Means {
    /// Where weights go.
    pub device: Arc<dyn Device>,
    /// Who is told of tenants.
    pub engine: EngineHandle,
    /// Classes in use.
    pub classes: Classes,
    /// Packed weights of earlier runs.
    pub cache: Option<PackCache>,
    /// The precision of tenants that name none.
    pub precision: Precision,
    /// Counts loads and failures.
    pub metrics: Arc<Metrics>,
}

/// Who is served.
#[derive(Debug)]
pub struct Registry {
    table: RwLock<Table>,
    fleet: Arc<Fleet>,
    /// On how many devices tenants are that do not say.
    replicas: Replicas,
    folder: PathBuf,
    settled: std::sync::atomic::AtomicBool,
    tenants_ever: AtomicU64,
    owners: Mutex<HashMap<String, OwnerId>>,
}

/// Keeps the manager going; dropping it, or [`Watch::stop`], ends it.
#[derive(Debug)]
pub struct Watch {
    events: Sender<Event>,
    manager: Option<JoinHandle<()>>,
}

impl Watch {
    /// Ends the manager and its loaders. A load in progress is finished and thrown away.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.events.send(Event::Stop);
        if let Some(manager) = self.manager.take() {
            let _ = manager.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

#[derive(Debug)]
enum Event {
    Loaded(Box<(Job, Result<Loaded, LoadError>)>),
    Stop,
}

/// One version to load.
#[derive(Clone, Debug)]
struct Job {
    name: String,
    version: u64,
    source: Source,
    terms: TenantFile,
    base: Option<Arc<Model>>,
}

impl Registry {
    /// A registry of nobody yet.
    pub fn new(folder: PathBuf, fleet: Arc<Fleet>, replicas: Replicas) -> Arc<Registry> {
        Arc::new(Registry {
            table: RwLock::default(),
            fleet,
            replicas,
            folder,
            settled: false.into(),
            tenants_ever: AtomicU64::new(0),
            owners: Mutex::default(),
        })
    }

    /// Starts watching the folder: it is read now, and then every `poll`.
    pub fn watch(self: &Arc<Self>, poll: Duration, loaders: NonZeroUsize) -> std::io::Result<Watch> {
        let (events, inbox) = channel();
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..loaders.get() {
            let (registry, queue, events) = (self.clone(), queue.clone(), events.clone());
            std::thread::Builder::new().name(format!("loader-{number}")).spawn(move || {
                loop {
                    // The lock is held while waiting: loaders take turns to wait, which is all they do with it.
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    let loaded = caught(|| registry.load(&job));
                    if events.send(Event::Loaded(Box::new((job, loaded)))).is_err() {
                        return;
                    }
                }
            })?;
        }
        let registry = self.clone();
        let manager = std::thread::Builder::new().name("registry".to_owned()).spawn(move || {
            Manager {
                registry,
                jobs,
                inbox,
                poll,
                catalog: Catalog::default(),
                loading: HashMap::new(),
                tried: HashMap::new(),
                again: HashMap::new(),
                lost: HashSet::new(),
            }
            .run();
        })?;
        Ok(Watch { events, manager: Some(manager) })
    }

    /// The devices.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The version of a tenant that a request means: the one it names, else the greatest that answers.
    pub fn find(&self, name: &str, version: Option<u64>) -> Found {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let Some(versions) = table.tenants.get(name) else {
            return table.problems.get(name).map_or(Found::Unknown, |why| Found::Failed(why.clone()));
        };
        let ready = || versions.values().rev().find(|version| matches!(version, Version::Ready(_)));
        let found = match version {
            Some(version) => versions.get(&version),
            None => ready().or_else(|| versions.values().next_back()),
        };
        match found {
            Some(Version::Ready(served)) => Found::Ready(served.clone()),
            Some(Version::Loading) => Found::Loading,
            Some(Version::Failed(why)) => Found::Failed(why.clone()),
            None => Found::Unknown,
        }
    }

    /// The versions of a tenant that answer, smallest first.
    pub fn ready_versions(&self, name: &str) -> Vec<u64> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let versions = table.tenants.get(name).into_iter().flatten();
        versions
            .filter(|(_, version)| matches!(version, Version::Ready(_)))
            .map(|(number, _)| *number)
            .collect()
    }

    /// Whether everything that was in the folder at the start is loaded or has failed for good.
    pub fn settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// How many versions answer, are loading and have failed.
    pub fn counts(&self) -> (usize, usize, usize) {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let mut counts = (0, 0, table.problems.len());
        for version in table.tenants.values().flat_map(BTreeMap::values) {
            match version {
                Version::Ready(_) => counts.0 += 1,
                Version::Loading => counts.1 += 1,
                Version::Failed(_) => counts.2 += 1,
            }
        }
        counts
    }

    fn load(&self, job: &Job) -> Result<Loaded, LoadError> {
        let started = Instant::now();
        let precision = job.terms.precision.as_deref().and_then(|word| word.parse().ok());
        let loaded = loader::import(&job.source.path, job.base.as_deref()).and_then(|model| {
            let settled = self.fleet.settle(&model, precision, self.replicas_of(&job.terms))?;
            Ok(Loaded { model: model.without_weights(), settled })
        });
        match &loaded {
            Ok(loaded) => {
                let at = |settled: &Settled| self.fleet.stations()[settled.station].name.as_str();
                let devices = loaded.settled.iter().map(at).collect::<Vec<_>>().join(" ");
                tracing::info!(tenant = job.name, version = job.version, class = %loaded.model.class.id, devices,
                took_ms = started.elapsed().as_millis() as u64, "loaded");
            }
            Err(error) => {
                tracing::warn!(tenant = job.name, version = job.version, error = %error, "cannot be loaded");
                self.fleet.metrics().load_failed();
            }
        }
        loaded
    }

    fn replicas_of(&self, file: &TenantFile) -> Replicas {
        file.replicas.unwrap_or(self.replicas)
    }

    fn terms(&self, name: &str, file: &TenantFile) -> Terms {
        let owner = file.owner.as_deref().unwrap_or(name);
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let next = OwnerId(owners.len() as u64);
        let owner = *owners.entry(owner.to_owned()).or_insert(next);
        Terms { owner, share: file.share.unwrap_or(1.0), slo: file.slo() }
    }
}

/// A load that panics is a fault of ours, and its tenant's affair alone: the loader goes on, and readiness does not wait for
/// ever.
fn caught<T>(load: impl FnOnce() -> Result<T, LoadError>) -> Result<T, LoadError> {
    // What it left half done is its own, but for locks, and those are taken poisoned or not.
    catch_unwind(AssertUnwindSafe(load)).unwrap_or(Err(LoadError::Panicked))
}

/// The only writer of the table.
struct Manager {
    registry: Arc<Registry>,
    jobs: Sender<Job>,
    inbox: Receiver<Event>,
    poll: Duration,
    catalog: Catalog,
    /// What the loaders have now.
    loading: HashMap<(String, u64), Source>,
    /// What each version was made from, loaded or failed, so that it is tried again only when that changes.
    tried: HashMap<(String, u64), (Source, TenantFile)>,
    /// When versions that failed are tried again although their own file is the same: what a model points to may arrive after it. The
    /// wait doubles each time.
    again: HashMap<(String, u64), (Instant, Duration)>,
    /// Devices that were found lost.
    lost: HashSet<usize>,
}

/// How often the manager looks whether a device was lost.
const LOOK: Duration = Duration::from_millis(50);

/// First and longest wait before a failed version is tried again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Manager {
    fn run(mut self) {
        let mut next_read = Instant::now();
        loop {
            if Instant::now() >= next_read {
                self.read();
                next_read = Instant::now() + self.poll;
            }
            self.leave_lost_devices();
            self.order();
            if self.loading.is_empty() && !self.registry.settled.swap(true, Ordering::AcqRel) {
                let (ready, _, failed) = self.registry.counts();
                tracing::info!(
                    ready,
                    failed,
                    classes = self.registry.fleet.classes(),
                    "the repository is loaded"
                );
            }
            let mut wait = next_read.saturating_duration_since(Instant::now());
            if self.registry.fleet.stations().len() > 1 {
                wait = wait.min(LOOK);
            }
            match self.inbox.recv_timeout(wait) {
                Ok(Event::Loaded(done)) => self.loaded(&done.0, done.1),
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn read(&mut self) {
        match catalog::read(&self.registry.folder) {
            Ok(catalog) => {
                for (name, why) in &catalog.problems {
                    if self.catalog.problems.get(name) != Some(why) {
                        tracing::warn!(tenant = name, why, "cannot be served");
                    }
                }
                self.catalog = catalog;
                self.remove_what_is_gone();
            }
            Err(error) => {
                let folder = self.registry.folder.display();
                tracing::warn!(%folder, %error, "the repository cannot be read; serving what is loaded");
            }
        }
    }

    fn remove_what_is_gone(&mut self) {
        let registry = self.registry.clone();
        let mut table = registry.table.write().unwrap_or_else(PoisonError::into_inner);
        // A tenant whose entry became a problem (a typo in its tenant.toml) keeps serving what it served.
        let wanted = |name: &str, version: u64| {
            self.catalog.problems.contains_key(name)
                || self
                    .catalog
                    .tenants
                    .get(name)
                    .is_some_and(|listing| listing.versions.contains_key(&version))
        };
        table.tenants.retain(|name, versions| {
            versions.retain(|&number, version| {
                let keep = wanted(name, number);
                if !keep && let Version::Ready(served) = version {
                    tracing::info!(tenant = name, version = number, "unloaded");
                    served.remove();
                }
                keep
            });
            if versions.is_empty() {
                registry.fleet.metrics().tenant_unloaded(name);
            }
            !versions.is_empty()
        });
        let without = |(name, _): &(&String, &String)| !table.tenants.contains_key(*name);
        let problems = self.catalog.problems.iter().filter(without);
        table.problems = problems.map(|(name, why)| (name.clone(), why.clone())).collect();
        self.tried.retain(|(name, version), _| wanted(name, *version));
        self.again.retain(|(name, version), _| wanted(name, *version));
    }

    /// Takes tenants off devices that were lost, and has those loaded again that are now on too few. A version that is on none is loading until
    /// then. With the only device everything is lost, and the server ends.
    fn leave_lost_devices(&mut self) {
        let registry = self.registry.clone();
        let stations = registry.fleet.stations();
        let runs: Vec<bool> = stations.iter().map(|station| station.runs()).collect();
        let running = runs.iter().filter(|&&runs| runs).count();
        if running == 0 || running == stations.len() {
            return;
        }
        let mut moving = 0;
        let mut table = registry.table.write().unwrap_or_else(PoisonError::into_inner);
        for (name, versions) in &mut table.tenants {
            for (&number, version) in versions {
                let Version::Ready(served) = version else { continue };
                let left: Vec<_> =
                    served.residences.iter().filter(|residence| runs[residence.station]).cloned().collect();
                if left.len() == served.residences.len() {
                    continue;
                }
                if left.len() < served.replicas.of(running) {
                    moving += 1;
                    let key = (name.clone(), number);
                    self.tried.remove(&key);
                    self.again.remove(&key);
                }
                *version = match self.catalog.problems.get(name) {
                    _ if !left.is_empty() => Version::Ready(Arc::new(served.on(left))),
                    Some(why) => Version::Failed(format!(
                        "its device was lost, and on another it cannot be loaded: {why}"
                    )),
                    None => Version::Loading,
                };
            }
        }
        drop(table);
        for (index, station) in stations.iter().enumerate().filter(|(index, _)| !runs[*index]) {
            if self.lost.insert(index) {
                let why = station.means.device.failure().unwrap_or_else(|| "its engine ended".to_owned());
                tracing::error!(
                    device = station.name,
                    why,
                    tenants_to_load_elsewhere = moving,
                    devices_left = running,
                    "a device was lost; its tenants are served by the others"
                );
            }
        }
    }

    /// Orders every version that is new or changed, once what it builds on is there.
    fn order(&mut self) {
        let catalog = std::mem::take(&mut self.catalog);
        for (name, listing) in &catalog.tenants {
            for (&version, source) in &listing.versions {
                let key = (name.clone(), version);
                let tried =
                    self.tried.get(&key).is_some_and(|(of, terms)| of == source && *terms == listing.terms);
                let again = self.again.get(&key).is_some_and(|(at, _)| *at <= Instant::now());
                if (tried && !again) || self.loading.contains_key(&key) {
                    continue;
                }
                match self.base_of(listing, &catalog) {
                    Base::None => self.send(key, source, listing, None),
                    Base::Ready(model) => self.send(key, source, listing, Some(model)),
                    Base::Coming => self.show(&key, None),
                    Base::Missing(why) => {
                        self.tried.remove(&key);
                        self.show(&key, Some(why));
                    }
                }
            }
        }
        self.catalog = catalog;
    }

    fn base_of(&self, listing: &Listing, catalog: &Catalog) -> Base {
        let Some(base) = &listing.terms.base else { return Base::None };
        match self.registry.find(base, None) {
            Found::Ready(_) if catalog.tenants.get(base).is_some_and(|of| of.terms.base.is_some()) => {
                Base::Missing(format!("its base `{base}` has a base itself; name that one"))
            }
            Found::Ready(served) => Base::Ready(served.model.clone()),
            Found::Failed(why) => Base::Missing(format!("its base `{base}` cannot be loaded: {why}")),
            Found::Loading => Base::Coming,
            Found::Unknown if catalog.tenants.contains_key(base) => Base::Coming,
            Found::Unknown => Base::Missing(format!("its base `{base}` is not in the repository")),
        }
    }

    fn send(&mut self, key: (String, u64), source: &Source, listing: &Listing, base: Option<Arc<Model>>) {
        if !self.again.contains_key(&key) {
            self.show(&key, None);
        }
        let (name, version) = key.clone();
        let job = Job { name, version, source: source.clone(), terms: listing.terms.clone(), base };
        self.loading.insert(key, source.clone());
        // The loaders live as long as this sender.
        let _ = self.jobs.send(job);
    }

    /// Shows a version that does not answer yet as loading, or as failed. One that answers goes on doing so.
    fn show(&self, key: &(String, u64), failed: Option<String>) {
        let mut table = self.registry.table.write().unwrap_or_else(PoisonError::into_inner);
        let version =
            table.tenants.entry(key.0.clone()).or_default().entry(key.1).or_insert(Version::Loading);
        match (&version, failed) {
            (Version::Ready(_), _) => {}
            (_, Some(why)) => *version = Version::Failed(why),
            (_, None) => *version = Version::Loading,
        }
    }

    fn loaded(&mut self, job: &Job, loaded: Result<Loaded, LoadError>) {
        let key = (job.name.clone(), job.version);
        self.loading.remove(&key);
        let listing = self.catalog.tenants.get(&job.name);
        let wanted = listing.and_then(|listing| listing.versions.get(&job.version)).is_some();
        if !wanted && !self.catalog.problems.contains_key(&job.name) {
            return; // gone while it was loading
        }
        self.tried.insert(key.clone(), (job.source.clone(), job.terms.clone()));
        match loaded {
            Err(error) => {
                let wait = self.again.get(&key).map_or(AGAIN.0, |(_, wait)| (*wait * 2).min(AGAIN.1));
                self.again.insert(key.clone(), (Instant::now() + wait, wait));
                self.show(&key, Some(error.to_string()));
            }
            Ok(loaded) => {
                self.again.remove(&key);
                self.serve(key, job, loaded);
            }
        }
    }

    fn serve(&mut self, key: (String, u64), job: &Job, loaded: Loaded) {
        let registry = &self.registry;
        let tenant = TenantId(registry.tenants_ever.fetch_add(1, Ordering::Relaxed));
        let queue = registry.fleet.metrics().tenant_loaded(&job.name);
        let residences = loaded.settled.into_iter().map(|Settled { station, class, slot, place }| {
            let engine = registry.fleet.stations()[station].means.engine.clone();
            let home = Home { slot, queue: queue.clone() };
            engine.tenant_added(tenant, registry.terms(&job.name, &job.terms), home);
            Arc::new(Residence { station, engine, class, _place: place })
        });
        let residences = residences.collect();
        let info = Arc::new(loader::info(&job.name, job.version, &loaded.model));
        let served = Arc::new(Served {
            tenant,
            info,
            class: loaded.model.class.clone(),
            residences,
            replicas: registry.replicas_of(&job.terms),
            slo: job.terms.slo(),
            model: Arc::new(loaded.model),
        });
        let mut table = registry.table.write().unwrap_or_else(PoisonError::into_inner);
        let earlier = table.tenants.entry(key.0).or_default().insert(key.1, Version::Ready(served));
        drop(table);
        // Removed after the new one is found, so that no request falls between the two.
        if let Some(Version::Ready(earlier)) = earlier {
            earlier.remove();
        }
    }
}

/// What a tenant builds on.
enum Base {
    /// Nothing.
    None,
    /// A model that answers.
    Ready(Arc<Model>),
    /// One that is not loaded yet.
    Coming,
    /// One that will not come.
    Missing(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_panics_is_a_failed_load() {
        let failed = caught(|| -> Result<(), LoadError> { panic!("on purpose, in a test") });
        assert!(failed.unwrap_err().to_string().contains("report"));
        assert!(caught(|| Ok(())).is_ok());
    }
}
