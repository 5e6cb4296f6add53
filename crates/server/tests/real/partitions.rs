//! A partition that is slow, on the real server: opened anew while it serves.

use crate::events::of_kind;
use crate::fixture;
use crate::served::{Served, settings};
use serde_json::json;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tessera_core::PartitionId;

const TENANTS: [&str; 4] = ["mlp-0", "mlp-1", "mlp-2", "mlp-3"];

#[test]
fn a_slow_partition_is_opened_anew_under_load_and_no_request_is_lost() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        eprintln!("skipped: two partitions need two cores");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fixture::place(folder.path(), &TENANTS);
    let (served, slowed) =
        Served::slowed(settings(folder.path()), NonZeroUsize::new(2), |cpu| Arc::new(cpu), |device| device);
    served.while_asked(&TENANTS, Duration::ZERO, || {
        std::thread::sleep(Duration::from_millis(1500));
        slowed.slow_partition(PartitionId(0), 60.0);
        let since = Instant::now();
        while of_kind(&served, "recycled").is_empty() && since.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(50));
        }
        println!("opened anew after {:?}", since.elapsed());
    });
    let told = of_kind(&served, "recycled").remove(0);
    assert_eq!((&told["device"], &told["numbers"]["partition"]), (&json!("cpu"), &json!(0)), "{told}");
    assert!(told["numbers"]["ratio"].as_f64() > Some(3.0), "{told}");
    assert!(served.sample("tessera_events_total{kind=\"recycled\"}") >= 1.0);
}
