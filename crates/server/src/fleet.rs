//! The devices of a server, each with its engine, and which tenants' weights are on which.
//!
//! ```text
//!   model ─placement─▶ Station 0: device, engine, classes ┐
//!                    ─▶ Station 1: device, engine, classes ┴─ residences of a tenant ◀─routing─ request
//! ```
//! Stations know nothing of each other. A tenant has one number on all of them, and a residence on each that has its weights. A station
//! whose engine has ended, which it does when its device is lost, gets no tenants any more.

use crate::classes::{ClassEntry, NoClass, NoPlan};
use crate::frontend::DeviceStatus;
use crate::loader::{self, LoadError};
use crate::metrics::Metrics;
use crate::placement::{self, Filling, Replicas};
use crate::registry::Means;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tessera_core::Precision;
use tessera_device::Slot;
use tessera_planner::class::Model;

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
    /// Where: an index into [`Fleet::stations`].
    pub station: usize,
    /// Its class there.
    pub class: Arc<ClassEntry>,
    /// Its weights there.
    pub slot: Slot,
    /// Its part in what is there.
    pub place: Place,
}

/// Every device.
#[derive(Debug)]
pub struct Fleet {
    stations: Vec<Station>,
    /// Whose turn it is to choose: two loaders that choose at once would choose the same.
    choosing: Mutex<()>,
}

impl Fleet {
    /// The devices that these means are for; never empty.
    pub fn new(means: Vec<Means>) -> Fleet {
        let station =
            |means: Means| Station { name: means.device.info().name, means, placed: Arc::default() };
        Fleet { stations: means.into_iter().map(station).collect(), choosing: Mutex::default() }
    }

    /// All of them, those that were lost included.
    pub fn stations(&self) -> &[Station] {
        &self.stations
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.stations.iter().filter(|station| station.runs()).count()
    }

    /// What all of them count in.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.stations[0].means.metrics
    }

    /// How many classes are in use, by the device that has most of them.
    pub fn classes(&self) -> usize {
        self.stations.iter().map(|station| station.means.classes.len()).max().unwrap_or_default()
    }

    /// What the devices are and whether they run, for callers.
    pub fn status(&self) -> Vec<DeviceStatus> {
        let status = |station: &Station| DeviceStatus {
            name: station.name.clone(),
            description: station.means.device.info().description,
            running: station.runs(),
            tenants: station.placed.tenants.load(Ordering::Relaxed),
        };
        self.stations.iter().map(status).collect()
    }

    /// Puts a model's weights on as many devices as it is to be on, or on those of them that take it. Errors when none does, with the reason
    /// of the one that suited best.
    pub fn settle(
        &self,
        model: &Model,
        precision: Option<Precision>,
        replicas: Replicas,
    ) -> Result<Vec<Settled>, LoadError> {
        let (mut settled, mut passed, mut why) = (Vec::new(), Vec::new(), None);
        while settled.len() < replicas.of(self.running()) {
            let Some((station, mut place)) = self.choose(&passed) else { break };
            passed.push(station);
            let means = &self.stations[station].means;
            match loader::settle(model, precision.unwrap_or(means.precision), means) {
                Ok((class, slot)) => {
                    place.fill(class.layout.bytes.0);
                    settled.push(Settled { station, class, slot, place });
                }
                Err(error) if is_of_device(&error) => {
                    if self.stations.len() > 1 {
                        tracing::warn!(device = self.stations[station].name, %error, "a device does not take a tenant");
                    }
                    why.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        if settled.is_empty() { Err(why.unwrap_or(LoadError::NoDevice)) } else { Ok(settled) }
    }

    fn choose(&self, passed: &[usize]) -> Option<(usize, Place)> {
        let _turn = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
        let fillings: Vec<Filling> = self.stations.iter().map(Station::filling).collect();
        let station = placement::best(&fillings, passed)?;
        Some((station, Place::take(&self.stations[station].placed)))
    }
}

/// Whether another device may take what this one did not.
fn is_of_device(error: &LoadError) -> bool {
    matches!(
        error,
        LoadError::Device(_) | LoadError::Class(NoClass::Device(_)) | LoadError::Plan(NoPlan::Device(_))
    )
}
