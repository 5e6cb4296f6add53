//! What is to be loaded, loaded again, unloaded or moved: the one thread that changes the registry's table.
//!
//! ```text
//!   every poll: folder ─▶ catalog ─▶ gone? unload      every look: a device lost? its tenants are to be loaded elsewhere
//!                                 ─▶ new, changed, failed a while ago, and its base is there? ─▶ job ─▶ loaders ─▶ serve
//! ```

use super::past::Past;
use super::table::Version;
use super::{Counts, Event, Found, Job, Registry, Residence, Served};
use crate::catalog::{self, Catalog, Listing, Source, TenantFile};
use crate::engine::Home;
use crate::events::{News, by_name};
use crate::fleet::Settled;
use crate::loader::{self, LoadError, Loaded};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use tessera_core::TenantId;
use tessera_planner::class::Model;

/// The only writer of the table.
pub(super) struct Manager {
    registry: Arc<Registry>,
    jobs: Sender<Job>,
    inbox: Receiver<Event>,
    poll: Duration,
    catalog: Catalog,
    /// What the loaders have now.
    loading: HashSet<(String, u64)>,
    /// What became so far of each version that the folder asks for.
    past: HashMap<(String, u64), Past>,
    /// Why the folder could not be read the last time, if so.
    unread: Option<String>,
    /// Devices that were found lost.
    lost: HashSet<usize>,
}

/// How often the manager looks whether a device was lost.
const LOOK: Duration = Duration::from_millis(50);

impl Manager {
    pub(super) fn new(
        registry: Arc<Registry>,
        jobs: Sender<Job>,
        inbox: Receiver<Event>,
        poll: Duration,
    ) -> Manager {
        Manager {
            registry,
            jobs,
            inbox,
            poll,
            catalog: Catalog::default(),
            loading: HashSet::new(),
            past: HashMap::new(),
            unread: None,
            lost: HashSet::new(),
        }
    }

