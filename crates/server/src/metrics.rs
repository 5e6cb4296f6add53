//! What the server counts, and its text for Prometheus.
//!
//! Series carry a tenant's name only while the registry knows that tenant: a caller cannot make series by asking
//! for names, and an unloaded tenant's series go with it. Requests for names that nobody has are counted under the
//! empty name. Mean lanes per launch is `tessera_launch_lanes_sum / tessera_launch_lanes_count`.

mod paces;

pub(crate) use paces::Told;

use crate::monitor::{self, Monitor};
use crate::standing::Fate;
use crate::wire::Rejection;
use paces::Paces;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tessera_core::{Bytes, Policy};

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ByTenant {
    tenant: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ByOutcome {
    tenant: String,
    outcome: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ByPolicy {
    policy: &'static str,
    device: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ByDevice {
    device: String,
    kind: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OfDevice {
    device: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ByQuantile {
    device: String,
    quantile: &'static str,
}

/// How many requests of one tenant wait, kept by those who wait: no way out of a queue can forget to count.
#[derive(Clone, Debug)]
pub struct QueueGauge {
    queued: Gauge,
}

impl QueueGauge {
    /// Counts a request for as long as the answer lives.
    pub fn enter(&self) -> Queued {
        self.queued.inc();
        Queued(self.queued.clone())
    }
}

/// One request's place in a [`QueueGauge`].
#[derive(Debug)]
pub struct Queued(Gauge);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A tenant's series that every request touches, found once and kept.
struct TenantSeries {
    answered: Counter,
    duration: Histogram,
    queued: QueueGauge,
}

/// Everything counted. Shared by `Arc`; every method may be called from any thread and costs well under a
/// microsecond, [`Metrics::encode`] excepted.
pub struct Metrics {
    registry: Registry,
    tenants: RwLock<HashMap<String, TenantSeries>>,
    requests: Family<ByOutcome, Counter>,
    duration: Family<ByTenant, Histogram>,
    queued: Family<ByTenant, Gauge>,
    launches: Family<ByPolicy, Counter>,
    lanes: Histogram,
    items: Histogram,
    launch_duration: Histogram,
    device_memory: Family<ByDevice, Gauge>,
    device_work: Family<ByDevice, Counter>,
    device_peak: Family<ByDevice, Gauge<f64, AtomicU64>>,
    interruptions: Family<OfDevice, Counter>,
    stood_back: Family<OfDevice, Counter<f64, AtomicU64>>,
    device_up: Family<OfDevice, Gauge>,
    load_failures: Counter,
    loaded: Gauge,
    prediction_error: Family<ByQuantile, Gauge<f64, AtomicU64>>,
    connections: Gauge,
    events: Family<ByKind, Counter>,
    deadlines: Family<ByOutcome, Counter>,
    can_be_met: Family<ByTenant, Gauge>,
    devices: monitor::Devices,
    paces: Paces,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// 100 µs to 10 s, three to the decade: an SLO is a few milliseconds to a few seconds.
fn durations() -> Histogram {
    Histogram::new([1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0])
}

/// Powers of two, as launches are sized.
fn powers(most: u32) -> Histogram {
    Histogram::new((0..=most).map(|power| f64::from(1u32 << power)))
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("tessera"),
            tenants: RwLock::default(),
            requests: Family::default(),
            duration: Family::new_with_constructor(durations),
            queued: Family::default(),
            launches: Family::default(),
            lanes: powers(8),
            items: powers(10),
            launch_duration: durations(),
            device_memory: Family::default(),
            device_work: Family::default(),
            device_peak: Family::default(),
            interruptions: Family::default(),
            stood_back: Family::default(),
            device_up: Family::default(),
            load_failures: Counter::default(),
            loaded: Gauge::default(),
            prediction_error: Family::default(),
            connections: Gauge::default(),
            events: Family::default(),
            deadlines: Family::default(),
            can_be_met: Family::default(),
            devices: monitor::Devices::default(),
            paces: Paces::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("requests", "Inference requests by tenant and outcome", self.requests.clone());
        r.register_with_unit(
            "request_duration",
            "From the request's head to its answer, answered requests only",
            Unit::Seconds,
            self.duration.clone(),
        );
        r.register("queued_requests", "Requests that wait for a launch", self.queued.clone());
        r.register("launches", "Launches by policy and device", self.launches.clone());
        r.register("launch_lanes", "Lanes (places of tenants) in one launch", self.lanes.clone());
        r.register("launch_items", "Items in one launch, all lanes together", self.items.clone());
        r.register_with_unit(
            "launch_duration",
            "What a launch computed, from its first instruction to its last, urgent ones between its segments apart",
            Unit::Seconds,
            self.launch_duration.clone(),
        );
        r.register_with_unit(
            "device_memory",
            "Memory on a device by what holds it, and what is pinned on the host for it",
            Unit::Bytes,
            self.device_memory.clone(),
        );
        r.register(
            "device_work",
            "Floating-point operations done (flop), and bytes that had to be read and written for them (bytes), as plans count them; see tessera_device_use_ratio",
            self.device_work.clone(),
        );
        r.register(
            "device_peak",
            "What a device can do in a second, where it was measured: flop, and bytes from memory",
            self.device_peak.clone(),
        );
        r.register(
            "interruptions",
            "Launches that went between the steps of another, to keep a deadline that would have been lost behind it",
            self.interruptions.clone(),
        );
        r.register_with_unit(
            "stood_back",
            "What these computed while others stood back for them",
            Unit::Seconds,
            self.stood_back.clone(),
        );
        r.register("device_up", "Whether a device runs (1) or was lost (0)", self.device_up.clone());
        r.register(
            "model_load_failures",
            "Versions of tenants that could not be loaded, and entries of the repository that make no sense",
            self.load_failures.clone(),
        );
        r.register("tenants", "Tenants that are loaded", self.loaded.clone());
        r.register(
            "prediction_error_ratio",
            "Error of predicted launch times, |measured / predicted - 1|, of recent launches",
            self.prediction_error.clone(),
        );
        r.register(
            "deadlines",
            "Requests with deadlines, by tenant and what became of them: in_time, late, expired while they waited, refused for want of time",
            self.deadlines.clone(),
        );
        r.register(
            "slo_can_be_met",
            "Whether a request that meets nobody is answered within its tenant's SLO (1) or not (0), as last judged by any device",
            self.can_be_met.clone(),
        );
        r.register("events", "Events by kind, as listed by /v2/events", self.events.clone());
        r.register("http_connections", "Open connections of clients", self.connections.clone());
        r.register_collector(Box::new(self.devices.clone()));
        r.register_collector(Box::new(self.paces.clone()));
    }

    /// A tenant can be asked for: its series begin. Calling again for a new version changes nothing. Who queues its requests
    /// counts them in what comes back.
    pub fn tenant_loaded(&self, tenant: &str) -> QueueGauge {
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        let series = tenants.entry(tenant.into()).or_insert_with(|| {
            let by_tenant = ByTenant { tenant: tenant.into() };
            TenantSeries {
                answered: self
                    .requests
                    .get_or_create(&ByOutcome { tenant: tenant.into(), outcome: "answered" })
                    .clone(),
                duration: self.duration.get_or_create(&by_tenant).clone(),
                queued: QueueGauge { queued: self.queued.get_or_create(&by_tenant).clone() },
            }
        });
        let queued = series.queued.clone();
        self.loaded.set(i64::try_from(tenants.len()).unwrap_or(i64::MAX));
        queued
    }

    /// A tenant went, with all its versions: its series end.
    pub fn tenant_unloaded(&self, tenant: &str) {
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        if tenants.remove(tenant).is_some() {
            let by_tenant = ByTenant { tenant: tenant.into() };
            self.duration.remove(&by_tenant);
            self.queued.remove(&by_tenant);
            self.paces.forget(tenant);
            self.can_be_met.remove(&by_tenant);
            for outcome in Fate::ALL.map(Fate::name) {
                self.deadlines.remove(&ByOutcome { tenant: tenant.into(), outcome });
            }
            for outcome in Rejection::OUTCOMES.into_iter().chain(["answered", HUNG_UP]) {
                self.requests.remove(&ByOutcome { tenant: tenant.into(), outcome });
            }
        }
        self.loaded.set(i64::try_from(tenants.len()).unwrap_or(i64::MAX));
    }

    /// A request was answered, `took` after its head was read.
    pub fn answered(&self, tenant: &str, took: Duration) {
        // Held over the counting, so that a series cannot be made again behind the back of its removal.
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = tenants.get(tenant) {
            series.answered.inc();
            series.duration.observe(took.as_secs_f64());
        }
    }

    /// A request was refused, or failed.
    pub fn refused(&self, tenant: &str, why: &Rejection) {
        self.not_answered(tenant, why.wire().outcome);
    }

    /// The client went away before its answer.
    pub fn hung_up(&self, tenant: &str) {
        self.not_answered(tenant, HUNG_UP);
    }

    fn not_answered(&self, tenant: &str, outcome: &'static str) {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        let known = if tenants.contains_key(tenant) { tenant } else { "" };
        self.requests.get_or_create(&ByOutcome { tenant: known.into(), outcome }).inc();
    }

    /// How the tenants of a device do beside each other: all that are there, since what was told before is forgotten.
    pub fn paced<'a>(&self, device: &str, tenants: impl Iterator<Item = (&'a str, Told)>) {
        self.paces.tell(device, tenants);
    }

    /// What became of the deadline of a tenant's request.
    pub fn deadline(&self, tenant: &str, fate: Fate) {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        if tenants.contains_key(tenant) {
            self.deadlines.get_or_create(&ByOutcome { tenant: tenant.into(), outcome: fate.name() }).inc();
        }
    }

    /// Whether a tenant's SLO can be met at all.
    pub fn can_be_met(&self, tenant: &str, can: bool) {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        if tenants.contains_key(tenant) {
            self.can_be_met.get_or_create(&ByTenant { tenant: tenant.into() }).set(i64::from(can));
        }
    }

    /// A launch was submitted to a device with so many lanes and items in all.
    pub fn launched(&self, device: &str, policy: Policy, lanes: u32, items: u32) {
        self.launches.get_or_create(&ByPolicy { policy: policy.name(), device: device.into() }).inc();
        self.lanes.observe(f64::from(lanes));
        self.items.observe(f64::from(items));
    }

    /// A launch goes before what runs on a device.
    pub fn interrupted(&self, device: &str) {
        self.interruptions.get_or_create(&OfDevice { device: device.into() }).inc();
    }

    /// A launch that is over stood back for so long.
    pub fn stood_back(&self, device: &str, time: Duration) {
        if !time.is_zero() {
            self.stood_back.get_or_create(&OfDevice { device: device.into() }).inc_by(time.as_secs_f64());
        }
    }

    /// A launch was completed.
    pub fn launch_finished(&self, took: Duration) {
        self.launch_duration.observe(took.as_secs_f64());
    }

    /// A launch did so much on a device.
    pub fn worked(&self, device: &str, flops: f64, bytes: f64) {
        for (kind, done) in [("flop", flops), ("bytes", bytes)] {
            self.device_work.get_or_create(&ByDevice { device: device.into(), kind }).inc_by(done as u64);
        }
    }

    /// A device is watched: what is seen of it is told with all else. One of the same name goes.
    pub fn watch(&self, device: String, monitor: Arc<Monitor>) {
        self.devices.add(device, monitor);
    }

    /// What a device can do in a second.
    pub fn device_peak(&self, device: &str, flops: f64, bytes: f64) {
        for (kind, peak) in [("flop", flops), ("bytes", bytes)] {
            self.device_peak.get_or_create(&ByDevice { device: device.into(), kind }).set(peak);
        }
    }

    /// Memory on a device now. `kind` is what holds it: `weights`, `arenas`, …; `pinned` is the host's.
    pub fn device_memory(&self, device: &str, kind: &'static str, bytes: Bytes) {
        let labels = ByDevice { device: device.into(), kind };
        self.device_memory.get_or_create(&labels).set(i64::try_from(bytes.0).unwrap_or(i64::MAX));
    }

    /// A version of a tenant could not be loaded, or an entry of the repository makes no sense. Which one, and why, is an event.
    pub fn load_failed(&self) {
        self.load_failures.inc();
    }

    /// How wrong predicted launch times of a device were lately.
    pub fn prediction_error(&self, device: &str, median: f64, p99: f64) {
        for (quantile, error) in [("0.5", median), ("0.99", p99)] {
            self.prediction_error.get_or_create(&ByQuantile { device: device.into(), quantile }).set(error);
        }
    }

    /// A device runs, or was lost.
    pub fn device_up(&self, device: &str, up: bool) {
        self.device_up.get_or_create(&OfDevice { device: device.into() }).set(i64::from(up));
    }

    /// An event was told of.
    pub fn event(&self, kind: &'static str) {
        self.events.get_or_create(&ByKind { kind }).inc();
    }

    /// A client opened a connection.
    pub fn connected(&self) {
        self.connections.inc();
    }

    /// A connection is closed.
    pub fn disconnected(&self) {
        self.connections.dec();
    }

    /// The page that a monitor reads, in the OpenMetrics text format. Walks every series.
    pub fn encode(&self) -> String {
        let mut page = String::new();
        // Writing to a String fails only when an encoder of a label does, and ours are names and numbers.
        text::encode(&mut page, &self.registry).expect("labels are plain text");
        page
    }
}

const HUNG_UP: &str = "hung_up";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_a_tenant_come_and_go_with_it() {
        let metrics = Metrics::default();
        let queue = metrics.tenant_loaded("a");
        metrics.answered("a", Duration::from_millis(3));
        metrics.refused("a", &Rejection::ShuttingDown);
        metrics.hung_up("a");
        let waiting = [queue.enter(), queue.enter()];
        drop(queue.enter());
        let page = metrics.encode();
        assert!(page.contains("tessera_requests_total{tenant=\"a\",outcome=\"answered\"} 1"), "{page}");
        assert!(page.contains("tessera_queued_requests{tenant=\"a\"} 2"), "{page}");
        metrics.tenant_unloaded("a");
        metrics.answered("a", Duration::from_millis(3));
        drop(waiting);
        assert!(!metrics.encode().contains("tenant=\"a\""), "{}", metrics.encode());
    }

    #[test]
    fn names_that_nobody_has_make_no_series_of_their_own() {
        let metrics = Metrics::default();
        for n in 0..100 {
            let model = format!("guess-{n}");
            metrics.refused(&model, &Rejection::UnknownModel { model: model.clone() });
        }
        let page = metrics.encode();
        assert!(page.contains("tessera_requests_total{tenant=\"\",outcome=\"not_found\"} 100"), "{page}");
        assert!(!page.contains("guess"));
    }

    #[test]
    fn every_metric_is_explained_in_a_sentence_that_ends_with_one_dot() {
        let page = Metrics::default().encode();
        let explained: Vec<&str> = page.lines().filter(|line| line.starts_with("# HELP ")).collect();
        for collected in ["tessera_device_use_ratio", "tessera_tenant_apart"] {
            assert!(explained.iter().any(|line| line.contains(collected)), "{collected}");
        }
        for line in explained {
            assert!(line.ends_with('.') && !line.ends_with(".."), "{line}");
        }
    }

    #[test]
    fn mean_lanes_per_launch_can_be_read() {
        let metrics = Metrics::default();
        metrics.launched("cpu", Policy::SpaceTime, 3, 5);
        metrics.launched("cpu", Policy::SpaceTime, 1, 1);
        let page = metrics.encode();
        assert!(
            page.contains("tessera_launch_lanes_sum 4.0") && page.contains("tessera_launch_lanes_count 2")
        );
        assert!(page.contains("tessera_launches_total{policy=\"space-time\",device=\"cpu\"} 2"), "{page}");
    }
}
