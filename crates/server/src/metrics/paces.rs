//! How tenants do beside their neighbours, as series made when they are asked for.
//!
//! ```text
//!   engine of each device ─ all its tenants, about once a second ─▶ Paces ─▶ tessera_tenant_{lane_ratio,apart}{tenant,device}
//! ```
//! Each device tells of all its tenants at once, and what it told before is forgotten: of a tenant that moved, or a device that was lost, nothing stays.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a tenant does beside its neighbours on a device.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Told {
    /// What its lanes take over what its neighbours' do; `None` before it had any.
    pub ratio: Option<f64>,
    /// Whether it runs by itself.
    pub apart: bool,
}

/// Tenants by device and name.
#[derive(Clone, Debug, Default)]
pub(super) struct Paces(Arc<Mutex<BTreeMap<String, BTreeMap<String, Told>>>>);

impl Paces {
    /// What a device tells. Of versions of one tenant the slowest counts.
    pub(super) fn tell<'a>(&self, device: &str, tenants: impl Iterator<Item = (&'a str, Told)>) {
        let mut all = BTreeMap::<String, Told>::new();
        for (tenant, told) in tenants {
            let of_tenant = all.entry(tenant.to_owned()).or_default();
            of_tenant.apart |= told.apart;
            of_tenant.ratio = told
                .ratio
                .map(|ratio| of_tenant.ratio.map_or(ratio, |so_far| so_far.max(ratio)))
                .or(of_tenant.ratio);
        }
        self.devices().insert(device.to_owned(), all);
    }

    /// A tenant went.
    pub(super) fn forget(&self, tenant: &str) {
        self.devices().values_mut().for_each(|tenants| _ = tenants.remove(tenant));
    }

    fn devices(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<String, Told>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Paces {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let devices = self.devices();
        let all = || {
            devices.iter().flat_map(|(device, tenants)| {
                let labels = move |tenant| [("tenant", tenant), ("device", device.as_str())];
                tenants.iter().map(move |(tenant, told)| (labels(tenant.as_str()), told))
            })
        };
        let help = "What a tenant's lanes on a device take over what its neighbours' do: the median of the last few; of several versions the slowest's.";
        let mut ratios = encoder.encode_descriptor("tenant_lane_ratio", help, None, MetricType::Gauge)?;
        for (labels, ratio) in all().filter_map(|(labels, told)| Some((labels, told.ratio?))) {
            ratios.encode_family(&labels)?.encode_gauge(&ratio)?;
        }
        let help = "Whether a tenant runs by itself on a device (1) because it was slow beside its neighbours, or shares launches (0).";
        let mut apart = encoder.encode_descriptor("tenant_apart", help, None, MetricType::Gauge)?;
        for (labels, told) in all() {
            apart.encode_family(&labels)?.encode_gauge(&i64::from(told.apart))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::{Metrics, Told};

    #[test]
    fn each_device_tells_of_its_own_and_nothing_stays_of_who_moved_or_went() {
        let metrics = Metrics::default();
        drop([metrics.tenant_loaded("a"), metrics.tenant_loaded("b")]);
        let told = |ratio, apart| Told { ratio, apart };
        metrics.paced("cpu:0", [("a", told(Some(4.0), true)), ("a", told(None, false))].into_iter());
        metrics.paced("cpu:1", [("a", told(Some(1.0), false)), ("b", told(None, false))].into_iter());
        let page = metrics.encode();
        for line in [
            "tessera_tenant_lane_ratio{tenant=\"a\",device=\"cpu:0\"} 4.0",
            "tessera_tenant_lane_ratio{tenant=\"a\",device=\"cpu:1\"} 1.0",
            "tessera_tenant_apart{tenant=\"a\",device=\"cpu:0\"} 1",
            "tessera_tenant_apart{tenant=\"a\",device=\"cpu:1\"} 0",
            "tessera_tenant_apart{tenant=\"b\",device=\"cpu:1\"} 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in {page}");
        }
        metrics.paced("cpu:0", std::iter::empty());
        assert!(!metrics.encode().contains("device=\"cpu:0\""), "its device has it no more");
        metrics.tenant_unloaded("a");
        assert!(!metrics.encode().contains("tenant=\"a\""));
    }
}