    pub(super) fn run(mut self) {
        let mut next_read = Instant::now();
        loop {
            if Instant::now() >= next_read {
                self.read();
                next_read = Instant::now() + self.poll;
            }
            self.leave_lost_devices();
            self.order();
            if self.loading.is_empty() && !self.registry.settled.swap(true, Ordering::AcqRel) {
                let Counts { ready, failed, .. } = self.registry.counts();
                tracing::info!(
                    ready,
                    failed,
                    classes = self.registry.fleet.classes(),
                    "the repository is loaded"
                );
            }
            let mut wait = next_read.saturating_duration_since(Instant::now());
            if self.registry.fleet.open().count() > 1 {
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
                        let who = self.registry.who_owns(name);
                        self.registry.tell_failed(who, format!("cannot be served: {why}"));
                    }
                }
                self.catalog = catalog;
                self.remove_what_is_gone();
                self.compare_what_is_there();
                if self.unread.take().is_some() {
                    let folder = self.registry.folder.display();
                    tracing::info!(%folder, "the repository can be read again");
                }
            }
            Err(error) => {
                let (folder, error) = (self.registry.folder.display(), error.to_string());
                if self.unread.as_ref() != Some(&error) {
                    tracing::warn!(%folder, error, "the repository cannot be read; serving what is loaded");
                }
                self.unread = Some(error);
            }
        }
    }

    fn remove_what_is_gone(&self) {
        let registry = &self.registry;
        let gone = registry.table_mut().keep(|name, number| self.wants(name, number), &self.catalog.problems);
        // Requests need not wait for the log.
        for served in gone.served {
            registry.tell("unloaded", served.who.clone(), "unloaded".to_owned(), json!({}));
            served.remove();
        }
        gone.names.iter().for_each(|name| registry.fleet.metrics().tenant_unloaded(name));
    }

    /// Whether a version is to be served. A tenant whose entry became a problem (a typo in its tenant.toml) keeps serving what it served.
    fn wants(&self, name: &str, version: u64) -> bool {
        let listed = self.catalog.tenants.get(name).map(|listing| listing.versions.contains_key(&version));
        listed.unwrap_or_else(|| self.catalog.problems.contains_key(name))
    }

    /// Looks which versions changed since they were tried.
    fn compare_what_is_there(&mut self) {
        let Catalog { tenants, problems } = &self.catalog;
        self.past.retain(|(name, version), past| match tenants.get(name) {
            None => problems.contains_key(name),
            Some(listing) => listing.versions.get(version).is_some_and(|source| {
                past.compare(source, &listing.terms);
                true
            }),
        });
    }

    /// Takes tenants off devices that were lost, and has those loaded again that are now on too few. A version that is on none is loading until
    /// then. With the last of those that were named everything is lost, and the server ends.
    fn leave_lost_devices(&mut self) {
        let registry = self.registry.clone();
        let open: Vec<_> = registry.fleet.open().map(|station| (station, station.runs())).collect();
        let running = registry.fleet.running();
        if running == 0 || open.iter().all(|(_, runs)| *runs) {
            return;
        }
        let mut moving = 0;
        let mut table = registry.table_mut();
        for (name, number, version) in table.versions_mut() {
            let Version::Ready(served) = version else { continue };
            let left: Vec<_> =
                served.residences.iter().filter(|residence| open[residence.station()].1).cloned().collect();
            if left.len() == served.residences.len() {
                continue;
            }
            if left.len() < served.replicas.of(running) {
                moving += 1;
                if let Some(past) = self.past.get_mut(&(name.clone(), number)) {
                    past.forget();
                }
            }
            *version = match self.catalog.problems.get(name) {
                _ if !left.is_empty() => Version::Ready(Arc::new(served.on(left))),
                Some(why) => {
                    Version::Failed(format!("its device was lost, and on another it cannot be loaded: {why}"))
                }
                None => Version::Loading,
            };
        }
        drop(table);
        for (index, (station, runs)) in open.into_iter().enumerate() {
            if !runs && self.lost.insert(index) {
                let why = station.means.device.failure().unwrap_or_else(|| "its engine ended".to_owned());
                let text = format!(
                    "the device was lost ({why}); {moving} of its tenants are to be loaded elsewhere, {running} named devices are left"
                );
                let numbers = by_name(json!({ "tenants_moving": moving, "devices_left": running }));
                let device = Some(station.name.clone());
                registry.fleet.events().tell(News {
                    kind: "tenants_moved",
                    device,
                    who: None,
                    text,
                    numbers,
                });
            }
        }
    }

    /// Orders every version that is new or changed, once what it builds on is there.
    fn order(&mut self) {
        let catalog = std::mem::take(&mut self.catalog);
        for (name, listing) in &catalog.tenants {
            for (&version, source) in &listing.versions {
                let key = (name.clone(), version);
                let due = self.past.get(&key).is_none_or(|past| past.is_due(Instant::now()));
                if !due || self.loading.contains(&key) {
                    continue;
                }
                match self.base_of(listing, &catalog) {
                    Base::None => self.send(key, source, listing, None),
                    Base::Ready(model) => self.send(key, source, listing, Some(model)),
                    Base::Coming => self.registry.table_mut().show(&key, None),
                    Base::Missing(why) => {
                        self.past.entry(key.clone()).or_default().untried();
                        self.failed(&key, source, &listing.terms, why);
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
        if !self.past.get(&key).is_some_and(Past::failed) {
            self.registry.table_mut().show(&key, None);
        }
        let (name, version) = key.clone();
        let job = Job { name, version, source: source.clone(), terms: listing.terms.clone(), base };
        self.loading.insert(key);
        // The loaders live as long as this sender.
        let _ = self.jobs.send(job);
    }

    /// A version cannot be loaded. Told when it is news: a model is tried again and again, and a base that is missing is looked for at every poll.
    fn failed(&mut self, key: &(String, u64), source: &Source, terms: &TenantFile, why: String) {
        if self.past.entry(key.clone()).or_default().is_news(source, &why) {
            let who = self.registry.who(&key.0, key.1, terms);
            self.registry.tell_failed(who, format!("cannot be loaded: {why}"));
        }
        self.registry.table_mut().show(key, Some(why));
    }

    fn loaded(&mut self, job: &Job, loaded: Result<Loaded, LoadError>) {
        let key = (job.name.clone(), job.version);
        self.loading.remove(&key);
        if !self.wants(&job.name, job.version) {
            return; // gone while it was loading
        }
        let past = self.past.entry(key.clone()).or_default();
        match loaded {
            Err(error) => {
                past.has_failed(&job.source, &job.terms, Instant::now());
                let why = error.to_string();
                // What was taken away since the folder was read is no failure to tell of: it ends at the next look.
                if is_gone(&job.source.path) {
                    self.registry.table_mut().show(&key, Some(why));
                } else {
                    self.failed(&key, &job.source, &job.terms, why);
                }
            }
            Ok(loaded) => {
                past.has_loaded(&job.source, &job.terms, loaded.files.clone());
                self.serve(key, job, loaded);
            }
        }
    }

    fn serve(&mut self, key: (String, u64), job: &Job, loaded: Loaded) {
        let registry = &self.registry;
        let tenant = TenantId(registry.tenants_ever.fetch_add(1, Ordering::Relaxed));
        let queue = registry.fleet.metrics().tenant_loaded(&job.name);
        let who = registry.who(&job.name, job.version, &job.terms);
        let stake = registry.door.stake(tenant, job.terms.quota(), who.clone());
        let terms = super::terms(stake.owner(), &job.terms);
        let residences =
            loaded.settled.into_iter().map(|Settled { station, class, slot, place, instead }| {
                let engine = registry.fleet.station(station).means.engine.clone();
                let home = Home { plan: class.only_plan(), ..Home::new(slot, queue.clone(), who.clone()) };
                let standing = home.standing.clone();
                engine.tenant_added(tenant, terms, home);
                Arc::new(Residence { station, engine, class, instead, standing, _place: place })
            });
        let residences = residences.collect();
        let info = Arc::new(loader::info(&job.name, job.version, &loaded.model));
        let served = Arc::new(Served {
            tenant,
            info,
            class: loaded.model.class.clone(),
            residences,
            who,
            stake,
            replicas: registry.replicas_of(&job.terms),
            slo: terms.slo,
            percentile: terms.percentile,
            tally: Arc::default(),
            model: Arc::new(loaded.model),
        });
        let earlier = registry.table_mut().serve(key, served.clone());
        // Removed after the new one is found, so that no request falls between the two.
        if let Some(earlier) = earlier {
            earlier.remove();
        }
        registry.tell_loaded(&served, loaded.took);
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

/// Whether there is certainly no such file.
fn is_gone(path: &Path) -> bool {
    path.try_exists().is_ok_and(|exists| !exists)
}
