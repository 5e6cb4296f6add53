//! ONNX's own tests of operators on the CPU device; on a card they are part of `cuda.rs`.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod nodes;

use nodes::device::OnDevice;
use nodes::guarded;
use nodes::ledger::{Ledger, Stage, Stop};
use nodes::suite::cases;
use std::collections::BTreeMap;
use tessera_core::Precision;
use tessera_device::Device;
use tessera_device::conformance::bell;
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};

#[test]
fn the_cpu_device_answers_onnx_s_own_tests() {
    let (wake, bell) = bell();
    let options = CpuOptions { cores: Cores::All, partitions: None, memory_limit: None };
    let device = CpuDevice::open(&options, wake).unwrap();
    let target = device.pack_target(Precision::Fp32).unwrap();
    let cpu = OnDevice { device: &device, bell: &bell, target };
    let ledger = Ledger::not_passing();
    let mut found = BTreeMap::new();
    for case in cases() {
        if ledger.stop(&case).is_some_and(|stop| stop.stage < Stage::Cpu) {
            continue;
        }
        let stop = guarded(|| cpu.answers(&case)).err().map(|why| Stop::new(&case, Stage::Cpu, &why));
        found.insert(case.name, stop);
    }
    ledger.settle(&found, &(Stage::Cpu..=Stage::Cpu));
}
