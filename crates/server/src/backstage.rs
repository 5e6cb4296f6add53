//! What is behind the sockets: device, engine and classes, running. A server puts a registry and sockets before them; a bench, or a
//! program that serves itself, puts tenants in by hand and talks to the engine.
//!
//! ```text
//!   settings ─▶ device ─▶ engine ─▶ classes          stop: everything that was let in is answered, then the device goes
//! ```

use crate::classes::{ClassEntry, Classes, Workshop};
use crate::engine::{Home, Inbox, Running};
use crate::events::{Events, Who};
use crate::fleet::Means;
use crate::loader::{self, LoadError};
use crate::metrics::Metrics;
use crate::monitor::Monitor;
use crate::profile::Profiler;
use crate::server::StartError;
use crate::settings::Settings;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tessera_core::{OwnerId, PartitionId, Precision, TenantId};
use tessera_device::{Device, PartitionInfo, Room, Slot, Wake};
use tessera_planner::class::Model;
use tessera_planner::pack_cache::{CacheError, PackCache};
use tessera_scheduler::{Config, Layout, Partition, RecycleSettings, StragglerSettings, Terms};
use tokio::runtime::Handle;

/// A device's layout in the scheduler's words.
fn layout(partitions: &[PartitionId], shares: &[PartitionInfo]) -> Layout {
    let partition = |id: &PartitionId| {
        let share = shares.iter().find(|share| share.id == *id);
        let units = share.and_then(|share| u32::try_from(share.units).ok()).and_then(NonZeroU32::new);
        let aside = share.is_some_and(|share| share.aside);
        Partition { id: *id, units: units.unwrap_or(NonZeroU32::MIN), aside }
    };
    partitions.iter().map(partition).collect()
}

/// Measures what a device can do, on a thread of its own: nobody waits for a metric. Its use is held against its peak in `precision`.
fn tell_peak(
    device: Arc<dyn Device>,
    precision: Precision,
    metrics: Arc<Metrics>,
    monitor: Arc<Monitor>,
    profiler: Profiler,
) -> std::io::Result<()> {
    let measure = move || {
        let _turn = profiler.turn();
        if let Some(peak) = device.peak(precision) {
            metrics.device_peak(&device.info().name, peak.flops_per_s, peak.bytes_per_s);
            monitor.peak(precision, peak);
        }
        let others = Precision::ALL.into_iter().filter(|other| *other != precision);
        for other in others.filter(|other| device.pack_target(*other).is_ok()) {
            device.peak(other).into_iter().for_each(|peak| monitor.peak(other, peak));
        }
    };
    std::thread::Builder::new().name("peak".to_owned()).spawn(measure).map(drop)
}

/// How a device is to be scheduled: by the settings, and by what it can.
fn config(settings: &Settings, device: &dyn Device) -> Config {
    let shares = device.partitions();
    let layouts = device.layouts().iter().map(|layout| self::layout(layout, &shares)).collect();
    Config {
        tenant_batching: settings.tenant_batching,
        max_lanes: settings.max_lanes,
        max_items: settings.max_items,
        queue_requests: settings.queue_requests,
        queue_bytes: settings.queue_bytes,
        max_wait: settings.max_wait,
        interrupts: settings.interrupt,
        stragglers: StragglerSettings { bound: settings.straggler_bound, ..StragglerSettings::default() },
        recycling: RecycleSettings { reopens: device.can_reopen(), ..RecycleSettings::default() },
        margin: settings.slo_margin,
        ahead: shares
            .iter()
            .filter_map(|share| NonZeroU32::new(share.ahead))
            .min()
            .unwrap_or(NonZeroU32::MIN),
        lead: shares.iter().map(|share| share.lead).max().unwrap_or_default(),
        layouts,
        overlap: device.overlap(),
        ..Config::new(settings.policy, Vec::new())
    }
}

/// Device, engine and classes.
#[derive(Debug)]
pub struct Backstage {
    /// What loading needs, and the way to all of them.
    pub means: Means,
    engine: Running,
    tenants: AtomicU64,
}

impl Backstage {
    /// Opens a device with `open`, which is [`crate::devices::open`] but in tests, and starts the engine on it. Needs a tokio
    /// runtime, which plans and hands out answers.
    pub fn start(
        settings: &Settings,
        open: impl FnOnce(Wake) -> Result<Arc<dyn Device>, StartError>,
    ) -> Result<Backstage, StartError> {
        Backstage::beside(settings, Arc::default(), open)
    }

