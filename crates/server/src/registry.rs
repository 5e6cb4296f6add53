//! Who is served: the repository watched, tenants loaded beside the traffic, swapped in and out whole.
//!
//! ```text
//!   folder ─read─▶ Catalog ─compare─▶ jobs ─▶ loader threads ─▶ Served ─▶ lookup table ─▶ requests
//!                     ▲ every poll             import, pack, upload        (read lock, no waiting)
//! ```
//! One manager thread decides what to load and is the only writer of the table. A version that changes on disk is loaded
//! anew under a new [`TenantId`](tessera_core::TenantId) while the old one serves; if that fails the old one stays. A version that is gone from the
//! folder is unloaded, and what it has in flight is answered. A folder that cannot be read changes nothing.

mod manager;
mod past;
mod served;
mod table;

pub(crate) use served::{Residence, Served};
pub(crate) use table::{Counts, Found};

use self::manager::Manager;
use self::table::Table;
use crate::catalog::{Source, TenantFile};
use crate::events::{News, Who, by_name};
use crate::fleet::{Fleet, Instead, NoKernel};
use crate::frontend::{Listed, Placement};
use crate::loader::{self, LoadError, Loaded};
use crate::placement::Replicas;
use crate::quotas::Door;
use crate::settings::Settings;
use serde_json::{Value, json};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tessera_core::OwnerId;
use tessera_planner::class::Model;
use tessera_scheduler::Terms;

/// Who is served.
#[derive(Debug)]
pub struct Registry {
    table: RwLock<Table>,
    fleet: Arc<Fleet>,
    /// On how many devices tenants are that do not say.
    replicas: Replicas,
    folder: PathBuf,
    settled: AtomicBool,
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

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the manager alone.
    fn table_mut(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version of a tenant that a request means: the one it names, else the greatest that answers.
    pub fn find(&self, name: &str, version: Option<u64>) -> Found {
        self.table().find(name, version)
    }

    /// The versions of a tenant that answer, smallest first.
    pub fn ready_versions(&self, name: &str) -> Vec<u64> {
        self.table().ready_versions(name)
    }

    /// Every version, by name and number, and the tenants that have none to show.
    pub fn index(&self) -> Vec<Listed> {
        self.table().index()
    }

    /// How many versions answer, are loading and have failed.
    pub fn counts(&self) -> Counts {
        self.table().counts()
    }

    /// Where a tenant answers, and why there.
    pub fn placements(&self, served: &Served) -> Vec<Placement> {
        let placement = |residence: &Arc<Residence>| Placement {
            device: self.fleet.station(residence.station()).name.clone(),
            precision: residence.class.precision,
            because: residence.instead.as_ref().map(Instead::to_string),
        };
        served.residences.iter().map(placement).collect()
    }

    /// Whether everything that was in the folder at the start is loaded or has failed for good.
    pub fn settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    fn load(&self, job: &Job) -> Result<Loaded, LoadError> {
        let started = Instant::now();
        let precision = job.terms.precision.as_deref().and_then(|word| word.parse().ok());
        let model = loader::import(&job.source.path, job.base.as_deref())?;
        let settled = self.fleet.settle(&model, precision, self.replicas_of(&job.terms))?;
        let files = model.files();
        Ok(Loaded { model: model.without_weights(), files, settled, took: started.elapsed() })
    }

    /// Tells of a version that answers from now on, of devices that stand in for others that suit it better, and of devices that were asked for and are not there.
    fn tell_loaded(&self, served: &Served, took: Duration) {
        let device = |residence: &Residence| self.fleet.station(residence.station()).name.as_str();
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
        let named = self.fleet.stations().len();
        if let Some(asked) = served.replicas.beyond(named) {
            let text = format!(
                "`replicas` asks for {asked} devices, and {named} are named: name more with `device`, or write \"all\""
            );
            let numbers = json!({ "replicas": asked, "devices": named });
            self.tell("few_devices", served.who.clone(), text, numbers);
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
        let owner = self.table().owner_of(name).unwrap_or_else(|| name.to_owned());
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
