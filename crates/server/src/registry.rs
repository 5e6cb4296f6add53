//! Who is served: the repository watched, tenants loaded beside the traffic, swapped in and out whole.
//!
//! ```text
//!   folder ─read─▶ Catalog ─compare─▶ jobs ─▶ loader threads ─▶ Served ─▶ lookup table ─▶ requests
//!                     ▲ every poll             import, pack, upload        (read lock, no waiting)
//! ```
//! One manager thread decides what to load and is the only writer of the table. A version that changes on disk is loaded
//! anew under a new [`TenantId`] while the old one serves; if that fails the old one stays. A version that is gone from the
//! folder is unloaded, and what it has in flight is answered. A folder that cannot be read changes nothing.

mod manager;
mod past;

use self::manager::Manager;
use crate::catalog::{Source, TenantFile};
use crate::classes::{ClassEntry, Classes};
use crate::engine::EngineHandle;
use crate::events::{Events, News, Who, by_name};
use crate::fleet::{Fleet, Instead, NoKernel, Place};
use crate::frontend::{Listed, ModelInfo, Placement};
use crate::loader::{self, LoadError, Loaded};
use crate::metrics::Metrics;
use crate::placement::Replicas;
use crate::quotas::{Door, Stake};
use crate::settings::Settings;
use crate::standing::{Standing, Tally};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
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
    /// Its names, for events.
    pub who: Arc<Who>,
    /// Its part in its owner's quota.
    pub stake: Arc<Stake>,
    /// What its answers are due in, unless a request says otherwise.
    pub slo: Option<Duration>,
    /// For how many of them, in percent.
    pub percentile: f64,
    /// What became of its requests.
    pub tally: Arc<Tally>,
    /// The model, for tenants that bring weights only; holds no weights.
    model: Arc<Model>,
}

/// A tenant on one device.
#[derive(Debug)]
pub struct Residence {
    /// See [`Fleet::station`].
    station: usize,
    /// The way to the device.
    pub engine: EngineHandle,
    /// The plans of its architecture there.
    pub class: Arc<ClassEntry>,
    /// How it fares there.
    pub standing: Arc<Standing>,
    /// Why it is there, where this device stands in for one that suits it better.
    instead: Option<Instead>,
    _place: Place,
}

impl Residence {
    /// Where it is: an index into [`Fleet::stations`].
    pub fn station(&self) -> usize {
        self.station
    }
}

