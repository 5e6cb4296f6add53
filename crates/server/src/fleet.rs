//! The devices of a server, each with its engine, and which tenants' weights are on which.
//!
//! ```text
//!   model ─placement─▶ Station 0: device, engine, classes ┐
//!                    ─▶ Station 1: device, engine, classes ┴─ residences of a tenant ◀─routing─ request
//!          └─ a step has no kernel there ─▶ the spare one ─┘
//! ```
//! Stations know nothing of each other. A tenant has one number on all of them, and a residence on each that has its weights. A station
//! whose engine has ended, which it does when its device is lost, gets no tenants any more.

use crate::classes::{ClassEntry, Classes, NoClass, NoPlan};
use crate::engine::EngineHandle;
use crate::events::Events;
use crate::frontend::DeviceStatus;
use crate::loader::{self, LoadError};
use crate::metrics::Metrics;
use crate::placement::{self, Filling, Replicas};
use crate::spare::Spare;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tessera_core::Precision;
use tessera_device::{Device, DeviceError, Slot};
use tessera_planner::class::Model;
use tessera_planner::pack_cache::PackCache;

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

/// One device and what serves it.
#[derive(Debug)]
pub struct Station {
    /// Device, engine and classes.
    pub means: Means,
    /// Its device's name, as on the command line.
    pub name: String,
    placed: Arc<Placed>,
}

impl Station {
    /// The device that these means are for, with nothing placed on it.
    pub fn new(means: Means) -> Station {
        Station { name: means.device.info().name, means, placed: Arc::default() }
    }

    /// Whether it answers requests.
    pub fn runs(&self) -> bool {
        self.means.engine.is_running()
    }

    fn filling(&self) -> Filling {
        Filling {
            runs: self.runs(),
            weights: self.placed.weights.load(Ordering::Relaxed),
            tenants: self.placed.tenants.load(Ordering::Relaxed),
            backlog: self.means.engine.backlog().length(),
        }
    }
}

/// What was placed on a station.
#[derive(Debug, Default)]
struct Placed {
    weights: AtomicU64,
    tenants: AtomicU64,
}

/// One tenant's part of what was placed on a station, for as long as it lives.
#[derive(Debug)]
pub struct Place {
    placed: Arc<Placed>,
    weights: u64,
}

impl Place {
    fn take(placed: &Arc<Placed>) -> Place {
        placed.tenants.fetch_add(1, Ordering::Relaxed);
        Place { placed: placed.clone(), weights: 0 }
    }

    fn fill(&mut self, weights: u64) {
        self.placed.weights.fetch_add(weights, Ordering::Relaxed);
        self.weights += weights;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.placed.weights.fetch_sub(self.weights, Ordering::Relaxed);
        self.placed.tenants.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A tenant's weights on one station, not announced to its engine yet.
#[derive(Debug)]
pub struct Settled {
    /// Where: see [`Fleet::station`].
    pub station: usize,
    /// Its class there.
    pub class: Arc<ClassEntry>,
    /// Its weights there.
    pub slot: Slot,
    /// Its part in what is there.
    pub place: Place,
    /// Why it is here, where this device stands in for one that suits it better.
    pub instead: Option<Instead>,
}

/// Why a tenant is on a device that does not suit it as well as another would.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Instead {
    /// The other has no kernel for its class.
    NoKernel(NoKernel),
    /// The other was lost, and no device is left that has the tenant's precision.
    Lost {
        /// The device.
        device: String,
        /// How the tenant's numbers were to be held.
        precision: Precision,
    },
}

impl Instead {
    /// The other device.
    pub fn device(&self) -> &str {
        match self {
            Instead::NoKernel(NoKernel { device, .. }) | Instead::Lost { device, .. } => device,
        }
    }

    /// What kind of event it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Instead::NoKernel(_) => "no_kernel",
            Instead::Lost { .. } => "other_precision",
        }
    }
}

impl fmt::Display for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Instead::NoKernel(lacking) => lacking.fmt(f),
            Instead::Lost { device, precision } => {
                write!(f, "{device} was lost, and no device that is left has {precision}")
            }
        }
    }
}

/// What a device has no kernel for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoKernel {
    /// The device.
    pub device: String,
    /// The step's name in the plan.
    pub step: String,
    /// What is missing.
    pub why: String,
}

impl fmt::Display for NoKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NoKernel { device, step, why } = self;
        write!(f, "{device} has no kernel for step `{step}`: {why}")
    }
}

/// Every device.
#[derive(Debug)]
pub struct Fleet {
    stations: Vec<Station>,
    spare: Spare,
    /// Whose turn it is to choose: two loaders that choose at once would choose the same.
    choosing: Mutex<()>,
}

impl Fleet {
    /// The devices that these means are for, never empty, and one for what those have no kernel for.
    pub fn new(means: Vec<Means>, spare: Spare) -> Fleet {
        let stations = means.into_iter().map(Station::new).collect();
        Fleet { stations, spare, choosing: Mutex::default() }
    }

    /// Those that were named, lost ones included.
    pub fn stations(&self) -> &[Station] {
        &self.stations
    }

    /// The spare one.
    pub fn spare(&self) -> &Spare {
        &self.spare
    }

    /// All that are open: those that were named in their order, then the spare one if it was needed. Indices of residences count through them.
    pub fn open(&self) -> impl Iterator<Item = &Station> {
        self.stations.iter().chain(self.spare.opened())
    }

    /// Number `index` of [`Fleet::open`].
    pub fn station(&self, index: usize) -> &Station {
        self.open().nth(index).expect("a residence is on a device that is open")
    }

