//! A version of a tenant that answers, and the devices that it is on.

use crate::classes::ClassEntry;
use crate::engine::EngineHandle;
use crate::events::Who;
use crate::fleet::{Instead, Place};
use crate::frontend::ModelInfo;
use crate::placement::Replicas;
use crate::quotas::Stake;
use crate::standing::{Standing, Tally};
use std::sync::Arc;
use std::time::Duration;
use tessera_core::TenantId;
use tessera_planner::class::{Class, Model};

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
    pub(super) replicas: Replicas,
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
    pub(super) model: Arc<Model>,
}

/// A tenant on one device.
#[derive(Debug)]
pub struct Residence {
    /// See [`Fleet::station`](crate::fleet::Fleet::station).
    pub(super) station: usize,
    /// The way to the device.
    pub engine: EngineHandle,
    /// The plans of its architecture there.
    pub class: Arc<ClassEntry>,
    /// How it fares there.
    pub standing: Arc<Standing>,
    /// Why it is there, where this device stands in for one that suits it better.
    pub(super) instead: Option<Instead>,
    pub(super) _place: Place,
}

impl Residence {
    /// Where it is: an index into [`Fleet::open`](crate::fleet::Fleet::open).
    pub fn station(&self) -> usize {
        self.station
    }
}

impl Served {
    /// The same, on fewer devices.
    pub(super) fn on(&self, residences: Vec<Arc<Residence>>) -> Served {
        let Served { tenant, slo, percentile, replicas, .. } = *self;
        let tally = self.tally.clone();
        let (info, class, model) = (self.info.clone(), self.class.clone(), self.model.clone());
        let (who, stake) = (self.who.clone(), self.stake.clone());
        Served { tenant, info, class, residences, replicas, who, stake, slo, percentile, tally, model }
    }

    /// Has every device forget it; what waits is told so.
    pub(super) fn remove(&self) {
        self.residences.iter().for_each(|residence| residence.engine.tenant_removed(self.tenant));
    }
}
