//! Every case of the suite on the CPU device: on one core, on all cores, and in both partitions of the device in halves.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

use std::collections::HashMap;
use std::num::NonZeroUsize;
use tessera_core::Precision;
use tessera_device::Device;
use tessera_device::conformance::{Subject, bell, check_all};
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};

/// The partitions of the device's first layout, or of its last.
fn check(cores: Cores, whole: bool) {
    let (wake, bell) = bell();
    let device = CpuDevice::open(&CpuOptions { cores, partitions: None, memory_limit: None }, wake).unwrap();
    let mut layouts = device.layouts();
    let layout = if whole { layouts.swap_remove(0) } else { layouts.pop().unwrap() };
    for partition in layout {
        let subject = Subject { device: &device, wake: &bell, partition, precision: Precision::Fp32 };
        assert_eq!(check_all(&subject), HashMap::new());
    }
}

#[test]
fn the_cpu_device_conforms_on_one_core() {
    check(Cores::These(vec![0]), true);
}

#[test]
fn the_cpu_device_conforms_on_all_cores() {
    check(Cores::All, true);
}

#[test]
fn the_cpu_device_conforms_in_halves() {
    if std::thread::available_parallelism().map_or(1, NonZeroUsize::get) < 2 {
        eprintln!("skipped: halves need two cores");
        return;
    }
    check(Cores::All, false);
}