    /// As [`Backstage::start`], for one device of several that tell and count together.
    pub fn beside(
        settings: &Settings,
        events: Arc<Events>,
        open: impl FnOnce(Wake) -> Result<Arc<dyn Device>, StartError>,
    ) -> Result<Backstage, StartError> {
        let inbox = Inbox::default();
        let engine = inbox.handle();
        let device = open(inbox.wake())?;
        let info = device.info();
        let precision = settings.precision.unwrap_or(info.default_precision);
        // Refused here, with the choices, rather than by every tenant.
        device.pack_target(precision)?;
        tracing::info!(device = info.name, what = info.description, %precision, policy = %settings.policy, "device opened");
        let config = config(settings, &*device);
        let running = inbox.start(config, device.clone(), events.clone(), Handle::current())?;
        engine.watch(settings.monitor);
        let profiler = Profiler::new(settings.profile);
        let workshop = Workshop {
            profiler: profiler.clone(),
            device: device.clone(),
            engine: engine.clone(),
            events: events.clone(),
            room: Room { lanes: settings.max_lanes.get(), items: settings.max_items.get() },
            plans_per_class: settings.max_plans,
            most_item_memory: settings.max_item_memory,
            runtime: Handle::current(),
        };
        let cache = pack_cache(settings);
        let metrics = events.metrics().clone();
        metrics.watch(info.name, engine.monitor().clone());
        tell_peak(device.clone(), precision, metrics.clone(), engine.monitor().clone(), profiler)?;
        let classes = Classes::new(workshop);
        let means = Means { device, engine, classes, cache, precision, metrics, events };
        Ok(Backstage { means, engine: running, tenants: AtomicU64::new(0) })
    }

    /// Puts a tenant in that pays for itself, with an SLO or without. Plans, packs and uploads on this thread. Not to be mixed with a
    /// registry, which numbers tenants itself.
    pub fn add_tenant(
        &self,
        model: &Model,
        precision: Precision,
        slo: Option<Duration>,
    ) -> Result<(TenantId, Arc<ClassEntry>, Slot), LoadError> {
        let (class, slot) = loader::settle(model, precision, &self.means)?;
        let number = self.tenants.fetch_add(1, Ordering::Relaxed);
        let tenant = TenantId(number);
        let name = tenant.to_string();
        let queue = self.means.metrics.tenant_loaded(&name);
        let who = Arc::new(Who { tenant: name.clone(), version: Some(1), owner: name });
        let home = Home::new(slot.clone(), queue, who);
        let terms = Terms { slo, ..Terms::best_effort(OwnerId(number)) };
        self.means.engine.tenant_added(tenant, terms, home);
        Ok((tenant, class, slot))
    }

    /// For a server, which keeps what tenants need apart from what ends with it.
    pub(crate) fn into_parts(self) -> (Means, Running) {
        (self.means, self.engine)
    }

    /// Answers what was let in, and ends. Waits for it.
    pub fn stop(self) {
        self.engine.stop();
    }
}

/// The cache of packed weights, where one is wanted and can be had. The log tells what it lacks, now and later.
fn pack_cache(settings: &Settings) -> Option<PackCache> {
    let complain = Arc::new(|why: CacheError| tracing::warn!(%why, "{}", follows(&why)));
    let opened = PackCache::open(settings.pack_cache.as_ref()?, settings.pack_cache_budget, complain);
    opened.inspect_err(|why| tracing::warn!(%why, "packed weights are not kept, and packed anew at every start; set `pack_cache` to a folder that can be written, or to off")).ok()
}

/// What follows from what went wrong with the cache, and what to do about it.
fn follows(why: &CacheError) -> &'static str {
    match why {
        CacheError::Damaged { .. } => {
            "packed weights that were kept are of no use, and new ones take their place"
        }
        CacheError::TooLarge { .. } => {
            "packed weights are not kept, and packed anew at the next start; raise `pack_cache_bytes`"
        }
        CacheError::Io { .. } => {
            "packed weights cannot be kept, and are packed anew at the next start; make room, or set `pack_cache`"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_pack_asks_nobody_to_make_room() {
        let damaged = CacheError::Damaged { path: "a.pack".into(), what: "wrong length" };
        assert!(follows(&damaged).contains("new ones take their place"));
        let full = CacheError::Io { path: "a.pack".into(), source: std::io::ErrorKind::StorageFull.into() };
        assert!(follows(&full).contains("make room"));
    }
}
