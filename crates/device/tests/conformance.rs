//! Every case of the suite on the CPU device, on one core and two, in one partition and two, and in every partition of every layout.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

use std::collections::HashMap;
use std::num::NonZeroUsize;
use tessera_core::Precision;
use tessera_device::Device;
use tessera_device::conformance::{Subject, bell, check_all};
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};

fn check(cores: Cores, partitions: Option<usize>) {
    let (wake, bell) = bell();
    let partitions = partitions.and_then(NonZeroUsize::new);
    let device = CpuDevice::open(&CpuOptions { cores, partitions, memory_limit: None }, wake).unwrap();
    for partition in device.layouts().concat() {
        let subject = Subject { device: &device, wake: &bell, partition, precision: Precision::Fp32 };
        assert_eq!(check_all(&subject), HashMap::new());
    }
}

#[test]
fn the_cpu_device_conforms_on_one_core() {
    check(Cores::These(vec![0]), Some(1));
}

#[test]
fn the_cpu_device_conforms_on_all_cores_in_every_layout() {
    check(Cores::All, None);
}

#[test]
fn the_cpu_device_conforms_in_two_partitions() {
    if std::thread::available_parallelism().map_or(1, NonZeroUsize::get) < 2 {
        eprintln!("skipped: two partitions need two cores");
        return;
    }
    check(Cores::All, Some(2));
}