    /// How many of those that were named run.
    pub fn running(&self) -> usize {
        self.stations.iter().filter(|station| station.runs()).count()
    }

    /// What all of them count in.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.stations[0].means.metrics
    }

    /// What all of them tell in.
    pub fn events(&self) -> &Arc<Events> {
        &self.stations[0].means.events
    }

    /// How many classes are in use, by the device that has most of them.
    pub fn classes(&self) -> usize {
        self.open().map(|station| station.means.classes.len()).max().unwrap_or_default()
    }

    /// What the devices are and whether they run, for callers.
    pub fn status(&self) -> Vec<DeviceStatus> {
        let status = |station: &Station| DeviceStatus {
            name: station.name.clone(),
            description: station.means.device.info().description,
            running: station.runs(),
            tenants: station.placed.tenants.load(Ordering::Relaxed),
            share: station.means.engine.monitor().share(Instant::now()),
        };
        self.open().map(status).collect()
    }

    /// Puts a model's weights on as many devices as it is to be on, or on those of them that take it. A class that none of them has all kernels
    /// for goes to another one. Errors when no device takes it, with the reason of the one that suited best.
    pub fn settle(
        &self,
        model: &Model,
        precision: Option<Precision>,
        replicas: Replicas,
    ) -> Result<Vec<Settled>, LoadError> {
        let (mut settled, mut passed, mut why) = (Vec::new(), Vec::new(), None);
        let (mut lacking, mut imprecise, mut declined) = (None, Vec::new(), Vec::new());
        while settled.len() < replicas.of(self.running()) {
            let Some((index, place)) = self.choose(&passed) else { break };
            passed.push(index);
            let station = &self.stations[index];
            match settle_on(station, index, model, precision.unwrap_or(station.means.precision), place) {
                Ok(done) => settled.push(done),
                Err(error) => {
                    match of_device(&error) {
                        None => return Err(error),
                        Some(DeviceError::NoKernel { device, step, why }) => {
                            let (device, step, why) = (device.clone(), step.clone(), why.clone());
                            lacking.get_or_insert(NoKernel { device, step, why });
                        }
                        Some(DeviceError::NoSuchPrecision { .. }) => imprecise.push(index),
                        Some(_) => {}
                    }
                    declined.push((&station.name, error.to_string()));
                    why.get_or_insert(error);
                }
            }
        }
        // Where none takes it the error says so, each time that it is tried.
        if !settled.is_empty() {
            for (device, error) in declined {
                tracing::warn!(device, error, "a device does not take a tenant");
            }
        }
        let lost = || precision.filter(|_| !imprecise.is_empty()).and_then(|wanted| self.lost(wanted));
        let instead = lacking.map(Instead::NoKernel).or_else(lost).filter(|_| settled.is_empty());
        if let Some(instead) = instead {
            settled.push(self.settle_instead(model, precision, &imprecise, instead)?);
        }
        if settled.is_empty() { Err(why.unwrap_or(LoadError::NoDevice)) } else { Ok(settled) }
    }

    /// A device that has a precision, and was lost.
    fn lost(&self, precision: Precision) -> Option<Instead> {
        let has = |station: &&Station| station.means.device.pack_target(precision).is_ok();
        let lost = self.stations.iter().filter(|station| !station.runs()).find(has)?;
        Some(Instead::Lost { device: lost.name.clone(), precision })
    }

    /// Puts a model on a device that is not as good for it as the one that lacks a kernel, or was lost: of those that were named one that refused for the
    /// precision alone, else the spare one; in its own precision where it does not have the tenant's.
    fn settle_instead(
        &self,
        model: &Model,
        precision: Option<Precision>,
        imprecise: &[usize],
        instead: Instead,
    ) -> Result<Settled, LoadError> {
        let named = imprecise.first().map(|&index| (index, &self.stations[index]));
        let spare = || Some((self.stations.len(), self.spare.station().filter(|spare| spare.runs())?));
        let Some((index, station)) = named.or_else(spare) else {
            return Err(match instead {
                Instead::NoKernel(lacking) => LoadError::NoKernel(lacking),
                Instead::Lost { .. } => LoadError::NoDevice,
            });
        };
        let means = &station.means;
        let precision = precision.filter(|&wanted| means.device.pack_target(wanted).is_ok());
        let place = Place::take(&station.placed);
        let settled = settle_on(station, index, model, precision.unwrap_or(means.precision), place)?;
        Ok(Settled { instead: Some(instead), ..settled })
    }

    fn choose(&self, passed: &[usize]) -> Option<(usize, Place)> {
        let _turn = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
        let fillings: Vec<Filling> = self.stations.iter().map(Station::filling).collect();
        let station = placement::best(&fillings, passed)?;
        Some((station, Place::take(&self.stations[station].placed)))
    }
}

/// Loads onto one device.
fn settle_on(
    station: &Station,
    index: usize,
    model: &Model,
    precision: Precision,
    mut place: Place,
) -> Result<Settled, LoadError> {
    let (class, slot) = loader::settle(model, precision, &station.means)?;
    place.fill(class.layout.bytes.0);
    Ok(Settled { station: index, class, slot, place, instead: None })
}

/// What the device said, where another one may take what this one did not.
fn of_device(error: &LoadError) -> Option<&DeviceError> {
    match error {
        LoadError::Device(error)
        | LoadError::Class(NoClass::Device(error))
        | LoadError::Plan(NoPlan::Device(error)) => Some(error),
        _ => None,
    }
}