impl Served {
    /// The same, on fewer devices.
    fn on(&self, residences: Vec<Arc<Residence>>) -> Served {
        let Served { tenant, slo, percentile, replicas, .. } = *self;
        let tally = self.tally.clone();
        let (info, class, model) = (self.info.clone(), self.class.clone(), self.model.clone());
        let (who, stake) = (self.who.clone(), self.stake.clone());
        Served { tenant, info, class, residences, replicas, who, stake, slo, percentile, tally, model }
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
    /// Tenants of the folder whose entries make no sense; of some an earlier version answers.
    problems: BTreeMap<String, String>,
    /// Versions that answer as their files were before: why what is there now cannot be loaded.
    outdated: HashMap<(String, u64), String>,
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
    /// Where what happens is told.
    pub events: Arc<Events>,
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
    door: Arc<Door>,
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
    /// A registry of nobody yet, of the folder, replicas and quotas that the settings name.
    pub fn new(settings: &Settings, fleet: Arc<Fleet>) -> Arc<Registry> {
        let (folder, replicas) = (settings.model_repository.clone(), settings.replicas);
        let door = Door::new(settings.quota(), fleet.events().clone());
        Arc::new(Registry {
            table: RwLock::default(),
            fleet,
            replicas,
            folder,
            settled: false.into(),
            tenants_ever: AtomicU64::new(0),
            door,
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
            Manager::new(registry, jobs, inbox, poll).run();
        })?;
        Ok(Watch { events, manager: Some(manager) })
    }

    /// The quotas.
    pub fn door(&self) -> &Door {
        &self.door
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

    /// Where a tenant answers, and why there.
    pub fn placements(&self, served: &Served) -> Vec<Placement> {
        let placement = |residence: &Arc<Residence>| Placement {
            device: self.fleet.station(residence.station).name.clone(),
            precision: residence.class.precision,
            because: residence.instead.as_ref().map(Instead::to_string),
        };
        served.residences.iter().map(placement).collect()
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

    /// Every version, by name and number, and the tenants that have none to show.
    pub fn index(&self) -> Vec<Listed> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let listed = |name: &str, version: &str, state, reason: &str| Listed {
            name: name.to_owned(),
            version: version.to_owned(),
            state,
            reason: reason.to_owned(),
        };
        let versions = table.tenants.iter().flat_map(|(name, versions)| {
            versions.iter().map(move |(number, version)| (name, *number, version))
        });
        let behind = |name: &str, number| {
            let why = table.outdated.get(&(name.to_owned(), number)).or_else(|| table.problems.get(name));
            why.map(|why| {
                format!("answers as it was loaded before; what is there now cannot be loaded: {why}")
            })
        };
        let versions = versions.map(|(name, number, version)| {
            let (state, reason) = match version {
                Version::Ready(_) => (Listed::READY, behind(name, number).unwrap_or_default()),
                Version::Loading => ("LOADING", String::new()),
                Version::Failed(why) => ("UNAVAILABLE", why.clone()),
            };
            ((name, number), listed(name, &number.to_string(), state, &reason))
        });
        let nothing_to_show = |(name, _): &(&String, &String)| !table.tenants.contains_key(*name);
        let problems = table.problems.iter().filter(nothing_to_show);
        let problems = problems.map(|(name, why)| ((name, 0), listed(name, "", "UNAVAILABLE", why)));
        versions.chain(problems).collect::<BTreeMap<_, _>>().into_values().collect()
    }

    /// Whether everything that was in the folder at the start is loaded or has failed for good.
    pub fn settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// How many versions answer, are loading and have failed.
    pub fn counts(&self) -> (usize, usize, usize) {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let nothing_to_show = table.problems.keys().filter(|name| !table.tenants.contains_key(*name));
        let mut counts = (0, 0, nothing_to_show.count());
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
        let model = loader::import(&job.source.path, job.base.as_deref())?;
        let settled = self.fleet.settle(&model, precision, self.replicas_of(&job.terms))?;
        let files = model.files();
        Ok(Loaded { model: model.without_weights(), files, settled, took: started.elapsed() })
    }

    /// Tells of a version that answers from now on, and of devices that stand in for others that suit it better.
    fn tell_loaded(&self, served: &Served, took: Duration) {
        let device = |residence: &Residence| self.fleet.station(residence.station).name.as_str();
        for residence in &served.residences {
            let Some(why) = &residence.instead else { continue };
            let (instead, precision) = (device(residence), residence.class.precision);
            let mut numbers = json!({ "instead": instead, "precision": precision.name() });
            match why {
                Instead::NoKernel(NoKernel { step, .. }) => numbers["step"] = json!(step),
                Instead::Lost { precision, .. } => numbers["wanted"] = json!(precision.name()),
            }
            self.fleet.events().tell(News {
                kind: why.kind(),
                device: Some(why.device().to_owned()),
                who: Some(served.who.clone()),
                text: format!("{why}; {instead} serves it instead, in {precision}"),
                numbers: by_name(numbers),
            });
        }
        let devices: Vec<&str> = served.residences.iter().map(|residence| device(residence)).collect();
        let (text, class) = (format!("loaded on {}", devices.join(" ")), served.class.id.to_string());
        let numbers = json!({ "devices": devices, "class": class, "took_ms": took.as_millis() as u64 });
        self.tell("loaded", served.who.clone(), text, numbers);
    }

    /// Tells of a version, or of an entry of the folder, that cannot be served.
    fn tell_failed(&self, who: Arc<Who>, text: String) {
        self.fleet.metrics().load_failed();
        self.tell("load_failed", who, text, json!({}));
    }

    /// Tells of something that the registry did.
    fn tell(&self, kind: &'static str, who: Arc<Who>, text: String, numbers: Value) {
        let numbers = by_name(numbers);
        self.fleet.events().tell(News { kind, device: None, who: Some(who), text, numbers });
    }

    fn who(&self, name: &str, version: u64, terms: &TenantFile) -> Arc<Who> {
        let owner = owner(name, terms).to_owned();
        Arc::new(Who { tenant: name.to_owned(), version: Some(version), owner })
    }

    /// Whom a tenant's entry concerns that cannot be read: it may be served still, and only what is served says who pays.
    fn who_owns(&self, name: &str) -> Arc<Who> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let served = table.tenants.get(name).and_then(|versions| {
            versions.values().find_map(|version| match version {
                Version::Ready(served) => Some(served.who.owner.clone()),
                _ => None,
            })
        });
        let owner = served.unwrap_or_else(|| name.to_owned());
        Arc::new(Who { tenant: name.to_owned(), version: None, owner })
    }

    fn replicas_of(&self, file: &TenantFile) -> Replicas {
        file.replicas.unwrap_or(self.replicas)
    }
}

/// What a file says is agreed with a tenant.
fn terms(owner: OwnerId, file: &TenantFile) -> Terms {
    let agreed = Terms::best_effort(owner);
    let percentile = file.slo_percentile.unwrap_or(agreed.percentile);
    Terms { share: file.share.unwrap_or(agreed.share), slo: file.slo(), percentile, ..agreed }
}

/// Who pays for a tenant.
fn owner<'a>(name: &'a str, file: &'a TenantFile) -> &'a str {
    file.owner.as_deref().unwrap_or(name)
}

/// A load that panics is a fault of ours, and its tenant's affair alone: the loader goes on, and readiness does not wait for
/// ever.
fn caught<T>(load: impl FnOnce() -> Result<T, LoadError>) -> Result<T, LoadError> {
    // What it left half done is its own, but for locks, and those are taken poisoned or not.
    catch_unwind(AssertUnwindSafe(load)).unwrap_or(Err(LoadError::Panicked))
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
