//! What is watched, as series for Prometheus, made when they are asked for.
//!
//! Bounded whatever is loaded: of each device the busiest [`MOST_CLASSES`] classes, and of each of those its longest [`MOST_STEPS`] steps. The rest is on
//! the pages of models.

use crate::monitor::plan::Watch;
use crate::monitor::{Monitor, Sketch};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Unit;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Classes of a device that have series.
const MOST_CLASSES: usize = 64;

/// Steps of a class that have series.
const MOST_STEPS: usize = 5;

const QUANTILES: [(&str, f64); 3] = [("0.5", 0.5), ("0.95", 0.95), ("0.99", 0.99)];

/// The monitors of all devices, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Devices(Arc<Mutex<BTreeMap<String, Arc<Monitor>>>>);

impl Devices {
    /// One more; one of the same name goes.
    pub(crate) fn add(&self, device: String, monitor: Arc<Monitor>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(device, monitor);
    }

    fn all(&self) -> Vec<(String, Arc<Monitor>)> {
        let devices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        devices.iter().map(|(name, monitor)| (name.clone(), monitor.clone())).collect()
    }
}

/// A class in a precision on a device.
struct Row {
    device: String,
    class: String,
    precision: &'static str,
    launches: u64,
    took: Sketch,
    over_predicted: Sketch,
    /// Of its plans the one with most launches.
    busiest: (u64, Arc<Watch>),
}

impl Row {
    fn labels(&self) -> [(&str, &str); 3] {
        [("device", &self.device), ("class", &self.class), ("precision", self.precision)]
    }
}

/// The busiest classes of a device.
fn rows(at: Instant, device: &str, monitor: &Monitor) -> Vec<Row> {
    let mut rows: BTreeMap<_, Row> = BTreeMap::new();
    for watch in monitor.plans() {
        let (launches, took, over_predicted) = watch.summary(at);
        match rows.get_mut(&(watch.key.class, watch.key.precision)) {
            Some(row) => {
                row.launches += launches;
                row.took.merge(&took);
                row.over_predicted.merge(&over_predicted);
                if launches > row.busiest.0 {
                    row.busiest = (launches, watch);
                }
            }
            None => {
                let (class, precision) = (watch.key.class.to_string(), watch.key.precision.name());
                let key = (watch.key.class, watch.key.precision);
                let (device, busiest) = (device.to_owned(), (launches, watch));
                rows.insert(key, Row { device, class, precision, launches, took, over_predicted, busiest });
            }
        }
    }
    let mut rows: Vec<Row> = rows.into_values().filter(|row| row.launches > 0).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.launches));
    rows.truncate(MOST_CLASSES);
    rows
}

impl Collector for Devices {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (at, devices) = (Instant::now(), self.all());
        let shares: Vec<_> = devices.iter().map(|(name, monitor)| (name, monitor.share(at))).collect();
        let rows: Vec<Row> = devices.iter().flat_map(|(name, monitor)| rows(at, name, monitor)).collect();
        let help = "How far a device was used in the last ten seconds, from 0 to 1: of time (busy), of its peak in operations (flop) and in bytes from memory (bytes).";
        let mut use_ratio = encoder.encode_descriptor("device_use_ratio", help, None, MetricType::Gauge)?;
        for (device, share) in &shares {
            let of = [("busy", Some(share.busy)), ("flop", share.flops), ("bytes", share.bytes)];
            for (of, value) in of.into_iter().filter_map(|(of, value)| Some((of, value?))) {
                let labels = [("device", device.as_str()), ("of", of)];
                use_ratio.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        let help =
            "Time in which a device had something to do; of one of several partitions by their shares.";
        let kind = MetricType::Counter;
        let mut busy = encoder.encode_descriptor("device_busy", help, Some(&Unit::Seconds), kind)?;
        for (device, share) in &shares {
            let labels = [("device", device.as_str())];
            ConstCounter::new(share.busy_seconds).encode(busy.encode_family(&labels)?)?;
        }
        quantiles(
            &mut encoder,
            ("class_launch", "What launches of an architecture computed, by quantile of the last minutes."),
            Some(&Unit::Seconds),
            rows.iter().map(|row| (row, &row.took)),
        )?;
        quantiles(
            &mut encoder,
            ("class_over_predicted_ratio", "What launches of an architecture took over what was predicted."),
            None,
            rows.iter().map(|row| (row, &row.over_predicted)),
        )?;
        let help = "Part of its launches' time that a step took, for the longest steps of an architecture; all are at /v2/models/NAME/steps.";
        let mut steps = encoder.encode_descriptor("class_step_share_ratio", help, None, MetricType::Gauge)?;
        for row in &rows {
            let [device, class, precision] = row.labels();
            for step in row.busiest.1.longest(MOST_STEPS) {
                let number = step.step.to_string();
                let labels = [device, class, precision, ("step", &number), ("name", &step.name)];
                steps.encode_family(&labels)?.encode_gauge(&step.share)?;
            }
        }
        Ok(())
    }
}

fn quantiles<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    unit: Option<&Unit>,
    of: impl Iterator<Item = (&'a Row, &'a Sketch)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    for (row, sketch) in of {
        let [device, class, precision] = row.labels();
        for (word, part) in QUANTILES {
            if let Some(value) = sketch.quantile(part) {
                let labels = [device, class, precision, ("quantile", word)];
                metric.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
    }
    Ok(())
}
